"""Notices what others do to the files of a database that this process has open.

SQLite goes on writing into a file that was deleted or moved, and folds its log into one that was overwritten; what was
accepted after that would be gone, or would damage a backup that somebody has just put there. So before every commit the
files are compared with what they were: names by device and inode, content by size and time of change. SQLite's own
counters tell whether another program changed the content through SQLite, which is its right.

The log holds what was committed last, and a checkpoint that is under way or ended half-way leaves a file that is whole
only together with it. So the log is renamed only when the file is certainly not the one it belongs to; in doubt, what
is written is refused, and everything is left where it is.
"""

import enum
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from sqlcipher3 import dbapi2

from impervious.errors import StoreError, StoreReplaced
from impervious.store.connection import FileId, log_of
from impervious.store.pages import FRAME_HEADER_BYTES, LOG_HEADER_BYTES, Pages

_FRAME_BYTES: Final = FRAME_HEADER_BYTES + 4096
SETTLED_S: Final = 5.0
"""A file that is certainly another one, and is not changed further for so long, was overwritten."""
_ASK_S: Final = 0.02
_ASK_TIMES: Final = 50
"""So long a write waits for the end of another program's checkpoint, which SQLite's counters show at its
end, in the writer's thread, before it is refused."""
ASIDE: Final = ".replaced"
"""Ends the name of a log whose database is gone: SQLite would fold it into whatever has the database's name."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The write-ahead log in SQLite's own numbers."""

    in_log: int
    folded: int
    """Of them, copied into the file."""

    @classmethod
    def of(cls, connection: dbapi2.Connection) -> "Frames":
        """Ask SQLite; changes nothing."""
        _, in_log, folded = connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone() or (0, 0, 0)
        return cls(int(in_log), int(folded))


class _Content(NamedTuple):
    """What is compared of what is in a file."""

    size: int
    changed_ns: int


class _Mark(NamedTuple):
    """How far a database has come."""

    epoch: bytes
    """Which history it is."""
    inserts: int
    """Sum of the numbers ever given to rows: it grows with every message, whichever way it goes."""


class _Verdict(enum.Enum):
    """On a file that changed while SQLite's counters did not."""

    OURS = enum.auto()
    """It holds what it did, and only its time was set: by `touch`, or a backup tool."""
    HALF_FOLDED = enum.auto()
    """It is whole together with the log: a checkpoint ended half-way."""
    ANOTHER = enum.auto()
    """It certainly is not the file that the log belongs to."""
    UNKNOWN = enum.auto()


class FileWatch:
    """Compares the files of an open database with what they were. Used in the writer's thread only.

    *Ownership:* `close` it after the last connection to the file.

    Args:
      real: the file, links followed.
      connection: an open connection to it. *Ownership:* stays with the caller.
      alone: opens the file without its log, for a look at what is in it; None: that is no database of this key.
      monotonic: a clock in seconds.
      sleep: waits for seconds; in the writer's thread.

    Raises:
      StoreError: the files cannot be opened beside SQLite.
    """

    def __init__(
        self,
        real: Path,
        connection: dbapi2.Connection,
        *,
        alone: Callable[[], dbapi2.Connection | None],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - in a thread
    ) -> None:
        self._real = real
        self._log = log_of(real)
        self._shared = real.with_name(f"{real.name}-shm")
        self._connection = connection
        self._file_id, self._log_id, self._shared_id = (_id(path) for path in (real, self._log, self._shared))
        self._alone = alone
        self._monotonic = monotonic
        self._sleep = sleep
        self._set_aside = False
        self._suspected: tuple[_Content | None, float] | None = None
        """A change that SQLite's counters do not show, and when it was first seen."""
        self.overwritten: str | None = None
        """Why this database can never be written, nor read, again; None: it can."""
        self._in_file: _Mark | None = None
        """What the file holds without its log; None: not known."""
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self.note()
        try:
            self._pages = Pages(real, self._log, self._shared)  # last: closing them takes SQLite's locks away
        except OSError as error:
            raise StoreError(f"the database {real} cannot be looked at: {error}") from error

    def close(self) -> None:
        """Give up the descriptors, and with them SQLite's locks if a connection were still open."""
        self._pages.close()

    def note(self) -> Frames:
        """Remember what the files look like after work of our own."""
        self._frames = Frames.of(self._connection)
        self._content = _content(self._real)
        self._mark = _mark(self._connection)
        if self._frames.in_log == self._frames.folded:
            self._in_file = self._mark
        elif self._frames.folded:  # a reader held the rest back: old and new pages are mixed
            self._in_file = None
        return self._frames

    def check(self) -> None:
        """See that the files are those that were opened, and that SQLite alone has written them.

        Raises:
          StoreReplaced: they are not; says what happened and what to do.
        """
        if self.overwritten is not None:
            raise StoreReplaced(self.overwritten)
        self._check_name()
        self._check_content()
        if (_id(self._log), _id(self._shared)) != (self._log_id, self._shared_id):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # SQLite has them open still
            raise StoreReplaced(
                f"{self._log.name} or {self._shared.name} was deleted, moved or replaced while the daemon ran: nothing"
                f" more is accepted. What was accepted has been copied into {self._real.name}: restart the daemon"
            )

    def _check_name(self) -> None:
        now = _id(self._real)
        if now == self._file_id:
            if self._set_aside and not self._log.exists():
                os.rename(f"{self._log}{ASIDE}", self._log)
            self._set_aside = False
            return
        if now is None:
            raise StoreReplaced(
                f"the database {self._real} was deleted or moved while the daemon ran: nothing more is accepted. Move"
                f" it back to where it was, beside {self._log.name}, and the daemon goes on. If it was deleted, copy it"
                f" out of /proc/{os.getpid()}/fd before you stop the daemon"
            )
        self._put_log_aside()
        raise StoreReplaced(
            f"the database {self._real} was replaced by another file while the daemon ran: nothing more is accepted."
            " Move the first one back, and the daemon goes on; or stop the daemon, and start it with the new one. The"
            f" first one's log is now {self._log.name}{ASIDE}: the two belong together"
        )

    def _check_content(self) -> None:
        content, frames = _content(self._real), Frames.of(self._connection)
        for _ in range(_ASK_TIMES):
            if content == self._content or frames != self._frames:
                break
            self._sleep(_ASK_S)
            content, frames = _content(self._real), Frames.of(self._connection)
        else:
            self._judge(content)
        mark = _mark(self._connection)
        if mark.epoch != self._mark.epoch or mark.inserts < self._mark.inserts:
            self._give_up(
                f"the database {self._real} was set back to another state while the daemon ran: nothing more is"
                " accepted. Stop the daemon before you restore a backup, and start it then"
            )
        self._suspected = None
        log = _content(self._log)
        cut = log is not None and _id(self._log) == self._log_id and log.size < _log_bytes(frames)
        if cut and Frames.of(self._connection) == frames:  # or another program has just begun it anew
            self._give_up(
                f"{self._log} was cut short while the daemon ran, and what was accepted last may be gone: nothing more"
                " is accepted. Stop the daemon, and put a backup there before you start it"
            )
        if frames != self._frames and content != self._content:  # another program folded the log, through SQLite
            self._in_file = mark if frames.in_log == frames.folded else None
        self._content, self._frames, self._mark = content, frames, mark

    def _judge(self, content: _Content | None) -> None:
        """Return if the file still holds what it did, alone or together with the log.

        Raises:
          StoreReplaced: it is not so, or not certain; `overwritten` says whether for good.
        """
        verdict = self._verdict()
        folding = self._pages.being_folded()  # before the counters: its end shows in them
        if folding or Frames.of(self._connection) != self._frames or _content(self._real) != content:
            self._suspected = None
            raise StoreReplaced(
                f"the database {self._real} is being written by another program, which copies SQLite's log into it:"
                " wait until that is done, or end that program"
            )
        if verdict is _Verdict.ANOTHER:
            self._suspect(content)
        self._suspected = None
        if verdict is _Verdict.HALF_FOLDED:
            self._in_file = None
        if verdict is _Verdict.UNKNOWN:
            raise StoreReplaced(
                f"the database {self._real} was changed while the daemon ran, and what is in it cannot be told without"
                f" {self._log.name}: nothing more is accepted. Leave both where they are, and restart the daemon"
            )

    def _verdict(self) -> _Verdict:
        belongs = self._pages.hold_the_log(self._frames.in_log, self._frames.folded)
        if belongs is False or not self._pages.begins_as_before():
            return _Verdict.ANOTHER
        if (connection := self._alone()) is None:
            return _Verdict.HALF_FOLDED if belongs else _Verdict.UNKNOWN
        try:
            found = _mark(connection)
        except dbapi2.Error as error:
            if belongs:
                return _Verdict.HALF_FOLDED
            no_such_table = getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR"
            return _Verdict.ANOTHER if no_such_table else _Verdict.UNKNOWN
        finally:
            connection.close()
        if found.epoch != self._mark.epoch or found.inserts > self._mark.inserts:
            return _Verdict.ANOTHER
        if self._in_file is None or found == self._in_file:
            return _Verdict.OURS
        if belongs:
            return _Verdict.HALF_FOLDED
        # A checkpoint copies the last frame of a page or none.
        return _Verdict.UNKNOWN if found == self._mark else _Verdict.ANOTHER

    def _suspect(self, content: "_Content | None") -> NoReturn:
        now = self._monotonic()
        if self._suspected is None or self._suspected[0] != content:
            self._suspected = content, now
        if now - self._suspected[1] < SETTLED_S:
            raise StoreReplaced(
                f"the database {self._real} is being written by another program: wait a few seconds; if that lasts, see"
                " whether somebody copied a file over it"
            )
        self._put_log_aside()
        self._give_up(
            f"the database {self._real} was overwritten while the daemon ran, and not by SQLite: nothing more is"
            " accepted. Stop the daemon, put a whole database there, and start it. What was accepted last is in"
            f" {self._log.name}{ASIDE}"
        )

    def _give_up(self, why: str) -> NoReturn:
        self.overwritten = why
        raise StoreReplaced(why)

    def _put_log_aside(self) -> None:
        if not self._set_aside and _id(self._log) == self._log_id:
            os.rename(self._log, f"{self._log}{ASIDE}")
            self._set_aside = True


def _mark(connection: dbapi2.Connection) -> _Mark:
    row = connection.execute(
        "SELECT (SELECT epoch FROM history), (SELECT coalesce(sum(seq), 0) FROM sqlite_sequence)"
    ).fetchone()
    return _Mark(bytes(row[0]), int(row[1])) if row and row[0] is not None else _Mark(b"", 0)


def _log_bytes(frames: Frames) -> int:
    return LOG_HEADER_BYTES + frames.in_log * _FRAME_BYTES if frames.in_log else 0


def _id(path: Path) -> FileId | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _content(path: Path) -> _Content | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Content(status.st_size, status.st_mtime_ns)
