"""One opened, keyed and configured connection, and the lock that keeps a second daemon out."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlcipher3 import dbapi2

from impervious.errors import ConfigError, StoreError, StoreFull, StoreKeyWrong, StoreLocked, StoreUnusable

BUSY_TIMEOUT_MS: Final = 5000
"""How long a connection waits for another process's, such as `impervious db prune`."""
PAGE_CACHE_KIB: Final = 4096
_FULL: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC")


class TransactionLost(StoreFull):
    """SQLite gave the whole transaction up, and the work in it took no notice: nothing more may happen in it."""

    def __init__(self) -> None:
        super().__init__("the database gave a transaction up, as it does when the disk is full: make room")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside the database for as long as this process works on it.

    Raises:
      StoreLocked: another process holds it.
      ConfigError: the folder cannot be made or written.
    """
    in_use = f"sqlite3.path: {path} is in use by another daemon: stop it, or give this one a database of its own"
    with _holding(path, f"{path}.lock", in_use):
        yield


@contextmanager
def in_hands(path: Path) -> Iterator[None]:
    """Keep other commands off the database, but not a daemon: one command at a time works on it.

    Raises:
      StoreLocked: another command holds it.
      ConfigError: the folder cannot be written.
    """
    in_use = f"sqlite3.path: another `impervious db` works on {path}: wait for it"
    with _holding(path, f"{path}.db-command.lock", in_use):
        yield


@contextmanager
def _holding(path: Path, lock: str, in_use: str) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"sqlite3.path: cannot use {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(in_use) from None
        yield
    finally:
        os.close(descriptor)


def connect(path: Path, password: str | None) -> dbapi2.Connection:
    """Open the database, making it (mode 0600) if there is none.

    Raises:
      StoreKeyWrong: the password does not fit.
      ConfigError: the file cannot be opened.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = dbapi2.connect(str(path), isolation_level=None, check_same_thread=False)
    except OSError as error:
        raise ConfigError(f"sqlite3.path: cannot open {path}: {error.strerror}") from error
    try:
        _configure(connection, path, password)
    except BaseException:
        connection.close()
        raise
    return connection


def _configure(connection: dbapi2.Connection, path: Path, password: str | None) -> None:
    connection.execute("PRAGMA cipher_log_level = NONE")  # it would write to stderr itself
    if password:
        connection.execute(f"PRAGMA key = {quoted(password)}")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except dbapi2.DatabaseError as error:
        raise StoreKeyWrong(
            f"sqlite3.password does not open {path}: it was made with another password"
            f"{' or without one' if password else ''}"
        ) from error
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit that was reported must survive a power cut
        "foreign_keys = ON",
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        f"cache_size = -{PAGE_CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def quoted(text: str) -> str:
    """Write an SQL string literal: PRAGMA takes no parameters."""
    return "'" + text.replace("'", "''") + "'"


def translated(error: dbapi2.Error) -> StoreError | None:
    """Say in our words what SQLite could not do for reasons outside the program; None: it is a bug."""
    name = getattr(error, "sqlite_errorname", "")
    if name in _FULL:
        return StoreFull("the disk is full: make room; what was not stored will be stored then")
    if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_BUSY")):
        return StoreUnusable(f"the database cannot be used: {error}")
    return None


def is_environmental(error: Exception) -> bool:
    """Whether an error raised inside a transaction is the disk's or the file's fault, not the work's.

    The database itself raises its own errors there; one of ours was raised by the work, whatever it may mean by it.
    """
    return isinstance(error, TransactionLost) or (isinstance(error, dbapi2.Error) and translated(error) is not None)
