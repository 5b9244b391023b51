"""What has arrived and is not yet shown: parts, held messages, quarantine, and the keys that make each count once."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.model import InvoiceCursor, MessageId, NodePubkey, PaymentHash, RecordType, ServiceType
from impervious.store.transaction import Row, Tx
from impervious.units import Msat
from impervious.wire import envelope
from impervious.wire.envelope import Header, SignedHeader

SENDER_MESSAGES: Final = 64
"""Incomplete messages kept for one verified sender."""
SENDER_BYTES: Final = 8 * 2**20
"""Bytes of incomplete messages kept for one verified sender."""
STRANGER_BYTES: Final = 16 * 2**20
"""Bytes of parts kept whose header has not come, of everybody together."""
QUARANTINE_BYTES: Final = 16 * 2**20
_TRIM_EVERY: Final = 32
"""Measuring all of it at each arrival would let anybody slow us down."""


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
    """Sum over its parts; overlapping ones count twice."""
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
) -> None:
    """Keep a part, beginning the message if it is the first."""
    key = (record_type, message_id.bytes)
    tx.run(
        "INSERT INTO assembly (record_type, id, bytes, amount_msat, began_at_ms, touched_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (record_type, id) DO UPDATE SET bytes = bytes + excluded.bytes,"
        " amount_msat = amount_msat + excluded.amount_msat, touched_at_ms = excluded.touched_at_ms",
        *key,
        len(payload),
        amount,
        tx.now_ms,
        tx.now_ms,
    )
    tx.run("INSERT INTO fragment VALUES (?, ?, ?, ?)", *key, offset, payload)


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


def drop_assembly(tx: Tx, record_type: RecordType, message_id: MessageId) -> None:
    """Forget an incomplete message and its parts."""
    tx.run("DELETE FROM assembly WHERE record_type = ? AND id = ?", record_type, message_id.bytes)


def assemblies_before(tx: Tx, before_ms: int) -> list[Assembly]:
    """Return the incomplete messages that began before a time."""
    return [_assembly(row) for row in tx.all(f"SELECT {_ASSEMBLY} FROM assembly WHERE began_at_ms < ?", before_ms)]


def oldest_beyond_limits(tx: Tx, sender: NodePubkey | None) -> Assembly | None:
    """Return the oldest incomplete message of a sender, or of strangers, if there are more than may be kept."""
    where, parameters = ("sender = ?", (sender.raw,)) if sender else ("sender IS NULL", ())
    messages, size = tx.one(f"SELECT count(*), coalesce(sum(bytes), 0) FROM assembly WHERE {where}", *parameters) or (
        0,
        0,
    )
    over = (messages > SENDER_MESSAGES or size > SENDER_BYTES) if sender else size > STRANGER_BYTES
    if not over:
        return None
    row = tx.one(f"SELECT {_ASSEMBLY} FROM assembly WHERE {where} ORDER BY began_at_ms, id LIMIT 1", *parameters)
    return _assembly(row) if row else None


# --- Order ------------------------------------------------------------------------------------------------------------


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


def shown_order(tx: Tx, sender: NodePubkey) -> int:
    """Return the highest order of a sender that has had its turn."""
    return tx.number("SELECT shown FROM inbound_order WHERE sender = ?", sender.raw)


def set_shown_order(tx: Tx, sender: NodePubkey, order: int) -> None:
    """Store that everything of a sender up to `order` has had its turn."""
    tx.run(
        "INSERT INTO inbound_order VALUES (?, ?) ON CONFLICT (sender) DO UPDATE SET shown = excluded.shown",
        sender.raw,
        order,
    )
    tx.run("DELETE FROM inbound_void WHERE sender = ? AND ord <= ?", sender.raw, order)


def add_void(tx: Tx, sender: NodePubkey, order: int) -> None:
    """Remember that an order of a sender will never come."""
    tx.run("INSERT OR IGNORE INTO inbound_void VALUES (?, ?)", sender.raw, order)


def is_void(tx: Tx, sender: NodePubkey, order: int) -> bool:
    """Whether an order of a sender will never come."""
    return tx.one("SELECT 1 FROM inbound_void WHERE sender = ? AND ord = ?", sender.raw, order) is not None


def hold(tx: Tx, message: Complete) -> None:
    """Keep a message until its turn."""
    tx.run(
        "INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        message.sender.raw,
        message.order,
        message.id.bytes,
        message.reply_to.bytes if message.reply_to else None,
        message.service_type,
        message.data,
        message.amount,
        message.sent_at_ms,
        tx.now_ms,
    )


def take_held(tx: Tx, sender: NodePubkey, *, through: int) -> list[Complete]:
    """Take out the held messages of a sender up to an order, in order."""
    rows = tx.all(
        "SELECT ord, id, reply_to, service_type, data, amount_msat, sent_at_ms FROM held"
        " WHERE sender = ? AND ord <= ? ORDER BY ord, held_at_ms, id",
        sender.raw,
        through,
    )
    tx.run("DELETE FROM held WHERE sender = ? AND ord <= ?", sender.raw, through)
    return [
        Complete(
            sender=sender,
            order=order,
            id=UUID(bytes=identifier),
            reply_to=UUID(bytes=reply_to) if reply_to else None,
            service_type=ServiceType(service_type) if service_type else None,
            data=data,
            amount=Msat(amount),
            sent_at_ms=sent_at_ms,
        )
        for order, identifier, reply_to, service_type, data, amount, sent_at_ms in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The first held message of a sender, and what its release depends on."""

    sender: NodePubkey
    order: int
    held_at_ms: int
    earlier_touched_at_ms: int
    """When a part of an earlier, incomplete message of the sender last came; 0: there is none."""


def waiting(tx: Tx) -> list[Waiting]:
    """Return, for each sender with held messages, the first of them."""
    rows = tx.all(
        "SELECT h.sender, h.ord, h.held_at_ms, coalesce((SELECT max(a.touched_at_ms) FROM assembly a"
        "  WHERE a.sender = h.sender AND a.ord < h.ord), 0)"
        " FROM held h WHERE h.ord = (SELECT min(ord) FROM held WHERE sender = h.sender) GROUP BY h.sender"
    )
    return [
        Waiting(sender=NodePubkey(sender), order=order, held_at_ms=held_at_ms, earlier_touched_at_ms=touched)
        for sender, order, held_at_ms, touched in rows
    ]


# --- Quarantine -------------------------------------------------------------------------------------------------------


def quarantine(
    tx: Tx, payment_hash: PaymentHash, reason: str, *, record_type: RecordType | None, value: bytes, amount: Msat
) -> None:
    """Keep what is no message of anybody, the newest of it, for the operator to look at."""
    number = tx.insert(
        "INSERT INTO quarantine (payment_hash, reason, record_type, value, amount_msat, at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        payment_hash,
        reason,
        record_type,
        value,
        amount,
        tx.now_ms,
    )
    count(tx, "quarantined")
    _trim_quarantine(tx, number)


def quarantine_held(tx: Tx, sender: NodePubkey, order: int, reason: str) -> None:
    """Move the held messages of a sender with an order into quarantine; their bytes may be anything."""
    number = tx.insert(
        "INSERT INTO quarantine (payment_hash, reason, record_type, value, amount_msat, at_ms)"
        " SELECT id, ?, NULL, data, amount_msat, ? FROM held WHERE sender = ? AND ord = ?",
        reason,
        tx.now_ms,
        sender.raw,
        order,
    )
    tx.run("DELETE FROM held WHERE sender = ? AND ord = ?", sender.raw, order)
    count(tx, "quarantined")
    _trim_quarantine(tx, number)


def _trim_quarantine(tx: Tx, number: int) -> None:
    if number % _TRIM_EVERY == 0:
        tx.run(
            "DELETE FROM quarantine WHERE number <= (SELECT max(number) FROM (SELECT number,"
            " sum(length(value) + 200) OVER (ORDER BY number DESC) AS kept FROM quarantine) WHERE kept > ?)",
            QUARANTINE_BYTES,
        )
