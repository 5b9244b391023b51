"""What the code inside one transaction can do: run SQL, add events to the log, wake whoever waits for news.

Events and wake-ups take effect outside the database only after the commit, in the order in which they were written.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from sqlcipher3 import dbapi2

from impervious.model import Event, NewEvent
from impervious.store.connection import TransactionLost, is_environmental

SqlValue: TypeAlias = int | float | str | bytes | None
Row: TypeAlias = tuple[Any, ...]  # type: ignore[explicit-any]  # SQLite's columns are typed by the schema only


def log_topic(service_type: str) -> str:
    """Name what a service waits for: news in the log that concern it."""
    return f"log {service_type}"


class Tx:
    """An open transaction. Lives in the store's thread: use it synchronously and never keep it."""

    def __init__(self, connection: dbapi2.Connection, *, now_ms: int) -> None:
        self._connection = connection
        self.now_ms = now_ms
        """Wall-clock time of this transaction, in milliseconds since 1970."""
        self.events: list[Event] = []
        self.wakes: set[str] = set()

    @property
    def _open(self) -> dbapi2.Connection:
        """The connection, unless the transaction is over: what is written then would be kept whatever follows."""
        if not self._connection.in_transaction:
            raise TransactionLost
        return self._connection

    def run(self, sql: str, *parameters: SqlValue) -> int:
        """Execute a statement and return how many rows it changed."""
        return self._open.execute(sql, parameters).rowcount

    def run_many(self, sql: str, rows: Iterable[Sequence[SqlValue]]) -> None:
        """Execute a statement once for each row of parameters."""
        self._open.executemany(sql, rows)

    def insert(self, sql: str, *parameters: SqlValue) -> int:
        """Execute an INSERT and return the row id."""
        return self._open.execute(sql, parameters).lastrowid or 0

    def one(self, sql: str, *parameters: SqlValue) -> Row | None:
        """Return the first row, or None."""
        return self._open.execute(sql, parameters).fetchone()

    def all(self, sql: str, *parameters: SqlValue) -> list[Row]:
        """Return every row."""
        return self._open.execute(sql, parameters).fetchall()

    def number(self, sql: str, *parameters: SqlValue) -> int:
        """Return the first column of the first row as an integer; no row and NULL are 0."""
        row = self.one(sql, *parameters)
        return int(row[0]) if row and row[0] is not None else 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what the block did, events and wake-ups included, if it raises.

        Raises:
          TransactionLost: a full disk ended the whole transaction, and the block says nothing of it.
        """
        written, wakes = len(self.events), set(self.wakes)
        self._open.execute("SAVEPOINT attempt")
        try:
            yield
            self._open.execute("RELEASE attempt")
        except BaseException as error:
            del self.events[written:]
            self.wakes.clear()
            self.wakes.update(wakes)
            if self._connection.in_transaction:  # a full disk ends the whole transaction by itself
                self._connection.execute("ROLLBACK TO attempt")
                self._connection.execute("RELEASE attempt")
            elif isinstance(error, Exception) and not is_environmental(error):
                raise TransactionLost from error  # noqa: ASYNC104 - no cancellation is an Exception
            raise

    def emit(self, event: NewEvent) -> Event:
        """Append an event to the log."""
        seq = self.insert(
            "INSERT INTO event (kind, id, reply_to, sender, service_type, topic, data, amount_msat, sent_at_ms,"
            " verified, public, secret, written_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            event.kind.value,
            event.id.bytes,
            event.reply_to.bytes if event.reply_to else None,
            event.sender.raw if event.sender else None,
            event.service_type,
            event.topic,
            event.data,
            event.amount,
            event.sent_at_ms,
            event.verified,
            event.public,
            event.secret,
            self.now_ms,
        )
        if event.order:
            self.run("INSERT INTO event_order VALUES (?, ?)", seq, event.order)
        self.run(
            "INSERT INTO log_size VALUES (?, 1, ?)"
            " ON CONFLICT (service_type) DO UPDATE SET events = events + 1, bytes = bytes + excluded.bytes",
            event.service_type,
            len(event.data) + len(event.secret or b""),
        )
        written = event.at(seq)
        self.events.append(written)
        self.wake(log_topic(event.topic))
        return written

    def wake(self, topic: str) -> None:
        """Have `topic`'s waiters woken after the commit."""
        self.wakes.add(topic)
