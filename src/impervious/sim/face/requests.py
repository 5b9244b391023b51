"""LND's requests as a simulated network's orders."""

from dataclasses import dataclass
from typing import Final

from impervious.model import NodePubkey
from impervious.pb import lnrpc, routerrpc
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.payments import Order
from impervious.sim.engine.route import Hop, HopHint, Path, RouteHint
from impervious.sim.rpcs import Rpcs
from impervious.units import MSAT_PER_SAT, Msat, Sat, msat
from impervious.wire.keysend import MIN_RECORD

_SMALL: Final = Sat(1000)
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
        raise LndError("route has no hops")
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


def pubkey(text: str) -> bytes:
    """A key in hex.

    Raises:
      LndError: it is none.
    """
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise LndError(f"encoding/hex: {error}") from error
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
    return Msat(exact or sat * MSAT_PER_SAT)
