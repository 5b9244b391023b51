"""Which errors are contained where input of strangers is read: everything but a cancellation and control-C.

A parser may raise anything: EOFError, RecursionError, MemoryError, AssertionError, an error of a library of tomorrow,
even SystemExit. The boundary of a source catches BaseException, asks here, puts the input aside and goes on. The
database's own failures are contained nowhere; the boundaries that write ask `store.is_environmental` as well.
"""

from typing import Final

import trio

MAX_REASON: Final = 500
"""Characters of an error that are kept: what strangers wrote is not repeated at length."""

_NEVER: Final = (trio.Cancelled, KeyboardInterrupt, GeneratorExit)


def is_containable(error: BaseException) -> bool:
    """Whether an error ends only the input at which it was raised; a group does if all that it holds do."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(_NEVER) is None
    return not isinstance(error, _NEVER)


def reason_of(error: BaseException) -> str:
    """Describe an error in at most `MAX_REASON` characters that every log and every database takes."""
    try:
        text = str(error) or type(error).__name__
    except Exception:  # an error that cannot even be printed
        text = type(error).__name__
    return printable(text)


def printable(text: str) -> str:
    """Cut a text to `MAX_REASON` characters and replace those that are no characters."""
    return text[:MAX_REASON].encode("utf-8", "replace").decode("utf-8")
