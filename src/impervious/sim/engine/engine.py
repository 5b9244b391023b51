"""The commands of a simulated network: what nodes are asked to do, what befalls them, and the passing of time.

Nothing happens by itself: `advance` does what has come due, `next_due_s` says when the next thing will.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from impervious.model import InvoiceState, NodePubkey, PaymentHash, Preimage, Records
from impervious.sim.engine import payment_request
from impervious.sim.engine.addresses import AddressKind, address
from impervious.sim.engine.answers import LndError, WalletState
from impervious.sim.engine.asking import INVOICE_EXPIRY_S, MAX_HOP_HINTS, Ask
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.identity import Identity
from impervious.sim.engine.invoices import Invoice
from impervious.sim.engine.payer import Payer
from impervious.sim.engine.payments import Order
from impervious.sim.engine.route import BLOCK_PADDING, FINAL_CLTV_DELTA, Hop, HopHint, Path, RouteHint
from impervious.sim.engine.switch import Switch
from impervious.sim.engine.topology import ChannelSpec, NodeSpec, Topology
from impervious.sim.engine.world import (
    ChannelChanged,
    InvoiceChanged,
    Leg,
    News,
    Node,
    StateChanged,
    Step,
    Touched,
    World,
)
from impervious.units import Msat, msat

_FIRST_FUNDING_HEIGHT: Final = 800_000


class Engine:
    """One simulated network."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.switch = Switch(world)
        self.payer = Payer(world, self.switch)

    def build(self, topology: Topology) -> None:
        """Add what is described and not there yet: nodes by name, channels by how many two nodes have."""
        for node in topology.nodes:
            if node.name not in self.world.nodes:
                self.add_node(node)
        there = Counter(frozenset(channel.nodes) for channel in self.world.graph.channels.values())
        for channel in topology.channels:
            pair = frozenset((channel.first, channel.second))
            there[pair] -= 1
            if there[pair] < 0:
                self.open_channel(channel)

    def resume(self) -> None:
        """Go on after everything had stopped: every node has been restarted."""
        for node in self.world.nodes.values():
            self.payer.resume(node)
            for invoice in node.invoices:
                if invoice.state is InvoiceState.OPEN:
                    left_s = invoice.created_s + invoice.expiry_s - self.world.time.wall_s()
                    self.world.plan_expiry(node.name, invoice.payment_hash, in_s=max(0, left_s))
        self.switch.resume()

    def add_node(self, spec: NodeSpec) -> Node:
        """Start a node with a fresh key."""
        node = Node(
            name=spec.name,
            identity=Identity(self.world.chance.randbytes(32)),
            accepts_keysend=spec.accepts_keysend,
            keysend_hold_s=spec.keysend_hold_s,
        )
        self.world.nodes[node.name] = node
        self.world.pubkeys[node.name] = node.pubkey
        self._touch(node.name)
        return node

    def open_channel(self, spec: ChannelSpec) -> Channel:
        """Fund a channel and confirm it."""
        capacity, first = msat(spec.capacity), msat(spec.balance)
        number = len(self.world.graph.channels)
        channel = Channel(
            chan_id=(_FIRST_FUNDING_HEIGHT + number) << 40 | 1 << 16,
            nodes=(spec.first, spec.second),
            capacity=capacity,
            balances=[first, Msat(capacity - first)],
            pushed=Msat(capacity - first),
            policies=(spec.first_policy, spec.second_policy),
            private=spec.private,
        )
        self.world.graph.add(channel)
        self.world.touched[Touched("channel", "", str(channel.chan_id).encode())] = None
        return channel

    # --- time ---

    def advance(self) -> None:
        """Do everything that has come due."""
        while due := self.world.take_due():
            if due.step is Step.EXPIRE:
                self.switch.expire(due.name, due.payment_hash)
                continue
            flight = self.world.flights.get(due.flight_id)
            if flight is None:
                continue
            if due.step is Step.ARRIVE:
                self.switch.arrive(flight)
            elif due.step is Step.REFUSE and flight.leg is Leg.HELD:
                self.switch.refuse_held(flight.receiver, flight.payment_hash)
            elif due.step is Step.RETURN and self.switch.landed(flight):
                self.payer.resolved(flight)

    def take_news(self) -> list[News]:
        """What has changed since the last call, oldest first."""
        news, self.world.news = self.world.news, []
        return news

    def take_touched(self) -> list[Touched]:
        """What has to be saved since the last call."""
        touched, self.world.touched = self.world.touched, {}
        return list(touched)

    # --- what nodes are asked ---

    def pay(self, name: str, order: Order) -> None:
        """SendPaymentV2.

        Raises:
          LndError: the order makes no sense, or its hash is being paid.
        """
        self.payer.pay(self.world.nodes[name], order)

    def send_to_route(self, name: str, order: Order, path: Path, *, total: Msat, goes_on: bool) -> int:
        """SendToRouteV2: try a way that the caller names (`Payer.send_to_route`).

        Raises:
          LndError: the hash is being paid, or has been.
        """
        return self.payer.send_to_route(self.world.nodes[name], order, path, total=total, goes_on=goes_on)

    def add_invoice(self, name: str, ask: Ask) -> Invoice:
        """AddInvoice and AddHoldInvoice.

        Raises:
          LndError: what it shall say cannot be, or its hash is taken.
        """
        ask.check()
        node, chance = self.world.nodes[name], self.world.chance
        preimage = ask.preimage
        if preimage is None and ask.hold_hash is None:
            preimage = Preimage(chance.randbytes(32))
        payment_hash = ask.hold_hash if preimage is None else preimage.payment_hash
        assert payment_hash is not None
        created_s, payment_addr = int(self.world.time.wall_s()), chance.randbytes(32)
        expiry_s = ask.expiry_s if ask.expiry_s > 0 else INVOICE_EXPIRY_S
        hints = ask.hints
        if ask.private:
            hints = (*hints, *islice(self._hop_hints(name, ask.value), MAX_HOP_HINTS - len(hints)))
        cltv_expiry = ask.cltv_expiry or payment_request.MIN_FINAL_CLTV
        invoice = node.invoices.add(
            payment_hash=payment_hash,
            preimage=preimage,
            value=ask.value,
            created_s=created_s,
            is_keysend=False,
            expiry_s=expiry_s,
            memo=ask.memo,
            payment_request=payment_request.encode(
                node.identity,
                payment_hash=payment_hash,
                payment_addr=payment_addr,
                amount=ask.value,
                created_s=created_s,
                expiry_s=expiry_s,
                memo=ask.memo,
                description_hash=ask.description_hash,
                hints=hints,
                cltv_expiry=cltv_expiry,
                fallback=ask.fallback,
            ),
            private=ask.private,
            hints=hints,
            description_hash=ask.description_hash,
            payment_addr=payment_addr,
            cltv_expiry=cltv_expiry,
            fallback=ask.fallback,
        )
        self._invoice_changed(name, invoice)
        self.world.plan_expiry(name, invoice.payment_hash, in_s=expiry_s)
        return invoice

    def _hop_hints(self, name: str, value: Msat) -> Iterator[RouteHint]:
        """The ways over a node's private channels (invoicesrpc PopulateHopHints)."""
        ways = []
        for channel in self.world.graph.channels_of(name):
            peer = channel.peer(name)
            remote = channel.balances[channel.side(peer)]
            if channel.private and self.world.live(channel) and remote >= value and self.world.graph.announced(peer):
                ways.append((remote, channel, peer))
        for _, channel, peer in sorted(ways, key=lambda way: -way[0]):
            policy = channel.policies[channel.side(peer)]
            yield (
                HopHint(
                    pubkey=self.world.pubkeys[peer].raw,
                    chan_id=channel.chan_id,
                    base_fee=policy.base_fee,
                    fee_ppm=policy.fee_ppm,
                    cltv_delta=policy.cltv_delta,
                ),
            )

    def cancel_invoice(self, name: str, payment_hash: PaymentHash) -> None:
        """CancelInvoice: give back what is held for it.

        Raises:
          LndError: there is none, or it is settled.
        """
        node = self.world.nodes[name]
        invoice = node.invoices.lookup(payment_hash)
        if invoice.state is InvoiceState.SETTLED:
            raise LndError("invoice already settled")
        if invoice.state is InvoiceState.OPEN:
            changed = node.invoices.move(invoice, InvoiceState.CANCELED, now_s=int(self.world.time.wall_s()))
            self._invoice_changed(name, changed)
        self.switch.refuse_held(name, payment_hash)

    def settle_invoice(self, name: str, preimage: Preimage) -> None:
        """SettleInvoice: take what is held for it.

        Raises:
          LndError: nothing is held for it.
        """
        invoice = self.world.nodes[name].invoices.lookup(preimage.payment_hash)
        if invoice.state is InvoiceState.OPEN:
            raise LndError("invoice still open")
        if invoice.state is InvoiceState.CANCELED:
            raise LndError("invoice already canceled")
        self.switch.settle_held(name, preimage)

    def new_address(self, name: str, kind: AddressKind, *, unused: bool) -> str:
        """NewAddress: the next one, or the last one again, since no coin ever comes."""
        node = self.world.nodes[name]
        if not unused or not node.addresses:
            node.addresses += 1
            self._touch(name)
        return address(kind, node.identity.secret, node.addresses)

    # --- what befalls them ---

    def set_state(self, name: str, state: WalletState) -> None:
        """Move a node to a wallet state; its channels work in SERVER_ACTIVE only."""
        node = self.world.nodes[name]
        before = self._live(name)
        was_running, node.state = node.running, state
        self.world.news.append(StateChanged(name, state))
        self._say_changes(name, before)
        if node.running and not was_running:
            self.payer.resume(node)
            self.switch.wake()

    def connect(self, first: str, second: str, *, connected: bool) -> None:
        """Join or part two peers."""
        before = self._live(first)
        for channel in self.world.graph.channels_of(first):
            if channel.peer(first) == second:
                channel.connected = connected
        self._say_changes(first, before)
        if connected:
            self.switch.wake()

    def strand(self, name: str) -> None:
        """Lose the HTLCs that a node has sent and that have not arrived, while its payments wait for them for ever."""
        node = self.world.nodes[name]
        for payment_hash in self.switch.strand(name):
            payment = node.payments.get(payment_hash)
            if payment is not None:
                self.payer.strand(node, payment)

    def renumber(self, name: str) -> None:
        """Migrate a node's invoices to native SQL."""
        invoices = self.world.nodes[name].invoices
        invoices.renumber()
        for invoice in invoices:
            self.world.touched[Touched("invoice", name, invoice.payment_hash)] = None
        self._touch(name)

    def forge(self, forger: str, receiver: str, payment_hash: PaymentHash, records: Records, amount: Msat) -> None:
        """Let a peer that knows a settled keysend's preimage send its receiver one more HTLC for it.

        Raises:
          ValueError: the two have no channel.
        """
        pubkey: NodePubkey = self.world.pubkeys[receiver]
        channel = next((c for c in self.world.graph.channels_of(forger) if c.peer(forger) == receiver), None)
        if channel is None:
            raise ValueError(f"{forger} has no channel with {receiver}")
        expiry = self.world.height + FINAL_CLTV_DELTA + BLOCK_PADDING
        hop = Hop(chan_id=channel.chan_id, name=receiver, pubkey=pubkey, forwards=amount, fee=Msat(0), expiry=expiry)
        path = Path(source=forger, hops=(hop,), total=amount, time_lock=expiry)
        self.switch.launch(path, payment_hash, records=records, attempt_id=0)

    def _live(self, name: str) -> dict[int, bool]:
        return {channel.chan_id: self.world.live(channel) for channel in self.world.graph.channels_of(name)}

    def _say_changes(self, name: str, before: dict[int, bool]) -> None:
        for channel in self.world.graph.channels_of(name):
            active = self.world.live(channel)
            if active is not before[channel.chan_id]:
                self.world.news += [ChannelChanged(end, channel, active) for end in channel.nodes]

    def _invoice_changed(self, name: str, invoice: Invoice) -> None:
        self.world.news.append(InvoiceChanged(name, invoice))
        self.world.touched[Touched("invoice", name, invoice.payment_hash)] = None
        self._touch(name)

    def _touch(self, name: str) -> None:
        self.world.touched[Touched("node", name, b"")] = None
