"""Requests of ours that wait for an answer, and what we answered others by ourselves."""

from typing import Final

from impervious.model import MessageId, NodePubkey, ServiceType
from impervious.store.transaction import Tx
from impervious.units import Msat

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


def open_request(
    tx: Tx, identifier: MessageId, recipient: NodePubkey, service_type: ServiceType, *, expires_ms: int
) -> None:
    """Note that a message of ours asks for an answer."""
    tx.run("DELETE FROM open_request WHERE expires_ms <= ?", tx.now_ms)
    tx.run("INSERT INTO open_request VALUES (?, ?, ?, ?)", identifier.bytes, recipient.raw, service_type, expires_ms)


def close_request(tx: Tx, identifier: MessageId, recipient: NodePubkey, service_type: ServiceType) -> bool:
    """Note that a request of ours is answered; False: there is no such request, or it has had its answer."""
    changed = tx.run(
        "DELETE FROM open_request WHERE id = ? AND recipient = ? AND service_type = ? AND expires_ms > ?",
        identifier.bytes,
        recipient.raw,
        service_type,
        tx.now_ms,
    )
    return changed == 1


def withdraw_requests(tx: Tx, recipient: NodePubkey, service_type: ServiceType) -> int:
    """Forget what we asked a node, and say how much that was: its answers count no more."""
    return tx.run("DELETE FROM open_request WHERE recipient = ? AND service_type = ?", recipient.raw, service_type)


def answered_in_hour(tx: Tx, recipient: NodePubkey) -> int:
    """Count what we answered a node by ourselves in the last hour."""
    return tx.number(
        "SELECT count(*) FROM auto_answer WHERE recipient = ? AND at_ms > ?", recipient.raw, tx.now_ms - HOUR_MS
    )


def answered_in_day(tx: Tx) -> Msat:
    """Sum what our own answers to everybody may have cost in the last 24 hours."""
    return Msat(tx.number("SELECT sum(msat) FROM auto_answer WHERE at_ms > ?", tx.now_ms - DAY_MS))


def note_answer(tx: Tx, recipient: NodePubkey, cost: Msat) -> None:
    """Count an answer."""
    tx.run("DELETE FROM auto_answer WHERE at_ms <= ?", tx.now_ms - DAY_MS)
    tx.run("INSERT INTO auto_answer (recipient, at_ms, msat) VALUES (?, ?, ?)", recipient.raw, tx.now_ms, cost)
