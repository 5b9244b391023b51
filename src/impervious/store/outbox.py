"""Messages on their way out: their intent, their parts with preimages, and what became of each.

A part and its preimage are stored before it is first sent and never changed; so after a crash the Lightning node can be
asked about every payment that may exist. A range is replaced only by a statement that marks its part as dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from impervious.model import (
    MessageId,
    MessageState,
    NodePubkey,
    OutboundMessage,
    Part,
    PartState,
    PaymentHash,
    Preimage,
    RecordType,
    ServiceType,
)
from impervious.store.transaction import Row, Tx
from impervious.units import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as it lies in the outbox."""

    number: int
    message: OutboundMessage
    record_type: RecordType
    order: int
    state: MessageState
    accepted_at_ms: int
    deadline_ms: int | None
    """When delivery is given up; None: never."""
    received: Msat = Msat(0)
    """What came in for it: only what it costs beyond that counts as spending. 0: it is a message of our own."""
    header: bytes | None
    signature: bytes | None = field(repr=False)
    progress: str | None = None
    """What the stream was last told of it (JSON) before its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a queue keeps of a message that waits."""

    number: int
    id: MessageId
    recipient: NodePubkey
    deadline_ms: int | None
    """When delivery is given up; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a message has cost so far."""

    settled_parts: int
    amount: Msat
    fee: Msat


def next_order(tx: Tx, recipient: NodePubkey) -> int:
    """Draw the next number of the counter that the recipient restores order by."""
    return tx.number(
        "INSERT INTO outbound_order VALUES (?, 1) ON CONFLICT (recipient) DO UPDATE SET last = last + 1 RETURNING last",
        recipient.raw,
    )


def raise_order(tx: Tx, recipient: NodePubkey, order: int) -> None:
    """Make the counter go on behind a number that was given."""
    tx.run(
        "INSERT INTO outbound_order VALUES (?, ?)"
        " ON CONFLICT (recipient) DO UPDATE SET last = max(last, excluded.last)",
        recipient.raw,
        order,
    )


def add(
    tx: Tx,
    message: OutboundMessage,
    parts: Sequence[Part],
    *,
    record_type: RecordType,
    order: int,
    deadline_ms: int | None,
    received: Msat = Msat(0),
) -> None:
    """Store the intent to send a message, with everything its payments need.

    Args:
      tx: the transaction.
      message: what is sent.
      parts: its payments, preimages included.
      record_type: the record that carries it.
      order: its number for the recipient, from `next_order`.
      deadline_ms: when delivery is given up, in milliseconds since 1970; None: never.
      received: what came in for it, in msat.
    """
    tx.run(
        "INSERT INTO outbound (id, recipient, service_type, record_type, payload, amount_msat, reply_to, ord, state,"
        " accepted_at_ms, deadline_ms, received_msat) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        message.id.bytes,
        message.recipient.raw,
        message.service_type,
        record_type,
        message.payload,
        message.amount,
        message.reply_to.bytes if message.reply_to else None,
        order,
        MessageState.ACCEPTED.value,
        tx.now_ms,
        deadline_ms,
        received,
    )
    add_parts(tx, message.id, parts)
    tx.wake("outbound")


def add_parts(tx: Tx, message_id: MessageId, parts: Sequence[Part]) -> None:
    """Store payments that are to be made."""
    tx.run_many(
        "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                part.payment_hash,
                message_id.bytes,
                part.offset,
                part.length,
                part.preimage.raw,
                part.amount,
                part.fee_limit,
                part.fee,
                part.state.value,
            )
            for part in parts
        ],
    )


def postpone(tx: Tx, *, accepted_after_ms: int, step_ms: int) -> None:
    """Give open messages that were accepted after a moment more time: the clock by which they were has moved on."""
    tx.run(
        "UPDATE outbound SET deadline_ms = deadline_ms + ? WHERE state IN ('accepted', 'sending')"
        " AND accepted_at_ms > ?",
        step_ms,
        accepted_after_ms,
    )


def tickets(tx: Tx, *, after: int, limit: int) -> list[Ticket]:
    """Return open messages behind a number, in the order in which they were accepted."""
    rows = tx.all(
        "SELECT number, id, recipient, deadline_ms FROM outbound WHERE state IN ('accepted', 'sending') AND number > ?"
        " ORDER BY number LIMIT ?",
        after,
        limit,
    )
    return [
        Ticket(number=row[0], id=UUID(bytes=row[1]), recipient=NodePubkey(row[2]), deadline_ms=row[3]) for row in rows
    ]


_STORED: Final = (
    "number, id, recipient, service_type, record_type, payload, amount_msat, reply_to, ord, state, accepted_at_ms,"
    " deadline_ms, header, signature, received_msat, progress"
)
_WITHOUT_PAYLOAD: Final = _STORED.replace("payload", "x''")


def load_intent(tx: Tx, message_id: MessageId) -> Stored | None:
    """Return a message without its bytes and its parts; None: there is no such message."""
    row = tx.one(f"SELECT {_WITHOUT_PAYLOAD} FROM outbound WHERE id = ?", message_id.bytes)
    return _stored(row) if row else None


def load(tx: Tx, message_id: MessageId) -> tuple[Stored, list[Part]]:
    """Return a message and those of its parts that are not dead, by offset."""
    row = tx.one(f"SELECT {_STORED} FROM outbound WHERE id = ?", message_id.bytes)
    assert row is not None, "messages are never deleted while they are open"
    parts = tx.all(
        "SELECT preimage, position, length, amount_msat, fee_limit_msat, fee_msat, state FROM part"
        " WHERE message_id = ? AND state != 'dead' ORDER BY position",
        message_id.bytes,
    )
    return _stored(row), [_part(part) for part in parts]


def state(tx: Tx, message_id: MessageId) -> tuple[MessageState, str | None] | None:
    """Return how far a message is, and its outcome (JSON) if it has ended; None: there is no such message."""
    row = tx.one("SELECT state, outcome FROM outbound WHERE id = ?", message_id.bytes)
    return (MessageState(row[0]), row[1]) if row else None


def set_signed(tx: Tx, message_id: MessageId, *, header: bytes, signature: bytes) -> None:
    """Store the header as it will be sent; from now on parts may be in flight."""
    tx.run(
        "UPDATE outbound SET header = ?, signature = ?, state = ? WHERE id = ?",
        header,
        signature,
        MessageState.SENDING.value,
        message_id.bytes,
    )


def set_sending(tx: Tx, message_id: MessageId) -> None:
    """Store that parts may be in flight, although nothing is signed."""
    tx.run("UPDATE outbound SET state = ? WHERE id = ?", MessageState.SENDING.value, message_id.bytes)


def set_progress(tx: Tx, message_id: MessageId, progress: str) -> None:
    """Store what the stream is told of a message that has not ended."""
    tx.run("UPDATE outbound SET progress = ? WHERE id = ?", progress, message_id.bytes)


def settle_part(tx: Tx, payment_hash: PaymentHash, fee: Msat) -> None:
    """Store that a part was paid."""
    tx.run("UPDATE part SET state = ?, fee_msat = ? WHERE payment_hash = ?", PartState.SETTLED.value, fee, payment_hash)


def bury_part(tx: Tx, payment_hash: PaymentHash) -> None:
    """Store that a part will never be paid."""
    tx.run("UPDATE part SET state = ? WHERE payment_hash = ?", PartState.DEAD.value, payment_hash)


def revive_part(tx: Tx, payment_hash: PaymentHash, state: PartState, fee: Msat) -> None:
    """Store what the node says of a part that was thought dead."""
    tx.run("UPDATE part SET state = ?, fee_msat = ? WHERE payment_hash = ?", state.value, fee, payment_hash)


def pending_parts(tx: Tx, message_id: MessageId) -> int:
    """Count the parts that are still to be paid."""
    return tx.number("SELECT count(*) FROM part WHERE message_id = ? AND state = 'pending'", message_id.bytes)


def pending_amounts(tx: Tx, message_id: MessageId) -> list[tuple[PaymentHash, Msat]]:
    """Return what each part carries that is still to be paid."""
    return [
        (PaymentHash(row[0]), Msat(row[1]))
        for row in tx.all(
            "SELECT payment_hash, amount_msat FROM part WHERE message_id = ? AND state = 'pending'", message_id.bytes
        )
    ]


def ranges(tx: Tx, message_id: MessageId) -> int:
    """Count the ranges that a message was cut into, those of smaller parts and not of what they replaced."""
    # A part that was replaced begins where the first of the smaller ones does.
    return tx.number("SELECT count(DISTINCT position) FROM part WHERE message_id = ?", message_id.bytes)


def totals(tx: Tx, message_id: MessageId) -> Totals:
    """Sum what was really paid for a message."""
    row = tx.one(
        "SELECT count(*), coalesce(sum(amount_msat), 0), coalesce(sum(fee_msat), 0) FROM part"
        " WHERE message_id = ? AND state = 'settled'",
        message_id.bytes,
    )
    count, amount, fee = row or (0, 0, 0)
    return Totals(settled_parts=count, amount=Msat(amount), fee=Msat(fee))


def committed(tx: Tx, message_id: MessageId) -> Msat:
    """Sum what a message has cost and may still cost: every part that is not dead, with its fee or fee limit."""
    return Msat(
        tx.number(
            "SELECT sum(amount_msat + CASE state WHEN 'settled' THEN fee_msat ELSE fee_limit_msat END) FROM part"
            " WHERE message_id = ? AND state != 'dead'",
            message_id.bytes,
        )
    )


def finish(tx: Tx, message_id: MessageId, state: MessageState, outcome: str) -> None:
    """Store how a message ended; its bytes are no longer needed."""
    tx.run(
        "UPDATE outbound SET state = ?, outcome = ?, payload = x'', retry_ms = NULL WHERE id = ?",
        state.value,
        outcome,
        message_id.bytes,
    )
    tx.run("UPDATE part SET state = 'dead' WHERE message_id = ? AND state = 'pending'", message_id.bytes)


def forget_ended(tx: Tx, *, before_ms: int, parts: int) -> int:
    """Drop messages that were accepted before a time and have ended, the oldest first.

    Args:
      tx: the transaction.
      before_ms: in milliseconds since 1970.
      parts: go with them, about that many at most.

    Returns:
      How many messages are gone.
    """
    gone = removed = 0
    while removed < parts:
        row = tx.one(
            "SELECT id FROM outbound WHERE outcome IS NOT NULL AND retry_ms IS NULL AND accepted_at_ms < ?"
            " ORDER BY accepted_at_ms LIMIT 1",
            before_ms,
        )
        if row is None:
            break
        removed += 1 + tx.run("DELETE FROM part WHERE message_id = ?", row[0])
        gone += tx.run("DELETE FROM outbound WHERE id = ?", row[0])
    return gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """A debt that could not be delivered."""

    id: MessageId
    recipient: NodePubkey
    payload_bytes: int
    amount: Msat
    received: Msat


def tries(tx: Tx, message_id: MessageId) -> int:
    """Say how often a debt was tried in vain."""
    return tx.number("SELECT tries FROM outbound WHERE id = ?", message_id.bytes)


def keep_debt(tx: Tx, message_id: MessageId, outcome: str, *, retry_ms: int) -> None:
    """Store that a debt could not be delivered, with its payload, and when it is tried again."""
    tx.run(
        "UPDATE outbound SET state = ?, outcome = ?, tries = tries + 1, retry_ms = ? WHERE id = ?",
        MessageState.FAILED.value,
        outcome,
        retry_ms,
        message_id.bytes,
    )
    tx.run("UPDATE part SET state = 'dead' WHERE message_id = ? AND state = 'pending'", message_id.bytes)


def due_debts(tx: Tx, *, limit: int) -> list[Debt]:
    """Return debts whose time to be tried again has come, the longest waiting first."""
    rows = tx.all(
        "SELECT id, recipient, length(payload), amount_msat, received_msat FROM outbound"
        " WHERE retry_ms IS NOT NULL AND retry_ms <= ? ORDER BY retry_ms LIMIT ?",
        tx.now_ms,
        limit,
    )
    return [
        Debt(
            id=UUID(bytes=identifier),
            recipient=NodePubkey(recipient),
            payload_bytes=size,
            amount=Msat(amount),
            received=Msat(received),
        )
        for identifier, recipient, size, amount, received in rows
    ]


def hasten_debts(tx: Tx) -> None:
    """Have every debt tried again at once."""
    tx.run("UPDATE outbound SET retry_ms = ?1 WHERE retry_ms IS NOT NULL AND retry_ms > ?1", tx.now_ms)


def is_debt(tx: Tx, message_id: MessageId) -> bool:
    """Whether a message is a debt that could not be delivered and is tried again."""
    return tx.one("SELECT 1 FROM outbound WHERE id = ? AND retry_ms IS NOT NULL", message_id.bytes) is not None


def leave_debt(tx: Tx, message_id: MessageId) -> None:
    """Try a debt no more."""
    tx.run("UPDATE outbound SET retry_ms = NULL WHERE id = ?", message_id.bytes)


def count_debts(tx: Tx) -> int:
    """Count the debts that could not be delivered and are tried again."""
    return tx.number("SELECT count(*) FROM outbound WHERE retry_ms IS NOT NULL")


def reopen(tx: Tx, message_id: MessageId, parts: Sequence[Part], *, order: int) -> None:
    """Send a debt anew: it is the newest message of the outbox, with another order and other payments.

    Its number is above every one that was ever given: the sender takes up only what is above the last that it has seen.
    """
    number = 1 + max(
        tx.number("SELECT max(number) FROM outbound"),
        tx.number("SELECT seq FROM sqlite_sequence WHERE name = 'outbound'"),
    )
    tx.run("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbound'", number)
    tx.run(
        "UPDATE outbound SET number = ?, state = ?, outcome = NULL, header = NULL, signature = NULL, progress = NULL,"
        " retry_ms = NULL, ord = ? WHERE id = ?",
        number,
        MessageState.ACCEPTED.value,
        order,
        message_id.bytes,
    )
    add_parts(tx, message_id, parts)
    tx.wake("outbound")


def add_void(tx: Tx, recipient: NodePubkey, order: int) -> None:
    """Note an order that the recipient would wait for in vain."""
    tx.run("INSERT OR IGNORE INTO outbound_void VALUES (?, ?)", recipient.raw, order)


def voids(tx: Tx, recipient: NodePubkey, limit: int) -> tuple[int, ...]:
    """Return orders that the recipient has still to be told about, oldest first."""
    rows = tx.all("SELECT ord FROM outbound_void WHERE recipient = ? ORDER BY ord LIMIT ?", recipient.raw, limit)
    return tuple(row[0] for row in rows)


def forget_voids(tx: Tx, recipient: NodePubkey, orders: Sequence[int]) -> None:
    """Forget orders that the recipient has been told about."""
    tx.run_many(
        "DELETE FROM outbound_void WHERE recipient = ? AND ord = ?", [(recipient.raw, order) for order in orders]
    )


def identity(tx: Tx) -> NodePubkey | None:
    """Return the node this database belongs to, once that is known."""
    row = tx.one("SELECT pubkey FROM identity")
    return NodePubkey(row[0]) if row else None


def set_identity(tx: Tx, pubkey: NodePubkey) -> None:
    """Store the node this database belongs to."""
    tx.run("INSERT OR REPLACE INTO identity VALUES (1, ?)", pubkey.raw)


def _stored(row: Row) -> Stored:
    (
        number,
        identifier,
        recipient,
        service_type,
        record_type,
        payload,
        amount,
        reply_to,
        order,
        state,
        accepted_at_ms,
        deadline_ms,
        header,
        signature,
        received,
        progress,
    ) = row
    return Stored(
        number=number,
        message=OutboundMessage(
            id=UUID(bytes=identifier),
            recipient=NodePubkey(recipient),
            service_type=ServiceType(service_type),
            payload=payload,
            amount=Msat(amount),
            reply_to=UUID(bytes=reply_to) if reply_to else None,
        ),
        record_type=RecordType(record_type),
        order=order,
        state=MessageState(state),
        accepted_at_ms=accepted_at_ms,
        deadline_ms=deadline_ms,
        header=header,
        signature=signature,
        received=Msat(received),
        progress=progress,
    )


def _part(row: Row) -> Part:
    preimage, offset, length, amount, fee_limit, fee, state = row
    return Part(
        preimage=Preimage(preimage),
        offset=offset,
        length=length,
        amount=Msat(amount),
        fee_limit=Msat(fee_limit),
        fee=Msat(fee),
        state=PartState(state),
    )
