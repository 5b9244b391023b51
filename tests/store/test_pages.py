"""What the pages of the file and of its log tell beside SQLite."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2

from impervious.store.connection import connect, log_of
from impervious.store.pages import Pages
from impervious.store.watch import Frames

LOCK = """
import fcntl, os, sys
fcntl.lockf(os.open(sys.argv[1] + "-shm", os.O_RDWR), fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "imp.db"


@pytest.fixture
def connection(path: Path) -> Iterator[dbapi2.Connection]:
    opened = connect(path, None)
    opened.execute("CREATE TABLE x (y)")
    yield opened
    opened.close()


@pytest.fixture
def pages(path: Path, connection: dbapi2.Connection) -> Iterator[Pages]:
    pages = Pages(path, log_of(path), path.with_name("imp.db-shm"))
    yield pages
    connection.close()
    pages.close()


def hold(pages: Pages, connection: dbapi2.Connection) -> bool | None:
    frames = Frames.of(connection)
    return pages.hold_the_log(frames.in_log, frames.folded)


def test_a_log_that_is_not_copied_tells_nothing(pages: Pages, connection: dbapi2.Connection) -> None:
    assert hold(pages, connection) is None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert hold(pages, connection) is None  # it is empty


def test_what_was_copied_is_found(pages: Pages, connection: dbapi2.Connection, path: Path) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert hold(pages, connection) is True
    with path.open("r+b") as file:
        file.seek(2 * 4096 - 1)
        file.write(b"x")
    assert hold(pages, connection) is False
    assert pages.begins_as_before()
    with path.open("r+b") as file:
        file.write(b"x")
    assert not pages.begins_as_before()


def test_a_page_that_was_written_again_is_not_missed(pages: Pages, connection: dbapi2.Connection) -> None:
    """SQLite copies the last frame of a page or none."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.execute("INSERT INTO x VALUES (1)")
    connection.execute("INSERT INTO x VALUES (2)")
    frames = Frames.of(connection)
    assert (frames.in_log, frames.folded) == (2, 0)  # it began anew; both are of the same page
    assert pages.hold_the_log(frames.in_log, 1) is None


@pytest.mark.parametrize(("byte", "folding"), [(121, True), (120, False)], ids=["checkpoint", "write"])
def test_a_checkpoint_of_another_process(pages: Pages, path: Path, byte: int, folding: bool) -> None:
    assert not pages.being_folded()
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path), str(byte)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert pages.being_folded() is folding
        other.communicate()
    assert not pages.being_folded()


def test_closing_twice_closes_no_other_file(pages: Pages, connection: dbapi2.Connection) -> None:
    connection.close()
    pages.close()
    with open(os.devnull, "rb") as first, open(os.devnull, "rb") as second:  # they take the numbers that are free
        pages.close()
        assert (first.read(), second.read()) == (b"", b"")
