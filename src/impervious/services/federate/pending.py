"""Requests of other nodes that wait for the operator's word (`federate.accept: ask`): one for each node, the latest."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.errors import NotFound
from impervious.model import MessageId, NodePubkey
from impervious.service import ServiceTx, VerifiedMessage
from impervious.store import Row
from impervious.wire.payloads import Federate

TTL_MS: Final = 7 * 86_400_000
"""How long a request can be accepted: as long as its sender takes our answer for one."""

TABLE: Final = """
        -- Requests that wait for the operator's word (federate.accept: ask).
        CREATE TABLE federate_pending (
          pubkey BLOB PRIMARY KEY,
          message_id BLOB NOT NULL,
          imp_id TEXT NOT NULL,
          ttl_s INTEGER NOT NULL,
          services TEXT NOT NULL,
          at_ms INTEGER NOT NULL
        ) WITHOUT ROWID;
        """

BY_AGE: Final = "CREATE INDEX federate_pending_at ON federate_pending (at_ms);"

_WAITING: Final = "SELECT message_id, pubkey, imp_id, ttl_s, services, at_ms FROM federate_pending WHERE at_ms > ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A request that waits."""

    id: MessageId
    pubkey: NodePubkey
    imp_id: str
    ttl_s: int
    """How long it wants to be remembered, from when it is accepted."""
    services: tuple[str, ...]
    asked_at_ms: int
    """When it came, in milliseconds since 1970."""

    @property
    def expires_ms(self) -> int:
        """Until when it can be accepted, in milliseconds since 1970."""
        return self.asked_at_ms + TTL_MS


def note(tx: ServiceTx, message: VerifiedMessage, record: Federate, *, most: int) -> bool:
    """Keep what a node asks, instead of what it asked before; False: `most` wait already."""
    forget(tx, message.sender)
    [(number,)] = tx.all("SELECT count(*) FROM federate_pending WHERE at_ms > ?", tx.now_ms - TTL_MS)
    if number >= most:
        return False
    tx.run(
        "INSERT INTO federate_pending VALUES (?, ?, ?, ?, ?, ?)",
        message.sender.raw,
        message.id.bytes,
        record.imp_id,
        record.ttl_s,
        ",".join(record.services),
        tx.now_ms,
    )
    return True


def waiting(tx: ServiceTx) -> list[Pending]:
    """List what can still be accepted, the longest waiting first."""
    return [_read(row) for row in tx.all(f"{_WAITING} ORDER BY at_ms, message_id", tx.now_ms - TTL_MS)]


def take(tx: ServiceTx, pubkey: NodePubkey) -> Pending:
    """Take out what a node asked.

    Raises:
      NotFound: nothing that can still be accepted.
    """
    row = tx.one(f"{_WAITING} AND pubkey = ?", tx.now_ms - TTL_MS, pubkey.raw)
    if row is None:
        raise NotFound(f"{pubkey} has not asked to federate, or not within a week: ListRequests shows who waits")
    forget(tx, pubkey)
    return _read(row)


def forget(tx: ServiceTx, pubkey: NodePubkey) -> bool:
    """Forget what a node asked; whether it had."""
    return tx.run("DELETE FROM federate_pending WHERE pubkey = ?", pubkey.raw) == 1


def forget_old(tx: ServiceTx) -> None:
    """Forget what can no longer be accepted."""
    tx.run("DELETE FROM federate_pending WHERE at_ms <= ?", tx.now_ms - TTL_MS)


def _read(row: Row) -> Pending:
    identifier, pubkey, imp_id, ttl_s, services, at_ms = row
    return Pending(
        id=UUID(bytes=identifier),
        pubkey=NodePubkey(pubkey),
        imp_id=imp_id,
        ttl_s=ttl_s,
        services=tuple(services.split(",")) if services else (),
        asked_at_ms=at_ms,
    )
