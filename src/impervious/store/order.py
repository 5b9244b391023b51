"""Whose turn it is: how far each sender's messages have been shown, what never comes, and what waits.

The work for one message is bounded, whatever its sender sent before: `VOID_RANGES`, `HELD_MESSAGES` and `HELD_BYTES`
for each sender; and release finds what is due by an index over all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.model import NodePubkey, PaymentHash, ServiceType
from impervious.store.inbox import Complete, quarantine
from impervious.store.transaction import Tx
from impervious.units import Msat

VOID_RANGES: Final = 64
"""Ranges of orders that never come, kept for each sender; beyond that the highest are forgotten, and waited for."""
HELD_MESSAGES: Final = 512
"""Held for each sender: a channel has at most 483 HTLCs under way."""
HELD_BYTES: Final = 8 * 2**20
"""Held for each sender."""
_LARGEST: Final = 2**63 - 1
"""Of SQLite's integers."""


# --- How far a sender is ----------------------------------------------------------------------------------------------


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
    tx.run("DELETE FROM void_range WHERE sender = ? AND last <= ?", sender.raw, order)


def add_voids(tx: Tx, sender: NodePubkey, orders: Iterable[int]) -> None:
    """Remember that orders of a sender will never come."""
    rows = tx.all("SELECT first, last FROM void_range WHERE sender = ? ORDER BY first", sender.raw)
    known = [(int(row[0]), int(row[1])) for row in rows]
    wanted = _merged([*known, *((order, order) for order in orders)])[:VOID_RANGES]
    if wanted != known:
        tx.run("DELETE FROM void_range WHERE sender = ?", sender.raw)
        tx.run_many("INSERT INTO void_range VALUES (?, ?, ?)", [(sender.raw, *each) for each in wanted])


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch or overlap, in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def void_through(tx: Tx, sender: NodePubkey, order: int) -> int:
    """Return the last of the orders directly behind `order` that will never come; `order` itself if there is none."""
    last = tx.number(
        "SELECT last FROM void_range WHERE sender = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        sender.raw,
        min(order, _LARGEST - 1) + 1,
    )
    return max(order, last)


# --- What is held -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The first held message of a sender, and what its release depends on."""

    order: int
    held_at_ms: int
    earlier_touched_at_ms: int
    """When a part of an earlier, incomplete message of the sender last came; 0: there is none."""
    full: bool
    """Whether more of that sender waits than may."""


def hold(tx: Tx, message: Complete, *, due_ms: int) -> None:
    """Keep a message until its turn; more than a sender may have waiting makes the first of them due.

    Args:
      tx: the transaction.
      message: the message.
      due_ms: when it is looked at, if no other of its sender waits.
    """
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
    tx.run(
        "INSERT INTO held_sender VALUES (?, 1, ?, ?) ON CONFLICT (sender) DO UPDATE SET"
        " messages = messages + 1, bytes = bytes + excluded.bytes,"
        " due_ms = CASE WHEN messages >= ? OR bytes + excluded.bytes > ? THEN 0 ELSE due_ms END",
        message.sender.raw,
        len(message.data),
        due_ms,
        HELD_MESSAGES,
        HELD_BYTES,
    )


def take_held(tx: Tx, sender: NodePubkey, *, through: int) -> list[Complete]:
    """Take out the held messages of a sender up to an order, in order."""
    rows = tx.all(
        "SELECT ord, id, reply_to, service_type, data, amount_msat, sent_at_ms FROM held"
        " WHERE sender = ? AND ord <= ? ORDER BY ord, held_at_ms, id",
        sender.raw,
        through,
    )
    if rows:
        tx.run("DELETE FROM held WHERE sender = ? AND ord <= ?", sender.raw, through)
        _note_taken(tx, sender.raw, messages=len(rows), size=sum(len(row[4]) for row in rows))
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


def _note_taken(tx: Tx, sender: bytes, *, messages: int, size: int) -> None:
    """Count down what a sender has waiting; the next one is looked at by the next release."""
    tx.run(
        "UPDATE held_sender SET messages = messages - ?, bytes = bytes - ?, due_ms = 0 WHERE sender = ?",
        messages,
        size,
        sender,
    )
    tx.run("DELETE FROM held_sender WHERE sender = ? AND messages <= 0", sender)


def due_senders(tx: Tx, now_ms: int, *, limit: int) -> list[bytes]:
    """Return the senders, as the bytes of their keys, of which the first held message is to be looked at."""
    rows = tx.all("SELECT sender FROM held_sender WHERE due_ms <= ? ORDER BY due_ms LIMIT ?", now_ms, limit)
    return [row[0] for row in rows]


def next_due_ms(tx: Tx) -> int | None:
    """Say when the first held message of anybody is to be looked at, in milliseconds since 1970; None: none is held."""
    row = tx.one("SELECT due_ms FROM held_sender ORDER BY due_ms LIMIT 1")
    return None if row is None else int(row[0])


def set_due(tx: Tx, sender: bytes, due_ms: int) -> None:
    """Store when the first held message of a sender is to be looked at again."""
    tx.run("UPDATE held_sender SET due_ms = ? WHERE sender = ?", due_ms, sender)


def first_held(tx: Tx, sender: NodePubkey) -> Waiting | None:
    """Look at the first held message of a sender, and at the sender's incomplete ones, of which there are few."""
    row = tx.one(
        "SELECT ord, held_at_ms,"
        "  (SELECT max(touched_at_ms) FROM assembly a WHERE a.sender = held.sender AND a.ord < held.ord),"
        "  (SELECT messages > ? OR bytes > ? FROM held_sender s WHERE s.sender = held.sender)"
        " FROM held WHERE sender = ? ORDER BY ord, id LIMIT 1",
        HELD_MESSAGES,
        HELD_BYTES,
        sender.raw,
    )
    if row is None:
        return None
    order, held_at_ms, touched_at_ms, full = row
    return Waiting(order=order, held_at_ms=held_at_ms, earlier_touched_at_ms=touched_at_ms or 0, full=bool(full))


def quarantine_first(tx: Tx, sender: bytes, reason: str) -> None:
    """Move the first held message of a sender into quarantine; its row may hold anything."""
    row = tx.one("SELECT ord, id, data, amount_msat FROM held WHERE sender = ? ORDER BY ord, id LIMIT 1", sender)
    if row is None:
        tx.run("DELETE FROM held_sender WHERE sender = ?", sender)
        return
    order, identifier, data, amount = row
    tx.run("DELETE FROM held WHERE sender = ? AND ord = ? AND id = ?", sender, order, identifier)
    value = data if isinstance(data, bytes) else str(data).encode()
    _note_taken(tx, sender, messages=1, size=len(value))
    paid = Msat(amount if isinstance(amount, int) else 0)
    quarantine(tx, PaymentHash(identifier), reason, record_type=None, value=value, amount=paid)
