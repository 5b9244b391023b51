"""What others have paid, as the event of it: every record in hex, and those of well-known protocols to read.

Nobody proves who paid, or that a record is as it was sent: the last channel peer can replace it. So nothing here is
believed, whatever it is must be shown, and nothing in it may stop the node.
"""

import json
from typing import Final, NoReturn
from uuid import UUID

from impervious.model import MessageId, SettledInvoice
from impervious.wire.payloads import compact

CHAT_RECORD: Final = 34349334
"""Text of a chat message (Whatsat, Juggernaut and others since)."""
MAX_DEPTH: Final = 64
"""Of a podcast's JSON; what apps send has two or three levels."""
PODCAST_RECORD: Final = 7629169
"""JSON of a payment to a podcast (Podcasting 2.0, blip-0010)."""


def event_id(invoice: SettledInvoice) -> MessageId:
    """Name the event of a payment: after its hash, so that it is the same however often it is made."""
    return UUID(bytes=invoice.payment_hash[:16], version=4)


def event_data(invoice: SettledInvoice) -> bytes:
    """Write the event of a payment as JSON."""
    shape: dict[str, object] = {
        "recordId": "KEYSEND" if invoice.is_keysend else "INVOICE_PAID",
        "paymentHash": invoice.payment_hash.hex(),
        "amountMsat": invoice.amount,
        "settledAt": invoice.settled_s,
    }
    if not invoice.is_keysend:
        shape |= {"invoice": invoice.payment_request, "memo": invoice.memo}
    shape["tlvRecords"] = [{"type": kind, "value": value.hex()} for kind, value in sorted(invoice.records.items())]
    if CHAT_RECORD in invoice.records:
        shape["chat"] = invoice.records[CHAT_RECORD].decode("utf-8", "replace")
    podcast = _object(invoice.records.get(PODCAST_RECORD, b""))
    if podcast is not None:
        shape["podcast"] = podcast
    return compact(shape)


def _object(value: bytes) -> object:
    """Read a JSON object; None: it is none that could be written again."""
    try:
        shape: object = json.loads(value, parse_constant=_refuse)
        json.dumps(shape, ensure_ascii=False, allow_nan=False).encode()  # 1e999, half a character, depth
    except (ValueError, RecursionError):
        return None
    return shape if isinstance(shape, dict) and _depth_is_sane(shape) else None


def _depth_is_sane(shape: object) -> bool:
    """Whether everybody's JSON library can read it: how deep they go differs, also between versions of Python."""
    level = [shape]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
