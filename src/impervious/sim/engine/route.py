"""Path finding: Dijkstra from the receiver to the sender, as lnd does it.

It runs backwards because fees depend on the amount that comes out further down. A way is not followed where the fee
limit, the onion's 1300 bytes, a channel's minimum or its size is exceeded, or where the whole would probably fail; all
of these look alike from outside: no route. A way costs its fees, a little for its time locks, and the price of an
attempt divided by its probability, so a longer but slightly cheaper way loses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import chain, pairwise
from typing import Final

from impervious.model import NodePubkey, Records
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.graph import Graph
from impervious.sim.engine.topology import Policy
from impervious.units import Msat
from impervious.wire import onion

FINAL_CLTV_DELTA: Final = 80
"""bitcoin.timelockdelta."""

BLOCK_PADDING: Final = 3
"""What lnd adds to it for blocks that come meanwhile (routing.BlockPadding)."""

MIN_PROBABILITY: Final = 0.01
"""routerrpc.minrtprob: a way that is less likely to work is none."""

_ATTEMPT_COST: Final = Msat(100_000)
"""routerrpc.attemptcost."""

_ATTEMPT_COST_PPM: Final = 1000
"""routerrpc.attemptcostppm, of the amount."""

_RISK_BILLIONTHS: Final = 15
"""routing.RiskFactorBillionths: what a msat costs that may be locked for a block."""

Likely = Callable[[str, str, Msat], float]
"""How probable it is that an amount gets from one node to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HopHint:
    """A channel that leads towards a receiver and that the graph need not hold (BOLT 11, field r)."""

    pubkey: bytes
    """Of the node that would send over it."""
    chan_id: int
    base_fee: Msat
    fee_ppm: int
    cltv_delta: int


RouteHint = tuple[HopHint, ...]
"""Channels one after the other; the last one ends at the receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One hop of a path (lnrpc.Hop): the channel to a node and what that node does."""

    chan_id: int
    name: str
    pubkey: NodePubkey
    forwards: Msat
    """What the node passes on, or keeps if it is the last one."""
    fee: Msat
    """What the node takes for it."""
    expiry: int
    """Time lock of its outgoing HTLC; of the incoming one for the last node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A way through the network (lnrpc.Route)."""

    source: str
    hops: tuple[Hop, ...]
    total: Msat
    """What leaves the sender."""
    time_lock: int
    """Of the sender's HTLC."""
    probability: float = 1.0
    """Of getting through, as the sender estimated it."""

    @property
    def fee(self) -> Msat:
        """What all forwarding nodes take."""
        return Msat(self.total - self.hops[-1].forwards)

    @property
    def amounts(self) -> tuple[Msat, ...]:
        """The HTLC of each channel."""
        return (self.total, *(hop.forwards for hop in self.hops[:-1]))

    @property
    def expiry_heights(self) -> tuple[int, ...]:
        """The time lock of each channel's HTLC."""
        return (self.time_lock, *(hop.expiry for hop in self.hops[:-1]))

    @property
    def names(self) -> tuple[str, ...]:
        """The sender and every node after it."""
        return (self.source, *(hop.name for hop in self.hops))


class NoPathError(Exception):
    """There is no way that keeps within all limits."""


class BalanceTooLowError(NoPathError):
    """The sender's usable channels together hold less than the amount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a path must do."""

    source: str
    dest: str
    amount: Msat
    fee_limit: Msat
    records: Records
    payment_addr: bool = False
    final_cltv_delta: int = FINAL_CLTV_DELTA + BLOCK_PADDING
    outgoing: frozenset[int] = frozenset()
    """Channels that may come first; empty: any."""
    last_hop: str | None = None
    """The node before the receiver."""
    hinted: Mapping[str, tuple[tuple[Channel, str, Policy], ...]] = field(default_factory=dict)
    """Channels into a node besides those of the graph: with the node at the other end and what that one asks."""
    cltv_limit: int = 0
    """The most blocks between now and the sender's time lock; 0: any."""
    ignored: frozenset[str] = frozenset()
    """Nodes to go round."""
    ignored_pairs: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class _Reached:
    """How the amount gets from one node to the receiver."""

    cost: float
    name: str
    amount: Msat = field(compare=False)
    """What has to arrive at this node."""
    expiry: int = field(compare=False)
    """With which time lock."""
    onion_bytes: int = field(compare=False)
    weight: float = field(compare=False)
    """Fees, and the price of time locks."""
    probability: float = field(compare=False)
    hops: tuple[tuple[Channel, str, Msat, int], ...] = field(compare=False)
    """Channel, its far node, amount and time lock there; the first one is this node's own."""


def find_path(
    graph: Graph,
    demand: Demand,
    *,
    height: int,
    pubkeys: dict[str, NodePubkey],
    usable: Callable[[Channel], Msat],
    likely: Likely,
) -> Path:
    """Find the cheapest way.

    Args:
      graph: all channels.
      demand: what it must do.
      height: of the chain, where time locks begin.
      pubkeys: node names -> keys.
      usable: what the sender can send over one of its own channels now, in msat; 0 while the peer is away.
      likely: how probable it is that a hop works.

    Raises:
      BalanceTooLowError: all its channels together cannot send the amount.
      NoPathError: there is none.
    """
    own = [usable(channel) for channel in graph.channels_of(demand.source)]
    if sum(own) < demand.amount:
        raise BalanceTooLowError
    last = onion.final_bytes(
        demand.amount, height + demand.final_cltv_delta, demand.records, payment_addr=demand.payment_addr
    )
    start = _Reached(0, demand.dest, demand.amount, height + demand.final_cltv_delta, last, 0, 1, ())
    if last > onion.MAX_BYTES:
        raise NoPathError
    highest = height + demand.cltv_limit if demand.cltv_limit else None
    frontier, done = [start], set[str]()
    while frontier:
        reached = heappop(frontier)
        if reached.name == demand.source and reached.hops:
            return _path(demand, reached, pubkeys)
        if reached.name in done:
            continue
        done.add(reached.name)
        for step in _steps(graph, demand, reached, usable, likely):
            if highest is None or step.expiry <= highest:
                heappush(frontier, step)
    raise NoPathError


def _steps(
    graph: Graph, demand: Demand, reached: _Reached, usable: Callable[[Channel], Msat], likely: Likely
) -> list[_Reached]:
    """Go one hop further from the receiver, to each node that can send what has to arrive at `reached`."""
    if len(reached.hops) == onion.MAX_HOPS or (reached.name == demand.source and reached.hops):
        return []
    steps = []
    attempt_cost = _ATTEMPT_COST + demand.amount * _ATTEMPT_COST_PPM // 1_000_000
    known = graph.ways_into(reached.name, demand.source)
    for channel, sender, policy in chain(known, demand.hinted.get(reached.name, ())):
        ours = sender == demand.source
        amount = reached.amount
        if ours:
            blocked = amount > usable(channel) or (demand.outgoing and channel.chan_id not in demand.outgoing)
        else:
            blocked = policy.disabled or amount > channel.capacity - channel.reserve
        if not reached.hops and demand.last_hop is not None:
            blocked = blocked or sender != demand.last_hop
        blocked = blocked or sender in demand.ignored or (sender, reached.name) in demand.ignored_pairs
        probability = 0.0 if blocked else reached.probability * likely(sender, reached.name, amount)
        if blocked or amount < policy.min_htlc or probability < MIN_PROBABILITY:
            continue
        fee = Msat(0) if ours else policy.fee(amount)
        size = 0 if ours else onion.forwarding_bytes(amount, reached.expiry)
        delta = 0 if ours else policy.cltv_delta
        weight = reached.weight + fee + amount * delta * _RISK_BILLIONTHS / 10**9
        step = _Reached(
            cost=weight + attempt_cost / probability,
            name=sender,
            amount=Msat(amount + fee),
            expiry=reached.expiry + delta,
            onion_bytes=reached.onion_bytes + size,
            weight=weight,
            probability=probability,
            hops=((channel, reached.name, amount, reached.expiry), *reached.hops),
        )
        if step.amount - demand.amount <= demand.fee_limit and step.onion_bytes <= onion.MAX_BYTES:
            steps.append(step)
    return steps


def _path(demand: Demand, reached: _Reached, pubkeys: dict[str, NodePubkey]) -> Path:
    sent = [amount for _, _, amount, _ in reached.hops]
    locks = [expiry for _, _, _, expiry in reached.hops]
    forwarded = [*sent[1:], sent[-1]]
    hops = tuple(
        Hop(
            chan_id=channel.chan_id,
            name=name,
            pubkey=pubkeys[name],
            forwards=forwards,
            fee=Msat(amount - forwards),
            expiry=expiry,
        )
        for (channel, name, amount, _), forwards, expiry in zip(
            reached.hops, forwarded, [*locks[1:], locks[-1]], strict=True
        )
    )
    assert all(a >= b for a, b in pairwise(sent))
    return Path(source=demand.source, hops=hops, total=sent[0], time_lock=locks[0], probability=reached.probability)
