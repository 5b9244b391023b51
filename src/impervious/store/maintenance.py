"""The database in its operator's hands: looked at and pruned beside a daemon, or while there is none.

It is never made or brought up to date here: that is the daemon's business. One command at a time works on it
(`connection.in_hands`), so that none can write a log for a file that another has just replaced.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sqlcipher3 import dbapi2

from impervious.errors import ConfigError, StoreError, StoreLocked
from impervious.store import schema
from impervious.store.connection import connect, in_hands, locked, log_of, real_path, translated
from impervious.store.transaction import Tx

T = TypeVar("T")

PAUSE_S: Final = 0.03
"""Between two steps beside a daemon: SQLite lets whoever asks next write, and a daemon that waits asks every few ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a database takes on the disk."""

    file_bytes: int
    """With its write-ahead log."""
    free_bytes: int
    """Of them, unused: filled again before the file grows."""


def look(path: Path, password: str | None, work: Callable[[Tx], T]) -> tuple[T, Size]:
    """Run `work`, which must not write, on a snapshot; also beside a daemon.

    Raises:
      ConfigError: there is no database, the password does not fit, or another command works on it.
      StoreError: it cannot be read.
    """
    with _opened(path, password) as connection:
        connection.execute("BEGIN")
        try:
            return work(_tx(connection)), _size(connection, path)
        finally:
            connection.execute("ROLLBACK")


def change(path: Path, password: str | None, work: Callable[[Tx], T], *, keep: bool) -> T:
    """Run `work` in a transaction; also beside a daemon, which waits for it for a few seconds.

    Args:
      path: of the database.
      password: SQLCipher's key.
      work: may write, but no events: nobody would be told of them.
      keep: whether to keep what it wrote; False: only see what it would do.

    Raises:
      ConfigError, StoreError: as `look`; nothing was changed.
    """
    with _opened(path, password) as connection:
        return _transaction(connection, work, keep=keep)


def change_in_steps(path: Path, password: str | None, step: Callable[[Tx], int]) -> int:
    """Run `step` again and again, each time in a transaction of its own, until it returns 0; also beside a daemon.

    Between two steps a daemon's writes have their turn; what is done so far stays done if one fails.

    Args:
      path: of the database.
      password: SQLCipher's key.
      step: may write, but no events; as little at a time as a daemon can wait for.

    Returns:
      The sum of what the steps returned.

    Raises:
      ConfigError, StoreError: as `look`.
    """
    pause_s, total = (PAUSE_S if is_served(path) else 0.0), 0
    with _opened(path, password) as connection:
        while done := _transaction(connection, step, keep=True):
            total += done
            time.sleep(pause_s)  # noqa: TID251 - no event loop runs here
    return total


def _transaction(connection: dbapi2.Connection, work: Callable[[Tx], T], *, keep: bool) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(_tx(connection))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT" if keep else "ROLLBACK")
    return result


def shrink(path: Path, password: str | None) -> bool:
    """Give unused space back to the disk; False: a daemon has the database, so it stays as it is.

    Raises:
      ConfigError, StoreError: as `look`; nothing was changed.
    """
    try:
        with locked(path), _opened(path, password) as connection:
            connection.execute("VACUUM")
    except StoreLocked:
        return False
    return True


def is_served(path: Path) -> bool:
    """Whether a daemon has the database now."""
    try:
        with locked(path):
            return False
    except StoreLocked:
        return True


@contextmanager
def _opened(path: Path, password: str | None) -> Iterator[dbapi2.Connection]:
    with existing(path), in_hands(path):
        connection = connect(path, password)
        try:
            _check_version(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def existing(path: Path) -> Iterator[None]:
    """Refuse a database that is not there, and say in our words what SQLite could not do with one that is.

    Raises:
      ConfigError: there is none.
      StoreError: what SQLite could not do for reasons outside the program.
    """
    if not path.exists():
        raise ConfigError(f"sqlite3.path: there is no database at {path} yet: a daemon makes it when it first starts")
    try:
        yield
    except dbapi2.Error as error:
        raise translated(error) or error from error


def _check_version(connection: dbapi2.Connection, path: Path) -> None:
    version, newest = schema.version_of(connection), len(schema.MIGRATIONS)
    if version > newest:
        raise StoreError("the database was made by a newer version of impervious: install that one")
    if version < newest:
        raise StoreError(f"the database {path} is of an older version: start the daemon once, it brings it up to date")


def _tx(connection: dbapi2.Connection) -> Tx:
    return Tx(connection, now_ms=time.time_ns() // 1_000_000)


def _size(connection: dbapi2.Connection, path: Path) -> Size:
    def pragma(name: str) -> int:
        row = connection.execute(f"PRAGMA {name}").fetchone()
        return int(row[0]) if row else 0

    real = real_path(path)
    files = (real, log_of(real))
    return Size(
        file_bytes=sum(file.stat().st_size for file in files if file.exists()),
        free_bytes=pragma("freelist_count") * pragma("page_size"),
    )
