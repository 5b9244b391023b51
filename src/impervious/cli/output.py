"""Standard output in any locale, on a full disk, into a pipe that is closed."""

import codecs
import errno
import os
import sys
from io import TextIOWrapper
from typing import Final

_ESCAPING: Final = "impervious.json"
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF})
"""What a write to standard output can fail with, besides a reader that has gone."""


def prepare() -> None:
    """Let standard output and standard error write every character, escaped where their encoding has none for it.

    The escape is that of JSON, so that a line of `--json` stays JSON in a latin-1 terminal.
    """
    codecs.register_error(_ESCAPING, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_ESCAPING)


def flush() -> None:
    """Write what is buffered.

    Raises:
      OSError: it cannot be written; see `problem`.
    """
    if sys.stdout is not None:  # None where the descriptor was closed before the program started
        sys.stdout.flush()


def problem(error: BaseException) -> str | None:
    """Explain an error that only says that standard output cannot be written.

    Returns:
      A line for people; empty where the reader has gone (`impervious config show | head`), which is no problem; None
      for every other error.
    """
    if isinstance(error, BaseExceptionGroup):
        problems = [problem(each) for each in error.exceptions]
        return None if None in problems else "".join(dict.fromkeys(each for each in problems if each))
    if isinstance(error, BrokenPipeError):
        return ""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        return f"the output cannot be written: {error.strerror}"
    return None


def discard() -> None:
    """Send what is still buffered nowhere, or Python complains about it at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))
    return escaped, error.end
