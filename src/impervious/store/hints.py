"""Ways to nodes that our node's graph does not hold, as those nodes told them with what they sent."""

from typing import Final

from impervious.model import NodePubkey, RouteHint
from impervious.store.transaction import Tx
from impervious.wire import route_hints

MAX_NODES: Final = 4096
"""Half a megabyte. Each costs its sender a payment; the one that was heard of longest ago goes first."""
MAX_AGE_MS: Final = 30 * 86_400_000
"""Older ways are no longer believed: channels close."""


def remember(tx: Tx, pubkey: NodePubkey, hints: tuple[RouteHint, ...]) -> None:
    """Store the ways to a node, in place of those that were known."""
    tx.run("INSERT OR REPLACE INTO route_hint VALUES (?, ?, ?)", pubkey.raw, route_hints.encode(hints), tx.now_ms)
    # One comes, so at most one goes: the number of the oldest that is kept is never counted over the whole table.
    tx.run(
        "DELETE FROM route_hint WHERE pubkey = (SELECT pubkey FROM route_hint ORDER BY at_ms DESC LIMIT 1 OFFSET ?)",
        MAX_NODES,
    )


def find(tx: Tx, pubkey: NodePubkey) -> tuple[RouteHint, ...]:
    """Return the ways to a node; none: it has not told any, or not for a month."""
    row = tx.one("SELECT hints FROM route_hint WHERE pubkey = ? AND at_ms > ?", pubkey.raw, tx.now_ms - MAX_AGE_MS)
    return route_hints.decode(row[0]) if row else ()
