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
from impervious.errors import StoreError, StoreReplaced
from impervious.lifetime import Lifetime
from impervious.model import Event
from impervious.store import schema
from impervious.store.connection import (
    TransactionLost,
    connect,
    is_environmental,
    keep_open,
    locked,
    real_path,
    translated,
)
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
        writer: dbapi2.Connection,
        reader: dbapi2.Connection,
        watch: FileWatch,
        *,
        on_commit: CommitListener,
        now_ms: Callable[[], int],
        run_sync: ThreadRunner,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._watch = watch
        self._on_commit = on_commit
        self.now_ms = now_ms
        """The wall clock every transaction is stamped with."""
        self._run_sync = run_sync
        self._writer_thread = trio.CapacityLimiter(1)
        self._reader_thread = trio.CapacityLimiter(1)
        self._waiting: list[_Job[object]] = []
        self._log_is_long = False
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
            if self._watch.overwritten is not None:
                raise StoreReplaced(self._watch.overwritten)
            self._reader.execute("BEGIN")
            try:
                return work(Tx(self._reader, now_ms=now_ms))
            finally:
                self._reader.execute("ROLLBACK")

        self._lifetime.require_open()
        try:
            return await self._run_sync(snapshot, limiter=self._reader_thread)
        except dbapi2.Error as error:
            raise translated(error) or error from error

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
        """Refuse what comes from now on and what still waits; return once the last read is over."""
        self._lifetime.close()
        for job in self._waiting:
            job.error = trio.ClosedResourceError("the database was closed; nothing was written")
            job.done.set()
        self._waiting.clear()
        with trio.CancelScope(shield=True):  # bounded: only what waits for its turn already is before us
            for thread in (self._reader_thread, self._writer_thread):
                async with thread:
                    pass

    async def _commit(self, batch: list[_Job[object]]) -> None:
        tx = Tx(self._writer, now_ms=self.now_ms())
        try:
            await self._run_sync(lambda: self._run_batch(tx, batch), limiter=self._writer_thread)
            if tx.events or tx.wakes:
                self._on_commit(tx.events, tx.wakes)
        except (dbapi2.Error, TransactionLost, StoreReplaced) as error:
            outcome = translated(error) or error if isinstance(error, dbapi2.Error) else error
            for job in batch:
                job.error = outcome
        finally:
            for job in batch:
                job.done.set()
        if self._log_is_long:  # once those are answered who waited
            await self._run_sync(self._fold_log, limiter=self._writer_thread)

    def _run_batch(self, tx: Tx, batch: Sequence[_Job[object]]) -> None:
        self._watch.check()
        _run_batch(self._writer, tx, batch)
        self._log_is_long = self._watch.note().in_log >= LOG_FRAMES

    def _fold_log(self) -> None:
        """Copy the write-ahead log into the file, as far as no reader needs it; the next commit begins it anew."""
        self._log_is_long = False
        try:
            self._watch.check()
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._watch.note()
        except StoreReplaced:
            return  # the next commit says so
        except dbapi2.Error as error:
            if translated(error) is None:
                raise
            logger.warning("the write-ahead log of the database grows: %s", translated(error))

    async def check(self) -> None:
        """See that the file is the one that was opened, and nothing but SQLite has written it.

        Raises:
          StoreReplaced: says what happened and what to do.
          StoreError: the database cannot be used.
          trio.ClosedResourceError: the database is closed.
        """
        self._lifetime.require_open()
        try:
            await self._run_sync(self._watch.check, limiter=self._writer_thread)
        except dbapi2.Error as error:
            raise translated(error) or error from error


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
    limiter = trio.CapacityLimiter(2)
    with locked(path):
        writer = await run_sync(lambda: _opened(path, password), limiter=limiter)
        try:
            reader = await run_sync(lambda: connect(path, password), limiter=limiter)
            watch = FileWatch(real_path(path), writer)
            try:
                store = Store(writer, reader, watch, on_commit=on_commit, now_ms=now_ms, run_sync=run_sync)
                try:
                    async with open_tasks() as tasks:
                        tasks.start_soon(store.run)
                        yield store
                finally:
                    await store.end()  # noqa: ASYNC102 - shielded there
            finally:
                if watch.overwritten is None:
                    reader.close()
                else:
                    keep_open(reader)
        finally:
            writer.close()


def _opened(path: Path, password: str | None) -> dbapi2.Connection:
    connection = connect(path, password)
    try:
        schema.migrate(connection)
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # ours come between commits, after a look at the file
    except dbapi2.Error as error:
        connection.close()
        raise translated(error) or StoreError(f"the database {path} cannot be brought up to date: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection
