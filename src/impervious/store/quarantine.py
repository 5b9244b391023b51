"""What is in quarantine: looked at by the operator, and released at the operator's wish, by the daemon, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.errors import NotFound
from impervious.model import MessageId, NodePubkey, PaymentHash, RecordType, ServiceType
from impervious.store.transaction import Row, Tx
from impervious.units import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A payment that is not shown as what it claims to be."""

    number: int
    at_ms: int
    """When it was put into quarantine."""
    reason: str
    payment_hash: PaymentHash
    amount: Msat
    service_type: ServiceType | None
    """Which service it is for, if that is known."""
    record_type: RecordType | None
    """Of the record that `value` is the value of; None: `value` is what a message says, or nothing."""
    value: bytes
    sender: NodePubkey | None
    """Who signed it, of a whole and verified message; None: nobody proved that."""
    message_id: MessageId | None
    """Of a whole and verified message."""
    sent_at_ms: int
    """When it was signed, or paid."""


_COLUMNS: Final = (
    "number, at_ms, reason, payment_hash, amount_msat, service_type, record_type, value, sender, message_id, sent_at_ms"
)


def _quarantined(row: Row) -> Quarantined:
    number, at_ms, reason, payment_hash, amount, service_type, record_type, value, sender, message_id, sent = row
    return Quarantined(
        number=number,
        at_ms=at_ms,
        reason=reason,
        payment_hash=PaymentHash(payment_hash),
        amount=Msat(amount),
        service_type=ServiceType(service_type) if service_type else None,
        record_type=RecordType(record_type) if record_type is not None else None,
        value=value,
        sender=NodePubkey(sender) if sender else None,
        message_id=UUID(bytes=message_id) if message_id else None,
        sent_at_ms=sent,
    )


def newest(tx: Tx, *, limit: int) -> list[Quarantined]:
    """Return what came last, oldest first."""
    rows = tx.all(f"SELECT {_COLUMNS} FROM quarantine ORDER BY number DESC LIMIT ?", limit)
    return [_quarantined(row) for row in reversed(rows)]


def find(tx: Tx, number: int) -> Quarantined:
    """Return one.

    Raises:
      NotFound: there is none with that number.
    """
    row = tx.one(f"SELECT {_COLUMNS} FROM quarantine WHERE number = ?", number)
    if row is None:
        raise NotFound(f"there is no payment {number} in quarantine: it was released, or newer ones took its place")
    return _quarantined(row)


def want(tx: Tx, numbers: Sequence[int]) -> None:
    """Have some released.

    Raises:
      NotFound: one is not there.
    """
    for number in numbers:
        find(tx, number)
        tx.run("UPDATE quarantine SET wanted = 1 WHERE number = ?", number)


def wanted(tx: Tx, *, limit: int) -> list[int]:
    """Return the numbers of those that are to be released."""
    return [
        row[0]
        for row in tx.all("SELECT number FROM quarantine WHERE wanted AND number > 0 ORDER BY number LIMIT ?", limit)
    ]


def unwant(tx: Tx, number: int) -> None:
    """Note that one cannot be released."""
    tx.run("UPDATE quarantine SET wanted = 0 WHERE number = ?", number)


def take(tx: Tx, number: int) -> Quarantined:
    """Take one out. Raises: as `find`."""
    found = find(tx, number)
    tx.run("DELETE FROM quarantine WHERE number = ?", number)
    return found
