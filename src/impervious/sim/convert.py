"""A simulated LND's rows and errors as the domain's: what `lnd.convert` and `lnd.faults` are to a real one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from grpclib.const import Status

from impervious.errors import AlreadyPaying, NodeRefused, NodeUnavailable, PaymentFailure, PaymentNotFound
from impervious.model import (
    HopHint,
    InvoiceHtlc,
    NodeInvoice,
    NodePubkey,
    Payment,
    PaymentChannel,
    PaymentStatus,
    RouteHint,
)
from impervious.sim.engine import route as engine
from impervious.sim.engine.answers import NOT_YET, LndError
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.invoices import Invoice
from impervious.sim.engine.payments import Attempt, FailureCode, SimPayment, Stage
from impervious.units import Msat

_STATUSES: Final = {
    Stage.INITIATED: PaymentStatus.IN_FLIGHT,
    Stage.IN_FLIGHT: PaymentStatus.IN_FLIGHT,
    Stage.SUCCEEDED: PaymentStatus.SUCCEEDED,
    Stage.FAILED: PaymentStatus.FAILED,
}


@contextmanager
def translated() -> Iterator[None]:
    """LND's errors -> ours."""
    try:
        yield
    except LndError as error:
        if error.status is Status.ALREADY_EXISTS:
            raise AlreadyPaying(error.text) from error
        if error.status is Status.NOT_FOUND:
            raise PaymentNotFound(error.text) from error
        if error.status is Status.UNAVAILABLE or error.text in NOT_YET.values():
            raise NodeUnavailable(error.text) from error
        raise NodeRefused(error.text) from error


def payment(row: SimPayment, *, records: bool = False) -> Payment:
    """A payment as it is now; with what it carries only if it was tried, which is when LND knows it, too."""
    carries = records and bool(row.attempts)
    return Payment(
        payment_hash=row.payment_hash,
        status=_STATUSES[row.stage],
        amount=row.order.amount,
        fee=row.fee,
        attempts=len(row.attempts),
        preimage=row.preimage,
        failure=row.failure,
        created_s=int(row.created_s),
        payment_request=row.order.payment_request,
        index=row.index,
        dest=NodePubkey(row.order.dest) if carries else None,
        records=dict(row.order.records) if carries else {},
    )


def attempt(row: SimPayment, tried: Attempt) -> Payment:
    """A payment after one attempt over a given route."""
    failure = None
    if tried.failure is not None:
        receiver = tried.failure.source_index == len(tried.path.hops)
        unknown = tried.failure.code is FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS
        failure = PaymentFailure.INCORRECT_PAYMENT_DETAILS if receiver and unknown else PaymentFailure.ERROR
    status = PaymentStatus.SUCCEEDED if failure is None else PaymentStatus.FAILED
    return replace(payment(row), status=status, attempts=1, failure=failure)


def channel(row: Channel, name: str, peer: NodePubkey, *, active: bool) -> PaymentChannel:
    """An open payment channel, as the node of that name sees it."""
    side = row.side(name)
    return PaymentChannel(
        chan_id=row.chan_id,
        peer=peer,
        active=active,
        private=row.private,
        spendable=Msat(max(0, row.balances[side] - row.reserve)),
        receivable=Msat(max(0, row.balances[1 - side] - row.reserve)),
    )


def hop_hints(hint: engine.RouteHint) -> RouteHint:
    """A way to a node, as the rooms above know it."""
    return tuple(
        HopHint(
            pubkey=NodePubkey(hop.pubkey),
            chan_id=hop.chan_id,
            base_fee=hop.base_fee,
            fee_ppm=hop.fee_ppm,
            cltv_delta=hop.cltv_delta,
        )
        for hop in hint
    )


def route_hint(hint: RouteHint) -> engine.RouteHint:
    """A way to a node, as the engine takes it."""
    return tuple(
        engine.HopHint(
            pubkey=hop.pubkey.raw,
            chan_id=hop.chan_id,
            base_fee=hop.base_fee,
            fee_ppm=hop.fee_ppm,
            cltv_delta=hop.cltv_delta,
        )
        for hop in hint
    )


def invoice(row: Invoice) -> NodeInvoice:
    """An invoice in any state."""
    return NodeInvoice(
        payment_hash=row.payment_hash,
        state=row.state,
        add_index=row.add_index,
        settle_index=row.settle_index,
        created_s=row.created_s,
        settled_s=row.settled_s,
        is_keysend=row.is_keysend,
        amount_paid=row.amount_paid,
        htlcs=tuple(
            InvoiceHtlc(
                state=htlc.state, amount=htlc.amount, accepted_s=htlc.accepted_s, index=htlc.index, records=htlc.records
            )
            for htlc in row.htlcs
        ),
        memo=row.memo,
        payment_request=row.payment_request,
        amount=row.value,
        expiry_s=0 if row.is_keysend else row.expiry_s,
        description_hash=row.description_hash,
    )
