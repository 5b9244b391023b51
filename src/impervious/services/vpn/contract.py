"""The life of a contract, in values: what both sides agree on whatever happens.

Time is bought in spans: a contract's own hours, whatever the configuration says later. It runs from a whole second, so
that both ends mean the same moment. What a rest of it is worth is the price times its share of the span, rounded down:
nobody gets more back than was paid.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from impervious.errors import FailedPrecondition
from impervious.model import MessageId, NodePubkey
from impervious.units import Msat
from impervious.wireguard import Host, PresharedKey, PublicKey, Traffic, Transfer, WantedPeer

SECOND_MS: Final = 1000
MINUTE_MS: Final = 60 * SECOND_MS
QUOTE_MS: Final = 10 * MINUTE_MS
"""How long an offer and its address are kept."""
HOLD_MS: Final = MINUTE_MS
"""How long an offer keeps its address even if others want it: enough for whoever means to pay."""
MAX_OFFERS: Final = 1024
"""Offers that keep an address. An older one keeps its price, and gets another address if its own is taken."""
COOLING_MS: Final = 10 * MINUTE_MS
"""How long nobody gets an address after its last owner, whose friends may still send there."""
WARNINGS_MS: Final = (24 * 60 * MINUTE_MS, 60 * MINUTE_MS, 10 * MINUTE_MS)
"""How long before the end it is announced. One that is not shorter than what was bought last does not apply."""


def next_second(now_ms: int) -> int:
    """Give the first whole second that has not begun."""
    return -(-now_ms // SECOND_MS) * SECOND_MS


def extended(expires_ms: int, span_ms: int, now_ms: int) -> int:
    """Add a span to a contract: after what is left, or from now if it had run out."""
    return max(next_second(now_ms), expires_ms) + span_ms


class Notice(Enum):
    """What the passing of time has to tell."""

    EXPIRING = "EXPIRING"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Until when, and who has been told what about it."""

    expires_ms: int
    span_ms: int
    """What was bought last."""
    told_ms: int | None = None
    """How long before the end the last announcement was due; 0: the end itself."""

    def more(self, now_ms: int) -> "Term":
        """Buy the same again."""
        return Term(expires_ms=extended(self.expires_ms, self.span_ms, now_ms), span_ms=self.span_ms)

    def rest_ms(self, now_ms: int) -> int:
        """Say how much is left."""
        return max(0, self.expires_ms - next_second(now_ms))

    def due(self, now_ms: int) -> Notice | None:
        """Say what must be announced now; after a pause only the latest of several."""
        threshold = self._threshold(now_ms)
        if threshold is None or (self.told_ms is not None and self.told_ms <= threshold):
            return None
        return Notice.EXPIRING if threshold else Notice.EXPIRED

    def told(self, now_ms: int) -> "Term":
        """Remember that it was announced."""
        return replace(self, told_ms=self._threshold(now_ms))

    def next_due_ms(self, now_ms: int) -> int | None:
        """Say when there is something to announce next; None after the end was."""
        if self.due(now_ms) is not None:
            return now_ms
        later = [self.expires_ms - each for each in (*self._warnings(), 0) if self.expires_ms - each > now_ms]
        return min(later, default=None)

    def _threshold(self, now_ms: int) -> int | None:
        return min((each for each in (*self._warnings(), 0) if self.expires_ms - each <= now_ms), default=None)

    def _warnings(self) -> tuple[int, ...]:
        return tuple(each for each in WARNINGS_MS if each < self.span_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A quote that this node gave.

    Its address is kept for the buyer until it expires, or for `HOLD_MS` where those who ask later find no other: a
    question costs next to nothing, so nobody can keep a subnet from buyers by asking.
    """

    nonce: str
    buyer: NodePubkey
    address: Host
    hours: int
    span_ms: int
    price: Msat
    """For all the hours."""
    expires_ms: int

    def holds(self, now_ms: int) -> bool:
        """Whether its address is kept although others want it."""
        return now_ms < self.expires_ms - QUOTE_MS + HOLD_MS


class Phase(Enum):
    """Where a sold contract is."""

    PAID = "paid"
    """The money is here; the peer is not on the interface yet, or nobody looked."""
    ACTIVE = "active"
    """The buyer has its tunnel; from its expiry on without an address, for the time of grace."""
    ENDED = "ended"
    """The peer must go."""
    GONE = "gone"
    """It was seen to be gone."""


class Move(Enum):
    """What can happen to a sold contract."""

    STANDS = "stands"
    """Its peer was seen on the interface."""
    ENDS = "ends"
    """It ran out, was cancelled, or could not be set up."""
    GOES = "goes"
    """Its peer was seen to be off the interface."""


_MOVES: Final = {
    (Phase.PAID, Move.STANDS): Phase.ACTIVE,
    (Phase.PAID, Move.ENDS): Phase.ENDED,
    (Phase.ACTIVE, Move.ENDS): Phase.ENDED,
    (Phase.ENDED, Move.GOES): Phase.GONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """A contract that this node sold."""

    nonce: str
    buyer: NodePubkey
    request: MessageId
    """The CONTRACT_REQUEST that paid for it, which CONTRACT answers."""
    key: PublicKey
    preshared_key: PresharedKey | None
    address: Host
    hours: int
    price: Msat
    """For all the hours, at first and each time again."""
    paid_ms: int
    """When the money was booked."""
    term: Term
    """Of a paid contract that does not stand yet it says what was bought; time has not begun."""
    phase: Phase = Phase.PAID
    ended_ms: int = 0
    gone_ms: int = 0
    reason: str = ""
    """Why it ended."""
    traffic: Traffic = Traffic()

    def moved(self, move: Move) -> "Sold":
        """Follow the table.

        Raises:
          FailedPrecondition: it has no such move.
        """
        phase = _MOVES.get((self.phase, move))
        if phase is None:
            raise FailedPrecondition(f"contract {self.nonce} is {self.phase.value}")
        return replace(self, phase=phase)

    def standing(self, now_ms: int) -> "Sold":
        """Begin its time: the peer was seen."""
        return replace(self.moved(Move.STANDS), term=self.term.more(now_ms))

    def ending(self, now_ms: int, reason: str) -> "Sold":
        """End it."""
        return replace(self.moved(Move.ENDS), ended_ms=now_ms, reason=reason)

    def gone(self, now_ms: int) -> "Sold":
        """Let its address cool."""
        return replace(self.moved(Move.GOES), gone_ms=now_ms)

    def renewed(self, now_ms: int) -> "Sold":
        """Sell the same again."""
        return replace(self, term=self.term.more(now_ms))

    def announced(self, now_ms: int) -> "Sold":
        """Remember what was told about its end."""
        return replace(self, term=self.term.told(now_ms))

    def counting(self, seen: Transfer) -> "Sold":
        """Account for traffic."""
        return replace(self, traffic=self.traffic.counting(seen))

    def is_over(self, now_ms: int, grace_ms: int) -> bool:
        """Whether its time of grace is over too."""
        return self.phase is Phase.ACTIVE and now_ms >= self.term.expires_ms + grace_ms

    def worth(self, now_ms: int) -> Msat:
        """Say what the time that was paid for and not given is worth."""
        if self.phase is Phase.PAID:
            return self.price
        if self.phase is not Phase.ACTIVE:
            return Msat(0)
        return Msat(self.price * self.term.rest_ms(now_ms) // self.term.span_ms)

    def wanted(self, now_ms: int) -> WantedPeer | None:
        """Give the peer that should be on the interface now."""
        if self.phase not in (Phase.PAID, Phase.ACTIVE):
            return None
        suspended = self.phase is Phase.ACTIVE and now_ms >= self.term.expires_ms
        return WantedPeer(key=self.key, address=None if suspended else self.address, preshared_key=self.preshared_key)
