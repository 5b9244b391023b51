"""Everything a simulated network consists of, and the news of what changed in it."""

import random
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from typing import Final, Protocol

from impervious.errors import PaymentFailure
from impervious.model import NodePubkey, PaymentHash, Preimage, Records
from impervious.sim.engine.answers import WalletState
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.graph import Graph
from impervious.sim.engine.identity import Identity
from impervious.sim.engine.invoices import Invoice, Registry
from impervious.sim.engine.mission_control import MissionControl
from impervious.sim.engine.payments import HtlcFailure, PaymentTable, SimPayment
from impervious.sim.engine.route import Path
from impervious.units import Msat
from impervious.wire.keysend import ACCOUNTABLE_RECORD

DEFAULT_HEIGHT: Final = 850_000
"""Three bytes wide, as on mainnet, so that onions hold what they hold there."""

DEFAULT_LATENCY_S: Final = (0.2, 0.5)
"""What a settlement between direct peers takes: batches of 50 ms, then signatures and revocations, both ways."""

ACCOUNTABLE: Final = {ACCOUNTABLE_RECORD: b"\x00"}
"""What lnd from 0.21 on adds to every HTLC it sends."""


class Time(Protocol):
    """Where the engine reads the time."""

    def elapsed_s(self) -> float:
        """Seconds that never go back; what the agenda counts in."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFailure:
    """How the next payment of a node will end."""

    reason: PaymentFailure
    after_attempt: bool
    """An HTLC is tried first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """An HTLC that a node has passed on and that was settled (lnrpc.ForwardingEvent)."""

    at_s: float
    """Seconds since 1970."""
    chan_in: int
    chan_out: int
    amount_in: Msat
    amount_out: Msat
    htlc_in: int
    htlc_out: int

    @property
    def fee(self) -> Msat:
        """What it earned."""
        return Msat(self.amount_in - self.amount_out)


@dataclass(slots=True, kw_only=True)
class Node:
    """A simulated LND: what it owns, how it is set up, and what tests make it do wrong."""

    name: str
    identity: Identity
    accepts_keysend: bool = True
    keysend_hold_s: float = 0
    state: WalletState = WalletState.SERVER_ACTIVE
    synced: bool = True
    """synced_to_chain."""
    keeps_failed_attempts: bool = False
    """--keep-failed-payment-attempts."""
    invoices: Registry = field(default_factory=Registry)
    payments: PaymentTable = field(default_factory=PaymentTable)
    forwards: list[Forward] = field(default_factory=list)
    addresses: int = 0
    """How many addresses on the chain it has given out."""
    planned: deque[PlannedFailure] = field(default_factory=deque)
    mission_control: MissionControl = field(default_factory=MissionControl)
    strands: int = 0
    """How many attempts will be written down and never sent, as when lnd is killed in between."""
    overriding: Records = field(default_factory=dict)
    """Records it puts into the wire message of HTLCs that it forwards to their receiver: there they win."""
    delay_s: float = 0
    """More time for every HTLC on its way to this node."""
    settle_gap_s: float = 0
    """Between inserting a keysend's invoice and settling it; a restart may come between."""

    @property
    def pubkey(self) -> NodePubkey:
        """Its identity."""
        return self.identity.pubkey

    @property
    def running(self) -> bool:
        """Whether its channels work: links come up when the server is active."""
        return self.state is WalletState.SERVER_ACTIVE


class Leg(Enum):
    """Where an HTLC is."""

    OUTBOUND = "outbound"
    STUCK = "stuck"
    """On its way, and somebody on its path is away."""
    HELD = "held"
    """At the receiver, who has not decided."""
    RETURNING = "returning"
    LANDED = "landed"
    """Resolved, but the sender cannot be told yet."""


@dataclass(slots=True, kw_only=True)
class Flight:
    """One HTLC under way over all channels of its path."""

    id: int
    payment_hash: PaymentHash
    path: Path
    attempt_id: int
    """0: nobody at the sender waits for it."""
    records: Records
    first_hop_records: Records
    payment_addr: bytes
    leg: Leg = Leg.OUTBOUND
    offers: tuple[int, ...] = ()
    """Its htlc_index in each channel, while the ledger holds it."""
    doom: PaymentFailure | None = None
    """It will fail, and its payment with this reason."""
    failure: HtlcFailure | None = None
    preimage: Preimage | None = None

    @property
    def receiver(self) -> str:
        """The last node."""
        return self.path.hops[-1].name


class Step(Enum):
    """What can be on the agenda."""

    ARRIVE = "arrive"
    REFUSE = "refuse"
    """A held HTLC has been held long enough."""
    RETURN = "return"
    EXPIRE = "expire"
    """An invoice, if it is still open."""


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """One entry of the agenda; entries that no longer apply are passed over when they come due."""

    at_s: float
    number: int
    step: Step = field(compare=False)
    flight_id: int = field(compare=False, default=0)
    name: str = field(compare=False, default="")
    payment_hash: PaymentHash = field(compare=False, default=PaymentHash(b""))


@dataclass(frozen=True, slots=True)
class PaymentChanged:
    """A payment as it is now."""

    name: str
    payment: SimPayment


@dataclass(frozen=True, slots=True)
class InvoiceChanged:
    """An invoice as it is now."""

    name: str
    invoice: Invoice


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A node has another wallet state."""

    name: str
    state: WalletState


@dataclass(frozen=True, slots=True)
class ChannelChanged:
    """HTLCs can move over a channel again, or can no longer."""

    name: str
    channel: Channel
    active: bool


News = PaymentChanged | InvoiceChanged | StateChanged | ChannelChanged


@dataclass(frozen=True, slots=True)
class Touched:
    """Something that must be saved again, or forgotten if it is gone."""

    kind: str
    """node, channel, flight, invoice, payment, forward."""
    name: str
    """Of the node it belongs to; empty for channels and flights."""
    key: bytes
    """Its id or hash."""


@dataclass(slots=True, kw_only=True)
class World:
    """The whole state."""

    time: Time
    chance: random.Random
    height: int = DEFAULT_HEIGHT
    latency_s: tuple[float, float] = DEFAULT_LATENCY_S
    accountable: Records = field(default_factory=lambda: ACCOUNTABLE)
    nodes: dict[str, Node] = field(default_factory=dict)
    pubkeys: dict[str, NodePubkey] = field(default_factory=dict)
    graph: Graph = field(default_factory=Graph)
    flights: dict[int, Flight] = field(default_factory=dict)
    launched: int = 0
    """The last flight id given out."""
    tried: int = 0
    """The last attempt id given out, over all nodes."""
    news: list[News] = field(default_factory=list)
    touched: dict[Touched, None] = field(default_factory=dict)
    _agenda: list[Due] = field(default_factory=list)
    _planned: int = 0

    def named(self, pubkey: bytes) -> str:
        """The node with a key, or an empty string."""
        return next((name for name, key in self.pubkeys.items() if key.raw == pubkey), "")

    def live(self, channel: Channel) -> bool:
        """Whether HTLCs can move over a channel now."""
        return channel.connected and all(self.nodes[name].running for name in channel.nodes)

    def plan(self, step: Step, *, in_s: float, flight: Flight) -> None:
        """Put something on the agenda that will happen to an HTLC."""
        self._plan(in_s, step, flight_id=flight.id)

    def plan_expiry(self, name: str, payment_hash: PaymentHash, *, in_s: float) -> None:
        """Put the expiry of an invoice on the agenda."""
        self._plan(in_s, Step.EXPIRE, name=name, payment_hash=payment_hash)

    def _plan(
        self, in_s: float, step: Step, *, flight_id: int = 0, name: str = "", payment_hash: PaymentHash | None = None
    ) -> None:
        self._planned += 1
        at_s = self.time.elapsed_s() + in_s
        heappush(self._agenda, Due(at_s, self._planned, step, flight_id, name, payment_hash or PaymentHash(b"")))

    def next_due_s(self) -> float | None:
        """When the next entry comes due."""
        return self._agenda[0].at_s if self._agenda else None

    def take_due(self) -> Due | None:
        """Take the next entry off the agenda, if its time has come."""
        if self._agenda and self._agenda[0].at_s <= self.time.elapsed_s():
            return heappop(self._agenda)
        return None

    def travel_s(self, hops: int) -> float:
        """Draw how long an HTLC takes over some channels, one way."""
        low, high = self.latency_s
        return sum(self.chance.uniform(low, high) / 2 for _ in range(hops))
