"""Payment requests of simulated nodes: BOLT 11 strings that any decoder reads, for regtest (`lnbcrt…`).

The bolt11 library does the encoding; here are LND's limits, its features and its words, and all that concerns amounts:
the library rounds parts of a millisatoshi and miswrites very large ones.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from bitstring import BitArray, Bits
from bitstring import Error as BitstringError
from bolt11 import Bolt11, Bolt11Exception, Feature, FeatureExtra, Features, FeatureState, TagChar, Tags
from bolt11 import decode as bolt11_decode
from bolt11 import encode as bolt11_encode
from bolt11.bit_utils import int_to_scid, scid_to_int
from bolt11.models.fallback import Fallback
from bolt11.models.routehint import Route
from bolt11.models.routehint import RouteHint as Bolt11RouteHint

from impervious.errors import InvalidArgument
from impervious.model import DecodedInvoice, NodePubkey, PaymentHash
from impervious.sim.engine.addresses import base58_payload, witness_program
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.bech32_text import check_bech32
from impervious.sim.engine.identity import Identity
from impervious.sim.engine.payments import Order
from impervious.sim.engine.route import HopHint, RouteHint
from impervious.units import Msat

CURRENCY: Final = "bcrt"
"""BOLT 11's prefix for regtest: there is none that decoders know for simulated networks."""

MIN_FINAL_CLTV: Final = 80
"""lnd's bitcoin.timelockdelta."""

MAX_CHARACTERS: Final = 4096
"""lnd invoices.MaxPaymentRequestSize."""

_ALL_BITCOIN: Final = Msat(21_000_000 * 10**11)

_FEATURES: Final[dict[Feature | FeatureExtra, FeatureState]] = {
    Feature.var_onion_optin: FeatureState.required,
    Feature.payment_secret: FeatureState.required,
    Feature.basic_mpp: FeatureState.supported,
}
FEATURE_BITS: Final = frozenset(feature.value * 2 + state.value for feature, state in _FEATURES.items())
"""8, 14 and 17, as lnd's invoices have them."""

_AMOUNT: Final = re.compile(r"ln[a-z]+?(?:([0-9]+)([munp]?))?1[^1]*")
"""A whole payment request, and its amount: the last 1 is the separator (BIP 173)."""

_BASE58_VERSIONS: Final = {111: 17, 196: 18}
"""Versions of an f field for addresses of regtest: of a key's hash, of a script's."""

_MSAT_PER_UNIT: Final = {"": 10**11, "m": 10**8, "u": 10**5, "n": 100}


def encode(
    identity: Identity,
    *,
    payment_hash: PaymentHash,
    payment_addr: bytes,
    amount: Msat,
    created_s: int,
    expiry_s: int,
    memo: str,
    description_hash: bytes,
    hints: tuple[RouteHint, ...] = (),
    cltv_expiry: int = MIN_FINAL_CLTV,
    fallback: str = "",
) -> str:
    """Write and sign a payment request.

    Args:
      identity: of the node that is to be paid.
      payment_hash: of what it will settle with.
      payment_addr: the payment secret, 32 bytes.
      amount: 0 leaves it to the payer.
      created_s: seconds since 1970.
      expiry_s: from then.
      memo: the description, unless there is a hash.
      description_hash: 32 bytes, or empty.
      hints: ways to the node that a payer's graph may not hold.
      cltv_expiry: blocks that the node wants before an HTLC expires.
      fallback: an address on the chain, or empty.
    """
    tags = Tags()
    tags.add(TagChar.payment_hash, payment_hash.hex())
    tags.add(TagChar.payment_secret, payment_addr.hex())
    if description_hash:
        tags.add(TagChar.description_hash, description_hash.hex())
    else:
        tags.add(TagChar.description, memo)
    tags.add(TagChar.expire_time, expiry_s)
    tags.add(TagChar.min_final_cltv_expiry, cltv_expiry)
    if fallback:
        tags.add(TagChar.fallback, Fallback(data=_fallback_bits(fallback), currency=CURRENCY))
    for hint in hints:
        tags.add(TagChar.route_hint, Bolt11RouteHint(routes=[_route(hop) for hop in hint]))
    tags.add(TagChar.features, Features.from_feature_list(_FEATURES))
    # The amount goes with the currency: the library writes multiples of 1000 bitcoin a thousand times too small.
    request = Bolt11(currency=CURRENCY + _amount_text(amount), date=created_s, tags=tags)
    return bolt11_encode(request, identity.secret.hex())


@dataclass(frozen=True, slots=True)
class Read:
    """A payment request as it was read."""

    invoice: DecodedInvoice
    hints: tuple[RouteHint, ...]


def decode(text: str) -> DecodedInvoice:
    """Read a payment request of the simulated network without its hints.

    Raises:
      LndError: it is none, or of another network.
    """
    return read(text).invoice


def read(text: str) -> Read:
    """Read a payment request of the simulated network and check its signature (DecodePayReq).

    Raises:
      LndError: it is none, or of another network.
    """
    if len(text) > MAX_CHARACTERS:
        raise LndError("invoice is too large")
    hrp = check_bech32(text)
    if len(hrp) < len("ln") + 1:
        raise LndError("hrp too short")
    if not hrp.startswith("ln"):
        raise LndError('prefix should be "ln"')
    if not hrp.startswith(f"ln{CURRENCY}"):
        raise LndError("invoice not for current active network 'regtest'")
    amount = _amount(text.lower())
    try:
        request = bolt11_decode(text)
        return Read(_invoice(text, request, amount), tuple(_hints(request)))
    except Bolt11Exception as error:
        raise LndError(f"invalid payment request: {error}") from error
    except (ValueError, TypeError, AttributeError, LookupError, BitstringError, InvalidArgument) as error:
        raise LndError("invalid payment request: a field in it is damaged") from error


def filled(order: Order, *, now_s: float) -> Order:
    """Complete an order with what its payment request says (routerrpc extractIntentFromSendRequest).

    Args:
      order: it says how to pay, and of an invoice that leaves it open how much.
      now_s: seconds since 1970.

    Raises:
      LndError: the request cannot be read, has expired, or the order says what only the request may say.
    """
    for name in ("dest", "payment_hash", "final_cltv_delta", "payment_addr"):
        if getattr(order, name):
            raise LndError(f"{name} and payment_request cannot appear together")
    request = read(order.payment_request)
    invoice = request.invoice
    if now_s > invoice.expires_s:
        raise LndError(f"invoice expired. Valid until {datetime.fromtimestamp(invoice.expires_s, UTC)}")
    if not invoice.amount and not order.amount:
        raise LndError("amount must be specified when paying a zero amount invoice")
    if invoice.amount and order.amount:
        raise LndError("amount must not be specified when paying a non-zero amount invoice")
    return replace(
        order,
        dest=invoice.payee.raw,
        amount=invoice.amount or order.amount,
        payment_hash=invoice.payment_hash,
        payment_addr=invoice.payment_secret,
        final_cltv_delta=invoice.min_final_cltv,
        hints=(*request.hints, *order.hints),
    )


def _amount_text(amount: Msat) -> str:
    """An amount as it stands in the prefix, in the largest unit that divides it; nothing if the payer chooses."""
    if not amount:
        return ""
    unit = next((unit for unit, size in _MSAT_PER_UNIT.items() if not amount % size), None)
    return f"{amount * 10}p" if unit is None else f"{amount // _MSAT_PER_UNIT[unit]}{unit}"


def _amount(text: str) -> Msat:
    """What it asks for, to the millisatoshi; 0 if it does not say."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise LndError("invalid payment request: it does not begin with ln, a network and an amount")
    if match[1] is None:
        return Msat(0)
    number, unit = int(match[1]), match[2]
    if unit == "p" and number % 10:
        raise LndError("invalid payment request: its amount has a part of a millisatoshi")
    amount = number // 10 if unit == "p" else number * _MSAT_PER_UNIT[unit]
    if not 0 < amount <= _ALL_BITCOIN:
        raise LndError("invalid payment request: its amount is nothing, or more bitcoin than there are")
    return Msat(amount)


def _invoice(text: str, request: Bolt11, amount: Msat) -> DecodedInvoice:
    return DecodedInvoice(
        payment_request=text,
        payee=NodePubkey(bytes.fromhex(request.payee or "")),
        payment_hash=PaymentHash(bytes.fromhex(request.payment_hash)),
        amount=amount,
        created_s=request.date,
        expiry_s=request.expiry,
        description=request.description or "",
        description_hash=bytes.fromhex(request.description_hash or ""),
        payment_secret=bytes.fromhex(request.payment_secret or ""),
        min_final_cltv=request.min_final_cltv_expiry,
        features=_bits(request.features),
    )


def _route(hop: HopHint) -> Route:
    return Route(hop.pubkey.hex(), int_to_scid(hop.chan_id), hop.base_fee, hop.fee_ppm, hop.cltv_delta)


def _fallback_bits(text: str) -> Bits:
    """An address as BOLT 11 has it: a version of 5 bits, and a hash."""
    segwit = witness_program(text)
    if segwit is not None:
        version, program = segwit
        return BitArray(uint=version, length=5) + BitArray(program)
    payload = base58_payload(text)
    assert payload is not None, "checked before"
    return BitArray(uint=_BASE58_VERSIONS[payload[0]], length=5) + BitArray(payload[1])


def _hints(request: Bolt11) -> Iterator[RouteHint]:
    for tag in request.tags:
        if isinstance(tag.data, Bolt11RouteHint):
            yield tuple(
                HopHint(
                    pubkey=bytes.fromhex(hop.public_key),
                    chan_id=scid_to_int(hop.short_channel_id),
                    base_fee=Msat(hop.base_fee),
                    fee_ppm=hop.ppm_fee,
                    cltv_delta=hop.cltv_expiry_delta,
                )
                for hop in tag.data.routes
            )


def _bits(features: Features | None) -> frozenset[int]:
    states = features.feature_list if features is not None else {}
    return frozenset(feature.value * 2 + state.value for feature, state in states.items())
