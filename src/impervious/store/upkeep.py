"""What is forgotten in time, and what an operator can look at: the state of the whole database in numbers."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from impervious.store import idempotency, log, outbox, spending
from impervious.store.transaction import Tx
from impervious.units import Msat

DAY_MS = 86_400_000
MIB = 2**20
_ROWS: Final = 500
"""Rows of one table that go in one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things are kept. 0: for ever. Never less than a day: the budget looks back so far."""

    events_days: int
    events_mb: int
    idempotency_days: int
    readers: AbstractSet[str] | None = None
    """Names of those for whom events are kept until they are read; None: everyone who ever read, also services that
    are switched off or gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The database in numbers."""

    events: int
    oldest_seq: int
    newest_seq: int
    data_bytes: int
    oldest_at_ms: int | None
    """When the oldest kept event was written; None: there is none."""
    newest_at_ms: int | None
    by_type: dict[str, int]
    """Events by what streams show as their service."""
    unfinished_messages: int
    """Outbound, not yet delivered or failed."""
    unfinished_since_ms: int | None
    """When the oldest of them was accepted."""
    undelivered_debts: int
    """Refunds and paid answers that could not be delivered, and are tried again."""
    incomplete_messages: int
    """Inbound, lacking parts."""
    held_messages: int
    """Inbound, waiting for an earlier one."""
    quarantined: int
    """Kept in quarantine now."""
    spent_msat: Msat
    """In the last 24 hours, reservations included."""
    counters: dict[str, int]
    """Since the database was made."""
    readers: dict[str, int]
    """How far each service has read the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step of forgetting did."""

    events: int
    """Events that went."""
    more: bool
    """Whether another step is worth its while now."""


def tidy(tx: Tx, retention: Retention) -> int:
    """Forget everything that is old enough, in this one transaction; return how many events went."""
    events = 0
    while True:
        step = tidy_step(tx, retention)
        events += step.events
        if not step.more:
            return events


def tidy_step(tx: Tx, retention: Retention) -> Step:
    """Forget some of what is old enough: as much as other writes can wait for (about 10 ms).

    What makes a payment count once is never forgotten: `processed_invoice`, `seen_message` and the counters of order.
    Quarantine and incomplete messages have bounds of their own.
    """
    forgotten = 0
    if retention.idempotency_days:
        ended_before_ms = tx.now_ms - retention.idempotency_days * DAY_MS
        forgotten += idempotency.forget(tx, days=retention.idempotency_days, limit=_ROWS)
        forgotten += outbox.forget_ended(tx, before_ms=ended_before_ms, parts=_ROWS)
        forgotten += spending.forget(tx, before_ms=ended_before_ms, limit=_ROWS)
    events = log.prune(
        tx,
        before_ms=tx.now_ms - retention.events_days * DAY_MS if retention.events_days else None,
        max_bytes=retention.events_mb * MIB if retention.events_mb else None,
        readers=retention.readers,
        limit=log.STEP_EVENTS,
    )
    return Step(events=events, more=bool(forgotten or events))


def summary(tx: Tx) -> Summary:
    """Count everything."""
    extent = log.extent(tx)
    return Summary(
        events=extent.events,
        oldest_seq=extent.pruned_through + 1 if extent.events else 0,
        newest_seq=extent.newest,
        data_bytes=extent.data_bytes,
        oldest_at_ms=_time(tx, "SELECT written_at_ms FROM event WHERE seq > 0 ORDER BY seq LIMIT 1"),
        newest_at_ms=_time(tx, "SELECT written_at_ms FROM event WHERE seq > 0 ORDER BY seq DESC LIMIT 1"),
        by_type=log.by_service_type(tx),
        unfinished_messages=tx.number("SELECT count(*) FROM outbound WHERE state IN ('accepted', 'sending')"),
        unfinished_since_ms=_time(
            tx, "SELECT accepted_at_ms FROM outbound WHERE state IN ('accepted', 'sending') ORDER BY number LIMIT 1"
        ),
        undelivered_debts=outbox.count_debts(tx),
        incomplete_messages=tx.number("SELECT count(*) FROM assembly"),
        held_messages=tx.number("SELECT count(*) FROM held"),
        quarantined=tx.number("SELECT count(*) FROM quarantine"),
        spent_msat=spending.spent(tx),
        counters=_numbers(tx, "SELECT name, value FROM counter ORDER BY name"),
        readers=_numbers(tx, "SELECT name, seq FROM reader ORDER BY name"),
    )


def _time(tx: Tx, sql: str) -> int | None:
    row = tx.one(sql)
    return None if row is None else int(row[0])


def _numbers(tx: Tx, sql: str) -> dict[str, int]:
    return {str(name): int(value) for name, value in tx.all(sql)}
