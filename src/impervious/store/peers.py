"""Nodes that we have federated with, each until it expires.

A name belongs to the live peer that had it first. Whoever takes a name that is another's is remembered under it and is
found by its key; the name is free again when its owner leaves, goes by another one, or its time is over.
"""

import json
from typing import Final

from impervious.errors import FailedPrecondition, NotFound
from impervious.model import NodePubkey, Peer
from impervious.store.transaction import Row, Tx

_COLUMNS: Final = "pubkey, imp_id, since_ms, expires_ms, services"
_SHOWN: Final = 5
"""Keys that an error lists."""


def remember(tx: Tx, peer: Peer, *, stranger: bool = False) -> None:
    """Store a peer, in place of what was known of it.

    Args:
      tx: the transaction.
      peer: what is known of it now.
      stranger: it asked by itself, and nobody here asked for it or accepted it. What was no stranger stays none.
    """
    tx.run("UPDATE peer SET owner = 0 WHERE owner AND imp_id = ? AND expires_ms <= ?", peer.imp_id, tx.now_ms)
    tx.run(
        "INSERT INTO peer (pubkey, imp_id, since_ms, expires_ms, services, owner, stranger)"
        " VALUES (?1, ?2, ?3, ?4, ?5,"
        " NOT EXISTS (SELECT 1 FROM peer WHERE owner AND imp_id = ?2 AND pubkey <> ?1), ?6)"
        " ON CONFLICT (pubkey) DO UPDATE SET imp_id = excluded.imp_id, since_ms = excluded.since_ms,"
        " expires_ms = excluded.expires_ms, services = excluded.services, owner = excluded.owner,"
        " stranger = min(stranger, excluded.stranger)",
        peer.pubkey.raw,
        peer.imp_id,
        peer.since_ms,
        peer.expires_ms,
        json.dumps(peer.services),
        int(stranger),
    )


def strangers(tx: Tx) -> int:
    """Count the live peers that asked by themselves: there is a bound on them, so this costs little."""
    return tx.number("SELECT count(*) FROM peer WHERE stranger AND expires_ms > ?", tx.now_ms)


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
    """Find the live peer that a name belongs to.

    Raises:
      NotFound: no peer goes by it.
      FailedPrecondition: peers go by it that took it while it was another's, whose time is over.
    """
    row = tx.one(f"SELECT {_COLUMNS} FROM peer WHERE owner AND imp_id = ? AND expires_ms > ?", imp_id, tx.now_ms)
    if row is not None:
        return _peer(row)
    others = tx.all("SELECT pubkey FROM peer WHERE imp_id = ? AND expires_ms > ? LIMIT ?", imp_id, tx.now_ms, _SHOWN)
    if not others:
        raise NotFound(f"no peer goes by @{imp_id}: federate with it first, or give its 66 hex digits")
    keys = ", ".join(NodePubkey(other[0]).hex for other in others)
    raise FailedPrecondition(
        f"@{imp_id} belonged to a peer whose time is over, and others go by it: give the 66 hex digits of one ({keys}),"
        " or pin the name in federate.names"
    )


def _peer(row: Row) -> Peer:
    pubkey, imp_id, since_ms, expires_ms, services = row
    return Peer(
        pubkey=NodePubkey(pubkey),
        imp_id=imp_id,
        since_ms=since_ms,
        expires_ms=expires_ms,
        services=tuple(json.loads(services)),
    )
