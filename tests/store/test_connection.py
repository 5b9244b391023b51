import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2
from tests.conftest import inline
from tests.store.test_maintenance import event

from impervious.errors import (
    ConfigError,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreKeyWrong,
    StoreLocked,
    StoreUnusable,
)
from impervious.store import log, open_store, schema
from impervious.store.connection import connect, locked, translated
from impervious.store.maintenance import look


def ours(path: Path, password: str | None = None) -> None:
    connection = connect(path, password)
    schema.migrate(connection)
    connection.execute("INSERT INTO counter VALUES ('x', 1)")
    connection.close()


def foreign(path: Path, password: str | None = None, *statements: str) -> None:
    connection = dbapi2.connect(str(path), isolation_level=None)
    if password:
        connection.execute(f"PRAGMA key = '{password}'")
    for statement in statements or ("CREATE TABLE moz_places (url)", "INSERT INTO moz_places VALUES ('x')"):
        connection.execute(statement)
    connection.close()


def headless(path: Path) -> None:
    foreign(path)
    with path.open("r+b") as file:
        file.write(bytes(100))


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_file_is_opened_by_nothing_but_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "imp.db"
    first = connect(path, None)
    opened: list[object] = []
    real = os.open

    def noted(what: str, *args: int) -> int:
        descriptor = real(what, *args)
        opened.append(what)
        return descriptor

    monkeypatch.setattr(os, "open", noted)
    second = connect(path, None)
    first.close()
    connect(path, None).close()
    second.close()
    assert opened == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connect(path, None).close()
    assert opened == [path]  # before SQLite


@pytest.mark.parametrize("how", ["file", "folder", "relative"])
async def test_one_daemon_whatever_the_path_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    real = tmp_path / "real" / "imp.db"
    real.parent.mkdir()
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "other.db").symlink_to(real)
    (tmp_path / "folder").symlink_to(real.parent)
    monkeypatch.chdir(real.parent)
    other = {
        "file": tmp_path / "file" / "other.db",
        "folder": tmp_path / "folder" / "imp.db",
        "relative": Path("imp.db"),
    }
    for one, two in ((real, other[how]), (other[how], real)):
        async with open_store(one, run_sync=inline) as store:
            await store.write(lambda tx: tx.emit(event()))
            with pytest.raises(StoreLocked, match="in use by another daemon"):
                async with open_store(two, run_sync=inline):
                    pass
    assert look(other[how], None, log.extent)[0].events == 2
    assert not list((tmp_path / "file").glob("*.lock"))


async def test_a_second_name_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "imp.db", tmp_path / "other.db"
    async with open_store(path, run_sync=inline):
        os.link(path, other)
        with pytest.raises(StoreLocked, match=r"has 2 names \(hard links\)"):
            async with open_store(other, run_sync=inline):
                pass
    with pytest.raises(StoreLocked, match="remove the others"):
        connect(path, None)
    other.unlink()
    connect(path, None).close()


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"sqlite3\.path: cannot"), locked(tmp_path / "a"):
        connect(tmp_path / "a", None)


def test_a_log_without_its_database(tmp_path: Path) -> None:
    path = tmp_path / "imp.db"
    (tmp_path / "imp.db-wal").write_bytes(b"what was accepted last")
    with pytest.raises(ConfigError, match=r"there is no .*, but its log .* is there"):
        connect(path, None)
    assert folder(tmp_path) == {"imp.db-wal": b"what was accepted last"}


# --- What is not ours -------------------------------------------------------------------------------------------------

DIARY = "dear diary\n" * 1000


def of(*statements: str, password: str | None = None) -> Callable[[Path], None]:
    return lambda path: foreign(path, password, *statements)


NOT_OURS: list[tuple[str, Callable[[Path], object], str | None, type[Exception], str]] = [
    ("text", lambda path: path.write_text(DIARY), None, ConfigError, "is not a database: it begins with b'dear"),
    ("text", lambda path: path.write_text(DIARY), "secret", ConfigError, "is not a database"),
    ("short", lambda path: path.write_text("dear diary"), "secret", StoreUnusable, "or is not a database: .* 10"),
    ("foreign", of(), None, ConfigError, "a database of another program: it was left as it is"),
    ("foreign", of(), "secret", StoreKeyWrong, "made without a password"),
    ("marked", of("PRAGMA application_id = 7"), None, ConfigError, "another program"),
    ("view", of("CREATE VIEW v AS SELECT 1"), None, ConfigError, "another program"),
    ("version", of("PRAGMA user_version = 7"), None, ConfigError, "another program"),
    ("zeroed", headless, None, StoreUnusable, "is damaged, or is not a database: its first bytes are zero"),
    ("theirs", of(password="secret"), "secret", ConfigError, "another program"),
    ("theirs", of(password="theirs"), "secret", StoreKeyWrong, "another password, or by another program"),
    ("theirs", of(password="theirs"), None, StoreKeyWrong, "is encrypted and no password is set"),
    ("wal", of("PRAGMA journal_mode = WAL", "CREATE TABLE x (y)"), None, ConfigError, "another program"),
    ("pages", of("PRAGMA page_size = 512", "CREATE TABLE x (y)"), None, ConfigError, "another program"),
    ("folder", Path.mkdir, None, ConfigError, "is not a file"),
    ("pipe", os.mkfifo, None, ConfigError, "is not a file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "password", "error", "words"), NOT_OURS)
async def test_what_is_not_ours_is_left_as_it_is(
    tmp_path: Path, name: str, make: Callable[[Path], object], password: str | None, error: type[Exception], words: str
) -> None:
    path = tmp_path / name
    make(path)
    before = folder(tmp_path) if path.is_file() else {}
    with pytest.raises(error, match=words):
        async with open_store(path, password, run_sync=inline):
            pass
    with pytest.raises(error, match=words):
        look(path, password, log.extent)
    if path.is_file():
        after = folder(tmp_path)
        assert {name: content for name, content in after.items() if ".lock" not in name} == before


async def test_a_program_that_still_runs_keeps_its_database(tmp_path: Path) -> None:
    """All it has is in its log, which is not folded into the file."""
    path = tmp_path / "theirs.db"
    program = sqlite3.connect(path, isolation_level=None)
    program.execute("PRAGMA journal_mode = WAL")
    program.execute("CREATE TABLE moz_places (url)")
    before = folder(tmp_path)
    with pytest.raises(ConfigError, match="another program"):
        async with open_store(path, run_sync=inline):
            pass
    after = folder(tmp_path)
    assert after["theirs.db"] == before["theirs.db"]
    assert after["theirs.db-wal"] == before["theirs.db-wal"]
    program.close()


@pytest.mark.parametrize("password", [None, "secret"])
def test_ours(tmp_path: Path, password: str | None) -> None:
    path = tmp_path / "imp.db"
    path.touch()  # an empty file is as good as none
    ours(path, password)
    connection = connect(path, password)
    assert schema.application_id(connection) == schema.APPLICATION_ID
    connection.execute("PRAGMA application_id = 0")  # as it was before there was one
    connection.execute(f"PRAGMA user_version = {schema.MIGRATIONS.index(schema._MARK)}")
    connection.close()
    ours_again = connect(path, password)
    for script in schema.MIGRATIONS[schema.MIGRATIONS.index(schema._MARK) + 1 :]:
        assert script  # later ones have been applied: only the mark is made again
    ours_again.executescript(schema._MARK)
    assert schema.application_id(ours_again) == schema.APPLICATION_ID
    ours_again.close()


def test_killed_before_the_first_checkpoint(tmp_path: Path) -> None:
    """All tables are in the log; the file itself is empty, and has no mark yet."""
    path = tmp_path / "imp.db"
    connection = connect(path, None)
    schema.migrate(connection)
    for file in ("imp.db", "imp.db-wal"):
        (tmp_path / f"killed-{file}").write_bytes((tmp_path / file).read_bytes())
    connection.close()
    (tmp_path / "killed-imp.db").rename(tmp_path / "k.db")
    (tmp_path / "killed-imp.db-wal").rename(tmp_path / "k.db-wal")
    connection = connect(tmp_path / "k.db", None)
    assert "event" in schema.names_in(connection)
    connection.close()


# --- What is damaged --------------------------------------------------------------------------------------------------


def zeroed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes(4096) + content[4096:])


def cut(path: Path, to: int) -> None:
    os.truncate(path, to)


def scrambled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


DAMAGED: list[tuple[Callable[[Path], object], str | None, str]] = [
    (zeroed, None, "is damaged: it begins with 4096 zero bytes"),
    (zeroed, "secret", "is damaged: it begins with 4096 zero bytes"),
    (lambda path: cut(path, 2 * 4096), None, "is cut short: 2 of its .* pages are left"),
    (lambda path: cut(path, 2 * 4096 + 5), None, "is cut short: it ends inside a page"),
    (lambda path: cut(path, 100), None, "is cut short: it ends inside a page"),
    (lambda path: cut(path, 2 * 4096), "secret", "is damaged, or cut short"),
    (lambda path: cut(path, 2 * 4096 + 5), "secret", "is cut short, or is not a database: it has 8197 bytes"),
    (lambda path: cut(path, 100), "secret", "is cut short, or is not a database: it has 100 bytes"),
    (scrambled, None, "damaged"),
    (scrambled, "secret", "damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "password", "words"), DAMAGED)
async def test_damage_is_said_as_it_is(
    tmp_path: Path, damage: Callable[[Path], object], password: str | None, words: str
) -> None:
    path = tmp_path / "imp.db"
    ours(path, password)
    damage(path)
    with pytest.raises(StoreUnusable, match=words) as caught:
        async with open_store(path, password, run_sync=inline) as store:
            await store.read(log.extent)
    assert "backup" in str(caught.value)


def test_a_password_of_another_kind(tmp_path: Path) -> None:
    for made, tried, words in (
        ("one", "two", "made with another password, or by another program, or its first page is damaged"),
        ("one", None, "the file is encrypted and no password is set"),
        (None, "two", "made without a password"),
    ):
        path = tmp_path / f"{made}{tried}.db"
        ours(path, made)
        with pytest.raises(StoreKeyWrong, match=words):
            connect(path, tried)


def test_a_database_that_another_program_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impervious.store.connection.BUSY_TIMEOUT_MS", 0)
    path = tmp_path / "imp.db"
    ours(path)
    keeper = dbapi2.connect(str(path), isolation_level=None)
    keeper.execute("PRAGMA locking_mode = EXCLUSIVE")
    keeper.execute("UPDATE counter SET value = 2")
    with pytest.raises(StoreLocked, match="open in another program"):
        connect(path, None)
    keeper.close()


async def test_a_program_that_keeps_the_database_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impervious.store.connection.BUSY_TIMEOUT_MS", 0)
    path = tmp_path / "imp.db"
    async with open_store(path, run_sync=inline) as store:
        keeper = dbapi2.connect(str(path), isolation_level=None)
        keeper.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="keeps the database to itself"):
            await store.write(lambda tx: tx.emit(event()))
        keeper.execute("ROLLBACK")
        keeper.close()
        await store.write(lambda tx: tx.emit(event()))
        assert (await store.read(log.extent)).events == 1


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("SQLITE_FULL", StoreFull, "the disk is full"),
        ("SQLITE_BUSY_SNAPSHOT", StoreBusy, "another program keeps the database to itself: close it"),
        ("SQLITE_IOERR_READ", StoreUnusable, "the disk failed .*SQLITE_IOERR_READ"),
        ("SQLITE_CORRUPT_VTAB", StoreUnusable, "the file is damaged"),
        ("SQLITE_READONLY_DBMOVED", StoreUnusable, "cannot be used"),
    ],
)
def test_what_sqlite_says_in_our_words(name: str, kind: type[StoreError], words: str) -> None:
    error = dbapi2.OperationalError("words of SQLite")
    error.sqlite_errorname = name
    said = translated(error)
    assert type(said) is kind
    with pytest.raises(kind, match=words):
        raise said
    assert translated(dbapi2.IntegrityError("ours")) is None
