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
    "seq, kind, id, reply_to, sender, service_type, topic, data, amount_msat, sent_at_ms, verified, public, secret,"
    " (SELECT mark FROM event_order WHERE event_order.seq = event.seq)"
)
_ROW_OVERHEAD_BYTES: Final = 200
"""What a row takes besides its data, roughly: for retention by size."""
STEP_EVENTS: Final = 500
"""Events deleted in one step: a few milliseconds, in which no other write can go on."""
STEP_BYTES: Final = 2 << 20
"""Large events are many pages each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Which part of the log is kept."""

    newest: int
    """The last `seq` given; 0 for an empty log."""
    pruned_through: int
    """Everything up to here is gone; 0 if nothing is."""
    events: int
    data_bytes: int
    """Of their data, secrets included."""

    @property
    def kept_bytes(self) -> int:
        """What they take on the disk, roughly: what retention by size counts."""
        return self.data_bytes + self.events * _ROW_OVERHEAD_BYTES


def extent(tx: Tx) -> Extent:
    """Measure the log; as quick with a million events as with one."""
    events, data_bytes = tx.one("SELECT coalesce(sum(events), 0), coalesce(sum(bytes), 0) FROM log_size") or (0, 0)
    return Extent(newest=newest(tx), pruned_through=pruned_through(tx), events=int(events), data_bytes=int(data_bytes))


def by_service_type(tx: Tx) -> dict[str, int]:
    """Count the events of each service, by what streams show as their service."""
    rows = tx.all("SELECT service_type, events FROM log_size WHERE events > 0 ORDER BY service_type")
    return {str(service_type): int(events) for service_type, events in rows}


def forget_payment(tx: Tx, seq: int, readers: AbstractSet[str]) -> None:
    """Delete a payment that is on no stream, once all that it is kept for have read it.

    A stranger can make one for a satoshi; the event that a service makes of it stays.

    Args:
      tx: the transaction.
      seq: its position.
      readers: names of those that it is kept for.
    """
    if all((reader_position(tx, name) or 0) >= seq for name in readers):
        tx.run("DELETE FROM event WHERE seq = ? AND kind = 'payment' AND NOT public", seq)


def newest(tx: Tx) -> int:
    """Return the last `seq` that was given, also when its row is pruned."""
    return tx.number("SELECT seq FROM sqlite_sequence WHERE name = 'event'")


def pruned_through(tx: Tx) -> int:
    """Return the last `seq` that is gone, 0 if none is."""
    return tx.number("SELECT value FROM counter WHERE name = 'pruned_through'")


def public_events(
    tx: Tx,
    *,
    after: int,
    limit: int,
    service_types: Sequence[str] = (),
    senders: Sequence[NodePubkey] = (),
    quarantined: bool = False,
) -> list[Event]:
    """Read what streams show, from behind `after`, in order.

    Args:
      tx: the transaction.
      after: a `seq`; 0 for the beginning.
      limit: at most that many.
      service_types: only these, if any are given.
      senders: only these, if any are given.
      quarantined: also payments that are not shown as what they claim to be.
    """
    where, parameters = "seq > ? AND public", [after]
    values: list[SqlValue] = list(parameters)
    if service_types:
        where += f" AND service_type IN ({_marks(service_types)})"
        values += service_types
    if senders:
        where += f" AND sender IN ({_marks(senders)})"
        values += [sender.raw for sender in senders]
    if not quarantined:
        where += " AND kind <> 'quarantined'"
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
    tx: Tx,
    *,
    before_ms: int | None = None,
    max_bytes: int | None = None,
    readers: AbstractSet[str] | None = None,
    limit: int | None = None,
) -> int:
    """Delete the oldest events, but none that a reader has still to read.

    Args:
      tx: the transaction.
      before_ms: those written before this time, up to the first that was not.
      max_bytes: the oldest beyond this size (`Extent.kept_bytes`).
      readers: names of those that are waited for. None: everyone who ever read.
      limit: at most that many, and not many more than STEP_BYTES of them. None: all.

    Returns:
      How many are gone.
    """
    removed = 0
    while limit is None or not removed:
        last, count = _oldest_that_go(
            tx, before_ms=before_ms, max_bytes=max_bytes, through=_read_through(tx, readers), limit=limit or STEP_EVENTS
        )
        if not count:
            break
        tx.run("DELETE FROM event WHERE seq <= ?", last)
        tx.run(
            "INSERT INTO counter VALUES ('pruned_through', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            last,
        )
        removed += count
    return removed


def prunable(
    tx: Tx, *, before_ms: int | None = None, max_bytes: int | None = None, readers: AbstractSet[str] | None = None
) -> int:
    """Count what `prune` would delete, without writing; reads as many rows."""
    if max_bytes is None and before_ms is None:
        return 0
    size, counted = extent(tx).kept_bytes, 0
    limit_bytes = size if max_bytes is None else max_bytes
    after, through = 0, _read_through(tx, readers)
    while rows := _oldest(tx, after=after, through=through, limit=STEP_EVENTS):
        for seq, written_at_ms, row_bytes in rows:
            if size <= limit_bytes and (before_ms is None or written_at_ms >= before_ms):
                return counted
            size, counted, after = size - row_bytes, counted + 1, seq
    return counted


def _oldest_that_go(
    tx: Tx, *, before_ms: int | None, max_bytes: int | None, through: int | None, limit: int
) -> tuple[int, int]:
    """Return the last `seq` of one step, and how many events that is."""
    excess = 0 if max_bytes is None else extent(tx).kept_bytes - max_bytes
    if excess <= 0 and before_ms is None:
        return 0, 0
    last, count, step_bytes = 0, 0, 0
    for seq, written_at_ms, row_bytes in _oldest(tx, after=0, through=through, limit=limit):
        is_old = before_ms is not None and written_at_ms < before_ms
        if step_bytes >= STEP_BYTES or (step_bytes >= excess and not is_old):
            break
        last, count, step_bytes = seq, count + 1, step_bytes + row_bytes
    return last, count


def _oldest(tx: Tx, *, after: int, through: int | None, limit: int) -> list[tuple[int, int, int]]:
    """Return `seq`, time and size of the oldest events, from the beginning of the table: none of them is skipped."""
    rows = tx.all(
        "SELECT seq, written_at_ms, length(data) + coalesce(length(secret), 0) FROM event"
        " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        after,
        2**63 - 1 if through is None else through,
        limit,
    )
    return [(int(seq), int(at_ms), int(size) + _ROW_OVERHEAD_BYTES) for seq, at_ms, size in rows]


def _read_through(tx: Tx, readers: AbstractSet[str] | None) -> int | None:
    """Return the `seq` up to which everybody who is waited for has read; None: nobody is."""
    positions = {str(name): int(seq) for name, seq in tx.all("SELECT name, seq FROM reader")}
    return min((seq for name, seq in positions.items() if readers is None or name in readers), default=None)


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
        order,
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
        order=order or "",
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
