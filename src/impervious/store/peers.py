"""Nodes that we have federated with, each until it expires."""

import json
from typing import Final

from impervious.errors import FailedPrecondition, NotFound
from impervious.model import NodePubkey, Peer
from impervious.store.transaction import Row, Tx

_COLUMNS: Final = "pubkey, imp_id, since_ms, expires_ms, services"
_SHOWN: Final = 5
"""Keys that an error lists."""


def remember(tx: Tx, peer: Peer) -> None:
    """Store a peer, in place of what was known of it."""
    tx.run(
        "INSERT OR REPLACE INTO peer VALUES (?, ?, ?, ?, ?)",
        peer.pubkey.raw,
        peer.imp_id,
        peer.since_ms,
        peer.expires_ms,
        json.dumps(peer.services),
    )


def forget(tx: Tx, pubkey: NodePubkey) -> bool:
    """Drop a peer; False: it was none."""
    return tx.run("DELETE FROM peer WHERE pubkey = ?", pubkey.raw) == 1


def find(tx: Tx, pubkey: NodePubkey) -> Peer | None:
    """Find a live peer."""
    row = tx.one(f"SELECT {_COLUMNS} FROM peer WHERE pubkey = ? AND expires_ms > ?", pubkey.raw, tx.now_ms)
    return _peer(row) if row else None


def everyone(tx: Tx) -> list[Peer]:
    """Return the live peers, by name."""
    rows = tx.all(f"SELECT {_COLUMNS} FROM peer WHERE expires_ms > ? ORDER BY imp_id, pubkey", tx.now_ms)
    return [_peer(row) for row in rows]


def take_expired(tx: Tx) -> list[Peer]:
    """Drop those whose time is over, and return them."""
    rows = tx.all(f"SELECT {_COLUMNS} FROM peer WHERE expires_ms <= ? ORDER BY expires_ms", tx.now_ms)
    tx.run("DELETE FROM peer WHERE expires_ms <= ?", tx.now_ms)
    return [_peer(row) for row in rows]


def next_expiry_ms(tx: Tx) -> int | None:
    """Say when the time of the first one is over; None: there are no peers."""
    row = tx.one("SELECT min(expires_ms) FROM peer")
    return None if row is None or row[0] is None else int(row[0])


def named(tx: Tx, imp_id: str) -> Peer:
    """Find the only live peer that goes by a name.

    Raises:
      NotFound: nobody does.
      FailedPrecondition: several do.
    """
    rows = tx.all(f"SELECT {_COLUMNS} FROM peer WHERE imp_id = ? AND expires_ms > ? ORDER BY pubkey", imp_id, tx.now_ms)
    if not rows:
        raise NotFound(f"no peer goes by @{imp_id}: federate with it first, or give its 66 hex digits")
    if len(rows) > 1:
        keys = ", ".join(_peer(row).pubkey.hex for row in rows[:_SHOWN])
        raise FailedPrecondition(f"{len(rows)} peers go by @{imp_id}: give the 66 hex digits of one ({keys})")
    return _peer(rows[0])


def _peer(row: Row) -> Peer:
    pubkey, imp_id, since_ms, expires_ms, services = row
    return Peer(
        pubkey=NodePubkey(pubkey),
        imp_id=imp_id,
        since_ms=since_ms,
        expires_ms=expires_ms,
        services=tuple(json.loads(services)),
    )
