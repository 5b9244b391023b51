"""A sender's side: look for a way, try it, try another, give up (lnd routing/payment_lifecycle.go).

Time bounds new attempts only. A failure after an attempt is told twice: with the reason while the payment is still
IN_FLIGHT, then as FAILED; after that LND forgets the attempts that failed.
"""

from dataclasses import replace
from typing import Final

from impervious.errors import PaymentFailure
from impervious.model import HtlcState, PaymentHash
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.payments import (
    DEFAULT_TIMEOUT_S,
    Attempt,
    FailureCode,
    HtlcFailure,
    Order,
    SimPayment,
    Stage,
)
from impervious.sim.engine.route import BalanceTooLowError, Demand, NoPathError, Path, find_path
from impervious.sim.engine.switch import Switch
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
        time = self._world.time
        deadline_s = time.elapsed_s() + (order.timeout_s or DEFAULT_TIMEOUT_S)
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
            self._attempt(node, replace(payment, avoid=payment.avoid | {_failed_at(flight.path, flight.failure)}))

    def resume(self, node: Node) -> None:
        """What a restarted node does: wait for HTLCs that are out, and try nothing new."""
        out = {flight.attempt_id for flight in self._world.flights.values()}
        for payment in node.payments:
            if payment.terminal:
                continue
            resumed = replace(payment, resumed=True)
            node.payments.put(resumed)
            if not any(attempt.id in out for attempt in payment.attempts):
                self._end(node, resumed, PaymentFailure.NO_ROUTE)

    def cancel(self, node: Node, payment_hash: PaymentHash) -> None:
        """Stop trying: the caller of a cancelable payment has gone."""
        payment = node.payments.get(payment_hash)
        if payment is not None and payment.order.cancelable and not payment.terminal:
            node.payments.put(replace(payment, canceled=True))

    def find(self, node: Node, order: Order, avoid: frozenset[tuple[int, str]] = frozenset()) -> Path:
        """QueryRoutes.

        Raises:
          NoPathError: there is none within all limits.
        """
        demand = Demand(
            source=node.name,
            dest=self._world.named(order.dest),
            amount=order.amount,
            fee_limit=order.fee_limit,
            records=order.records,
            payment_addr=bool(order.payment_addr),
            final_cltv_delta=order.cltv_delta,
            outgoing=order.outgoing,
            last_hop=self._world.named(order.last_hop) if order.last_hop else None,
            avoid=avoid,
        )

        def usable(channel: Channel) -> Msat:
            return channel.spendable(channel.side(node.name)) if self._world.live(channel) else Msat(0)

        return find_path(
            self._world.graph, demand, height=self._world.height, pubkeys=self._world.pubkeys, usable=usable
        )

    def _attempt(self, node: Node, payment: SimPayment, *, doom: PaymentFailure | None = None) -> None:
        if payment.attempts and self._world.time.elapsed_s() > payment.deadline_s:
            self._end(node, payment, PaymentFailure.TIMEOUT)
            return
        try:
            path = self.find(node, payment.order, payment.avoid)
        except BalanceTooLowError:
            self._end(node, payment, PaymentFailure.INSUFFICIENT_BALANCE)
            return
        except NoPathError:
            self._end(node, payment, PaymentFailure.NO_ROUTE)
            return
        self._world.tried += 1
        attempt = Attempt(id=self._world.tried, path=path, tried_s=self._world.time.wall_s())
        self._put(node, replace(payment, stage=Stage.IN_FLIGHT).with_attempt(attempt))
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
        if payment.resumed:
            return PaymentFailure.NO_ROUTE
        return PaymentFailure.CANCELED if payment.canceled else None

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


def _failed_at(path: Path, failure: HtlcFailure) -> tuple[int, str]:
    """The channel that let an HTLC down, and who would have sent over it."""
    position = min(failure.source_index, len(path.hops) - 1)
    return path.hops[position].chan_id, path.names[position]
