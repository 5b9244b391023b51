"""HTLCs on their way: locked into every channel of a path, held or settled or failed at its end, and told back.

All channels of a path are locked at once and resolved at once, so a receiver never has money that a sender still has;
only the news travels. Whoever is away on the path delays it: then the HTLC stays in flight, for however long.
"""

from dataclasses import replace
from typing import Final

from impervious.errors import PaymentFailure
from impervious.model import HtlcState, InvoiceState, PaymentHash, Preimage, Records
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.payments import FailureCode, HtlcFailure
from impervious.sim.engine.receiving import Answer, Incoming, decide, insert_keysend
from impervious.sim.engine.route import Path
from impervious.sim.engine.world import Flight, Forward, InvoiceChanged, Leg, Step, Touched, World
from impervious.units import Msat

_OF_THIS_CHANNEL: Final = (
    FailureCode.CHANNEL_DISABLED,
    FailureCode.UNKNOWN_NEXT_PEER,
    FailureCode.TEMPORARY_CHANNEL_FAILURE,
)
"""What another channel with the same peer may not suffer from."""


class Switch:
    """Moves HTLCs. What resolves at a sender is left to the caller of `landed`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def launch(
        self,
        path: Path,
        payment_hash: PaymentHash,
        *,
        records: Records,
        attempt_id: int,
        first_hop_records: Records | None = None,
        payment_addr: bytes = b"",
        doom: PaymentFailure | None = None,
    ) -> None:
        """Offer an HTLC over every channel of a path, as far as they let it through."""
        world = self._world
        world.launched += 1
        flight = Flight(
            id=world.launched,
            payment_hash=payment_hash,
            path=path,
            attempt_id=attempt_id,
            records=records,
            first_hop_records=first_hop_records or {},
            payment_addr=payment_addr,
            doom=doom,
        )
        world.flights[flight.id] = flight
        for position in range(len(path.hops)):
            channel, code = self._next(path, position)
            if channel is None:
                wanting = code in (FailureCode.FEE_INSUFFICIENT, FailureCode.AMOUNT_BELOW_MINIMUM)
                amount = path.amounts[position - 1] if wanting else Msat(0)
                failure = HtlcFailure(code=code, source_index=position, amount=amount)
                self._fail(flight, failure, out_hops=position)
                return
            if channel.chan_id != path.hops[position].chan_id:
                flight.path = _over(flight.path, position, channel)
            flight.offers += (channel.offer(channel.side(path.names[position]), path.amounts[position]),)
        self._touch(flight)
        delay_s = world.nodes[flight.receiver].delay_s
        world.plan(Step.ARRIVE, in_s=world.travel_s(len(path.hops)) + delay_s, flight=flight)

    def arrive(self, flight: Flight) -> None:
        """Let the receiver see an HTLC."""
        world, node = self._world, self._world.nodes[flight.receiver]
        if flight.leg is not Leg.OUTBOUND:
            return
        if not self._all_live(flight.path, len(flight.path.hops)):
            flight.leg = Leg.STUCK
            return
        if flight.doom is not None:
            self._fail(flight, _doomed(flight))
            return
        htlc = self._incoming(flight)
        opened = insert_keysend(node, htlc, height=world.height, now_s=self._now_s)
        if opened is not None:
            self._tell(flight.receiver, opened.payment_hash)
            if node.settle_gap_s:
                world.plan_expiry(flight.receiver, opened.payment_hash, in_s=opened.expiry_s)
                world.plan(Step.ARRIVE, in_s=node.settle_gap_s, flight=flight)
                return
        answer = decide(node, htlc, height=world.height)
        if answer is Answer.FAIL:
            self._fail(flight, self._details_refused(flight))
        elif answer is Answer.HOLD:
            self._hold(flight, htlc)
        else:
            self._settle(flight, htlc)

    def settle_held(self, name: str, preimage: Preimage) -> None:
        """SettleInvoice: take what is held for this preimage."""
        for flight in self._held(name, preimage.payment_hash):
            self._settle(flight, None, preimage)

    def refuse_held(self, name: str, payment_hash: PaymentHash) -> None:
        """CancelInvoice: give back what is held for this hash."""
        for flight in self._held(name, payment_hash):
            self._cancel_invoice(name, payment_hash)
            self._fail(flight, self._details_refused(flight))

    def expire(self, name: str, payment_hash: PaymentHash) -> None:
        """Cancel an invoice that nobody has paid."""
        invoice = self._world.nodes[name].invoices.get(payment_hash)
        if invoice is not None and invoice.state is InvoiceState.OPEN:
            self._cancel_invoice(name, payment_hash)

    def landed(self, flight: Flight) -> bool:
        """Whether the sender can be told now how an HTLC ended; if so, it is forgotten here."""
        if flight.leg is not Leg.RETURNING:
            return False
        if not self._all_live(flight.path, self._reach(flight)) or not self._world.nodes[flight.path.source].running:
            flight.leg = Leg.LANDED
            return False
        del self._world.flights[flight.id]
        self._touch(flight)
        return True

    def strand(self, name: str) -> list[PaymentHash]:
        """Lose every HTLC that a node has sent and that has not arrived, as if it had never been sent.

        Returns:
          The hashes of their payments, whose attempts nothing will ever resolve.
        """
        lost = [f for f in self._world.flights.values() if f.path.source == name and f.leg in (Leg.OUTBOUND, Leg.STUCK)]
        for flight in lost:
            self._give_back(flight)
            del self._world.flights[flight.id]
            self._touch(flight)
        return [flight.payment_hash for flight in lost]

    def wake(self) -> None:
        """Move on what was waiting for somebody to come back."""
        for flight in self._world.flights.values():
            if flight.leg is Leg.STUCK:
                flight.leg = Leg.OUTBOUND
                self._world.plan(Step.ARRIVE, in_s=0, flight=flight)
            elif flight.leg is Leg.LANDED:
                flight.leg = Leg.RETURNING
                self._world.plan(Step.RETURN, in_s=0, flight=flight)

    def resume(self) -> None:
        """Move on everything that was under way when the whole network stopped."""
        for flight in self._world.flights.values():
            if flight.leg is Leg.HELD:
                self._plan_refusal(flight)
            elif flight.leg in (Leg.OUTBOUND, Leg.STUCK):
                flight.leg = Leg.OUTBOUND
                self._world.plan(Step.ARRIVE, in_s=self._world.travel_s(len(flight.path.hops)), flight=flight)
            else:
                flight.leg = Leg.RETURNING
                self._world.plan(Step.RETURN, in_s=0, flight=flight)

    @property
    def _now_s(self) -> int:
        return int(self._world.time.wall_s())

    def _channel(self, path: Path, position: int) -> Channel:
        return self._world.graph.channels[path.hops[position].chan_id]

    def _next(self, path: Path, position: int) -> tuple[Channel | None, FailureCode]:
        """Choose the channel of a hop, or say why there is none.

        The one that the sender named comes first; a node that forwards takes any other that it has with the same peer
        (BOLT 4, non-strict forwarding).
        """
        name, to = path.names[position], path.names[position + 1]
        between = [c for c in self._world.graph.channels_of(name) if c.peer(name) == to] if name else []
        named = [c for c in between if c.chan_id == path.hops[position].chan_id]
        if not named:
            return None, FailureCode.UNKNOWN_NEXT_PEER
        first = self._obstacle(path, position, named[0])
        others = between if position else []
        if first is not None and (position == 0 or first not in _OF_THIS_CHANNEL):
            return None, first
        for channel in (*named, *others):
            if self._obstacle(path, position, channel) is None:
                return channel, FailureCode.UNKNOWN_NEXT_PEER
        return None, first or FailureCode.UNKNOWN_NEXT_PEER

    def _obstacle(self, path: Path, position: int, channel: Channel) -> FailureCode | None:
        """Why a node does not send an HTLC over a channel of its own (BOLT 4, the checks of a forwarding node)."""
        side, amount = channel.side(path.names[position]), path.amounts[position]
        policy = channel.policies[side]
        if position and policy.disabled:
            return FailureCode.CHANNEL_DISABLED
        if not self._world.live(channel):
            return FailureCode.UNKNOWN_NEXT_PEER
        if position:
            if amount < policy.min_htlc:
                return FailureCode.AMOUNT_BELOW_MINIMUM
            if path.amounts[position - 1] - amount < policy.fee(amount):
                return FailureCode.FEE_INSUFFICIENT
            if path.expiry_heights[position - 1] - path.expiry_heights[position] < policy.cltv_delta:
                return FailureCode.INCORRECT_CLTV_EXPIRY
        return FailureCode.TEMPORARY_CHANNEL_FAILURE if amount > channel.spendable(side) else None

    def _all_live(self, path: Path, hops: int) -> bool:
        return all(self._world.live(self._channel(path, position)) for position in range(hops))

    def _reach(self, flight: Flight) -> int:
        """Channels that the answer comes back over."""
        return len(flight.path.hops) if flight.failure is None else flight.failure.source_index

    def _incoming(self, flight: Flight) -> Incoming:
        path, world = flight.path, self._world
        wire = dict(world.accountable)
        if len(path.hops) == 1:
            wire.update(flight.first_hop_records)
        wire.update(world.nodes[path.names[-2]].overriding)
        return Incoming(
            payment_hash=flight.payment_hash,
            amount=path.amounts[-1],
            chan_id=path.hops[-1].chan_id,
            index=flight.offers[-1],
            expiry_height=path.expiry_heights[-1],
            onion=flight.records,
            wire=wire,
            payment_addr=flight.payment_addr,
        )

    def _hold(self, flight: Flight, htlc: Incoming) -> None:
        node = self._world.nodes[flight.receiver]
        invoice = node.invoices.lookup(flight.payment_hash)
        recorded = htlc.recorded(HtlcState.ACCEPTED, height=self._world.height, now_s=self._now_s)
        node.invoices.move(invoice, InvoiceState.ACCEPTED, now_s=self._now_s, htlc=recorded)
        flight.leg = Leg.HELD
        self._touch(flight)
        self._tell(flight.receiver, flight.payment_hash)
        self._plan_refusal(flight)

    def _plan_refusal(self, flight: Flight) -> None:
        """A held keysend goes back after a while. A hold invoice waits for its owner: no blocks come here."""
        node = self._world.nodes[flight.receiver]
        if node.invoices.lookup(flight.payment_hash).is_keysend:
            self._world.plan(Step.REFUSE, in_s=node.keysend_hold_s, flight=flight)

    def _settle(self, flight: Flight, htlc: Incoming | None, preimage: Preimage | None = None) -> None:
        """Settle an HTLC; a held one (None) is recorded already, and its preimage may be new."""
        invoices = self._world.nodes[flight.receiver].invoices
        invoice = invoices.lookup(flight.payment_hash)
        recorded = None
        if htlc is not None:
            recorded = htlc.recorded(HtlcState.SETTLED, height=self._world.height, now_s=self._now_s)
        again = invoice.state is InvoiceState.SETTLED
        if recorded is not None or not again:
            invoices.move(invoice, InvoiceState.SETTLED, now_s=self._now_s, htlc=recorded, preimage=preimage)
        self._tell(flight.receiver, flight.payment_hash, silently=again)
        flight.preimage = invoice.preimage or preimage
        self._note_forwards(flight)
        for position, index in enumerate(flight.offers):
            channel = self._channel(flight.path, position)
            channel.settle(channel.side(flight.path.names[position]), index)
        self._send_back(flight)

    def _note_forwards(self, flight: Flight) -> None:
        """Write down what every node between has earned."""
        path = flight.path
        for position in range(1, len(path.hops)):
            node = self._world.nodes[path.names[position]]
            node.forwards.append(
                Forward(
                    at_s=self._world.time.wall_s(),
                    chan_in=path.hops[position - 1].chan_id,
                    chan_out=path.hops[position].chan_id,
                    amount_in=path.amounts[position - 1],
                    amount_out=path.amounts[position],
                    htlc_in=flight.offers[position - 1],
                    htlc_out=flight.offers[position],
                )
            )
            self._world.touched[Touched("forward", node.name, b"%d" % (len(node.forwards) - 1))] = None

    def _fail(self, flight: Flight, failure: HtlcFailure, *, out_hops: int = 0) -> None:
        """Give everything back; `out_hops` of the way there have not been travelled yet."""
        flight.failure = failure
        self._give_back(flight)
        self._send_back(flight, out_hops)

    def _give_back(self, flight: Flight) -> None:
        for position, index in enumerate(flight.offers):
            channel = self._channel(flight.path, position)
            channel.fail(channel.side(flight.path.names[position]), index)

    def _send_back(self, flight: Flight, out_hops: int = 0) -> None:
        self._touch(flight)
        flight.leg, flight.offers = Leg.RETURNING, ()
        self._world.plan(Step.RETURN, in_s=self._world.travel_s(out_hops + self._reach(flight)), flight=flight)

    def _held(self, name: str, payment_hash: PaymentHash) -> list[Flight]:
        return [
            flight
            for flight in self._world.flights.values()
            if flight.leg is Leg.HELD and flight.receiver == name and flight.payment_hash == payment_hash
        ]

    def _cancel_invoice(self, name: str, payment_hash: PaymentHash) -> None:
        invoices = self._world.nodes[name].invoices
        invoice = invoices.lookup(payment_hash)
        if invoice.state is not InvoiceState.CANCELED:
            invoices.move(invoice, InvoiceState.CANCELED, now_s=self._now_s)
            self._tell(name, payment_hash)

    def _details_refused(self, flight: Flight) -> HtlcFailure:
        code = FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS
        return HtlcFailure(code=code, source_index=len(flight.path.hops), height=self._world.height)

    def _tell(self, name: str, payment_hash: PaymentHash, *, silently: bool = False) -> None:
        self._world.touched[Touched("invoice", name, payment_hash)] = None
        self._world.touched[Touched("node", name, b"")] = None
        if not silently:
            self._world.news.append(InvoiceChanged(name, self._world.nodes[name].invoices.lookup(payment_hash)))

    def _touch(self, flight: Flight) -> None:
        self._world.touched[Touched("flight", "", str(flight.id).encode())] = None
        for hop in flight.path.hops:
            if hop.chan_id in self._world.graph.channels:
                self._world.touched[Touched("channel", "", str(hop.chan_id).encode())] = None


def _over(path: Path, position: int, channel: Channel) -> Path:
    """The same way over another channel between the same two nodes."""
    hops = list(path.hops)
    hops[position] = replace(hops[position], chan_id=channel.chan_id)
    return replace(path, hops=tuple(hops))


def _doomed(flight: Flight) -> HtlcFailure:
    """The wire failure that fits a planned payment failure."""
    if flight.doom is PaymentFailure.INCORRECT_PAYMENT_DETAILS:
        code = FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS
    elif flight.doom is PaymentFailure.ERROR:
        code = FailureCode.TEMPORARY_NODE_FAILURE
    else:
        code = FailureCode.TEMPORARY_CHANNEL_FAILURE
    last = len(flight.path.hops)
    at_receiver = flight.doom is PaymentFailure.INCORRECT_PAYMENT_DETAILS
    return HtlcFailure(code=code, source_index=last if at_receiver else last - 1)
