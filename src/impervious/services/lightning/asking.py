"""What a caller asks for, read and checked before anybody is asked about it: texts, amounts, fee limits, records."""

import hashlib
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from impervious.config import LightningConfig
from impervious.errors import InvalidArgument
from impervious.model import MAX_DESCRIPTION_BYTES, MAX_INVOICE, DecodedInvoice, InvoiceTerms, NodePubkey, Records
from impervious.units import MSAT_PER_SAT, Msat, Sat, msat, sat_credited
from impervious.wire.keysend import check_types

MAX_INVOICE_CHARACTERS: Final = 4096
"""lnd invoices.MaxPaymentRequestSize."""
MAX_RECORDS_BYTES: Final = 1200
"""Of a keysend's records together: what fits an onion to a direct peer, and less on every longer way (wire.onion)."""
DEFAULT_EXPIRY_S: Final = 86_400
DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

_LIGHTNING: Final = "lightning:"
_BITCOIN: Final = "bitcoin:"
"""BIP 21."""
_MAX_SAT: Final = sat_credited(MAX_INVOICE)


def terms(amount: Sat, memo: str, *, description_hash: bytes, expiry_s: int) -> InvoiceTerms:
    """Make the terms of an invoice.

    Args:
      amount: 0 leaves it to the payer.
      memo: what does not fit into an invoice goes into it as its SHA-256.
      description_hash: 32 bytes, or empty.
      expiry_s: 0 is the default.

    Raises:
      InvalidArgument: LND would not make it; says why.
    """
    raw = memo.encode("utf-8", "surrogatepass")  # the terms themselves say what is wrong with half a character
    if len(raw) > MAX_DESCRIPTION_BYTES and not description_hash:
        description_hash = hashlib.sha256(raw).digest()
    return InvoiceTerms(
        amount=msat(amount),
        memo=memo,
        description_hash=description_hash,
        expiry_s=expiry_s or DEFAULT_EXPIRY_S,
    )


def invoice_text(text: str) -> str:
    """Take off what surrounds an invoice where people copy it from.

    Args:
      text: BOLT 11, by itself, behind `lightning:` or in a BIP 21 address (`bitcoin:…?lightning=…`).

    Raises:
      InvalidArgument: there is none.
    """
    bare = text.strip()
    if bare[: len(_BITCOIN)].lower() == _BITCOIN:
        bare = _invoice_of_bip21(bare)
    if bare[: len(_LIGHTNING)].lower() == _LIGHTNING:
        bare = bare[len(_LIGHTNING) :].removeprefix("//").strip()
    if not bare:
        raise InvalidArgument("invoice is missing: give the text that the payee made, which begins with ln")
    if len(bare) > MAX_INVOICE_CHARACTERS:
        raise InvalidArgument(
            f"invoice has {len(bare)} characters; LND reads up to {MAX_INVOICE_CHARACTERS}: give the text of one alone"
        )
    return bare


def _invoice_of_bip21(uri: str) -> str:
    # Not parse_qs: it takes + for a space. QR codes carry the whole address in capitals.
    pairs = [pair.partition("=") for pair in uri.partition("#")[0].partition("?")[2].split("&")]
    fields = [(unquote(key).lower(), unquote(value).strip()) for key, _, value in pairs]
    required = next((key for key, _ in fields if key.startswith("req-")), None)
    if required is not None:
        raise InvalidArgument(f"invoice is a bitcoin: address that requires {required!r}, which is unknown here")
    found = {value for key, value in fields if key == "lightning"} - {""}
    if not found:
        raise InvalidArgument(
            "invoice is a bitcoin: address without a Lightning invoice (lightning=…): ask the payee for one"
        )
    if len(found) > 1:
        raise InvalidArgument("invoice is a bitcoin: address with several Lightning invoices: give one of them alone")
    return found.pop()


def amount_to_pay(invoice: DecodedInvoice, given: Sat) -> tuple[Msat, Msat]:
    """Find out what is to be paid for an invoice.

    Args:
      invoice: says it, or leaves it to the payer.
      given: by the payer; 0: nothing.

    Returns:
      The amount; and what of it the Lightning node must be told, which is 0 where the invoice says it.

    Raises:
      InvalidArgument: nobody says it, or they do not agree.
    """
    _check_sat("amount", given)
    if invoice.amount == 0:
        if given == 0:
            raise InvalidArgument("this invoice leaves the amount to the payer: give amount, in satoshis")
        return msat(given), msat(given)
    if given and msat(given) != invoice.amount:
        raise InvalidArgument(
            f"this invoice asks for {invoice.amount / MSAT_PER_SAT:g} sat, which amount cannot change: leave it out"
        )
    return invoice.amount, Msat(0)


def keysend_amount(given: Sat) -> Msat:
    """Read the amount of a keysend.

    Raises:
      InvalidArgument: it is none.
    """
    _check_sat("amount", given)
    if given == 0:
        raise InvalidArgument("amount is missing: give at least 1 satoshi")
    return msat(given)


def fee_limit(amount: Msat, given: Sat, settings: LightningConfig) -> Msat:
    """Say what a payment may cost in fees.

    Args:
      amount: of the payment.
      given: for this call; 0: as configured.
      settings: the limits of the configuration.

    Raises:
      InvalidArgument: it is no amount.
    """
    _check_sat("max_fee_sat", given)
    if given:
        return msat(given)
    return Msat(max(msat(settings.max_fee_sat), amount * settings.max_fee_ppm // 1_000_000))


def keysend_records(given: Iterable[tuple[int, bytes]]) -> Records:
    """Read the records of a keysend.

    Raises:
      InvalidArgument: a type cannot be used or is there twice, or they are too large together.
    """
    records: dict[int, bytes] = {}
    for kind, value in given:
        if kind in records:
            raise InvalidArgument(f"record type {kind} is there twice: a payment carries one of each type")
        records[kind] = value
    check_types(records)
    size = sum(map(len, records.values()))
    if size > MAX_RECORDS_BYTES:
        raise InvalidArgument(
            f"the records have {size} bytes; at most {MAX_RECORDS_BYTES} fit into a payment: send less, or use messages"
        )
    return records


def keysend_sha256(recipient: NodePubkey, amount: Msat, records: Records, limit: Msat) -> bytes:
    """Digest all that a keysend is asked for with."""
    shape = [recipient.hex, amount, limit, sorted((kind, value.hex()) for kind, value in records.items())]
    return hashlib.sha256(json.dumps(shape).encode()).digest()


def invoice_sha256(invoice: DecodedInvoice, amount: Sat, max_fee: Sat) -> bytes:
    """Digest all that a payment of an invoice is asked for with."""
    return hashlib.sha256(f"{invoice.payment_request.lower()}|{amount}|{max_fee}".encode()).digest()


def terms_sha256(terms: InvoiceTerms) -> bytes:
    """Digest all that an invoice is asked for with."""
    shape = [terms.amount, terms.memo, terms.description_hash.hex(), terms.expiry_s]
    return hashlib.sha256(json.dumps(shape).encode()).digest()


def page_limit(given: int) -> int:
    """Read how long a page may be.

    Raises:
      InvalidArgument: no page is so long.
    """
    if not 0 <= given <= MAX_PAGE:
        raise InvalidArgument(f"limit is not between 1 and {MAX_PAGE}; leave it out for {DEFAULT_PAGE}")
    return given or DEFAULT_PAGE


def page_offset(given: int) -> int:
    """Read where a page begins.

    Raises:
      InvalidArgument: nothing is there.
    """
    if given < 0:
        raise InvalidArgument("index_offset is negative: give first_index or last_index of an earlier answer, or 0")
    return given


def _check_sat(name: str, given: Sat) -> None:
    if given < 0:
        raise InvalidArgument(f"{name} is negative: give satoshis")
    if given > _MAX_SAT:
        raise InvalidArgument(f"{name} is more than 100000 bitcoin: it is given in satoshis")
