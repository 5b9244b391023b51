"""The writer and the reader: every access to the database, from one thread each.

Writes that wait together share one commit: a task takes all that are waiting, runs each in a savepoint of one
transaction, commits once (about 2700 times a second here), then answers all. One that raises, whatever it raises,
undoes itself only; nothing but the disk or the file undoes all. After the commit, and before anyone is answered, the
events written are handed on in `seq` order.

A caller that is cancelled while its write waits writes nothing; once its transaction has begun it finishes, and the
caller sees the result: either nothing was written and Cancelled is raised, or the write returns.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Generic, NoReturn, Protocol, TypeVar

import trio
from sqlcipher3 import dbapi2

from impervious.background import open_tasks
from impervious.errors import StoreError, StoreFull, StoreReplaced
from impervious.lifetime import Lifetime
from impervious.model import Event
from impervious.store.connection import is_environmental, locked, no_room, translated
from impervious.store.connections import Connections, opened, opened_anyhow
from impervious.store.transaction import Tx
from impervious.store.watch import FileWatch

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH: Final = 256
"""Writes that share a commit at most, so that one commit stays in the milliseconds."""
LOG_FRAMES: Final = 1000
"""Pages in the write-ahead log from which on it is folded into the file, as SQLite does by itself: 4 MB."""


class ThreadRunner(Protocol):
    """Runs a function that blocks: in a thread, or inline in tests with a virtual clock."""

    def __call__(self, function: Callable[[], T], /, *, limiter: trio.CapacityLimiter) -> Awaitable[T]:
        """Run `function` to its end, whatever happens to the caller."""
        ...


async def in_thread(function: Callable[[], T], /, *, limiter: trio.CapacityLimiter) -> T:
    """Run `function` in a worker thread, never abandoning it: a transaction that began always finishes."""
    return await trio.to_thread.run_sync(function, limiter=limiter)


class CommitListener(Protocol):
    """Told of every commit that wrote events or asked for wake-ups."""

    def __call__(self, events: Sequence[Event], wakes: AbstractSet[str], /) -> None:
        """Must not block."""
        ...


class _Job(Generic[T]):
    __slots__ = ("done", "error", "result", "started", "work")

    def __init__(self, work: Callable[[Tx], T]) -> None:
        self.work = work
        self.started = False
        self.done = trio.Event()
        self.result: T
        self.error: BaseException | None = None

    def run(self, tx: Tx) -> None:
        self.result = self.work(tx)


class Store:
    """An open database. Made by `open_store`."""

    def __init__(
        self,
        connections: Connections,
        open_again: Callable[[], Connections],
        *,
        path: Path,
        on_commit: CommitListener,
        now_ms: Callable[[], int],
        run_sync: ThreadRunner,
    ) -> None:
        self._connections = connections
        self._open_again = open_again
        """Runs in the writer's thread, while there is no writer."""
        self._opening = trio.Lock()
        self._path = path
        self._on_commit = on_commit
        self.now_ms = now_ms
        """The wall clock every transaction is stamped with."""
        self._run_sync = run_sync
        self._writer_thread = trio.CapacityLimiter(1)
        self._reader_thread = trio.CapacityLimiter(1)
        self._waiting: list[_Job[object]] = []
        self._news = trio.Event()
        self._lifetime = Lifetime("the database")

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run `work` in a transaction of its own, and return its result once that is committed.

        Args:
          work: runs in the writer's thread; whatever it raises undoes it and is raised here.

        Raises:
          StoreFull: the disk is full; nothing was written.
          StoreReplaced: the file was moved, deleted or overwritten; nothing was written.
          StoreError: the database cannot be used; nothing was written.
          trio.ClosedResourceError: the database was closed before the transaction began; nothing was written.

        Cancellation: before the transaction begins, nothing is written; after that it is finished first.
        """
        self._lifetime.require_open()
        job = _Job(work)
        self._waiting.append(job)  # type: ignore[arg-type]  # the writer never looks at the result
        self._news.set()
        try:
            await job.done.wait()
        except trio.Cancelled:  # noqa: ASYNC103
            if not job.started:
                with suppress(ValueError):  # closed in the meantime
                    self._waiting.remove(job)  # type: ignore[arg-type]
                raise
            with trio.CancelScope(shield=True):  # bounded by one commit
                await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.result

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work`, which must not write, on a snapshot of what is committed.

        Raises:
          StoreReplaced: the file was overwritten.
          StoreError: the database cannot be used.
          trio.ClosedResourceError: the database is closed.
        """
        now_ms = self.now_ms()

        def snapshot() -> T:
            if self._connections.overwritten is not None:
                raise StoreReplaced(self._connections.overwritten)
            reader = self._connections.reader
            reader.execute("BEGIN")
            try:
                return work(Tx(reader, now_ms=now_ms))
            finally:
                reader.execute("ROLLBACK")

        self._lifetime.require_open()
        try:
            return await self._run_sync(snapshot, limiter=self._reader_thread)
        except dbapi2.Error as error:
            raise self._translated(error) from error

    async def run(self) -> NoReturn:
        """Commit what is written, for as long as the store is open."""
        self._lifetime.require_open()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                for job in batch:
                    job.started = True
                with trio.CancelScope(shield=True):  # bounded by one commit
                    await self._commit(batch)
        raise AssertionError("the writer never ends by itself")  # pragma: no cover

    async def end(self) -> None:
        """Refuse what comes from now on and what still waits; close the file once the last read is over."""
        self._lifetime.close()
        for job in self._waiting:
            job.error = trio.ClosedResourceError("the database was closed; nothing was written")
            job.done.set()
        self._waiting.clear()
        with trio.CancelScope(shield=True):  # bounded: only what waits for its turn already is before us
            for thread in (self._reader_thread, self._writer_thread):
                async with thread:
                    pass
            self._connections.close()

    async def _commit(self, batch: list[_Job[object]]) -> None:
        now_ms, outcome = self.now_ms(), None
        log_is_long = False
        try:
            writer, watch = await self._wait_writable()
            tx = Tx(writer, now_ms=now_ms)

            def commit() -> bool:
                watch.check()
                _run_batch(writer, tx, batch)
                return watch.note().in_log >= LOG_FRAMES

            log_is_long = await self._run_sync(commit, limiter=self._writer_thread)
            if tx.events or tx.wakes:
                self._on_commit(tx.events, tx.wakes)
        except dbapi2.Error as error:
            outcome = self._translated(error)
        except StoreError as error:
            outcome = error
        finally:
            for job in batch:
                job.error = outcome or job.error
                job.done.set()
        if log_is_long:  # once those are answered who waited
            await self._run_sync(lambda: self._fold_log(writer, watch), limiter=self._writer_thread)

    async def _wait_writable(self) -> tuple[dbapi2.Connection, FileWatch]:
        """Return what is written with; open it if the disk was too full for that at the start.

        Raises:
          StoreFull: it still is.
        """
        async with self._opening:
            connections = self._connections
            if connections.writer is None or connections.watch is None:
                with trio.CancelScope(shield=True):  # bounded: opening, and the read that is under way
                    connections = await self._run_sync(self._open_again, limiter=self._writer_thread)
                    await self._run_sync(lambda: self._exchange(connections), limiter=self._reader_thread)
                logger.warning("there is room on the disk again, and the database is open for writing")
            assert connections.writer is not None, "opened with both"
            assert connections.watch is not None, "opened with both"
            return connections.writer, connections.watch

    def _exchange(self, connections: Connections) -> None:
        self._connections.close()
        self._connections = connections

    def _translated(self, error: dbapi2.Error) -> Exception:
        if no_room(error, self._path):
            return StoreFull("the disk is full: make room; what was not stored will be stored then")
        return translated(error) or error

    def _fold_log(self, writer: dbapi2.Connection, watch: FileWatch) -> None:
        """Copy the write-ahead log into the file, as far as no reader needs it; the next commit begins it anew."""
        try:
            watch.check()
            writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            watch.note()
        except StoreReplaced:
            return  # the next commit says so
        except dbapi2.Error as error:
            if translated(error) is None:
                raise
            logger.warning("the write-ahead log of the database grows: %s", self._translated(error))

    async def check(self) -> None:
        """See that the file is the one that was opened, and nothing but SQLite has written it.

        Raises:
          StoreFull: there is no room to open it for writing.
          StoreReplaced: says what happened and what to do.
          StoreError: the database cannot be used.
          trio.ClosedResourceError: the database is closed.
        """
        self._lifetime.require_open()
        try:
            _, watch = await self._wait_writable()
            await self._run_sync(watch.check, limiter=self._writer_thread)
        except dbapi2.Error as error:
            raise self._translated(error) from error


def _run_batch(connection: dbapi2.Connection, tx: Tx, batch: Sequence[_Job[object]]) -> None:
    """Run every job in a savepoint of its own, then commit.

    Raises:
      dbapi2.Error, TransactionLost: the transaction as a whole could not be kept.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job in batch:
            _run_job(tx, job)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _run_job(tx: Tx, job: _Job[object]) -> None:
    try:
        with tx.attempt():
            job.run(tx)
    except BaseException as error:  # noqa: ASYNC103 - in a thread, where nothing is cancelled
        if isinstance(error, Exception) and is_environmental(error):
            raise
        job.error = error  # `write` raises it, also SystemExit: the writer is not the one to end


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _quiet(_events: Sequence[Event], _wakes: AbstractSet[str], /) -> None:
    return


@asynccontextmanager
async def open_store(
    path: Path,
    password: str | None = None,
    *,
    on_commit: CommitListener = _quiet,
    now_ms: Callable[[], int] = _wall_clock_ms,
    run_sync: ThreadRunner = in_thread,
) -> AsyncIterator[Store]:
    """Open, lock and migrate the database; close it at the end.

    Args:
      path: the file; made, with its folder, if there is none.
      password: SQLCipher's key. None: not encrypted.
      on_commit: called in the Trio thread after each commit, with its events in order and the topics to wake.
      now_ms: the wall clock, in milliseconds since 1970.
      run_sync: runs the blocking parts.

    Raises:
      StoreLocked: another daemon has it.
      StoreKeyWrong: the password does not open it.
      ConfigError: the file cannot be made or opened.
      StoreError: it was made by a newer version of this program, or is damaged.

    Cancellation: ends the block; what it writes meanwhile is still committed.
    """
    limiter = trio.CapacityLimiter(1)
    with locked(path):
        connections = await run_sync(lambda: opened_anyhow(path, password), limiter=limiter)
        store = Store(
            connections,
            lambda: opened(path, password),
            path=path,
            on_commit=on_commit,
            now_ms=now_ms,
            run_sync=run_sync,
        )
        try:
            async with open_tasks() as tasks:
                tasks.start_soon(store.run)
                yield store
        finally:
            await store.end()  # noqa: ASYNC102 - shielded there
