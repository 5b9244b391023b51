"""What has arrived and is not yet shown: parts, held messages, quarantine, and the keys that make each count once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.model import (
    EventKind,
    InvoiceCursor,
    MessageId,
    NewEvent,
    NodePubkey,
    PaymentHash,
    RecordType,
    ServiceType,
)
from impervious.store.settled import PAYMENTS
from impervious.store.transaction import Row, Tx
from impervious.units import Msat
from impervious.wire import envelope
from impervious.wire.envelope import Header, SignedHeader

SENDER_MESSAGES: Final = 64
"""Incomplete messages kept for one verified sender."""
SENDER_BYTES: Final = 8 * 2**20
"""Bytes of incomplete messages kept for one verified sender."""
MESSAGE_PARTS: Final = 4096
"""Parts kept of one message: 480,000 bytes in the smallest parts that are sensible, 200 bytes, are 2,400."""
STRANGER_MESSAGES: Final = 4096
"""Messages kept of which the header has not come, of everybody together."""
STRANGER_BYTES: Final = 16 * 2**20
"""Bytes of parts kept whose header has not come, of everybody together."""
QUARANTINE_BYTES: Final = 16 * 2**20
DROPPED: Final = "its service shows nothing of it: no answer to a request of this node, or not of its format"
"""Why a message of which its service shows nothing is in quarantine."""
QUARANTINE_OVERHEAD: Final = 200
"""Bytes that a row of the quarantine takes beside its value, roughly."""


# --- Cursor and dedupe keys -------------------------------------------------------------------------------------------


def invoice_cursor(tx: Tx) -> InvoiceCursor:
    """Return how far the Lightning node's invoices are read."""
    row = tx.one("SELECT settle_index, add_index, newest_s FROM invoice_cursor")
    return InvoiceCursor(settle_index=row[0], add_index=row[1], newest_s=row[2]) if row else InvoiceCursor()


def set_invoice_cursor(tx: Tx, cursor: InvoiceCursor) -> None:
    """Store how far the Lightning node's invoices are read."""
    tx.run(
        "INSERT INTO invoice_cursor VALUES (1, ?, ?, ?) ON CONFLICT (one) DO UPDATE SET"
        " settle_index = excluded.settle_index, add_index = excluded.add_index, newest_s = excluded.newest_s",
        cursor.settle_index,
        cursor.add_index,
        cursor.newest_s,
    )


def is_new_invoice(tx: Tx, payment_hash: PaymentHash) -> bool:
    """Mark an invoice as processed; False if it was."""
    return tx.run("INSERT OR IGNORE INTO processed_invoice VALUES (?)", payment_hash) == 1


def mark_seen(tx: Tx, sender: NodePubkey, message_id: MessageId) -> None:
    """Mark a sender's message as dealt with: nothing of it is looked at again."""
    tx.run("INSERT OR IGNORE INTO seen_message VALUES (?, ?)", message_id.bytes, sender.raw)


def was_seen(tx: Tx, message_id: MessageId, *, by: NodePubkey | None) -> bool:
    """Whether a message was dealt with; without a sender, whether anybody's of that id was."""
    if by is None:
        return tx.one("SELECT 1 FROM seen_message WHERE id = ?", message_id.bytes) is not None
    return tx.one("SELECT 1 FROM seen_message WHERE id = ? AND sender = ?", message_id.bytes, by.raw) is not None


def count(tx: Tx, name: str) -> None:
    """Add one to a counter that `impervious db` shows."""
    tx.run("INSERT INTO counter VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", name)


# --- Assembly ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """A message of which parts are missing."""

    record_type: RecordType
    id: MessageId
    header: Header | None
    """None: it has not come."""
    bytes: int
    """Sum over its parts."""
    amount: Msat


_ASSEMBLY: Final = "record_type, id, header, bytes, amount_msat"


def _assembly(row: Row) -> Assembly:
    record_type, identifier, header, size, amount = row
    return Assembly(
        record_type=record_type,
        id=UUID(bytes=identifier),
        header=_readable(header) if header else None,
        bytes=size,
        amount=Msat(amount),
    )


def _readable(header: bytes) -> Header | None:
    """Read a stored header; None: a former version accepted what this one does not, as if it had not come."""
    try:
        return envelope.decode_header(header)
    except Exception:
        return None


def assembly(tx: Tx, record_type: RecordType, message_id: MessageId) -> Assembly | None:
    """Find an incomplete message."""
    row = tx.one(f"SELECT {_ASSEMBLY} FROM assembly WHERE record_type = ? AND id = ?", record_type, message_id.bytes)
    return _assembly(row) if row else None


def add_fragment(
    tx: Tx, record_type: RecordType, message_id: MessageId, *, offset: int, payload: bytes, amount: Msat
) -> int:
    """Keep what is new of a part, beginning the message if it is the first; the first bytes for a range win.

    Returns:
      How many parts the message has now. The work grows with the length of the part, not with that number.
    """
    key = (record_type, message_id.bytes)
    pieces = _uncovered(_neighbours(tx, *key, offset, offset + len(payload)), offset, offset + len(payload))
    tx.run(
        "INSERT INTO assembly (record_type, id, bytes, parts, amount_msat, began_at_ms, touched_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (record_type, id) DO UPDATE SET bytes = bytes + excluded.bytes,"
        " parts = parts + excluded.parts, amount_msat = amount_msat + excluded.amount_msat,"
        " touched_at_ms = excluded.touched_at_ms",
        *key,
        sum(end - begin for begin, end in pieces),
        len(pieces),
        amount,
        tx.now_ms,
        tx.now_ms,
    )
    tx.run_many(
        "INSERT INTO fragment VALUES (?, ?, ?, ?)",
        [(*key, begin, payload[begin - offset : end - offset]) for begin, end in pieces],
    )
    return tx.number("SELECT parts FROM assembly WHERE record_type = ? AND id = ?", *key)


def _neighbours(tx: Tx, record_type: int, message_id: bytes, begin: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges kept that begin before `end`, from the last one that begins at `begin` or before it."""
    rows = tx.all(
        "SELECT position, position + length(payload) FROM fragment WHERE record_type = ? AND id = ? AND position < ?"
        " AND position >= coalesce((SELECT max(position) FROM fragment WHERE record_type = ? AND id = ?"
        "  AND position <= ?), 0) ORDER BY position",
        record_type,
        message_id,
        end,
        record_type,
        message_id,
        begin,
    )
    return [(row[0], row[1]) for row in rows]


def _uncovered(taken: Sequence[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges between `begin` and `end` that none of the ranges in `taken`, which are sorted, covers."""
    free: list[tuple[int, int]] = []
    for taken_begin, taken_end in taken:
        if taken_begin > begin:
            free.append((begin, min(taken_begin, end)))
        begin = max(begin, taken_end)
    if begin < end:
        free.append((begin, end))
    return free


def set_bytes(tx: Tx, record_type: RecordType, message_id: MessageId, size: int) -> None:
    """Correct how many bytes of a message there are, when what was counted is not what can be used."""
    tx.run("UPDATE assembly SET bytes = ? WHERE record_type = ? AND id = ?", size, record_type, message_id.bytes)


def set_header(tx: Tx, record_type: RecordType, message_id: MessageId, signed: SignedHeader) -> None:
    """Attach the verified header to an incomplete message."""
    tx.run(
        "UPDATE assembly SET sender = ?, header = ?, ord = ? WHERE record_type = ? AND id = ?",
        signed.header.sender.raw,
        signed.raw,
        signed.header.order,
        record_type,
        message_id.bytes,
    )


def fragments(tx: Tx, record_type: RecordType, message_id: MessageId) -> list[tuple[int, bytes]]:
    """Return a message's parts, offset and bytes, in the order in which they came."""
    rows = tx.all(
        "SELECT position, payload FROM fragment WHERE record_type = ? AND id = ? ORDER BY rowid",
        record_type,
        message_id.bytes,
    )
    return [(row[0], row[1]) for row in rows]


def fragments_within(tx: Tx, record_type: RecordType, message_id: MessageId, max_bytes: int) -> list[bytes]:
    """Return the bytes of a message's first parts, as many as fit, without regard to gaps."""
    rows = tx.all(
        "SELECT payload FROM (SELECT payload, sum(length(payload)) OVER (ORDER BY position) AS size FROM fragment"
        " WHERE record_type = ? AND id = ?) WHERE size <= ?",
        record_type,
        message_id.bytes,
        max_bytes,
    )
    return [row[0] for row in rows]


def drop_assembly(tx: Tx, record_type: RecordType, message_id: MessageId) -> None:
    """Forget an incomplete message and its parts."""
    tx.run("DELETE FROM assembly WHERE record_type = ? AND id = ?", record_type, message_id.bytes)


def assemblies_before(tx: Tx, before_ms: int, *, limit: int) -> list[Assembly]:
    """Return the oldest incomplete messages that began before a time, at most so many."""
    sql = f"SELECT {_ASSEMBLY} FROM assembly WHERE began_at_ms < ? ORDER BY began_at_ms LIMIT ?"
    return [_assembly(row) for row in tx.all(sql, before_ms, limit)]


def oldest_beyond_limits(tx: Tx, sender: NodePubkey | None) -> Assembly | None:
    """Return the oldest incomplete message of a sender, or of strangers, if there are more than may be kept.

    A sender's are counted, one more than may be kept at most; those of strangers have their sums in a row.
    """
    if sender is None:
        where, parameters = "sender IS NULL", tuple[bytes, ...]()
        counted = tx.one("SELECT messages, bytes FROM headerless")
        most = (STRANGER_MESSAGES, STRANGER_BYTES)
    else:
        where, parameters = "sender = ?", (sender.raw,)
        counted = tx.one("SELECT count(*), coalesce(sum(bytes), 0) FROM assembly WHERE sender = ?", sender.raw)
        most = (SENDER_MESSAGES, SENDER_BYTES)
    if counted is None or (counted[0] <= most[0] and counted[1] <= most[1]):
        return None
    row = tx.one(f"SELECT {_ASSEMBLY} FROM assembly WHERE {where} ORDER BY began_at_ms LIMIT 1", *parameters)
    return _assembly(row) if row else None


# --- Whole messages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """A whole, verified message, ready to be shown in its turn."""

    sender: NodePubkey
    order: int
    id: MessageId
    reply_to: MessageId | None
    service_type: ServiceType | None
    """None: its service is switched off; it only takes its turn."""
    data: bytes
    amount: Msat
    sent_at_ms: int
    mark: str = ""
    """`model.Event.order` of its event."""


# --- Quarantine -------------------------------------------------------------------------------------------------------


def quarantine(
    tx: Tx,
    payment_hash: PaymentHash,
    reason: str,
    *,
    record_type: RecordType | None,
    value: bytes,
    amount: Msat,
    service_type: ServiceType | None = None,
    message: Complete | None = None,
    settled_ms: int | None = None,
    event: bool = True,
) -> None:
    """Keep what is paid and not shown, the newest of it, for the operator to look at and to release, and say so.

    Each row says how many bytes came up to it, so that what goes is a range: each row costs one insertion and one
    deletion, however many there are.

    Args:
      tx: the transaction.
      payment_hash: of the payment; of the last one, if there were several.
      reason: why it is not shown.
      record_type: of the record that `value` is the value of; None: `value` is what a message says, or nothing.
      value: the bytes.
      amount: what came with it.
      service_type: which service it is for, if that is known.
      message: the verified message that it is, if it is one; `value` is its data.
      settled_ms: when it was paid, in milliseconds since 1970; None: now.
      event: whether to say so as an event.
    """
    size = len(value) + QUARANTINE_OVERHEAD
    through = tx.number("SELECT through_bytes FROM quarantine ORDER BY number DESC LIMIT 1") + size
    number = tx.insert(
        "INSERT INTO quarantine (payment_hash, reason, record_type, value, amount_msat, at_ms, through_bytes,"
        " service_type, sender, message_id, sent_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        payment_hash,
        reason,
        record_type,
        value,
        amount,
        tx.now_ms,
        through,
        service_type,
        message.sender.raw if message else None,
        message.id.bytes if message else None,
        message.sent_at_ms if message else tx.now_ms if settled_ms is None else settled_ms,
    )
    count(tx, "quarantined")
    tx.run("DELETE FROM quarantine WHERE through_bytes <= ?", through - QUARANTINE_BYTES)
    if event:
        shape: dict[str, object] = {
            "recordId": "QUARANTINED",
            "state": "quarantined",
            "number": number,
            "reason": reason,
            "paymentHash": payment_hash.hex(),
            "amountMsat": amount,
            "bytes": len(value),
        }
        if record_type is not None:
            shape["recordType"] = record_type
        if service_type is not None:
            shape["service"] = service_type
        if message is not None:
            shape |= {"sender": message.sender.hex, "id": str(message.id)}
        tx.emit(
            NewEvent(
                kind=EventKind.QUARANTINED,
                id=UUID(bytes=payment_hash[:16].ljust(16, b"\0"), version=4),
                reply_to=None,
                sender=None,
                service_type=PAYMENTS,
                topic=PAYMENTS,
                data=json.dumps(shape).encode(),
                amount=amount,
                sent_at_ms=tx.now_ms,
                verified=False,
            )
        )


def quarantine_message(tx: Tx, message: Complete, reason: str) -> None:
    """Put a whole and verified message into quarantine."""
    quarantine(
        tx,
        PaymentHash(message.id.bytes),
        reason,
        record_type=None,
        value=message.data,
        amount=message.amount,
        service_type=message.service_type,
        message=message,
    )
