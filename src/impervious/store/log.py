"""Reading the durable log, pruning it, and where each durable reader of it stands."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.model import Event, EventKind, NodePubkey, ServiceType
from impervious.store.settled import PAYMENTS
from impervious.store.transaction import Row, SqlValue, Tx
from impervious.units import Msat

_COLUMNS: Final = (
    "seq, kind, id, reply_to, sender, service_type, topic, data, amount_msat, sent_at_ms, verified, public, secret"
)
_ROW_OVERHEAD_BYTES: Final = 200
"""What a row takes besides its data, roughly: for retention by size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Which part of the log is kept."""

    newest: int
    """The last `seq` given; 0 for an empty log."""
    pruned_through: int
    """Everything up to here is gone; 0 if nothing is."""
    events: int
    data_bytes: int


def extent(tx: Tx) -> Extent:
    """Measure the log."""
    events, data_bytes = tx.one("SELECT count(*), coalesce(sum(length(data)), 0) FROM event") or (0, 0)
    return Extent(newest=newest(tx), pruned_through=pruned_through(tx), events=int(events), data_bytes=int(data_bytes))


def newest(tx: Tx) -> int:
    """Return the last `seq` that was given, also when its row is pruned."""
    return tx.number("SELECT seq FROM sqlite_sequence WHERE name = 'event'")


def pruned_through(tx: Tx) -> int:
    """Return the last `seq` that is gone, 0 if none is."""
    return tx.number("SELECT value FROM counter WHERE name = 'pruned_through'")


def public_events(
    tx: Tx, *, after: int, limit: int, service_types: Sequence[str] = (), senders: Sequence[NodePubkey] = ()
) -> list[Event]:
    """Read what streams show, from behind `after`, in order.

    Args:
      tx: the transaction.
      after: a `seq`; 0 for the beginning.
      limit: at most that many.
      service_types: only these, if any are given.
      senders: only these, if any are given.
    """
    where, parameters = "seq > ? AND public", [after]
    values: list[SqlValue] = list(parameters)
    if service_types:
        where += f" AND service_type IN ({_marks(service_types)})"
        values += service_types
    if senders:
        where += f" AND sender IN ({_marks(senders)})"
        values += [sender.raw for sender in senders]
    rows = tx.all(f"SELECT {_COLUMNS} FROM event WHERE {where} ORDER BY seq LIMIT ?", *values, limit)
    return [_event(row) for row in rows]


def events_for(tx: Tx, topic: ServiceType, *, after: int, limit: int, payments: bool = False) -> list[Event]:
    """Read what concerns one service, from behind `after`, in order: messages to it and the ends of its own.

    Args:
      tx: the transaction.
      topic: the service.
      after: a `seq`.
      limit: at most that many.
      payments: add the payments to this node that are no message of anybody.
    """
    where = "topic = ? AND kind IN ('message', 'outcome')"
    if payments:
        where = f"({where} OR topic = '{PAYMENTS}' AND kind = 'payment')"
    rows = tx.all(f"SELECT {_COLUMNS} FROM event WHERE {where} AND seq > ? ORDER BY seq LIMIT ?", topic, after, limit)
    return [_event(row) for row in rows]


def reader_position(tx: Tx, name: str) -> int | None:
    """Return how far a durable reader has come; None: it has never read."""
    row = tx.one("SELECT seq FROM reader WHERE name = ?", name)
    return int(row[0]) if row else None


def advance_reader(tx: Tx, name: str, seq: int) -> None:
    """Store how far a durable reader has come, together with what it did about it."""
    tx.run("INSERT INTO reader VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq", name, seq)


def prune(
    tx: Tx, *, before_ms: int | None = None, max_bytes: int | None = None, readers: AbstractSet[str] | None = None
) -> int:
    """Delete the oldest events, but none that a reader has still to read.

    Args:
      tx: the transaction.
      before_ms: those written before this time.
      max_bytes: the oldest beyond this size, newest first.
      readers: names of those that are waited for. None: everyone who ever read.

    Returns:
      How many are gone.
    """
    through = 0
    if before_ms is not None:
        through = tx.number("SELECT max(seq) FROM event WHERE written_at_ms < ?", before_ms)
    if max_bytes is not None:
        through = max(through, _last_beyond(tx, max_bytes))
    positions = {str(name): int(seq) for name, seq in tx.all("SELECT name, seq FROM reader")}
    through = min([through, *(seq for name, seq in positions.items() if readers is None or name in readers)])
    removed = tx.run("DELETE FROM event WHERE seq <= ?", through)
    if removed:
        tx.run(
            "INSERT INTO counter VALUES ('pruned_through', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            through,
        )
    return removed


def _last_beyond(tx: Tx, max_bytes: int) -> int:
    return tx.number(
        "SELECT max(seq) FROM (SELECT seq, sum(length(data) + ?) OVER (ORDER BY seq DESC) AS kept FROM event)"
        " WHERE kept > ?",
        _ROW_OVERHEAD_BYTES,
        max_bytes,
    )


def _event(row: Row) -> Event:
    (
        seq,
        kind,
        identifier,
        reply_to,
        sender,
        service_type,
        topic,
        data,
        amount,
        sent_at_ms,
        verified,
        public,
        secret,
    ) = row
    return Event(
        seq=seq,
        kind=EventKind(kind),
        id=UUID(bytes=identifier),
        reply_to=UUID(bytes=reply_to) if reply_to else None,
        sender=NodePubkey(sender) if sender else None,
        service_type=ServiceType(service_type),
        topic=ServiceType(topic),
        data=data,
        amount=Msat(amount),
        sent_at_ms=sent_at_ms,
        verified=bool(verified),
        public=bool(public),
        secret=secret,
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
