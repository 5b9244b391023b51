"""An engine on a clock that tests turn by hand."""

import hashlib
import random
from collections.abc import Iterable, Mapping

from impervious.model import PaymentHash, Preimage
from impervious.sim.engine.engine import Engine
from impervious.sim.engine.invoices import Invoice
from impervious.sim.engine.payments import Order, SimPayment
from impervious.sim.engine.topology import ChannelSpec, NodeSpec, Topology
from impervious.sim.engine.world import InvoiceChanged, PaymentChanged, World
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD

EPOCH_S = 1_760_000_000


class HandClock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def elapsed_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return EPOCH_S + self.now_s


class Lab:
    """A network, its clock, and everything it has told."""

    def __init__(
        self,
        nodes: Iterable[str | NodeSpec],
        channels: Iterable[str | ChannelSpec],
        *,
        seed: int = 7,
        latency_s: tuple[float, float] = (0.2, 0.5),
    ) -> None:
        self.clock = HandClock()
        self.engine = Engine(World(time=self.clock, chance=random.Random(seed)))
        self.engine.build(Topology.described(nodes, channels))
        self.engine.world.latency_s = latency_s
        self.payments: list[tuple[str, SimPayment]] = []
        self.invoices: list[tuple[str, Invoice]] = []

    def order(
        self,
        dest: str,
        amount: int = 1000,
        *,
        number: int = 1,
        records: Mapping[int, bytes] | None = None,
        fee_limit: int = 5000,
        timeout_s: int = 60,
        cancelable: bool = False,
    ) -> Order:
        """A keysend to `dest`; `number` makes its preimage."""
        preimage = preimage_of(number)
        return Order(
            dest=self.engine.world.pubkeys[dest].raw,
            amount=Msat(amount),
            payment_hash=preimage.payment_hash,
            records={PREIMAGE_RECORD: preimage.raw, **(records or {})},
            fee_limit=Msat(fee_limit),
            timeout_s=timeout_s,
            cancelable=cancelable,
        )

    def pass_s(self, seconds: float) -> None:
        """Let time pass, stopping wherever something is due."""
        end_s = self.clock.now_s + seconds
        while (due_s := self.engine.world.next_due_s()) is not None and due_s <= end_s:
            self.clock.now_s = max(self.clock.now_s, due_s)
            self.engine.advance()
        self.clock.now_s = end_s
        self.engine.advance()
        for news in self.engine.take_news():
            if isinstance(news, PaymentChanged):
                self.payments.append((news.name, news.payment))
            elif isinstance(news, InvoiceChanged):
                self.invoices.append((news.name, news.invoice))

    def pay(self, sender: str, order: Order, *, within_s: float = 60) -> SimPayment:
        """Pay, and wait for what becomes of it."""
        self.engine.pay(sender, order)
        self.pass_s(within_s)
        return self.payment(sender, order)

    def payment(self, sender: str, order: Order) -> SimPayment:
        """A payment as its sender remembers it."""
        return self.engine.world.nodes[sender].payments.lookup(order.payment_hash)

    def invoice(self, receiver: str, order: Order) -> Invoice:
        """An invoice as its receiver remembers it."""
        return self.engine.world.nodes[receiver].invoices.lookup(order.payment_hash)

    def balance(self, name: str) -> int:
        """All that a node has in its channels."""
        return sum(c.balances[c.side(name)] for c in self.engine.world.graph.channels_of(name))


def preimage_of(number: int) -> Preimage:
    return Preimage(hashlib.sha256(b"preimage %d" % number).digest())


def hash_of(number: int) -> PaymentHash:
    return preimage_of(number).payment_hash
