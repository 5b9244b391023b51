"""The two connections of an open database, or, while the disk is too full even to open it for writing, a reader alone.

SQLite needs room before it writes anything: 32 KB for the index of its log. A node that is started on a full disk reads
what is in the file, and says so, until there is room.
"""

import logging
from pathlib import Path

from sqlcipher3 import dbapi2

from impervious.errors import StoreError, StoreFull
from impervious.store import schema
from impervious.store.connection import connect, connect_alone, has_log, keep_open, no_room, real_path, translated
from impervious.store.watch import FileWatch

logger = logging.getLogger(__name__)


class Connections:
    """Made by `opened` or `opened_anyhow`. The writer is for one thread, the reader for another.

    Args:
      reader: *Ownership:* taken over.
      writer: None: nothing can be written. *Ownership:* taken over.
      watch: over the files that the writer writes.
    """

    def __init__(
        self, reader: dbapi2.Connection, writer: dbapi2.Connection | None = None, watch: FileWatch | None = None
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.watch = watch

    @property
    def overwritten(self) -> str | None:
        """Why the database can never be written, nor read, again; None: it can."""
        return self.watch.overwritten if self.watch else None

    def close(self) -> None:
        """Close both; the log is folded into the file, unless that is not the file it is for."""
        if self.overwritten is None:
            self.reader.close()
        else:
            keep_open(self.reader)
        if self.writer is not None:
            self.writer.close()
        if self.watch is not None and self.overwritten is None:
            self.watch.close()


def opened(path: Path, password: str | None) -> Connections:
    """Open the database, making it if there is none, and bring it up to date.

    Raises:
      StoreFull: there is no room for that.
      StoreError, ConfigError: as `connection.connect`, or a newer version of this program made it.
    """
    writer = connect(path, password)
    try:
        _bring_up_to_date(writer, path)
        reader = connect(path, password)
        try:
            return Connections(
                reader, writer, FileWatch(real_path(path), writer, alone=lambda: connect_alone(path, password))
            )
        except BaseException:
            reader.close()
            raise
    except BaseException:
        writer.close()
        raise


def opened_anyhow(path: Path, password: str | None) -> Connections:
    """Open the database; only for reading if there is no room to open it for more.

    Raises:
      StoreFull: it cannot even be read: it has to be made, mended or brought up to date first.
      StoreError, ConfigError: as `opened`.
    """
    try:
        return opened(path, password)
    except StoreFull as full:
        reader = None if has_log(path) else connect_alone(path, password)
        if reader is None:
            raise
        if schema.version_of(reader) != len(schema.MIGRATIONS):
            reader.close()
            raise StoreFull(
                f"the disk is full, and the database {path} has to be brought up to date first: make room, and start"
                " again"
            ) from full
        logger.error("%s; until then the database can only be read", full)
        return Connections(reader)


def _bring_up_to_date(connection: dbapi2.Connection, path: Path) -> None:
    try:
        schema.migrate(connection)
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # ours come between commits, after a look at the file
    except dbapi2.Error as error:
        if no_room(error, path):
            raise StoreFull(f"the disk is full: there is no room to bring {path} up to date; make room") from error
        raise translated(error) or StoreError(f"the database {path} cannot be brought up to date: {error}") from error
