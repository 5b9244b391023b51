from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing
from sqlcipher3 import dbapi2
from tests.conftest import Wall, inline

from impervious.errors import StoreError, StoreFull, StoreKeyWrong, StoreLocked
from impervious.model import Event, EventKind, NewEvent, ServiceType
from impervious.store import Store, Tx, log, open_store
from impervious.store.database import in_thread
from impervious.units import Msat


def notice(text: str) -> NewEvent:
    return NewEvent(
        kind=EventKind.NOTICE,
        id=UUID(int=1),
        reply_to=None,
        sender=None,
        service_type=ServiceType("message"),
        topic=ServiceType("message"),
        data=text.encode(),
        amount=Msat(0),
        sent_at_ms=0,
        verified=False,
    )


class Commits:
    def __init__(self) -> None:
        self.batches: list[tuple[list[str], set[str]]] = []

    def __call__(self, events: Sequence[Event], wakes: AbstractSet[str], /) -> None:
        self.batches.append(([event.data.decode() for event in events], set(wakes)))


def count(tx: Tx) -> int:
    return tx.number("SELECT count(*) FROM event")


async def test_what_is_written_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "imp.db"
    for expected in (0, 1):
        async with open_store(path) as store:
            assert await store.read(count) == expected
            await store.write(lambda tx: tx.emit(notice("hello")))


async def test_the_database_and_its_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "imp.db"
    async with open_store(path) as store:
        await store.write(lambda tx: tx.emit(notice("hello")))
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_a_password_encrypts(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    async with open_store(path, "it's secret") as store:
        await store.write(lambda tx: tx.emit(notice("find me")))
        for file in tmp_path.iterdir():
            assert b"find me" not in file.read_bytes()
            assert b"SQLite format" not in file.read_bytes()
    async with open_store(path, "it's secret") as store:
        assert await store.read(count) == 1
    for wrong in ("other", None):
        with pytest.raises(StoreKeyWrong, match=r"sqlite3\.password does not open"):
            async with open_store(path, wrong):
                pass


async def test_a_second_daemon_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    async with open_store(path):
        with pytest.raises(StoreLocked, match="in use by another daemon"):
            async with open_store(path):
                pass
    async with open_store(path):
        pass


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    async with open_store(path):
        pass
    connection = dbapi2.connect(str(path))
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        async with open_store(path):
            pass


async def test_writes_that_wait_together_share_a_commit(tmp_path: Path, wall: Wall) -> None:
    commits = Commits()
    async with open_store(tmp_path / "imp.db", on_commit=commits, now_ms=wall, run_sync=inline) as store:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(store.write, lambda tx, number=number: tx.emit(notice(str(number))))
        assert len(commits.batches) == 1
        events = await store.read(lambda tx: log.public_events(tx, after=0, limit=100))
        assert [event.data.decode() for event in events] == commits.batches[0][0]
        assert [event.seq for event in events] == list(range(1, 11))


async def test_one_that_raises_undoes_itself_only(tmp_path: Path) -> None:
    commits = Commits()

    def bad(tx: Tx) -> None:
        tx.emit(notice("bad"))
        tx.wake("bad")
        raise LookupError("no")

    async def expect_error() -> None:
        with pytest.raises(LookupError, match="no"):
            await store.write(bad)

    def good(tx: Tx) -> None:
        tx.emit(notice("good"))
        tx.wake("good")

    async with open_store(tmp_path / "imp.db", on_commit=commits) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, good)
            nursery.start_soon(expect_error)
            nursery.start_soon(store.write, good)
        assert await store.read(count) == 2
    assert [text for texts, _ in commits.batches for text in texts] == ["good", "good"]
    assert all(wakes == {"good", "log message"} for _, wakes in commits.batches)


@pytest.mark.parametrize(
    "error",
    [StoreError("mine"), StoreFull("mine"), SystemExit(3), dbapi2.IntegrityError("mine"), trio.BrokenResourceError()],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_one_raises_the_writer_goes_on(tmp_path: Path, error: BaseException) -> None:
    commits = Commits()

    def bad(tx: Tx) -> None:
        tx.emit(notice("bad"))
        raise error

    async def expect_error() -> None:
        with pytest.raises(type(error)) as caught:
            await store.write(bad)
        assert caught.value is error

    async with open_store(tmp_path / "imp.db", on_commit=commits) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, lambda tx: tx.emit(notice("good")))
            nursery.start_soon(expect_error)
        await store.write(lambda tx: tx.emit(notice("good")))
    assert [text for texts, _ in commits.batches for text in texts] == ["good", "good"]


async def test_a_waiting_write_that_is_cancelled_writes_nothing(tmp_path: Path, wall: Wall) -> None:
    entered, proceed = trio.Event(), trio.Event()

    async def gated(function, /, *, limiter):  # type: ignore[no-untyped-def]
        result = function()
        if entered.is_set() or not opened:
            return result
        entered.set()
        await proceed.wait()
        return result

    opened = False
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=gated) as store:
        opened = True
        finished: list[str] = []

        async def write(name: str, scope: trio.CancelScope) -> None:
            with scope:
                await store.write(lambda tx: tx.emit(notice(name)))
                finished.append(name)

        begun, waiting = trio.CancelScope(), trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "begun", begun)
            await entered.wait()
            nursery.start_soon(write, "waiting", waiting)
            await trio.testing.wait_all_tasks_blocked()
            begun.cancel()
            waiting.cancel()
            await trio.testing.wait_all_tasks_blocked()
            proceed.set()
        events = await store.read(lambda tx: log.public_events(tx, after=0, limit=10))
        assert [event.data for event in events] == [b"begun"]
        assert finished == ["begun"]


async def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    async with open_store(tmp_path / "imp.db") as store:

        def limit(tx: Tx, pages: int) -> None:
            tx.one(f"PRAGMA max_page_count = {pages}")

        await store.write(lambda tx: limit(tx, 1))  # SQLite makes that "as large as it is now"
        with pytest.raises(StoreFull, match="disk is full"):
            await store.write(lambda tx: [tx.emit(notice("x" * 10_000)) for _ in range(100)])
        await store.write(lambda tx: limit(tx, 1_000_000))
        await store.write(lambda tx: tx.emit(notice("small")))
        assert await store.read(count) == 1


@pytest.mark.parametrize("then", ["goes on", "writes", "raises"])
async def test_who_hides_a_full_disk_is_found_out(tmp_path: Path, then: str) -> None:
    """SQLite undoes the whole transaction by itself: what anybody wrote after that would be kept, whatever follows."""
    commits = Commits()

    def hides(tx: Tx) -> None:
        tx.one("PRAGMA max_page_count = 1")  # SQLite makes that "as large as it is now"
        try:
            for _ in range(100):
                tx.emit(notice("x" * 10_000))
        except dbapi2.Error:
            pass
        if then == "writes":
            tx.emit(notice("afterwards"))
        if then == "raises":
            raise LookupError("something else")

    async def expect_error(work: Callable[[Tx], object]) -> None:
        with pytest.raises(StoreFull, match="gave a transaction up, as it does when the disk is full"):
            await store.write(work)

    async with open_store(tmp_path / "imp.db", on_commit=commits) as store:
        async with trio.open_nursery() as nursery:
            for work in (lambda tx: tx.emit(notice("before")), hides, lambda tx: tx.emit(notice("behind"))):
                nursery.start_soon(expect_error, work)
        await store.write(lambda tx: tx.one("PRAGMA max_page_count = 1000000"))
        await store.write(lambda tx: tx.emit(notice("later")))
        assert await store.read(count) == 1
    assert [text for texts, _ in commits.batches for text in texts] == ["later"]


async def test_the_thread_runner_never_abandons(tmp_path: Path) -> None:
    ran: list[int] = []
    with trio.move_on_after(0) as scope:
        await in_thread(lambda: ran.append(1), limiter=trio.CapacityLimiter(1))
    assert scope.cancelled_caught
    assert ran == []


# --- The end ----------------------------------------------------------------------------------------------------------


async def test_after_the_end_nothing_is_read_and_nothing_written(tmp_path: Path) -> None:
    async with open_store(tmp_path / "imp.db") as store:
        await store.write(lambda tx: tx.emit(notice("hello")))
    for call in (store.read, store.write):
        with trio.fail_after(5), pytest.raises(trio.ClosedResourceError, match="the database is closed: open it again"):
            await call(count)


async def test_what_is_under_way_at_the_end_is_done_or_refused(tmp_path: Path, autojump_clock: object) -> None:
    """Tasks that outlive the block are told what became of each write, and no read meets a closed file."""
    kept = refused = reads = 0

    async def slow(function: Callable[[], object], /, *, limiter: trio.CapacityLimiter) -> object:
        async with limiter:
            await trio.sleep(1)
            return function()

    async def keep_writing(store: Store) -> None:
        nonlocal kept, refused
        try:
            while True:
                await store.write(lambda tx: tx.emit(notice("hello")))
                kept += 1
        except trio.ClosedResourceError:
            refused += 1

    async def keep_reading(store: Store) -> None:
        nonlocal reads, refused
        try:
            while True:
                await store.read(count)
                reads += 1
        except trio.ClosedResourceError:
            refused += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with open_store(tmp_path / "imp.db", run_sync=slow) as store:  # type: ignore[arg-type]
                for _ in range(3):
                    nursery.start_soon(keep_writing, store)  # noqa: ASYNC111 - that is the point
                    nursery.start_soon(keep_reading, store)  # noqa: ASYNC111 - that is the point
                await trio.sleep(10.5)
    assert (kept, refused) == (33, 6)
    assert reads > 10
    async with open_store(tmp_path / "imp.db") as store:
        assert await store.read(count) == kept


async def test_cancelled_from_outside_what_the_block_writes_meanwhile_is_kept(
    tmp_path: Path, autojump_clock: object
) -> None:
    with trio.move_on_after(1) as scope:
        async with open_store(tmp_path / "imp.db", run_sync=inline) as store:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(10, shield=True):
                    await trio.sleep(1)
                    await store.write(lambda tx: tx.emit(notice("hello")))
    assert scope.cancelled_caught
    async with open_store(tmp_path / "imp.db", run_sync=inline) as store:
        assert await store.read(count) == 1


@pytest.mark.parametrize("error", [ValueError("body"), ExceptionGroup("its own", [KeyError()])])
async def test_what_the_block_raises_comes_out_as_it_went_in(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_store(tmp_path / "imp.db"):
            raise error
    assert caught.value is error
