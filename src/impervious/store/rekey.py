"""Another password for the database, or one for a database that has none, or none for one that has.

SQLCipher changes a key in place but cannot add or remove one, so all three go the same way: a copy is written under the
new key beside the file, compared, synced to the disk, and renamed over it. At every moment either the old file is whole
under its old key, or the new one under its new; a copy that a crash left behind is removed by the next attempt.

Nobody else can be at it: the lock keeps daemons out and other commands, and SQLite's own exclusive lock everybody
who opened the file in another way.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlcipher3 import dbapi2

from impervious.errors import StoreError
from impervious.store import schema
from impervious.store.connection import connect, in_hands, locked, quoted, real_path
from impervious.store.maintenance import existing

COPY_ENDING: Final = ".rekeyed"


def rekey(path: Path, old: str | None, new: str | None) -> None:
    """Encrypt the database with another password; it takes about as long as reading and writing it once.

    Args:
      path: of the database.
      old: what opens it now; None: it is not encrypted.
      new: what is to open it from now on; None: nothing.

    Raises:
      StoreLocked: a daemon, or another command, has it.
      StoreKeyWrong: `old` does not open it.
      StoreError: it could not be copied; it is as it was.
    """
    real = real_path(path)  # a link stays one
    copy = real.with_name(real.name + COPY_ENDING)
    with existing(path), locked(path), in_hands(path):
        copy.unlink(missing_ok=True)
        connection = connect(real, old)
        try:
            _claim(connection, path)
            _make(copy, like=real)
            _export(connection, copy, new)
            _compare(connection, copy, new)
            _sync(copy)
            copy.replace(real)
            _sync(real.parent)
        finally:
            connection.close()
            copy.unlink(missing_ok=True)


def _claim(connection: dbapi2.Connection, path: Path) -> None:
    """Fold the write-ahead log into the file, and let nobody else open it: a log would outlive the file it is for."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")  # the lock stays until the connection is closed
    except dbapi2.OperationalError as error:
        raise StoreError(f"the database {path} is open in another program: close that first") from error
    assert mode == ("delete",), mode


def _make(copy: Path, *, like: Path) -> None:
    """Make the empty file as private as the old one, and its owner's also when an administrator works on it."""
    status = like.stat()
    descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, status.st_mode & 0o777)
        with suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
    finally:
        os.close(descriptor)


def _export(connection: dbapi2.Connection, copy: Path, new: str | None) -> None:
    connection.execute(f"ATTACH DATABASE {quoted(str(copy))} AS copy KEY {quoted(new or '')}")
    try:
        connection.execute("SELECT sqlcipher_export('copy')")
        connection.execute(f"PRAGMA copy.user_version = {schema.version_of(connection)}")
        connection.execute(f"PRAGMA copy.application_id = {schema.application_id(connection)}")
    finally:
        connection.execute("DETACH DATABASE copy")


def _compare(connection: dbapi2.Connection, copy: Path, new: str | None) -> None:
    """See that the copy opens under the new key, is sound, and holds as much as the old file."""
    made = connect(copy, new)
    try:
        sound = made.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        alike = _contents(made) == _contents(connection)
        made.execute("PRAGMA journal_mode = DELETE")  # else its log would stay behind under the old name
    finally:
        made.close()
    if not (sound and alike):
        raise StoreError("the copy of the database is not like it: nothing was changed; is the disk sound?")


def _contents(connection: dbapi2.Connection) -> Mapping[str, object]:
    """Describe a database: its objects, how many rows each table has, and its counters."""
    objects = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    tables = [str(name) for kind, name, _ in objects if kind == "table"]
    return {
        "version": schema.version_of(connection),
        "objects": objects,
        "rows": [connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() for table in tables],
        "counters": connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall(),
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
