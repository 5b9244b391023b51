"""One opened, keyed and configured connection, and the lock that keeps a second daemon out.

In this process nothing but SQLite opens the file of a database that is open: POSIX drops all locks of a process on a
file when it closes any descriptor of it, and another program would then believe that it is alone and delete the log
under us (sqlite.org/howtocorrupt.html, 2.2).
"""

import ctypes
import errno
import fcntl
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

from sqlcipher3 import dbapi2

from impervious.errors import ConfigError, StoreBusy, StoreError, StoreFull, StoreLocked, StoreUnusable
from impervious.store import header, schema

BUSY_TIMEOUT_MS: Final = 5000
"""How long a connection waits for another process's, such as `impervious db prune`."""
PAGE_CACHE_KIB: Final = 4096
LOG_LIMIT_BYTES: Final = 16 << 20
"""What the write-ahead log is cut back to when it begins anew; it is longer only while somebody reads for long."""
_FULL: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC")

_SHORT_BYTES: Final = 1 << 20
"""With less room than that, a failure to write is one of room."""

FileId: TypeAlias = tuple[int, int]
"""Device and inode."""
_open_here: Final[Counter[FileId]] = Counter()
"""How many connections of this process each file has."""


class TransactionLost(StoreFull):
    """SQLite gave the whole transaction up, and the work in it took no notice: nothing more may happen in it."""

    def __init__(self) -> None:
        super().__init__("the database gave a transaction up, as it does when the disk is full: make room")


class _Connection(dbapi2.Connection):
    """A connection that is counted for as long as it is open."""

    file: FileId | None = None

    def close(self) -> None:
        super().close()
        if self.file is not None:
            _open_here[self.file] -= 1
            self.file = None


# --- Which file it is, and who works on it ----------------------------------------------------------------------------


def real_path(path: Path) -> Path:
    """Follow links, in the folders too: whatever a database is called, its log and its lock have one name.

    Raises:
      ConfigError: the links lead nowhere.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"sqlite3.path: cannot use {path}: {error}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside the database for as long as this process works on it.

    Raises:
      StoreLocked: another process holds it.
      ConfigError: the folder cannot be made or written.
    """
    in_use = f"sqlite3.path: {path} is in use by another daemon: stop it, or give this one a database of its own"
    with _holding(path, ".lock", in_use):
        yield


@contextmanager
def in_hands(path: Path) -> Iterator[None]:
    """Keep other commands off the database, but not a daemon: one command at a time works on it.

    Raises:
      StoreLocked: another command holds it.
      ConfigError: the folder cannot be written.
    """
    in_use = f"sqlite3.path: another `impervious db` works on {path}: wait for it"
    with _holding(path, ".db-command.lock", in_use):
        yield


@contextmanager
def _holding(path: Path, ending: str, in_use: str) -> Iterator[None]:
    real = real_path(path)
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(f"{real}{ending}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot("use", path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(in_use) from None
        yield
    finally:
        os.close(descriptor)


def _cannot(do: str, path: Path, error: OSError) -> ConfigError | StoreFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"the disk is full: there is no room to begin a database at {path}; make room")
    return ConfigError(f"sqlite3.path: cannot {do} {path}: {error.strerror}")


# --- Opening ----------------------------------------------------------------------------------------------------------


def connect(path: Path, password: str | None) -> dbapi2.Connection:
    """Open the database, making it (mode 0600) if there is none. What is not ours is left as it is, every byte.

    Raises:
      StoreKeyWrong: the password does not fit.
      StoreLocked: another program keeps it to itself, or it has several names.
      StoreUnusable: it is damaged, or the disk fails.
      StoreFull: the disk is full, and there was no room to make or open it.
      ConfigError: the file cannot be opened, or is something else than a database of ours.
    """
    real = real_path(path)
    _make(real, path)
    _check_names(real, path)
    if not _open_here[_file_id(real, path)]:
        _examine(real, path, password)
    try:
        connection = dbapi2.connect(str(real), isolation_level=None, check_same_thread=False, factory=_Connection)
    except dbapi2.Error as error:
        raise _reason(error, real, path, password) from error
    connection.file = _file_id(real, path)
    _open_here[connection.file] += 1
    try:
        _unlock(connection, password)
        _configure(connection)
    except dbapi2.Error as error:
        connection.close()
        raise _reason(error, real, path, password) from error
    except BaseException:
        connection.close()
        raise
    return connection


def connect_alone(path: Path, password: str | None) -> dbapi2.Connection | None:
    """Open a database for reading only, without anything beside it, which takes no room; None: that cannot be.

    It sees nothing of what is in the log, nor of what others write: the caller holds the lock (`locked`).
    """
    real = real_path(path)
    try:
        connection = dbapi2.connect(
            _uri(real, "immutable=1"), isolation_level=None, check_same_thread=False, uri=True, factory=_Connection
        )
    except dbapi2.Error:
        return None
    connection.file = _file_id(real, path)
    _open_here[connection.file] += 1
    try:
        _unlock(connection, password)
    except dbapi2.Error:
        connection.close()
        return None
    return connection


def has_log(path: Path) -> bool:
    """Whether a write-ahead log with something in it lies beside a database."""
    log = log_of(real_path(path))
    return log.exists() and log.stat().st_size > 0


def _uri(real: Path, how: str) -> str:
    return f"file:{quote(str(real))}?{how}"


def keep_open(connection: dbapi2.Connection) -> None:
    """Leave a connection open to the end of the process: whoever closes the last one folds the log into the file."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))  # the interpreter's own end would close it


def _make(real: Path, path: Path) -> None:
    """Make the file, as private as it has to be, unless there is one: SQLite would let others read it."""
    log = log_of(real)
    try:
        if not real.exists() and log.exists() and log.stat().st_size:
            raise ConfigError(
                f"sqlite3.path: there is no {path}, but its log {log} is there, with what was accepted last: bring the"
                " database back beside it; to begin a new one, move the log away"
            )
        if not real.exists():
            with suppress(FileExistsError):
                os.close(os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _cannot("open", path, error) from error


def _file_id(real: Path, path: Path) -> FileId:
    try:
        status = real.stat()
    except OSError as error:
        raise _cannot("open", path, error) from error
    return status.st_dev, status.st_ino


def log_of(real: Path) -> Path:
    """Name the write-ahead log of a database."""
    return real.with_name(f"{real.name}-wal")


def check_database(path: Path, password: str | None) -> None:
    """See whether `connect` would take what is at a path, without making, locking or writing anything.

    Raises:
      StoreError, ConfigError: it would not, as `connect` says.
    """
    real = real_path(path)
    if not real.exists():
        folder = next(each for each in real.parents if each.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ConfigError(f"sqlite3.path: cannot use {path}: {folder} is no folder that this user may write to")
        return
    _check_names(real, path)
    if not _open_here[_file_id(real, path)]:
        _examine(real, path, password)


def _check_names(real: Path, path: Path) -> None:
    """See that it is a file, and has one name."""
    try:
        status = real.stat()
    except OSError as error:
        raise _cannot("open", path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"sqlite3.path: {path} is not a file: name one")
    if status.st_nlink > 1:
        raise StoreLocked(
            f"sqlite3.path: {path} has {status.st_nlink} names (hard links), and a daemon may use it by another:"
            " SQLite names its log after the file, so what is in the log of one name is missing under the other;"
            " remove the others, or copy the file"
        )


def _examine(real: Path, path: Path, password: str | None) -> None:
    """See that it is a database of ours, or an empty file, without writing a byte."""
    found = header.read(real)
    header.check(found, path, has_password=bool(password), has_log=has_log(real))
    if not found.size:
        return
    # Immutable: nothing is locked, mended or written. It sees no log; that of another program matters only if the file
    # itself holds nothing.
    names, mark, version = _contents(real, path, password, "immutable=1")
    if not names and has_log(real):
        names, mark, version = _contents(real, path, password, "mode=ro")
    if not schema.is_ours(names, mark, version):
        raise ConfigError(
            f"sqlite3.path: {path} is a database of another program: it was left as it is; name another file"
        )


def _contents(real: Path, path: Path, password: str | None, how: str) -> tuple[set[str], int, int]:
    """Return the names of all that is in it, the application id, and the user version."""
    try:
        connection = dbapi2.connect(_uri(real, how), isolation_level=None, uri=True)
        try:
            _unlock(connection, password)
            return schema.names_in(connection), schema.application_id(connection), schema.version_of(connection)
        finally:
            connection.close()
    except dbapi2.Error as error:
        raise _reason(error, real, path, password) from error


def _unlock(connection: dbapi2.Connection, password: str | None) -> None:
    connection.execute("PRAGMA cipher_log_level = NONE")  # it would write to stderr itself
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    if password:
        connection.execute(f"PRAGMA key = {quoted(password)}")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _configure(connection: dbapi2.Connection) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit that was reported must survive a power cut
        "foreign_keys = ON",
        f"cache_size = -{PAGE_CACHE_KIB}",
        f"journal_size_limit = {LOG_LIMIT_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def quoted(text: str) -> str:
    """Write an SQL string literal: PRAGMA takes no parameters."""
    return "'" + text.replace("'", "''") + "'"


# --- What went wrong --------------------------------------------------------------------------------------------------


def _reason(error: dbapi2.Error, real: Path, path: Path, password: str | None) -> StoreError | ConfigError:
    """Say why a database does not open."""
    name = getattr(error, "sqlite_errorname", "")
    if no_room(error, path):
        return StoreFull(f"the disk is full: there is no room to open the database {path}; make room")
    if name == "SQLITE_BUSY" or name.startswith("SQLITE_BUSY_"):
        return StoreLocked(f"sqlite3.path: {path} is open in another program, which lets nobody else in: close that")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) and not _open_here[_file_id(real, path)]:
        found = header.read(real)
        if name == "SQLITE_NOTADB":
            return header.refused(found, path, has_password=bool(password))
        return header.damaged(found, path)
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return ConfigError(
            f"sqlite3.path: cannot open {path}: {error}; the file, and its folder, must be this user's to write"
        )
    return translated(error) or StoreUnusable(f"the database {path} cannot be opened: {error}")


def no_room(error: dbapi2.Error, path: Path) -> bool:
    """Whether an error is the full disk's; SQLite calls it a failure when it is its index that does not fit."""
    name = getattr(error, "sqlite_errorname", "")
    if name in _FULL:
        return True
    if not name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return False
    try:
        room = os.statvfs(real_path(path).parent)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _SHORT_BYTES or (room.f_files > 0 and room.f_favail == 0)


def translated(error: dbapi2.Error) -> StoreError | None:
    """Say in our words what SQLite could not do for reasons outside the program; None: it is a bug."""
    name = getattr(error, "sqlite_errorname", "")
    if name in _FULL:
        return StoreFull("the disk is full: make room; what was not stored will be stored then")
    if name.startswith("SQLITE_IOERR"):
        return StoreUnusable(
            f"the database cannot be used: the disk failed ({error}, {name}); look into the system's log, and at the"
            " disk"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreUnusable(
            f"the database cannot be used: {error} ({name}); the file is damaged: put a backup in its place, with the"
            " daemon stopped"
        )
    if name.startswith("SQLITE_BUSY"):
        return StoreBusy(
            "another program keeps the database to itself: close it, or end what it has begun to write (BEGIN without"
            " COMMIT); what was not stored will be stored then"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return StoreUnusable(f"the database cannot be used: {error}")
    return None


def is_environmental(error: BaseException) -> bool:
    """Whether an error raised inside a transaction is the disk's or the file's fault, not the work's.

    The database itself raises its own errors there; one of ours was raised by the work, whatever it may mean by it.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_environmental, error.exceptions))
    return isinstance(error, TransactionLost) or (isinstance(error, dbapi2.Error) and translated(error) is not None)
