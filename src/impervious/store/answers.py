"""Requests of ours that wait for an answer, and what we answered others by ourselves."""

from typing import Final

from impervious.errors import ResourceExhausted
from impervious.model import MessageId, NodePubkey, ServiceType
from impervious.store.transaction import Tx
from impervious.units import Msat, Sat, msat, sat_charged

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
    """Sum what our own answers to everybody may have cost in the last 24 hours beyond what their requests brought."""
    return Msat(tx.number("SELECT sum(msat) FROM auto_answer WHERE at_ms > ? AND msat > 0", tx.now_ms - DAY_MS))


def note_answer(tx: Tx, identifier: MessageId, recipient: NodePubkey) -> None:
    """Count an answer. It costs nothing so far: its request paid for it."""
    tx.run("DELETE FROM auto_answer WHERE at_ms <= ?", tx.now_ms - DAY_MS)
    tx.run(
        "INSERT INTO auto_answer (recipient, at_ms, msat, id) VALUES (?, ?, 0, ?)",
        recipient.raw,
        tx.now_ms,
        identifier.bytes,
    )


def charge(tx: Tx, identifier: MessageId, amount: Msat, *, daily_limit: Sat) -> None:
    """Count what an answer may cost beyond what its request brought. A message that is no answer is left alone.

    Raises:
      ResourceExhausted: `limits.auto_answers_sat_per_day` does not allow it; nothing is counted.
    """
    known = tx.one("SELECT msat FROM auto_answer WHERE id = ?", identifier.bytes)
    if known is None:
        return
    if answered_in_day(tx) - known[0] + amount > msat(daily_limit):
        raise ResourceExhausted(
            f"the answer may cost {sat_charged(amount)} sat more than came with its request, and"
            f" limits.auto_answers_sat_per_day ({daily_limit}) is reached"
        )
    settle(tx, identifier, amount)


def settle(tx: Tx, identifier: MessageId, amount: Msat) -> None:
    """Replace what an answer may cost beyond what its request brought by what it did cost."""
    tx.run("UPDATE auto_answer SET msat = ? WHERE id = ?", amount, identifier.bytes)
