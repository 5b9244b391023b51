"""Idempotency keys: which payment, or which invoice, was made for a key, and for which request.

A key is written down in the transaction that stores the intent to pay; so whoever asks again with it finds that very
payment, however it ended and whatever was killed meanwhile. An invoice's preimage is drawn and written down with its
key before the node is asked for it; the node makes one invoice for a preimage.
"""

import secrets
from dataclasses import dataclass
from typing import Final

from impervious.errors import AlreadyExists, ImperviousError
from impervious.model import PaymentHash, Preimage
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
INVOICE_MIGRATION: Final = """
-- The preimage of the invoice that was made for a key, and for which request.
CREATE TABLE lightning_invoice_key (
  key TEXT PRIMARY KEY,
  request_sha256 BLOB NOT NULL,
  preimage BLOB NOT NULL,
  at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX lightning_invoice_key_at ON lightning_invoice_key (at_ms);
"""
DAY_MS: Final = 86_400_000

_OTHER: Final = "this Idempotency-Key was used for another request: use a new one"


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
    """What a caller knows a payment or an invoice by, so that asking again does nothing again."""

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
    _check_same(key, row[0])
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
    _check_unused(tx, key, "lightning_invoice_key")
    tx.run("DELETE FROM lightning_key WHERE at_ms < ?", tx.now_ms - key.kept_ms)
    tx.run("INSERT INTO lightning_key VALUES (?, ?, ?, ?)", key.text, key.request_sha256, payment_hash, tx.now_ms)


def key_of(tx: ServiceTx, payment_hash: PaymentHash) -> str | None:
    """Find the key that a payment was made for, if it had one."""
    row = tx.one("SELECT key FROM lightning_key WHERE payment_hash = ? ORDER BY at_ms DESC", payment_hash)
    return None if row is None else str(row[0])


def preimage_for(tx: ServiceTx, key: Key) -> Preimage:
    """Find the preimage of the invoice that is made for a key; draw it for one that is new.

    Raises:
      AlreadyExists: the key was used for something else.
    """
    tx.run("DELETE FROM lightning_invoice_key WHERE at_ms < ?", tx.now_ms - key.kept_ms)
    row = tx.one("SELECT request_sha256, preimage FROM lightning_invoice_key WHERE key = ?", key.text)
    if row is not None:
        _check_same(key, row[0])
        return Preimage(row[1])
    _check_unused(tx, key, "lightning_key")
    drawn = Preimage(secrets.token_bytes(32))
    tx.run("INSERT INTO lightning_invoice_key VALUES (?, ?, ?, ?)", key.text, key.request_sha256, drawn.raw, tx.now_ms)
    return drawn


def _check_unused(tx: ServiceTx, key: Key, table: str) -> None:
    if tx.one(f"SELECT 1 FROM {table} WHERE key = ? AND at_ms >= ?", key.text, tx.now_ms - key.kept_ms):
        raise AlreadyExists(_OTHER)


def _check_same(key: Key, request_sha256: object) -> None:
    if request_sha256 != key.request_sha256:
        raise AlreadyExists(_OTHER)
