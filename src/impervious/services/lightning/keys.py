"""Idempotency keys of payments: which payment was made for a key, and for which request.

A key is written down in the transaction that stores the intent to pay; so whoever asks again with it finds that very
payment, however it ended and whatever was killed meanwhile.
"""

from dataclasses import dataclass
from typing import Final

from impervious.errors import AlreadyExists, ImperviousError
from impervious.model import PaymentHash
from impervious.service import ServiceTx

MIGRATION: Final = """
-- The payment that was made for a key, and for which request.
CREATE TABLE lightning_key (
  key TEXT PRIMARY KEY,
  request_sha256 BLOB NOT NULL,
  payment_hash BLOB NOT NULL,
  at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX lightning_key_at ON lightning_key (at_ms);
"""
DAY_MS: Final = 86_400_000


class Repeated(ImperviousError):
    """A payment was made, or begun, for this key before.

    Attributes:
      payment_hash: its own.
    """

    def __init__(self, payment_hash: PaymentHash) -> None:
        super().__init__("this Idempotency-Key was used for the same payment before")
        self.payment_hash = payment_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a caller knows a payment by, so that asking again pays nothing again."""

    text: str
    request_sha256: bytes
    """Of everything that was asked for with it."""
    kept_ms: int


def made_for(tx: ServiceTx, key: Key) -> PaymentHash | None:
    """Find the payment that was made for a key; None: the key is new.

    Raises:
      AlreadyExists: it was used for something else.
    """
    row = tx.one(
        "SELECT request_sha256, payment_hash FROM lightning_key WHERE key = ? AND at_ms >= ?",
        key.text,
        tx.now_ms - key.kept_ms,
    )
    if row is None:
        return None
    if row[0] != key.request_sha256:
        raise AlreadyExists("this Idempotency-Key was used for another request: use a new one")
    return PaymentHash(row[1])


def use(tx: ServiceTx, key: Key, payment_hash: PaymentHash) -> None:
    """Write a key down.

    Raises:
      Repeated: it was used before, for this.
      AlreadyExists: it was used before, for something else.
    """
    known = made_for(tx, key)
    if known is not None:
        raise Repeated(known)
    tx.run("DELETE FROM lightning_key WHERE at_ms < ?", tx.now_ms - key.kept_ms)
    tx.run("INSERT INTO lightning_key VALUES (?, ?, ?, ?)", key.text, key.request_sha256, payment_hash, tx.now_ms)


def key_of(tx: ServiceTx, payment_hash: PaymentHash) -> str | None:
    """Find the key that a payment was made for, if it had one."""
    row = tx.one("SELECT key FROM lightning_key WHERE payment_hash = ? ORDER BY at_ms DESC", payment_hash)
    return None if row is None else str(row[0])
