"""A simulated network's values as LND's messages."""

import hashlib
from typing import Final

from impervious.errors import PaymentFailure
from impervious.model import HtlcState, InvoiceState, Records
from impervious.pb import lnrpc
from impervious.sim.engine.channel import MAX_HTLCS, Channel
from impervious.sim.engine.invoices import Invoice, ReceivedHtlc
from impervious.sim.engine.payment_request import FEATURE_BITS, Read
from impervious.sim.engine.payments import Attempt, Order, SimPayment, Stage
from impervious.sim.engine.route import Path, RouteHint
from impervious.sim.engine.world import ChannelChanged
from impervious.sim.face import graph
from impervious.sim.rpcs import COMMIT_HASH, NETWORK, VERSION, Balances, Info
from impervious.units import Msat, sat_credited

_INVOICE_STATES: Final = {
    InvoiceState.OPEN: lnrpc.InvoiceInvoiceState.OPEN,
    InvoiceState.SETTLED: lnrpc.InvoiceInvoiceState.SETTLED,
    InvoiceState.CANCELED: lnrpc.InvoiceInvoiceState.CANCELED,
    InvoiceState.ACCEPTED: lnrpc.InvoiceInvoiceState.ACCEPTED,
}
_INVOICE_HTLC_STATES: Final = {
    HtlcState.ACCEPTED: lnrpc.InvoiceHtlcState.ACCEPTED,
    HtlcState.SETTLED: lnrpc.InvoiceHtlcState.SETTLED,
    HtlcState.CANCELED: lnrpc.InvoiceHtlcState.CANCELED,
}
_ATTEMPT_STATES: Final = {
    HtlcState.ACCEPTED: lnrpc.HtlcAttemptHtlcStatus.IN_FLIGHT,
    HtlcState.SETTLED: lnrpc.HtlcAttemptHtlcStatus.SUCCEEDED,
    HtlcState.CANCELED: lnrpc.HtlcAttemptHtlcStatus.FAILED,
}
_STAGES: Final = {
    Stage.INITIATED: lnrpc.PaymentPaymentStatus.IN_FLIGHT,
    Stage.IN_FLIGHT: lnrpc.PaymentPaymentStatus.IN_FLIGHT,
    Stage.SUCCEEDED: lnrpc.PaymentPaymentStatus.SUCCEEDED,
    Stage.FAILED: lnrpc.PaymentPaymentStatus.FAILED,
}
_FAILURES: Final = {
    None: lnrpc.PaymentFailureReason.FAILURE_REASON_NONE,
    PaymentFailure.TIMEOUT: lnrpc.PaymentFailureReason.FAILURE_REASON_TIMEOUT,
    PaymentFailure.NO_ROUTE: lnrpc.PaymentFailureReason.FAILURE_REASON_NO_ROUTE,
    PaymentFailure.ERROR: lnrpc.PaymentFailureReason.FAILURE_REASON_ERROR,
    PaymentFailure.INCORRECT_PAYMENT_DETAILS: (lnrpc.PaymentFailureReason.FAILURE_REASON_INCORRECT_PAYMENT_DETAILS),
    PaymentFailure.INSUFFICIENT_BALANCE: lnrpc.PaymentFailureReason.FAILURE_REASON_INSUFFICIENT_BALANCE,
    PaymentFailure.CANCELED: lnrpc.PaymentFailureReason.FAILURE_REASON_CANCELED,
}
_KEYSEND_CLTV: Final = 19
KEYSEND_FEATURES: Final = frozenset({8})
"""invoices.processKeySend: TLV onions, and nothing else."""
_CSV_DELAY, _COMMIT_FEE, _COMMIT_WEIGHT, _FEE_PER_KW = 144, 284, 1116, 253
"""What a channel with anchors has at the lowest fee rate."""
_ANCHOR_RESERVE, _MOST_ANCHOR_RESERVE = 10_000, 100_000
"""lnwallet.AnchorChanReservedValue, and the most that it comes to."""
_NO_PREIMAGE: Final = "0" * 64


def info(value: Info, *, now_s: int) -> lnrpc.GetInfoResponse:
    """GetInfo's answer."""
    return lnrpc.GetInfoResponse(
        identity_pubkey=value.pubkey.hex,
        alias=value.alias,
        num_active_channels=value.active_channels,
        num_inactive_channels=value.inactive_channels,
        num_peers=value.peers,
        block_height=value.block_height,
        block_hash=hashlib.sha256(b"block %d" % value.block_height).hexdigest(),
        synced_to_chain=value.synced_to_chain,
        synced_to_graph=value.synced_to_chain,
        wallet_synced=value.synced_to_chain,
        best_header_timestamp=now_s,
        version=VERSION,
        color=graph.COLOR,
        commit_hash=COMMIT_HASH,
        chains=[lnrpc.Chain(chain="bitcoin", network=NETWORK)],
        features=graph.features(value.features),
        graph_cache_status=lnrpc.GraphCacheStatus.LOADED,
    )


def invoice(value: Invoice) -> lnrpc.Invoice:
    """A row of ListInvoices or an event."""
    return lnrpc.Invoice(
        memo=value.memo,
        r_preimage=b"" if value.preimage is None else value.preimage.raw,
        r_hash=value.payment_hash,
        value=sat_credited(value.value),
        value_msat=value.value,
        settled=value.state is InvoiceState.SETTLED,
        creation_date=value.created_s,
        settle_date=value.settled_s,
        payment_request=value.payment_request,
        description_hash=value.description_hash,
        features=graph.features(KEYSEND_FEATURES if value.is_keysend else FEATURE_BITS),
        expiry=0 if value.is_keysend else value.expiry_s,
        cltv_expiry=_KEYSEND_CLTV if value.is_keysend else value.cltv_expiry,
        route_hints=[route_hint(hint) for hint in value.hints],
        private=value.private,
        add_index=value.add_index,
        settle_index=value.settle_index,
        fallback_addr=value.fallback,
        amt_paid=value.amount_paid,
        amt_paid_sat=sat_credited(value.amount_paid),
        amt_paid_msat=value.amount_paid,
        state=_INVOICE_STATES[value.state],
        htlcs=[_received(htlc, in_parts=not value.is_keysend) for htlc in value.htlcs],
        is_keysend=value.is_keysend,
        payment_addr=value.payment_addr,
    )


def added_invoice(value: Invoice) -> lnrpc.AddInvoiceResponse:
    """AddInvoice's answer."""
    return lnrpc.AddInvoiceResponse(
        r_hash=value.payment_hash,
        payment_request=value.payment_request,
        add_index=value.add_index,
        payment_addr=value.payment_addr,
    )


def route_hint(value: RouteHint) -> lnrpc.RouteHint:
    """A way to a node that the graph need not hold."""
    return lnrpc.RouteHint(
        hop_hints=[
            lnrpc.HopHint(
                node_id=hop.pubkey.hex(),
                chan_id=hop.chan_id,
                fee_base_msat=hop.base_fee,
                fee_proportional_millionths=hop.fee_ppm,
                cltv_expiry_delta=hop.cltv_delta,
            )
            for hop in value
        ]
    )


def pay_req(read: Read) -> lnrpc.PayReq:
    """DecodePayReq's answer."""
    value = read.invoice
    return lnrpc.PayReq(
        destination=value.payee.hex,
        payment_hash=value.payment_hash.hex(),
        num_satoshis=sat_credited(value.amount),
        num_msat=value.amount,
        timestamp=value.created_s,
        expiry=value.expiry_s,
        description=value.description,
        description_hash=value.description_hash.hex(),
        cltv_expiry=value.min_final_cltv,
        route_hints=[route_hint(hint) for hint in read.hints],
        payment_addr=value.payment_secret,
        features=graph.features(value.features),
    )


def _received(htlc: ReceivedHtlc, *, in_parts: bool) -> lnrpc.InvoiceHtlc:
    return lnrpc.InvoiceHtlc(
        chan_id=htlc.chan_id,
        htlc_index=htlc.index,
        amt_msat=htlc.amount,
        accept_height=htlc.accept_height,
        accept_time=htlc.accepted_s,
        resolve_time=htlc.resolved_s,
        expiry_height=htlc.expiry_height,
        state=_INVOICE_HTLC_STATES[htlc.state],
        custom_records=dict(htlc.records),
        mpp_total_amt_msat=htlc.amount if in_parts else 0,
        custom_channel_data=tlv_stream(htlc.records),
    )


def tlv_stream(records: Records) -> bytes:
    """Records as BOLT 1 writes them, ascending: LND sends them a second time in this form."""
    return b"".join(
        _bigsize(record_type) + _bigsize(len(records[record_type])) + records[record_type]
        for record_type in sorted(records)
    )


def _bigsize(value: int) -> bytes:
    if value < 0xFD:
        return bytes([value])
    length = 2 if value <= 0xFFFF else 4 if value <= 0xFFFFFFFF else 8
    return bytes([{2: 0xFD, 4: 0xFE, 8: 0xFF}[length]]) + value.to_bytes(length)


def payment(value: SimPayment) -> lnrpc.Payment:
    """A row of ListPayments or an update."""
    return lnrpc.Payment(
        payment_hash=value.payment_hash.hex(),
        payment_preimage=_NO_PREIMAGE if value.preimage is None else value.preimage.raw.hex(),
        value=sat_credited(value.order.amount),
        value_sat=sat_credited(value.order.amount),
        value_msat=value.order.amount,
        payment_request=value.order.payment_request,
        status=_STAGES[value.stage],
        fee=sat_credited(value.fee),
        fee_sat=sat_credited(value.fee),
        fee_msat=value.fee,
        creation_date=int(value.created_s),
        creation_time_ns=int(value.created_s * 1e9),
        htlcs=[attempt(each, value) for each in value.attempts],
        payment_index=value.index,
        failure_reason=_FAILURES[value.failure],
        first_hop_custom_records=dict(value.order.first_hop_records),
    )


def attempt(value: Attempt, payment: SimPayment) -> lnrpc.HtlcAttempt:
    """One HTLC that was tried for a payment."""
    failure = None
    if value.failure is not None:
        failure = lnrpc.Failure(
            code=lnrpc.FailureFailureCode(int(value.failure.code)),
            failure_source_index=value.failure.source_index,
            height=value.failure.height,
            htlc_msat=value.failure.amount,
        )
    settled = value.state is HtlcState.SETTLED and payment.preimage is not None
    return lnrpc.HtlcAttempt(
        status=_ATTEMPT_STATES[value.state],
        route=route(value.path, payment.order, first_hop=True),
        attempt_time_ns=int(value.tried_s * 1e9),
        resolve_time_ns=int(value.resolved_s * 1e9),
        failure=failure,
        preimage=payment.preimage.raw if settled and payment.preimage is not None else b"",
        attempt_id=value.id,
    )


def route(path: Path, order: Order, *, first_hop: bool = False) -> lnrpc.Route:
    """A route; the records travel in its last hop.

    Args:
      path: it.
      order: what it carries.
      first_hop: whether it was tried, and LND knows what it sent to its peer.
    """
    hops = [
        lnrpc.Hop(
            chan_id=hop.chan_id,
            chan_capacity=sat_credited(arriving),
            amt_to_forward=sat_credited(hop.forwards),
            fee=sat_credited(hop.fee),
            expiry=hop.expiry,
            amt_to_forward_msat=hop.forwards,
            fee_msat=hop.fee,
            pub_key=hop.pubkey.hex,
            tlv_payload=True,
        )
        for hop, arriving in zip(path.hops, path.amounts, strict=True)
    ]
    hops[-1].custom_records = dict(order.records)
    if order.payment_addr:
        hops[-1].mpp_record = lnrpc.MppRecord(total_amt_msat=order.amount, payment_addr=order.payment_addr)
    return lnrpc.Route(
        total_time_lock=path.time_lock,
        total_fees=sat_credited(path.fee),
        total_amt=sat_credited(path.total),
        hops=hops,
        total_fees_msat=path.fee,
        total_amt_msat=path.total,
        first_hop_amount_msat=path.total if first_hop else 0,
    )


def channel(value: Channel, name: str, peer: str, *, active: bool, lifetime_s: int, alias: bool) -> lnrpc.Channel:
    """A row of ListChannels, as the node called `name` sees it.

    Its commitment's fee is one that lnd would pay and is not taken from the balances: there is no transaction.

    Args:
      value: it.
      name: of the node.
      peer: the key of the node at its other end.
      active: whether HTLCs can move over it.
      lifetime_s: how long the node has been running.
      alias: whether to name the peer (peer_alias_lookup).
    """
    side = value.side(name)
    reserve = sat_credited(value.reserve)
    constraints = lnrpc.ChannelConstraints(
        csv_delay=_CSV_DELAY,
        chan_reserve_sat=reserve,
        dust_limit_sat=354,
        max_pending_amt_msat=value.capacity - value.reserve,
        min_htlc_msat=1,
        max_accepted_htlcs=MAX_HTLCS,
    )
    return lnrpc.Channel(
        active=active,
        remote_pubkey=peer,
        channel_point=graph.channel_point(value),
        chan_id=value.chan_id,
        capacity=sat_credited(value.capacity),
        local_balance=sat_credited(value.balances[side]),
        remote_balance=sat_credited(value.balances[1 - side]),
        commit_fee=_COMMIT_FEE,
        commit_weight=_COMMIT_WEIGHT,
        fee_per_kw=_FEE_PER_KW,
        unsettled_balance=sat_credited(Msat(sum(value.htlcs.values()))),
        total_satoshis_sent=sat_credited(value.sent[side]),
        total_satoshis_received=sat_credited(value.sent[1 - side]),
        num_updates=sum(value.offered),
        pending_htlcs=[
            lnrpc.Htlc(incoming=offerer != side, amount=sat_credited(amount), htlc_index=index)
            for (offerer, index), amount in value.htlcs.items()
        ],
        csv_delay=_CSV_DELAY,
        private=value.private,
        initiator=side == 0,
        chan_status_flags="ChanStatusDefault",
        local_chan_reserve_sat=reserve,
        remote_chan_reserve_sat=reserve,
        lifetime=lifetime_s,
        uptime=lifetime_s if active else 0,
        commitment_type=lnrpc.CommitmentType.ANCHORS,
        push_amount_sat=sat_credited(value.pushed),
        peer_alias=value.peer(name) if alias else "",
        local_constraints=constraints,
        remote_constraints=constraints,
    )


def channel_event(value: ChannelChanged) -> lnrpc.ChannelEventUpdate:
    """An event of SubscribeChannelEvents."""
    point = lnrpc.ChannelPoint(funding_txid_bytes=graph.funding_txid(value.channel)[::-1])
    kind = lnrpc.ChannelEventUpdateUpdateType
    if value.active:
        return lnrpc.ChannelEventUpdate(active_channel=point, type=kind.ACTIVE_CHANNEL)
    return lnrpc.ChannelEventUpdate(inactive_channel=point, type=kind.INACTIVE_CHANNEL)


def balances(value: Balances) -> lnrpc.ChannelBalanceResponse:
    """ChannelBalance's answer."""
    return lnrpc.ChannelBalanceResponse(
        balance=sat_credited(value.local),
        local_balance=_amount(value.local),
        remote_balance=_amount(value.remote),
        unsettled_local_balance=_amount(value.unsettled_local),
        unsettled_remote_balance=_amount(value.unsettled_remote),
        pending_open_local_balance=_amount(Msat(0)),
        pending_open_remote_balance=_amount(Msat(0)),
        custom_channel_data=_bigsize(value.channels) + bytes(value.channels) + _bigsize(0),
    )


def wallet(channels: int) -> lnrpc.WalletBalanceResponse:
    """WalletBalance's answer: there are no coins, but what LND keeps back for anchor channels is said."""
    return lnrpc.WalletBalanceResponse(
        account_balance={"default": lnrpc.WalletAccountBalance()},
        reserved_balance_anchor_chan=min(_ANCHOR_RESERVE * channels, _MOST_ANCHOR_RESERVE),
    )


def _amount(value: Msat) -> lnrpc.Amount:
    return lnrpc.Amount(sat=sat_credited(value), msat=value)
