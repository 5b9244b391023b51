"""What others do to the files of an open database: each in a process of its own, as locks want it."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import inline
from tests.store.test_maintenance import event

from impervious.errors import StoreFull, StoreReplaced
from impervious.store import Store, log, open_store, schema, watch
from impervious.store.connection import connect, connect_alone, log_of
from impervious.store.maintenance import look
from impervious.store.watch import ASIDE, FileWatch, Frames

ELSEWHERE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement).fetchall()
database.close()
"""

RESTORE = """
import sqlite3, sys
backup, database = (sqlite3.connect(path) for path in sys.argv[1:])
backup.backup(database)
backup.close()
database.close()
"""
HALF_A_CHECKPOINT = """
import fcntl, os, struct, sys, time
path, half = sys.argv[1:]
shared = os.open(path + "-shm", os.O_RDWR)
fcntl.lockf(shared, fcntl.LOCK_EX, 1, 121)
log = open(path + "-wal", "rb").read()
last = {}
for at in range(32, len(log) - 4119, 4120):
    if log[at + 8:at + 16] == log[16:24]:
        last[struct.unpack(">I", log[at:at + 4])[0]] = log[at + 24:at + 4120]
with open(path, "r+b") as file:
    for page in sorted(last)[:len(last) // 2 if half == "copied" else 0]:
        file.seek((page - 1) * 4096)
        file.write(last[page])
print("half-way", flush=True)
time.sleep(60)
"""
"""What SQLite does: it locks the others out, and copies the last frame of each page, in the order of the pages."""
MANY = (
    "CREATE TABLE x AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)"
    " SELECT i, zeroblob(2000) AS b FROM n"
)


def elsewhere(path: Path, *statements: str) -> None:
    """Work on the database in another process, through SQLite."""
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(path), *statements], check=True, timeout=60)


def restore(backup: Path, path: Path) -> None:
    subprocess.run([sys.executable, "-c", RESTORE, str(backup), str(path)], check=True, timeout=60)


async def write(store: Store, count: int = 1, size: int = 1) -> None:
    await store.write(lambda tx: [tx.emit(event(b"x" * size)) for _ in range(count)])


async def count_up(store: Store) -> None:
    """Write so much that the log is folded, as far as readers let it be, and nothing that has a sequence."""
    statement = "INSERT INTO counter VALUES (hex(randomblob(400)), 1)"
    for count in (8000, 1):  # the second is answered after the log was folded
        await store.write(lambda tx, count=count: tx.run_many(statement, [()] * count))  # type: ignore[misc]


async def events(store: Store) -> int:
    return (await store.read(log.extent)).events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "imp.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with open_store(path, run_sync=inline) as opened:
        await write(opened, 10)
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize(
    "statements",
    [
        ("SELECT * FROM event",),
        ("UPDATE counter SET value = 1",),
        ("PRAGMA wal_checkpoint(PASSIVE)",),
        ("PRAGMA wal_checkpoint(TRUNCATE)",),
        (MANY, "UPDATE x SET i = i + 1", "DROP TABLE x"),
        ("VACUUM", "PRAGMA wal_checkpoint(PASSIVE)", "UPDATE counter SET value = 1"),
    ],
)
async def test_another_program_may_use_sqlite(store: Store, path: Path, statements: tuple[str, ...]) -> None:
    for _ in range(3):
        elsewhere(path, *statements)
        await store.check()
        await write(store, 10, 1000)
    assert await events(store) == 40


@pytest.mark.slow
async def test_another_program_cannot_delete_the_log(store: Store, path: Path) -> None:
    """It would, if this process had lost its locks: by closing any descriptor of the file."""
    before = os.stat(f"{path}-wal").st_ino
    connect(path, None).close()
    elsewhere(path, "SELECT * FROM event")
    assert os.stat(f"{path}-wal").st_ino == before
    assert await events(store) == 10


@pytest.mark.parametrize("how", [Path.unlink, lambda path: path.rename(f"{path}.old"), "folder"])
async def test_a_file_that_is_gone(tmp_path: Path, how: Callable[[Path], None] | str) -> None:
    path = tmp_path / "folder" / "imp.db"
    async with open_store(path, run_sync=inline) as store:
        await write(store)
        if how == "folder":
            path.parent.rename(tmp_path / "elsewhere")
        else:
            assert callable(how)
            how(path)
        with pytest.raises(StoreReplaced, match="deleted or moved while the daemon ran: nothing more is accepted"):
            await write(store)
        assert await events(store) == 1
    assert not path.exists()


async def test_a_file_that_comes_back(store: Store, path: Path) -> None:
    path.rename(f"{path}.old")
    with pytest.raises(StoreFull):  # whoever waits for room waits for this too
        await write(store)
    shutil.copy(f"{path}.old", path)  # another file by that name
    with pytest.raises(StoreReplaced, match="was replaced by another file"):
        await write(store)
    assert not log_of(path).exists()  # or it would be folded into the other file
    os.rename(f"{path}.old", path)
    await write(store)
    assert await events(store) == 11
    assert [file.name for file in path.parent.glob(f"*{ASIDE}")] == []


async def test_a_file_that_is_replaced_is_left_alone(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.db"
    async with open_store(other, run_sync=inline) as store:
        await write(store, 3)
    content = other.read_bytes()
    async with open_store(path, run_sync=inline) as store:
        await write(store, 100, 1000)
        other.replace(path)
        with pytest.raises(StoreReplaced, match="was replaced by another file"):
            await store.check()
    assert path.read_bytes() == content
    async with open_store(path, run_sync=inline) as store:
        assert await events(store) == 3


@pytest.mark.parametrize("same", [False, True], ids=["another", "a backup of itself"])
async def test_a_file_that_is_overwritten(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    monkeypatch.setattr(watch, "SETTLED_S", 0.0)
    monkeypatch.setattr(watch, "_ASK_TIMES", 1)
    backup = tmp_path / "backup.db"
    async with open_store(backup, run_sync=inline) as store:
        await write(store, 3)
    async with open_store(path, run_sync=inline) as store:
        await write(store, 5, 1000)
        if same:
            elsewhere(path, f"VACUUM INTO '{backup}.2'")
            backup = Path(f"{backup}.2")
        await write(store, 100, 1000)
        await write(store, 100, 1000)
        shutil.copyfile(backup, path)
        content = path.read_bytes()
        for _ in range(2):
            with pytest.raises(StoreReplaced, match="was overwritten while the daemon ran"):
                await write(store)
        with pytest.raises(StoreReplaced):
            await events(store)
    assert path.read_bytes() == content  # the log of the old one was not folded into it
    shutil.copy(path, tmp_path / "copy.db")  # for the process that has it open ends before it is opened again
    assert look(tmp_path / "copy.db", None, log.extent)[0].events == (5 if same else 3)


class Watched:
    """A watch over a database with something in its log, with a clock that tests set."""

    def __init__(self, path: Path, password: str | None = None) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.connection = connect(path, password)
        schema.migrate(self.connection)
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.watch = FileWatch(
            path,
            self.connection,
            alone=lambda: connect_alone(path, password),
            monotonic=lambda: self.now,
            sleep=self.slept.append,
        )

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.watch.check()
            self.connection.execute("INSERT INTO counter VALUES (hex(randomblob(2000)), 1)")
            self.watch.note()

    def fold(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self.watch.note()

    def rows(self) -> int:
        (count,) = self.connection.execute("SELECT count(*) FROM counter").fetchone() or (0,)
        return int(count)

    def close(self) -> None:
        self.connection.close()
        self.watch.close()


@contextmanager
def watched(path: Path, password: str | None = None) -> Iterator[Watched]:
    there = Watched(path, password)
    try:
        yield there
    finally:
        there.close()


@contextmanager
def half_folded(path: Path, half: str = "copied") -> Iterator[subprocess.Popen[str]]:
    """Begin a checkpoint in another process, which gets half-way, and no further."""
    other = subprocess.Popen(
        [sys.executable, "-c", HALF_A_CHECKPOINT, str(path), half], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "half-way\n"
        yield other
    finally:
        other.kill()
        other.wait()
        assert other.stdout is not None
        other.stdout.close()


def test_a_file_that_is_being_overwritten_is_waited_for(path: Path) -> None:
    with watched(path) as there:
        there.write()
        path.write_bytes(b"x" * 8192)
        for there.now in (0.0, 4.0):
            with pytest.raises(StoreReplaced, match="is being written by another program: wait"):
                there.watch.check()
        assert there.slept
        os.utime(path, (2, 2))  # it goes on
        there.now = 6.0
        with pytest.raises(StoreReplaced, match="is being written"):
            there.watch.check()
        assert log_of(path).exists()
        there.now = 12.0
        with pytest.raises(StoreReplaced, match="was overwritten"):
            there.watch.check()
        assert not log_of(path).exists()


@pytest.mark.slow
@pytest.mark.parametrize("half", ["nothing", "copied"])
def test_a_checkpoint_of_another_program_may_last(path: Path, half: str) -> None:
    """The disk is slow, or it was paused: nothing moves, and SQLite's counters show it only at its end."""
    with watched(path) as there:
        there.write(20)
        with half_folded(path, half):
            if half == "nothing":
                os.utime(path, (1, 1))
            for there.now in (0.0, 6.0, 3600.0):
                with pytest.raises(StoreReplaced, match=r"copies SQLite's log into it: wait"):
                    there.watch.check()
            assert there.watch.overwritten is None
            assert log_of(path).exists()
        if half == "nothing":
            elsewhere(path, "PRAGMA wal_checkpoint(PASSIVE)")  # its end
        there.write()
        assert there.rows() == 21


@pytest.mark.slow
@pytest.mark.parametrize("password", [None, "secret"])
def test_a_checkpoint_of_another_program_may_be_killed(path: Path, password: str | None) -> None:
    with watched(path, password) as there:
        there.write(20)
        there.fold()
        there.write(20)
        with half_folded(path) as other:
            other.kill()
            other.wait()
            there.write(5)
            os.utime(path, (1, 1))
            there.write(5)
        there.fold()
        assert there.rows() == 50
    with watched(path, password) as there:
        assert there.rows() == 50
        assert there.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_cannot_be_told_is_left_as_it_is(path: Path) -> None:
    """The file is damaged, or half of something: who knows."""
    with watched(path) as there:
        there.write(20)
        with open(path, "r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 3900)
        for there.now in (0.0, 10.0, 3600.0):
            with pytest.raises(StoreReplaced, match="Leave both where they are"):
                there.watch.check()
        assert there.watch.overwritten is None
        assert log_of(path).exists()


@pytest.mark.parametrize("password", [None, "secret"])
async def test_a_time_may_be_set_while_the_log_is_folded_in_part(
    path: Path, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    """A reader holds the rest back: the file alone is a mixture of old and new pages."""
    monkeypatch.setattr(watch, "_ASK_TIMES", 1)
    monkeypatch.setattr(watch, "SETTLED_S", 0.0)
    async with open_store(path, password, run_sync=inline) as store:
        await write(store, 200)
        reader = connect(path, password)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM event").fetchone()
        await count_up(store)
        other = connect(path, password)
        frames = Frames.of(other)
        other.close()
        assert 0 < frames.folded < frames.in_log
        for _ in range(3):
            os.utime(path, (1, 1))
            await write(store)
            os.utime(path)
            await store.check()
        assert await events(store) == 203
        reader.close()
        os.utime(path, (1, 1))
        await write(store)
    assert [file.name for file in path.parent.glob(f"*{ASIDE}")] == []
    async with open_store(path, password, run_sync=inline) as store:
        assert await events(store) == 204
        assert await store.read(lambda tx: tx.number("SELECT count(*) FROM counter")) == 8001


async def test_a_file_that_is_overwritten_while_the_log_is_folded_in_part(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_ASK_TIMES", 1)
    monkeypatch.setattr(watch, "SETTLED_S", 0.0)
    async with open_store(path, run_sync=inline) as store:
        await write(store, 5)
        elsewhere(path, f"VACUUM INTO '{tmp_path / 'backup.db'}'")
        await write(store, 200)
        reader = connect(path, None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM event").fetchone()
        await count_up(store)
        shutil.copyfile(tmp_path / "backup.db", path)
        with pytest.raises(StoreReplaced, match="was overwritten while the daemon ran"):
            await write(store)
        reader.close()
    assert path.read_bytes() == (tmp_path / "backup.db").read_bytes()


@pytest.mark.parametrize("password", [None, "secret"])
@pytest.mark.parametrize("folded", [True, False])
async def test_a_time_that_is_set_is_no_change(
    path: Path, monkeypatch: pytest.MonkeyPatch, password: str | None, folded: bool
) -> None:
    monkeypatch.setattr(watch, "_ASK_TIMES", 1)
    async with open_store(path, password, run_sync=inline) as store:
        await write(store, 20, 300_000 if folded else 10)
        for _ in range(3):
            os.utime(path, (1, 1))  # as some backup tools do
            await write(store, 1)
            os.utime(path)
            await store.check()
        before = os.stat(f"{path}-wal").st_ino
        if password is None:
            elsewhere(path, "SELECT * FROM event")  # nobody's locks were lost in looking
        assert os.stat(f"{path}-wal").st_ino == before
    async with open_store(path, password, run_sync=inline) as store:
        assert await events(store) == 23


@pytest.mark.slow
async def test_a_database_that_is_set_back_through_sqlite(store: Store, path: Path, tmp_path: Path) -> None:
    elsewhere(path, f"VACUUM INTO '{tmp_path / 'backup.db'}'")
    await write(store)
    restore(tmp_path / "backup.db", path)
    with pytest.raises(StoreReplaced, match="was set back to another state while the daemon ran"):
        await write(store)


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_log_that_is_gone(tmp_path: Path, path: Path, ending: str, replaced: bool) -> None:
    async with open_store(path, run_sync=inline) as store:
        await write(store, 10)
        os.unlink(f"{path}{ending}")
        if replaced:
            Path(f"{path}{ending}").write_bytes(b"")
        with pytest.raises(StoreReplaced, match=r"was deleted, moved or replaced .* restart the daemon"):
            await write(store)
        shutil.copy(path, tmp_path / "died.db")  # as if the machine died now
        assert look(tmp_path / "died.db", None, log.extent)[0].events == 10
    async with open_store(path, run_sync=inline) as store:
        assert await events(store) == 10


async def test_a_log_that_is_cut(store: Store, path: Path) -> None:
    os.truncate(f"{path}-wal", 5000)
    with pytest.raises(StoreReplaced, match="was cut short while the daemon ran"):
        await write(store)


async def test_the_log_is_folded_as_it_grows(store: Store, path: Path) -> None:
    for _ in range(40):
        await write(store, 20, 50_000)
    assert os.stat(f"{path}-wal").st_size < 8 << 20
    assert path.stat().st_size > 30 << 20
