"""A payment that came to the node and is no message of anybody, as a row of the log: for services, on no stream."""

import json
from typing import Final
from uuid import UUID

from impervious.model import EventKind, NewEvent, PaymentHash, ServiceType, SettledInvoice
from impervious.store.transaction import Tx
from impervious.units import Msat

PAYMENTS: Final = ServiceType("lightning")
"""The topic of such rows."""

_BEGINNING: Final = "payments_from_s"


def since_s(tx: Tx) -> int:
    """Say from when on payments are told, in seconds since 1970: a node's past would flood its services."""
    tx.run("INSERT OR IGNORE INTO counter VALUES (?, ?)", _BEGINNING, tx.now_ms // 1000)
    return tx.number("SELECT value FROM counter WHERE name = ?", _BEGINNING)


def has_begun(tx: Tx) -> bool:
    """Whether it is stored from when on payments are told."""
    return tx.one("SELECT 1 FROM counter WHERE name = ?", _BEGINNING) is not None


def event_of(invoice: SettledInvoice) -> NewEvent:
    """Make the row."""
    shape = {
        "payment_hash": invoice.payment_hash.hex(),
        "amount_msat": invoice.amount,
        "records": {str(kind): value.hex() for kind, value in invoice.records.items()},
        "is_keysend": invoice.is_keysend,
        "add_index": invoice.add_index,
        "settle_index": invoice.settle_index,
        "created_s": invoice.created_s,
        "settled_s": invoice.settled_s,
        "memo": invoice.memo,
        "payment_request": invoice.payment_request,
    }
    return NewEvent(
        kind=EventKind.PAYMENT,
        id=UUID(bytes=invoice.payment_hash[:16], version=4),
        reply_to=None,
        sender=None,
        service_type=PAYMENTS,
        topic=PAYMENTS,
        data=json.dumps(shape).encode(),
        amount=invoice.amount,
        sent_at_ms=invoice.settled_s * 1000,
        verified=False,
        public=False,
    )


def invoice_of(data: bytes) -> SettledInvoice:
    """Read what `event_of` wrote."""
    shape = json.loads(data)
    return SettledInvoice(
        payment_hash=PaymentHash(bytes.fromhex(shape["payment_hash"])),
        amount=Msat(shape["amount_msat"]),
        records={int(kind): bytes.fromhex(value) for kind, value in shape["records"].items()},
        is_keysend=shape["is_keysend"],
        add_index=shape["add_index"],
        settle_index=shape["settle_index"],
        created_s=shape["created_s"],
        settled_s=shape["settled_s"],
        memo=shape["memo"],
        payment_request=shape["payment_request"],
    )
