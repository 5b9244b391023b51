"""Which history this database holds, and how far it has come: in time, and in the Lightning node's payments.

An epoch is a history in which each `seq` means one event. A database that is set back to an earlier state begins a new
one, with numbers that no event of the lost part has had.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from impervious.model import (
    STATUS,
    EventKind,
    MessageId,
    MessageState,
    NewEvent,
    NodePubkey,
    PartState,
    PaymentHash,
    ServiceType,
)
from impervious.store import outbox
from impervious.store.transaction import Tx
from impervious.units import Msat

SEQ_STEP: Final = 1_000_000_000
"""How far `seq` moves on with a new epoch: beyond what a node can have written since any backup. A client's 64-bit
integers hold billions of such steps, and the exact integers of JavaScript nine million."""


# --- Time -------------------------------------------------------------------------------------------------------------


def newest_ms(tx: Tx) -> int:
    """Return the newest time in the database, as far as that can be found at once; 0: it is new."""
    return max(
        tx.number("SELECT clock_ms FROM history"),
        tx.number("SELECT written_at_ms FROM event ORDER BY seq DESC LIMIT 1"),
        tx.number("SELECT accepted_at_ms FROM outbound ORDER BY number DESC LIMIT 1"),
    )


def note_time(tx: Tx) -> None:
    """Store how far time has come, and take what lies ahead of it for now: a clock that was ahead must bind nobody.

    Money that was spent by such a clock counts for the 24 hours that begin now.
    """
    tx.run("UPDATE history SET clock_ms = ?", tx.now_ms)
    tx.run("UPDATE spending SET at_ms = ? WHERE at_ms > ?", tx.now_ms, tx.now_ms)
    tx.run("UPDATE auto_answer SET at_ms = ? WHERE at_ms > ?", tx.now_ms, tx.now_ms)


# --- Payments ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A payment of the Lightning node's; everything of ours up to it is in this database."""

    index: int = 0
    """payment_index; the node may number its payments anew."""
    created_s: int = 0
    """By the node's clock."""


def mark(tx: Tx, *, kept_days: int) -> Mark | None:
    """Return the newest payment that was seen; None: this database has never been used.

    Args:
      tx: the transaction.
      kept_days: how long ended messages are kept, in days; 0: for ever. What was paid before may be forgotten rightly.
    """
    row = tx.one("SELECT payment_index, payment_created_s FROM history")
    if row and any(row):
        return Mark(index=row[0], created_s=row[1])
    newest_s = newest_ms(tx) // 1000
    if outbox.identity(tx) is None or not newest_s:
        return None
    # Made by an earlier version, or on a node that had never paid. A message is paid within a day of its acceptance.
    forgotten_s = tx.now_ms // 1000 - max(0, kept_days - 1) * 86_400 if kept_days else 0
    return Mark(created_s=max(newest_s - 3600, forgotten_s))


def set_mark(tx: Tx, newest: Mark) -> None:
    """Store the newest payment that was seen. Call it only while nothing is unknown up to there."""
    tx.run("UPDATE history SET payment_index = ?, payment_created_s = ?", newest.index, newest.created_s)


def unknown(tx: Tx, hashes: Collection[PaymentHash]) -> set[PaymentHash]:
    """Return those payments that are none of a message's in this database."""
    return {each for each in hashes if tx.one("SELECT 1 FROM part WHERE payment_hash = ?", each) is None}


def is_from_later(tx: Tx, payment_hash: PaymentHash, message_id: MessageId, *, is_ours: bool) -> bool:
    """Whether a payment that moves money can only have been begun in a part of the history that is lost.

    Args:
      tx: the transaction.
      payment_hash: of the payment.
      message_id: of the message of which it carries a part.
      is_ours: whether the part itself says that it is ours; without that it is if the message is.
    """
    part = tx.one("SELECT state FROM part WHERE payment_hash = ?", payment_hash)
    message = tx.one("SELECT state FROM outbound WHERE id = ?", message_id.bytes)
    if part is None:
        return is_ours or message is not None
    # A message is stored as being sent before the first of its parts is.
    return part[0] == PartState.PENDING.value and message is not None and message[0] == MessageState.ACCEPTED.value


# --- Epochs -----------------------------------------------------------------------------------------------------------


def epoch(tx: Tx) -> str:
    """Return the name of this history: 32 hex digits."""
    row = tx.one("SELECT epoch FROM history")
    return bytes(row[0]).hex() if row else ""


def is_set_back(tx: Tx) -> bool:
    """Whether the Lightning node has paid for messages that this database knows nothing of."""
    return bool(tx.number("SELECT set_back FROM history"))


def begin_epoch(tx: Tx, *, set_back: bool) -> str:
    """Begin a new history, tell it on the stream, and return its name.

    Args:
      tx: the transaction.
      set_back: whether something is missing that only `impervious db adopt` can bring back.
    """
    was, new = epoch(tx), uuid4()
    tx.run("UPDATE history SET epoch = ?, set_back = ?", new.bytes, set_back)
    if not tx.run("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'event'", SEQ_STEP):
        tx.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?)", SEQ_STEP)
    tx.emit(
        NewEvent(
            kind=EventKind.PROGRESS,
            id=new,
            reply_to=None,
            sender=outbox.identity(tx),
            service_type=STATUS,
            topic=STATUS,
            data=json.dumps({"state": "epoch_changed", "epoch": new.hex, "was": was}).encode(),
            amount=Msat(0),
            sent_at_ms=tx.now_ms,
            verified=True,
        )
    )
    return new.hex


def set_complete(tx: Tx) -> None:
    """Store that nothing is missing any more."""
    tx.run("UPDATE history SET set_back = 0")


# --- Answers that were sent in a part of the history that is lost ---------------------------------------------------


def add_answered(
    tx: Tx, *, request: MessageId, recipient: NodePubkey, service_type: ServiceType, answer: MessageId
) -> None:
    """Note that a request was answered."""
    tx.run(
        "INSERT OR IGNORE INTO answered VALUES (?, ?, ?, ?)",
        request.bytes,
        recipient.raw,
        answer.bytes,
        service_type,
    )


def take_answered(tx: Tx, *, request: MessageId, recipient: NodePubkey, service_type: ServiceType) -> MessageId | None:
    """Find the answer to a request that was sent in the lost part, once each; None: there is none left."""
    row = tx.one(
        "SELECT id FROM answered WHERE reply_to = ? AND recipient = ? AND service_type = ?",
        request.bytes,
        recipient.raw,
        service_type,
    )
    if row is None:
        return None
    tx.run("DELETE FROM answered WHERE reply_to = ? AND recipient = ? AND id = ?", request.bytes, recipient.raw, row[0])
    return UUID(bytes=row[0])


def queued_again(tx: Tx) -> list[MessageId]:
    """Return open messages that answer a request which was answered before, and were not begun to be sent."""
    rows = tx.all(
        "SELECT id FROM outbound WHERE state = 'accepted' AND state IN ('accepted', 'sending') AND reply_to IS NOT NULL"
        " AND (received_msat > 0 OR deadline_ms IS NULL) AND EXISTS (SELECT 1 FROM answered WHERE"
        " answered.reply_to = outbound.reply_to AND answered.recipient = outbound.recipient) ORDER BY number"
    )
    return [UUID(bytes=row[0]) for row in rows]
