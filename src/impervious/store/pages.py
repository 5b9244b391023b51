"""Reads an open database's file and log beside SQLite, page by page, without losing SQLite's locks.

POSIX drops all locks of a process on a file when it closes any descriptor of it. So the descriptors here are opened
after SQLite's and closed after them. Formats: sqlite.org/fileformat2.html, 4.1; locks: sqlite.org/walformat.html, 2.3.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

FRAME_HEADER_BYTES: Final = 24
LOG_HEADER_BYTES: Final = 32
_LOG_HEADER: Final = struct.Struct(">8xI4x8s8x")
"""Page size in bytes, salts."""
_FRAME_HEADER: Final = struct.Struct(">II8s8x")
"""Page, size of the file in pages after a commit, salts."""
_CHECKPOINT_LOCK: Final = 121
"""The byte of the shared index that is locked by a process while it copies the log into the file."""
_BEGINNING_BYTES: Final = 16
"""SQLite's name of the format, or SQLCipher's salt: no commit changes them."""
_COMPARED: Final = 256
"""So many pages at most are compared: SQLite copies them in this order, so the first ones tell."""


class _Log(NamedTuple):
    page_bytes: int
    always: int
    """So many pages the file had after each commit: of those beyond, not all had to be copied."""
    frames: dict[int, list[int]]
    """Of each page, in order; the first frame is 1."""


class Pages:
    """The file, the log and the shared index of a database that this process has open. For one thread.

    *Ownership:* `close` it after the last connection to that file.

    Raises:
      OSError: they cannot be opened.
    """

    def __init__(self, real: Path, log: Path, shared: Path) -> None:
        self._log = log
        self._file = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._shared = os.open(shared, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._file)
            raise
        self._beginning = os.pread(self._file, _BEGINNING_BYTES, 0)

    def close(self) -> None:
        """Give the descriptors back, once: their numbers may be another file's afterwards."""
        descriptors, self._file, self._shared = (self._file, self._shared), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def being_folded(self) -> bool:
        """Whether another process copies the log into the file now, however long that takes.

        In this process the same thread does it, so the lock is never its own.
        """
        try:
            fcntl.lockf(self._shared, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _CHECKPOINT_LOCK)
        except OSError:  # of whatever kind: it may be so
            return True
        fcntl.lockf(self._shared, fcntl.LOCK_UN, 1, _CHECKPOINT_LOCK)
        return False

    def begins_as_before(self) -> bool:
        """Whether the file begins with what it began with when it was opened: not so if it is another's."""
        try:
            return os.pread(self._file, _BEGINNING_BYTES, 0) == self._beginning
        except OSError:  # the disk fails, which tells nothing about it
            return True

    def hold_the_log(self, in_log: int, folded: int) -> bool | None:
        """Whether what was copied from the log is in the file, even if a copy ended half-way.

        Args:
          in_log: frames in the log.
          folded: of them, copied into the file, as far as SQLite knows.

        Returns:
          True: it is, so the file belongs to the log. False: it is not. None: there is nothing to tell it by.
        """
        try:
            with open(self._log, "rb", buffering=0) as log:
                return self._compare(log.fileno(), in_log, folded)
        except (OSError, struct.error):
            return None

    def _compare(self, log: int, in_log: int, folded: int) -> bool | None:
        known = _frames(log, in_log)
        if known is None:
            return None
        pages = sorted(page for page in known.frames if page <= known.always)
        # A page with a later frame was not copied: SQLite copies the last frame of a page or none.
        copied = [page for page in pages if known.frames[page][-1] <= folded]
        if copied:
            return all(self._is_one_of(log, known, page, known.frames[page][-1:]) for page in copied[:_COMPARED])
        if pages and self._is_one_of(log, known, pages[0], known.frames[pages[0]]):
            return True
        return None

    def _is_one_of(self, log: int, known: _Log, page: int, frames: list[int]) -> bool:
        found = os.pread(self._file, known.page_bytes, (page - 1) * known.page_bytes)
        return any(
            found == os.pread(log, known.page_bytes, _offset(known.page_bytes, frame) + FRAME_HEADER_BYTES)
            for frame in frames
        )


def _frames(log: int, in_log: int) -> _Log | None:
    """List the frames of a log; None: it has none, or it is not the log that SQLite counted."""
    page_bytes, salts = _LOG_HEADER.unpack(os.pread(log, LOG_HEADER_BYTES, 0))
    frames: dict[int, list[int]] = {}
    sizes: set[int] = set()
    for frame, (page, size, its_salts) in enumerate(_headers(log, in_log, page_bytes), 1):
        if its_salts != salts:
            return None
        frames.setdefault(page, []).append(frame)
        if size:
            sizes.add(size)
    return _Log(page_bytes, min(sizes), frames) if sizes else None


def _headers(log: int, in_log: int, page_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    for frame in range(1, in_log + 1):
        page, size, salts = _FRAME_HEADER.unpack(os.pread(log, FRAME_HEADER_BYTES, _offset(page_bytes, frame)))
        yield page, size, salts


def _offset(page_bytes: int, frame: int) -> int:
    return LOG_HEADER_BYTES + (frame - 1) * (FRAME_HEADER_BYTES + page_bytes)
