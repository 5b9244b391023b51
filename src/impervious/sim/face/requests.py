"""LND's requests as a simulated network's orders."""

from dataclasses import dataclass, replace
from typing import Final

from impervious.model import NodePubkey, PaymentHash, Preimage
from impervious.pb import lnrpc, routerrpc, simnet
from impervious.sim.engine import payment_request
from impervious.sim.engine.answers import LndError, from_hex
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.payments import Order
from impervious.sim.engine.route import Hop, HopHint, Path, RouteHint
from impervious.sim.rpcs import Rpcs
from impervious.units import MSAT_PER_SAT, Msat, Sat, msat
from impervious.wire import zbase32
from impervious.wire.keysend import MIN_RECORD

_SMALL: Final = Sat(1000)
_ESTIMATE_LIMIT: Final = msat(Sat(10**8))
"""routerrpc.routeFeeLimitSat."""
_FEE_PERCENT: Final = 5
"""QueryRoutes without a limit: all of a small amount, 5 % of a larger one (lnrpc.CalculateFeeLimit)."""


def order(request: routerrpc.SendPaymentRequest) -> Order:
    """What SendPaymentV2 asks for.

    Raises:
      LndError: satoshis and millisatoshis are both given.
    """
    return Order(
        dest=request.dest,
        amount=either(request.amt, request.amt_msat),
        payment_hash=request.payment_hash,
        records=dict(request.dest_custom_records),
        first_hop_records=dict(request.first_hop_custom_records),
        fee_limit=either(request.fee_limit_sat, request.fee_limit_msat),
        timeout_s=request.timeout_seconds,
        final_cltv_delta=request.final_cltv_delta,
        payment_addr=request.payment_addr,
        outgoing=frozenset(request.outgoing_chan_ids),
        last_hop=request.last_hop_pubkey,
        max_shard_size=Msat(request.max_shard_size_msat),
        allow_self_payment=request.allow_self_payment,
        cancelable=request.cancelable,
        payment_request=request.payment_request,
        hints=tuple(map(_hint, request.route_hints)),
        cltv_limit=request.cltv_limit,
    )


def query(request: lnrpc.QueryRoutesRequest) -> Order:
    """What QueryRoutes asks for.

    Raises:
      LndError: the key is no key, or satoshis and millisatoshis are both given.
    """
    dest = pubkey(request.pub_key)
    amount = either(request.amt, request.amt_msat)
    return Order(
        dest=dest,
        amount=amount,
        payment_hash=bytes(32),
        records=dict(request.dest_custom_records),
        fee_limit=_fee_limit(request.fee_limit, amount),
        final_cltv_delta=request.final_cltv_delta,
        outgoing=frozenset(request.outgoing_chan_ids),
        last_hop=request.last_hop_pubkey,
        hints=tuple(map(_hint, request.route_hints)),
        cltv_limit=request.cltv_limit,
        ignored=tuple(request.ignored_nodes),
        ignored_pairs=tuple((pair.from_, pair.to) for pair in request.ignored_pairs),
    )


def _hint(hint: lnrpc.RouteHint) -> RouteHint:
    return tuple(
        HopHint(
            pubkey=pubkey(hop.node_id),
            chan_id=hop.chan_id,
            base_fee=Msat(hop.fee_base_msat),
            fee_ppm=hop.fee_proportional_millionths,
            cltv_delta=hop.cltv_expiry_delta,
        )
        for hop in hint.hop_hints
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRoute:
    """What SendToRouteV2 asks for."""

    order: Order
    path: Path
    total: Msat
    """The amount of the whole payment, if its last hop says it; else 0."""


def given_route(request: routerrpc.SendToRouteRequest, rpcs: Rpcs) -> GivenRoute:
    """What SendToRouteV2 asks for.

    Raises:
      LndError: it is no route; in LND's words.
    """
    route = request.route
    if route is None:
        raise LndError("unable to send, no routes provided")
    hops, before = [], rpcs.name
    amounts = [route.total_amt_msat, *(hop.amt_to_forward_msat for hop in route.hops)]
    for hop, arriving in zip(route.hops, amounts, strict=False):
        key = _hop_key(hop, before, rpcs)
        before = rpcs.named(key)
        hops.append(
            Hop(
                chan_id=hop.chan_id,
                name=before,
                pubkey=NodePubkey(key),
                forwards=Msat(hop.amt_to_forward_msat),
                fee=Msat(arriving - hop.amt_to_forward_msat),
                expiry=hop.expiry,
            )
        )
    if not hops:
        raise LndError("empty route hops provided")
    if len(request.payment_hash) != 32:
        raise LndError(f"invalid hash length of {len(request.payment_hash)}, want 32")
    last = route.hops[-1]
    records = dict(last.custom_records)
    if any(record_type < MIN_RECORD for record_type in records):
        raise LndError("no custom records with types below 65536 allowed")
    address, total = _mpp(last.mpp_record)
    order = Order(
        dest=hops[-1].pubkey.raw,
        amount=hops[-1].forwards,
        payment_hash=request.payment_hash,
        records=records,
        first_hop_records=dict(request.first_hop_custom_records),
        payment_addr=address,
    )
    path = Path(source=rpcs.name, hops=tuple(hops), total=Msat(route.total_amt_msat), time_lock=route.total_time_lock)
    return GivenRoute(order=order, path=path, total=total)


def _hop_key(hop: lnrpc.Hop, before: str, rpcs: Rpcs) -> bytes:
    if hop.pub_key:
        try:
            key = bytes.fromhex(hop.pub_key)
        except ValueError:
            raise LndError(f"cannot decode pubkey {hop.pub_key}") from None
        return pubkey(key.hex())
    ends = rpcs.channel_ends(hop.chan_id)
    if ends is None:
        raise LndError("edge not found")
    if before not in ends:
        raise LndError("channel edge does not match expected node")
    return next(key for name, key in ends.items() if name != before)


def _mpp(record: lnrpc.MppRecord | None) -> tuple[bytes, Msat]:
    if record is None:
        return b"", Msat(0)
    if not record.total_amt_msat:
        raise LndError("missing total_msat" if record.payment_addr else "missing total_msat and payment_addr")
    if not record.payment_addr:
        raise LndError("missing payment_addr")
    return record.payment_addr, Msat(record.total_amt_msat)


def estimate(request: simnet.RouteFeeRequest, *, now_s: float) -> Order:
    """What EstimateRouteFee asks for; a real LND probes an invoice, here the graph alone is asked.

    Raises:
      LndError: both ways to say it are used, or none.
    """
    if bool(request.dest) is bool(request.payment_request):
        raise LndError("specify either a destination or an invoice")
    outgoing = frozenset(request.outgoing_chan_ids)
    if request.payment_request:
        text = Order(
            dest=b"", amount=Msat(0), payment_hash=b"", payment_request=request.payment_request, outgoing=outgoing
        )
        return replace(payment_request.filled(text, now_s=now_s), fee_limit=_ESTIMATE_LIMIT)
    if len(request.dest) != 33:
        raise LndError("invalid length destination key")
    if request.amt_sat <= 0:
        raise LndError("amount must be greater than 0")
    return Order(
        dest=request.dest,
        amount=msat(Sat(request.amt_sat)),
        payment_hash=bytes(32),
        fee_limit=_ESTIMATE_LIMIT,
        outgoing=outgoing,
    )


def ask(request: lnrpc.Invoice) -> Ask:
    """What AddInvoice asks for.

    Raises:
      LndError: its preimage is none, or its amount.
    """
    value = either(request.value, request.value_msat)
    if request.r_preimage and len(request.r_preimage) != 32:
        raise LndError(f"invalid preimage length of {len(request.r_preimage)}, want 32")
    return Ask(
        value=value,
        preimage=Preimage(request.r_preimage) if request.r_preimage else None,
        memo=request.memo,
        description_hash=request.description_hash,
        expiry_s=request.expiry,
        private=request.private,
        hints=tuple(map(_hint, request.route_hints)),
        cltv_expiry=request.cltv_expiry,
        fallback=request.fallback_addr,
    )


def hold(request: simnet.AddHoldInvoiceRequest) -> Ask:
    """What AddHoldInvoice asks for.

    Raises:
      LndError: its hash is none, or its amount.
    """
    if len(request.hash) != 32:
        raise LndError(f"invalid hash length of {len(request.hash)}, want 32")
    return Ask(
        value=either(request.value, request.value_msat),
        hold_hash=PaymentHash(request.hash),
        memo=request.memo,
        description_hash=request.description_hash,
        expiry_s=request.expiry,
        private=request.private,
        hints=tuple(map(_hint, request.route_hints)),
        cltv_expiry=request.cltv_expiry,
        fallback=request.fallback_addr,
    )


def signature(text: str) -> bytes:
    """A signature in zbase32, read as LND's library does: bits left over at the end are nothing.

    Raises:
      LndError: a character is none of zbase32's.
    """
    bits = 0
    for position, character in enumerate(text):
        value = zbase32.ALPHABET.find(character)
        if value < 0:
            raise LndError(f"failed to decode signature: illegal z-base-32 data at input byte {position}")
        bits = bits << 5 | value
    return (bits >> len(text) * 5 % 8).to_bytes(len(text) * 5 // 8)


def vertex(text: str) -> bytes:
    """A key in hex, for the calls that look at its length first.

    Raises:
      LndError: it is none.
    """
    if len(text) != 66:
        raise LndError(f"invalid vertex string length of {len(text)}, want 66")
    return pubkey(text)


def pubkey(text: str) -> bytes:
    """A key in hex.

    Raises:
      LndError: it is none.
    """
    raw = from_hex(text)
    if len(raw) != 33:
        raise LndError(f"invalid vertex length of {len(raw)}, want 33")
    return raw


def _fee_limit(limit: lnrpc.FeeLimit | None, amount: Msat) -> Msat:
    if limit is not None and limit.fixed is not None:
        return msat(Sat(limit.fixed))
    if limit is not None and limit.fixed_msat is not None:
        return Msat(limit.fixed_msat)
    small = amount <= _SMALL * MSAT_PER_SAT
    percent = 100 if small else _FEE_PERCENT
    if limit is not None and limit.percent is not None:
        percent = limit.percent
    return Msat(amount * percent // 100)


def either(sat: int, exact: int) -> Msat:
    """An amount that may be given in satoshis or in millisatoshis.

    Raises:
      LndError: it is given in both.
    """
    if sat and exact:
        raise LndError("sat and msat arguments are mutually exclusive")
    if sat < 0 or exact < 0:
        raise LndError("amount cannot be negative")
    return Msat(exact or sat * MSAT_PER_SAT)
