"""What a file is, judged by its first bytes and its size: before SQLite has it, and once SQLite has refused it.

Nothing here may run while this process has the database open: closing a descriptor of a file drops all locks that the
process holds on it (POSIX), SQLite's among them. `connection.connect` sees to that.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from impervious.errors import ConfigError, StoreError, StoreKeyWrong, StoreUnusable

PAGE_BYTES: Final = 4096
"""Of every database of ours, encrypted or not."""
_MAGIC: Final = b"SQLite format 3\0"
_PAGE_SIZE_AT: Final = slice(16, 18)
_PAGES_AT: Final = slice(28, 32)
"""sqlite.org/fileformat2.html, 1.3: the size of a page in bytes (1 means 65536), and of the database in pages."""
_FEWEST_DISTINCT: Final = 200
"""Different byte values in a page at least, if it is encrypted: of 4096 random bytes 256, give or take one."""
_RESTORE: Final = "put a backup in its place, with the daemon stopped"


@dataclass(frozen=True, slots=True)
class Header:
    """The first page of a file, and how long the file is."""

    page: bytes
    size: int

    @property
    def is_plain(self) -> bool:
        """Whether it is an SQLite database that is not encrypted."""
        return self.page.startswith(_MAGIC)


def read(path: Path) -> Header:
    """Read the beginning of a file, which this process must not have open otherwise.

    Raises:
      ConfigError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Header(os.read(descriptor, PAGE_BYTES), os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"sqlite3.path: cannot open {path}: {error.strerror}") from error


def check(header: Header, path: Path, *, has_password: bool, has_log: bool) -> None:
    """Refuse what cannot be one of our databases, whatever the password is. An empty file is one.

    Args:
      header: of the file.
      path: of the file.
      has_password: whether it is to be opened with one.
      has_log: whether a write-ahead log lies beside it. It may mend an end that a crash left half written.

    Raises:
      ConfigError: it is another kind of file.
      StoreKeyWrong: it is encrypted and there is no password, or the other way round.
      StoreUnusable: it was a database, and is damaged.
    """
    if not header.size:
        return
    if not any(header.page):
        raise StoreUnusable(
            f"{path} is damaged: it begins with {len(header.page)} zero bytes, as after a power cut or a copy that did"
            f" not end; {_RESTORE}"
        )
    if not any(header.page[: len(_MAGIC)]):
        raise StoreUnusable(f"{path} is damaged, or is not a database: its first bytes are zero; {_RESTORE}")
    if header.is_plain:
        if has_password:
            raise StoreKeyWrong(
                f"sqlite3.password does not open {path}: the file was made without a password; take sqlite3.password"
                " out, or give the database this one: `impervious db rekey`"
            )
        if not has_log and header.size % (_page_size(header) or header.size):
            raise StoreUnusable(f"{path} is cut short: it ends inside a page, at byte {header.size}; {_RESTORE}")
    elif header.size >= PAGE_BYTES and len(set(header.page)) < _FEWEST_DISTINCT:
        raise ConfigError(
            f"sqlite3.path: {path} is not a database: it begins with {header.page[:16]!r}; name another file"
        )
    elif header.size < PAGE_BYTES or (header.size % PAGE_BYTES and not has_log):
        raise StoreUnusable(
            f"{path} is cut short, or is not a database: it has {header.size} bytes, and databases of impervious are"
            f" whole pages of {PAGE_BYTES}; {_RESTORE}, or name another file in sqlite3.path"
        )
    elif not has_password:
        raise StoreKeyWrong(
            f"sqlite3.password does not open {path}: the file is encrypted and no password is set; set it"
        )


def _page_size(header: Header) -> int:
    size = int.from_bytes(header.page[_PAGE_SIZE_AT], "big")
    return 65536 if size == 1 else size


def refused(header: Header, path: Path, *, has_password: bool) -> StoreError:
    """Say why SQLite calls a file, which `check` let pass, no database."""
    if has_password and not header.is_plain:
        return StoreKeyWrong(
            f"sqlite3.password does not open {path}: it was made with another password, or by another program, or its"
            " first page is damaged"
        )
    return StoreUnusable(f"{path} is damaged: SQLite cannot read its first page; {_RESTORE}")


def damaged(header: Header, path: Path) -> StoreUnusable:
    """Say why SQLite calls a database malformed."""
    pages, expected = header.size // PAGE_BYTES, int.from_bytes(header.page[_PAGES_AT], "big")
    if header.is_plain and pages < expected:
        return StoreUnusable(f"{path} is cut short: {pages} of its {expected} pages are left; {_RESTORE}")
    return StoreUnusable(f"{path} is damaged, or cut short: its pages contradict each other; {_RESTORE}")
