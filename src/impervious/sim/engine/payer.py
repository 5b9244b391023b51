"""A sender's side: look for a way, try it, try another, give up (lnd routing/payment_lifecycle.go).

Time bounds new attempts only. A failure after an attempt is told twice: with the reason while the payment is still
IN_FLIGHT, then as FAILED; after that LND forgets the attempts that failed.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from impervious.errors import PaymentFailure
from impervious.model import HtlcState, PaymentHash
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.payments import (
    DEFAULT_TIMEOUT_S,
    Attempt,
    FailureCode,
    Order,
    SimPayment,
    Stage,
)
from impervious.sim.engine.route import (
    BLOCK_PADDING,
    BalanceTooLowError,
    Demand,
    NoPathError,
    Path,
    RouteHint,
    find_path,
)
from impervious.sim.engine.switch import Switch
from impervious.sim.engine.topology import Policy
from impervious.sim.engine.world import Flight, Node, PaymentChanged, Touched, World
from impervious.units import Msat

_FINAL: Final = FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS


class Payer:
    """Pays for every node."""

    def __init__(self, world: World, switch: Switch) -> None:
        self._world = world
        self._switch = switch

    def pay(self, node: Node, order: Order) -> None:
        """Begin a payment; how it goes on is in the news.

        Raises:
          LndError: the order makes no sense, or its hash is being paid.
        """
        order.check(node.pubkey.raw)
        order = replace(order, first_hop_records={**order.first_hop_records, **self._world.accountable})
        time = self._world.time
        timeout_s = math.inf if order.timeout_s < 0 else order.timeout_s or DEFAULT_TIMEOUT_S
        deadline_s = time.elapsed_s() + timeout_s
        payment = node.payments.start(order, created_s=time.wall_s(), deadline_s=deadline_s)
        self._put(node, payment)
        planned = node.planned.popleft() if node.planned else None
        if planned is not None and not planned.after_attempt:
            self._end(node, payment, planned.reason)
        else:
            self._attempt(node, payment, doom=None if planned is None else planned.reason)

    def resolved(self, flight: Flight) -> None:
        """Take the outcome of an HTLC to its payment."""
        node = self._world.nodes[flight.path.source]
        payment = node.payments.get(flight.payment_hash)
        attempt = next((a for a in payment.attempts if a.id == flight.attempt_id), None) if payment else None
        if payment is None or attempt is None:
            return  # forged by a test, or deleted meanwhile
        self._learn(node, flight)
        state = HtlcState.SETTLED if flight.failure is None else HtlcState.CANCELED
        now_s = self._world.time.wall_s()
        payment = payment.with_attempt(replace(attempt, state=state, resolved_s=now_s, failure=flight.failure))
        if flight.failure is None:
            self._put(node, replace(payment, stage=Stage.SUCCEEDED, preimage=flight.preimage))
            self._forget_failed_attempts(node, payment.payment_hash)
        elif (reason := self._give_up(payment, flight)) is not None:
            self._end(node, payment, reason)
        else:
            self._put(node, payment)
            if not payment.routed:
                self._attempt(node, payment)

    def resume(self, node: Node) -> None:
        """What a restarted node does: wait for HTLCs that are out, and try nothing new."""
        out = {flight.attempt_id for flight in self._world.flights.values()}
        for payment in node.payments:
            if payment.terminal:
                continue
            resumed = replace(payment, resumed=True)
            node.payments.put(resumed)
            if not payment.stranded and not any(attempt.id in out for attempt in payment.attempts):
                self._end(node, resumed, PaymentFailure.NO_ROUTE)

    def cancel(self, node: Node, payment_hash: PaymentHash) -> None:
        """Stop trying: the caller of a cancelable payment has gone."""
        payment = node.payments.get(payment_hash)
        if payment is not None and payment.order.cancelable and not payment.terminal:
            node.payments.put(replace(payment, canceled=True))

    def send_to_route(self, node: Node, order: Order, path: Path, *, total: Msat, goes_on: bool) -> int:
        """Try one given way, and no other (SendToRouteV2).

        Args:
          node: the sender.
          order: what the receiver gets; its amount is what travels this way.
          path: as the caller made it up: nothing says that it exists.
          total: what all parts of the payment come to, if the last hop says it (mpp_record); else 0.
          goes_on: an attempt that comes back leaves the payment open for further ones (skip_temp_err).

        Returns:
          The number of the attempt.

        Raises:
          LndError: the hash is being paid, or has been.
        """
        if goes_on and not total:
            raise LndError("cannot skip temp error for non-MPP")
        payment = node.payments.get(PaymentHash(order.payment_hash))
        if payment is None or not total or payment.stage is not Stage.IN_FLIGHT:
            time = self._world.time
            whole = replace(order, amount=total or order.amount)
            payment = node.payments.start(whole, created_s=time.wall_s(), deadline_s=time.elapsed_s(), routed=True)
            self._put(node, payment)
        elif sum(a.path.hops[-1].forwards for a in payment.attempts if a.state is not HtlcState.CANCELED) + (
            order.amount
        ) > (payment.order.amount):
            raise LndError("attempted value exceeds payment amount")
        self._launch(node, replace(payment, goes_on=goes_on), path)
        return self._world.tried

    def strand(self, node: Node, payment: SimPayment) -> None:
        """Leave a payment in flight for ever, with an attempt that no channel knows of."""
        node.payments.put(replace(payment, stranded=True))
        self._world.touched[Touched("payment", node.name, payment.payment_hash)] = None

    def find(self, node: Node, order: Order, *, mission_control: bool = True, padding: int = BLOCK_PADDING) -> Path:
        """Look for the best way.

        Args:
          node: the sender.
          order: what the way has to carry.
          mission_control: False: every hop counts as one that works (QueryRoutes.use_mission_control).
          padding: blocks added to the receiver's time lock: QueryRoutes adds none.

        Raises:
          NoPathError: there is none within all limits.
        """
        hinted: dict[str, tuple[tuple[Channel, str, Policy], ...]] = {}
        for hint in order.hints:
            for name, way in self._hinted(hint, order.dest):
                hinted[name] = (*hinted.get(name, ()), way)
        demand = Demand(
            source=node.name,
            dest=self._world.named(order.dest),
            amount=order.amount,
            fee_limit=order.fee_limit,
            records=order.records,
            payment_addr=bool(order.payment_addr),
            final_cltv_delta=order.cltv_delta + padding,
            outgoing=order.outgoing,
            last_hop=self._world.named(order.last_hop) if order.last_hop else None,
            hinted=hinted,
            cltv_limit=order.cltv_limit,
            ignored=frozenset(self._world.named(key) for key in order.ignored),
            ignored_pairs=frozenset((self._world.named(a), self._world.named(b)) for a, b in order.ignored_pairs),
        )
        now_s = self._world.time.elapsed_s()

        def usable(channel: Channel) -> Msat:
            return channel.spendable(channel.side(node.name)) if self._world.live(channel) else Msat(0)

        def likely(sender: str, to: str, amount: Msat) -> float:
            if not mission_control:
                return 1.0
            return node.mission_control.probability(sender, to, amount, own=sender == node.name, now_s=now_s)

        return find_path(
            self._world.graph,
            demand,
            height=self._world.height,
            pubkeys=self._world.pubkeys,
            usable=usable,
            likely=likely,
        )

    def _hinted(self, hint: RouteHint, dest: bytes) -> Iterator[tuple[str, tuple[Channel, str, Policy]]]:
        """The channels of a hint that exist, each by the node it leads into.

        What it asks is never less than what the node will ask: a real lnd learns that from its first refusal.
        """
        for hop, to in zip(hint, [*(hop.pubkey for hop in hint[1:]), dest], strict=True):
            channel = self._world.graph.channels.get(hop.chan_id)
            ends = (self._world.named(hop.pubkey), self._world.named(to))
            if channel is None or sorted(channel.nodes) != sorted(ends):
                continue
            asks = channel.policies[channel.side(ends[0])]
            policy = replace(
                asks,
                base_fee=max(asks.base_fee, hop.base_fee),
                fee_ppm=max(asks.fee_ppm, hop.fee_ppm),
                cltv_delta=max(asks.cltv_delta, hop.cltv_delta),
            )
            yield ends[1], (channel, ends[0], policy)

    def _attempt(self, node: Node, payment: SimPayment, *, doom: PaymentFailure | None = None) -> None:
        if payment.attempts and self._world.time.elapsed_s() > payment.deadline_s:
            self._end(node, payment, PaymentFailure.TIMEOUT)
            return
        try:
            path = self.find(node, payment.order)
        except BalanceTooLowError:
            self._end(node, payment, PaymentFailure.INSUFFICIENT_BALANCE)
            return
        except NoPathError:
            self._end(node, payment, PaymentFailure.NO_ROUTE)
            return
        self._launch(node, payment, path, doom=doom)

    def _launch(self, node: Node, payment: SimPayment, path: Path, *, doom: PaymentFailure | None = None) -> None:
        self._world.tried += 1
        attempt = Attempt(id=self._world.tried, path=path, tried_s=self._world.time.wall_s())
        payment = replace(payment, stage=Stage.IN_FLIGHT).with_attempt(attempt)
        self._put(node, payment)
        if node.strands:
            node.strands -= 1
            self.strand(node, payment)
            return
        self._switch.launch(
            path,
            payment.payment_hash,
            records=payment.order.records,
            first_hop_records=payment.order.first_hop_records,
            payment_addr=payment.order.payment_addr,
            attempt_id=attempt.id,
            doom=doom,
        )

    def _give_up(self, payment: SimPayment, flight: Flight) -> PaymentFailure | None:
        assert flight.failure is not None
        if flight.doom is not None:
            return flight.doom
        if flight.failure.code is _FINAL:
            return PaymentFailure.INCORRECT_PAYMENT_DETAILS
        if payment.routed:
            return None if payment.goes_on else PaymentFailure.ERROR
        if payment.resumed:
            return PaymentFailure.NO_ROUTE
        return PaymentFailure.CANCELED if payment.canceled else None

    def _learn(self, node: Node, flight: Flight) -> None:
        now_s = self._world.time.elapsed_s()
        if flight.failure is None:
            node.mission_control.succeeded(flight.path, now_s)
        elif flight.doom is None:  # what a test has planned says nothing of the network
            node.mission_control.failed(flight.path, flight.failure, now_s)

    def _end(self, node: Node, payment: SimPayment, reason: PaymentFailure) -> None:
        if payment.attempts:
            self._put(node, replace(payment, failure=reason))
        self._put(node, replace(payment, failure=reason, stage=Stage.FAILED))
        self._forget_failed_attempts(node, payment.payment_hash)

    def _forget_failed_attempts(self, node: Node, payment_hash: PaymentHash) -> None:
        if not node.keeps_failed_attempts:
            node.payments.put(node.payments.lookup(payment_hash).without_failed_attempts())

    def _put(self, node: Node, payment: SimPayment) -> None:
        node.payments.put(payment)
        self._world.news.append(PaymentChanged(node.name, payment))
        self._world.touched[Touched("payment", node.name, payment.payment_hash)] = None
        self._world.touched[Touched("node", node.name, b"")] = None
