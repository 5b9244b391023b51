"""What a node remembers of its attempts, and how likely it thinks a hop to work (lnd routing/missioncontrol.go).

lnd's default estimator, apriori: an untried hop works in 60 of 100 cases, its own channels and hops that have worked in
95. A hop that failed counts as impossible at first and recovers with a half life of an hour, which is why a payment may
be refused without an attempt minutes after everything is well again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from impervious.sim.engine.payments import FailureCode, HtlcFailure
from impervious.sim.engine.route import Path
from impervious.units import Msat

HALF_LIFE_S: Final = 3600.0
"""routing.DefaultPenaltyHalfLife."""
UNTRIED: Final = 0.6
"""routing.DefaultAprioriHopProbability."""
WORKED: Final = 0.95
"""routing.prevSuccessProbability."""
APRIORI_WEIGHT: Final = 0.5
"""routing.DefaultAprioriWeight: a node's other channels count for as much as the assumption."""
RELAX_S: Final = 60.0
"""routing.DefaultMinFailureRelaxInterval: so long a failure of a larger amount does not replace one of a smaller."""
SECOND_CHANCE_S: Final = 60.0
"""routing.minSecondChanceInterval: a policy that was out of date is forgiven once in this time."""

Pair = tuple[str, str]
"""Two nodes, in the direction of the payment."""

_POLICY: Final = (
    FailureCode.AMOUNT_BELOW_MINIMUM,
    FailureCode.FEE_INSUFFICIENT,
    FailureCode.INCORRECT_CLTV_EXPIRY,
)


@dataclass(frozen=True, slots=True)
class PairResult:
    """What was last learnt of a pair (routing.TimedPairResult)."""

    fail_s: float | None = None
    """When it failed last, in the engine's time; None: never."""
    fail_amount: Msat = Msat(0)
    """Amounts from here on failed; 0: all."""
    success_s: float | None = None
    success_amount: Msat = Msat(0)
    """Amounts up to here worked."""

    def succeeded(self, amount: Msat, now_s: float) -> "PairResult":
        """Learn that an amount got through."""
        raised = replace(self, success_s=now_s, success_amount=max(amount, self.success_amount))
        if self.fail_s is not None and amount >= self.fail_amount:
            return replace(raised, fail_amount=Msat(amount + 1))
        return raised

    def failed(self, amount: Msat, now_s: float) -> "PairResult":
        """Learn that an amount did not get through; 0: none would."""
        fresh = self.fail_s is not None and now_s - self.fail_s < RELAX_S
        if fresh and amount > self.fail_amount:
            return self
        success = min(self.success_amount, Msat(max(0, amount - 1)))
        return replace(self, fail_s=now_s, fail_amount=amount, success_amount=success)

    def refuses(self, amount: Msat | None) -> bool:
        """Whether an amount (None: any) lies in the range that failed."""
        return self.fail_s is not None and (amount is None or amount >= self.fail_amount)

    def weight(self, now_s: float) -> float:
        """How much its failure counts: 1 when it is fresh, less with time."""
        return 0.0 if self.fail_s is None else 2.0 ** (-(now_s - self.fail_s) / HALF_LIFE_S)


class MissionControl:
    """The memory of one node."""

    def __init__(self) -> None:
        self._results: dict[str, dict[str, PairResult]] = {}
        self._second_chances: dict[Pair, float] = {}

    def __iter__(self) -> Iterator[tuple[Pair, PairResult]]:
        """Everything that is remembered (QueryMissionControl)."""
        return (((sender, to), result) for sender, pairs in self._results.items() for to, result in pairs.items())

    def reset(self) -> None:
        """Forget everything (ResetMissionControl)."""
        self._results.clear()
        self._second_chances.clear()

    def probability(self, sender: str, to: str, amount: Msat, *, own: bool, now_s: float) -> float:
        """Estimate whether an HTLC gets from one node to the next.

        Args:
          sender: of the hop.
          to: its other end.
          amount: of the HTLC, in msat.
          own: whether the channel is the node's own: of those it knows the balance.
          now_s: in the engine's time.
        """
        results = self._results.get(sender, {})
        if own:
            return _recovering(results.get(to), WORKED, None, now_s)
        return _recovering(results.get(to), _of_node(results.values(), amount, now_s), amount, now_s)

    def succeeded(self, path: Path, now_s: float) -> None:
        """Learn from an attempt that was settled."""
        self._worked(path, len(path.hops), now_s)

    def failed(self, path: Path, failure: HtlcFailure, now_s: float) -> None:
        """Learn from an attempt that came back (routing/result_interpretation.go)."""
        at, last = failure.source_index, len(path.hops)
        if at == 0:
            return  # the node's own doing: it knows its channels better than any memory
        if at == last:
            self._failed_at_receiver(path, failure, now_s)
        elif failure.code is FailureCode.TEMPORARY_CHANNEL_FAILURE:
            self._put(_pair(path, at), path.amounts[at], now_s)
            self._worked(path, at, now_s)
        elif failure.code in (FailureCode.UNKNOWN_NEXT_PEER, FailureCode.CHANNEL_DISABLED):
            self._fail_pair(_pair(path, at), now_s)
            if failure.code is FailureCode.CHANNEL_DISABLED:
                self._worked(path, at, now_s)
        elif failure.code in _POLICY:
            if not self._second_chance(_pair(path, at), now_s):
                self._blame_incoming(path, at, now_s)
        else:
            self._fail_node(path, at, now_s)

    def _failed_at_receiver(self, path: Path, failure: HtlcFailure, now_s: float) -> None:
        last = len(path.hops)
        if failure.code is FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS:
            self._worked(path, last, now_s)  # it got there: that the receiver did not want it is another matter
        else:
            self._fail_node(path, last, now_s)
            self._worked(path, last - 1, now_s)

    def _blame_incoming(self, path: Path, at: int, now_s: float) -> None:
        if at == 1:
            self._fail_node(path, at, now_s)
            return
        self._fail_pair(_pair(path, at - 1), now_s)
        self._worked(path, at - 1, now_s)

    def _fail_node(self, path: Path, at: int, now_s: float) -> None:
        name = path.names[at]
        for sender, pairs in self._results.items():
            for to in pairs:
                if name in (sender, to):
                    pairs[to] = PairResult(fail_s=now_s)
        self._fail_pair(_pair(path, at - 1), now_s)
        if at < len(path.hops):
            self._fail_pair(_pair(path, at), now_s)

    def _fail_pair(self, pair: Pair, now_s: float) -> None:
        self._put(pair, Msat(0), now_s)
        self._put((pair[1], pair[0]), Msat(0), now_s)

    def _put(self, pair: Pair, fail_amount: Msat, now_s: float) -> None:
        self._results.setdefault(pair[0], {})[pair[1]] = self._result(pair).failed(fail_amount, now_s)

    def _worked(self, path: Path, hops: int, now_s: float) -> None:
        for position in range(hops):
            pair = _pair(path, position)
            result = self._result(pair).succeeded(path.amounts[position], now_s)
            self._results.setdefault(pair[0], {})[pair[1]] = result

    def _result(self, pair: Pair) -> PairResult:
        return self._results.get(pair[0], {}).get(pair[1], PairResult())

    def _second_chance(self, pair: Pair, now_s: float) -> bool:
        last_s = self._second_chances.get(pair)
        if last_s is not None and now_s - last_s <= SECOND_CHANCE_S:
            return False
        self._second_chances[pair] = now_s
        return True


def _pair(path: Path, position: int) -> Pair:
    return path.names[position], path.names[position + 1]


def _of_node(results: Iterable[PairResult], amount: Msat, now_s: float) -> float:
    """What a node's channels do on average, the assumption counted in (getNodeProbability)."""
    factor = 1 / (1 - APRIORI_WEIGHT) - 1
    total, weight = UNTRIED * factor, factor
    for result in results:
        if amount <= result.success_amount:
            total, weight = total + WORKED, weight + 1
        elif result.refuses(amount):
            weight += result.weight(now_s)
    return total / weight


def _recovering(result: PairResult | None, otherwise: float, amount: Msat | None, now_s: float) -> float:
    """What the very pair promises (calculateProbability); `otherwise` if it is new, or its failure is long ago."""
    if result is None:
        return otherwise
    if amount is not None and amount <= result.success_amount:
        return WORKED
    return otherwise * (1 - result.weight(now_s)) if result.refuses(amount) else otherwise
