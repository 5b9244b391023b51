"""Idempotency keys: the id that was given for a key, and for which request."""

from typing import Final
from uuid import UUID

from impervious.errors import AlreadyExists
from impervious.model import MessageId, ServiceType
from impervious.store.transaction import Tx

DAY_MS: Final = 86_400_000


def recall(tx: Tx, service_type: ServiceType, key: str, request_sha256: bytes) -> MessageId | None:
    """Find the id that was given for a key; None: the key is new.

    Raises:
      AlreadyExists: the key was used for another request.
    """
    row = tx.one("SELECT request_sha256, id FROM idempotency WHERE service_type = ? AND key = ?", service_type, key)
    if row is None:
        return None
    if row[0] != request_sha256:
        raise AlreadyExists("this Idempotency-Key was used for another request: use a new one")
    return UUID(bytes=row[1])


def remember(tx: Tx, service_type: ServiceType, key: str, request_sha256: bytes, identifier: MessageId) -> None:
    """Store the id given for a key."""
    tx.run(
        "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)", service_type, key, request_sha256, identifier.bytes, tx.now_ms
    )


def forget(tx: Tx, *, days: int, limit: int | None = None) -> int:
    """Drop the keys that are older than `days`, the oldest first.

    Args:
      tx: the transaction.
      days: how long they are kept.
      limit: at most that many. None: all.

    Returns:
      How many are gone.
    """
    return tx.run(
        "DELETE FROM idempotency WHERE (service_type, key) IN"
        " (SELECT service_type, key FROM idempotency WHERE at_ms < ? ORDER BY at_ms LIMIT ?)",
        tx.now_ms - days * DAY_MS,
        -1 if limit is None else limit,
    )
