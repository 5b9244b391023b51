"""LND's messages -> the domain's values. Protobuf goes no further up than this room."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from impervious.containment import is_containable, reason_of
from impervious.errors import InvalidArgument, Malformed, NodeUnavailable, PaymentFailure
from impervious.model import (
    AddedInvoice,
    Balance,
    DecodedInvoice,
    HopHint,
    HtlcState,
    InvoiceHtlc,
    InvoiceState,
    NodeInfo,
    NodeInvoice,
    NodePubkey,
    Payment,
    PaymentChannel,
    PaymentHash,
    PaymentPage,
    PaymentStatus,
    Preimage,
    Route,
    RouteHint,
    Verdict,
)
from impervious.pb.lnrpc import (
    AddInvoiceResponse,
    Amount,
    Channel,
    ChannelBalanceResponse,
    FailureFailureCode,
    GetInfoResponse,
    Hop,
    HtlcAttempt,
    HtlcAttemptHtlcStatus,
    Invoice,
    InvoiceHtlcState,
    InvoiceInvoiceState,
    ListPaymentsResponse,
    PaymentFailureReason,
    PaymentPaymentStatus,
    PayReq,
    VerifyMessageResponse,
    WalletBalanceResponse,
)
from impervious.pb.lnrpc import HopHint as PbHopHint
from impervious.pb.lnrpc import Payment as PbPayment
from impervious.pb.lnrpc import Route as PbRoute
from impervious.pb.lnrpc import RouteHint as PbRouteHint
from impervious.units import Msat, Sat, msat
from impervious.wire import zbase32

_STATUSES: Final = {
    PaymentPaymentStatus.SUCCEEDED: PaymentStatus.SUCCEEDED,
    PaymentPaymentStatus.FAILED: PaymentStatus.FAILED,
}
"""Only these two are final. A failure_reason beside IN_FLIGHT is not: an HTLC may still be out (router.proto)."""

_FAILURES: Final = {
    PaymentFailureReason.FAILURE_REASON_TIMEOUT: PaymentFailure.TIMEOUT,
    PaymentFailureReason.FAILURE_REASON_NO_ROUTE: PaymentFailure.NO_ROUTE,
    PaymentFailureReason.FAILURE_REASON_ERROR: PaymentFailure.ERROR,
    PaymentFailureReason.FAILURE_REASON_INCORRECT_PAYMENT_DETAILS: PaymentFailure.INCORRECT_PAYMENT_DETAILS,
    PaymentFailureReason.FAILURE_REASON_INSUFFICIENT_BALANCE: PaymentFailure.INSUFFICIENT_BALANCE,
    PaymentFailureReason.FAILURE_REASON_CANCELED: PaymentFailure.CANCELED,
}

_ATTEMPTS: Final = {
    HtlcAttemptHtlcStatus.SUCCEEDED: PaymentStatus.SUCCEEDED,
    HtlcAttemptHtlcStatus.FAILED: PaymentStatus.FAILED,
}

_INVOICE_STATES: Final = {
    InvoiceInvoiceState.OPEN: InvoiceState.OPEN,
    InvoiceInvoiceState.SETTLED: InvoiceState.SETTLED,
    InvoiceInvoiceState.CANCELED: InvoiceState.CANCELED,
    InvoiceInvoiceState.ACCEPTED: InvoiceState.ACCEPTED,
}

_HTLC_STATES: Final = {
    InvoiceHtlcState.ACCEPTED: HtlcState.ACCEPTED,
    InvoiceHtlcState.SETTLED: HtlcState.SETTLED,
    InvoiceHtlcState.CANCELED: HtlcState.CANCELED,
}


@contextmanager
def understood() -> Iterator[None]:
    """Treat an answer that makes no sense as none.

    Raises:
      NodeUnavailable: the block met a value that LND does not send.
    """
    try:
        yield
    except (ValueError, InvalidArgument, Malformed) as error:
        raise NodeUnavailable(f"LND's answer makes no sense: {error}") from error


def info(message: GetInfoResponse) -> NodeInfo:
    """Who the node is."""
    with understood():
        return NodeInfo(
            pubkey=NodePubkey(bytes.fromhex(message.identity_pubkey)),
            alias=message.alias,
            network=message.chains[0].network if message.chains else "",
            version=message.version,
            features=frozenset(message.features),
            synced_to_chain=message.synced_to_chain,
            block_height=message.block_height,
            chain_time_s=message.best_header_timestamp,
        )


def payment(message: PbPayment) -> Payment:
    """A payment; anything but SUCCEEDED and FAILED is in flight, states of the future included."""
    status = _STATUSES.get(message.status, PaymentStatus.IN_FLIGHT)
    succeeded = status is PaymentStatus.SUCCEEDED
    with understood():
        last = _last_hop(message)
        return Payment(
            payment_hash=PaymentHash(bytes.fromhex(message.payment_hash)),
            status=status,
            amount=Msat(message.value_msat),
            fee=Msat(message.fee_msat if succeeded else 0),
            attempts=len(message.htlcs),
            preimage=Preimage(bytes.fromhex(message.payment_preimage)) if succeeded else None,
            failure=_FAILURES.get(message.failure_reason, PaymentFailure.ERROR)
            if status is PaymentStatus.FAILED
            else None,
            created_s=message.creation_time_ns // 1_000_000_000,
            payment_request=message.payment_request,
            index=message.payment_index,
            dest=NodePubkey(bytes.fromhex(last.pub_key)) if last is not None else None,
            records=last.custom_records if last is not None else {},
        )


def _last_hop(message: PbPayment) -> Hop | None:
    """Find the recipient's hop, unless hops were not asked for: the one of the attempt that settled, if one did."""
    attempts = [each for each in message.htlcs if each.route is not None and each.route.hops]
    settled = [each for each in attempts if each.status is HtlcAttemptHtlcStatus.SUCCEEDED]
    chosen = (settled or attempts)[-1:]
    return chosen[0].route.hops[-1] if chosen and chosen[0].route is not None else None


def route(message: PbRoute) -> Route:
    """A way through the network."""
    return Route(
        hops=len(message.hops),
        fee=Msat(message.total_fees_msat),
        total_amount=Msat(message.total_amt_msat),
        height=message.total_time_lock,
    )


def attempt(message: HtlcAttempt, payment_hash: PaymentHash, amount: Msat) -> Payment:
    """What one attempt over a given route has made of a payment."""
    route, succeeded = message.route or PbRoute(), message.status is HtlcAttemptHtlcStatus.SUCCEEDED
    with understood():
        return Payment(
            payment_hash=payment_hash,
            status=_ATTEMPTS.get(message.status, PaymentStatus.IN_FLIGHT),
            amount=amount,
            fee=Msat(route.total_fees_msat if succeeded else 0),
            attempts=1,
            preimage=Preimage(message.preimage) if succeeded else None,
            failure=_attempt_failure(message, route) if message.status is HtlcAttemptHtlcStatus.FAILED else None,
            created_s=message.attempt_time_ns // 1_000_000_000,
        )


def _attempt_failure(message: HtlcAttempt, route: PbRoute) -> PaymentFailure:
    """As lnd routing/result_interpretation.go: only the receiver's own word ends a payment."""
    failure = message.failure
    if failure is None or failure.failure_source_index != len(route.hops):
        return PaymentFailure.ERROR
    if failure.code is FailureFailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS:
        return PaymentFailure.INCORRECT_PAYMENT_DETAILS
    return PaymentFailure.ERROR


def channel(message: Channel) -> PaymentChannel:
    """An open payment channel."""
    kept = message.local_constraints.chan_reserve_sat if message.local_constraints else 0
    theirs = message.remote_constraints.chan_reserve_sat if message.remote_constraints else 0
    with understood():
        return PaymentChannel(
            chan_id=message.chan_id,
            peer=NodePubkey(bytes.fromhex(message.remote_pubkey)),
            active=message.active,
            private=message.private,
            spendable=msat(Sat(max(0, message.local_balance - kept))),
            receivable=msat(Sat(max(0, message.remote_balance - theirs))),
        )


def route_hints(message: PayReq) -> tuple[RouteHint, ...]:
    """The ways to its receiver that an invoice names."""
    with understood():
        return tuple(tuple(map(_hop_hint, hint.hop_hints)) for hint in message.route_hints)


def _hop_hint(message: PbHopHint) -> HopHint:
    return HopHint(
        pubkey=NodePubkey(bytes.fromhex(message.node_id)),
        chan_id=message.chan_id,
        base_fee=Msat(message.fee_base_msat),
        fee_ppm=message.fee_proportional_millionths,
        cltv_delta=message.cltv_expiry_delta,
    )


def route_hint(hint: RouteHint) -> PbRouteHint:
    """A way to a node, as LND takes it."""
    return PbRouteHint(
        hop_hints=[
            PbHopHint(
                node_id=hop.pubkey.hex,
                chan_id=hop.chan_id,
                fee_base_msat=hop.base_fee,
                fee_proportional_millionths=hop.fee_ppm,
                cltv_expiry_delta=hop.cltv_delta,
            )
            for hop in hint
        ]
    )


def signature(text: str) -> bytes:
    """65 bytes, of LND's zbase32."""
    with understood():
        return zbase32.decode(text)


def verdict(message: VerifyMessageResponse) -> Verdict:
    """What LND says of a signature."""
    with understood():
        pubkey = NodePubkey(bytes.fromhex(message.pubkey)) if message.pubkey else None
    return Verdict(valid=message.valid, pubkey=pubkey)


def invoice(message: Invoice) -> NodeInvoice:
    """An invoice in any state; one of the future counts as not settled yet.

    One that cannot be converted is `unreadable` and keeps what can be: it must not end the call or the subscription
    that brought it, and with it every other invoice.
    """
    try:
        return _invoice(message)
    except BaseException as error:  # noqa: ASYNC103 - synchronous
        if not is_containable(error):
            raise
        return NodeInvoice(  # noqa: ASYNC104
            payment_hash=PaymentHash(message.r_hash if isinstance(message.r_hash, bytes) else b""),
            state=next(
                (ours for lnds, ours in _INVOICE_STATES.items() if lnds == message.state), InvoiceState.ACCEPTED
            ),
            add_index=_number(message.add_index),
            settle_index=_number(message.settle_index),
            created_s=_number(message.creation_date),
            settled_s=_number(message.settle_date),
            is_keysend=bool(message.is_keysend),
            amount_paid=Msat(_number(message.amt_paid_msat)),
            unreadable=f"LND's invoice cannot be read: {reason_of(error)}",
        )


def _number(value: object) -> int:
    """Take a number that the database can hold; 0 for anything else."""
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0


def _checked(value: int) -> int:
    if value >= 2**63:
        raise Malformed(f"{value} is out of range")
    return value


def _invoice(message: Invoice) -> NodeInvoice:
    return NodeInvoice(
        payment_hash=PaymentHash(message.r_hash),
        state=_INVOICE_STATES.get(message.state, InvoiceState.ACCEPTED),
        add_index=_checked(message.add_index),
        settle_index=_checked(message.settle_index),
        created_s=message.creation_date,
        settled_s=message.settle_date,
        is_keysend=message.is_keysend,
        amount_paid=Msat(message.amt_paid_msat),
        htlcs=tuple(
            InvoiceHtlc(
                state=_HTLC_STATES.get(htlc.state, HtlcState.ACCEPTED),
                amount=Msat(htlc.amt_msat),
                accepted_s=htlc.accept_time,
                index=htlc.htlc_index,
                records=htlc.custom_records,
            )
            for htlc in message.htlcs
        ),
        memo=message.memo,
        payment_request=message.payment_request,
        amount=Msat(message.value_msat),
        expiry_s=message.expiry,
        description_hash=message.description_hash,
    )


def added_invoice(message: AddInvoiceResponse) -> AddedInvoice:
    """An invoice as it was made."""
    return AddedInvoice(
        payment_hash=PaymentHash(message.r_hash),
        payment_request=message.payment_request,
        add_index=message.add_index,
    )


def decoded_invoice(message: PayReq, payment_request: str) -> DecodedInvoice:
    """What a payment request says."""
    with understood():
        return DecodedInvoice(
            payment_request=payment_request,
            payee=NodePubkey(bytes.fromhex(message.destination)),
            payment_hash=PaymentHash(bytes.fromhex(message.payment_hash)),
            amount=Msat(message.num_msat),  # num_satoshis is rounded
            created_s=message.timestamp,
            expiry_s=message.expiry,
            description=message.description,
            description_hash=bytes.fromhex(message.description_hash),
            payment_secret=message.payment_addr,
            min_final_cltv=message.cltv_expiry,
            features=frozenset(message.features),
        )


def payment_page(message: ListPaymentsResponse) -> PaymentPage:
    """A page of payments."""
    return PaymentPage(
        payments=tuple(map(payment, message.payments)),
        first_index=message.first_index_offset,
        last_index=message.last_index_offset,
    )


def balance(channels: ChannelBalanceResponse, wallet: WalletBalanceResponse) -> Balance:
    """What LND has."""
    return Balance(
        local=_msat(channels.local_balance),
        remote=_msat(channels.remote_balance),
        unsettled_local=_msat(channels.unsettled_local_balance),
        unsettled_remote=_msat(channels.unsettled_remote_balance),
        opening_local=_msat(channels.pending_open_local_balance),
        confirmed=msat(Sat(wallet.confirmed_balance)),
        unconfirmed=msat(Sat(wallet.unconfirmed_balance)),
    )


def _msat(amount: Amount | None) -> Msat:
    return Msat(0 if amount is None else amount.msat)
