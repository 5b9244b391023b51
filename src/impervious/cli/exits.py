"""Exit codes, and the one line that says why.

0 ok, 1 crash, 2 configuration or usage, 3 LND unreachable or refusing (one-shot commands; the daemon waits instead).
"""

import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Final

from impervious.errors import ConfigError, ImperviousError, NodeRefused, NodeUnavailable

OK: Final = 0
CRASH: Final = 1
USAGE: Final = 2
NODE: Final = 3
INTERRUPTED: Final = 128 + signal.SIGINT
"""As shells report it."""

logger = logging.getLogger(__name__)


class UsageError(ImperviousError):
    """The command line cannot be understood."""


def report(error: BaseException) -> int:
    """Say on stderr why the command ends, and return its exit code.

    Args:
      error: what came out of it; of a group, every error in it counts, and the most serious decides.
    """
    causes = list(_leaves(error))
    code = max((exit_code(cause) for cause in causes), key=_SEVERITY.index)
    if code == INTERRUPTED:
        return code
    for line in dict.fromkeys(str(cause) for cause in causes if isinstance(cause, ImperviousError)):
        print(f"impervious: {line}", file=sys.stderr)
    for cause in causes:
        if _is_bug(cause):
            _report_bug(cause)
    return code


_SEVERITY: Final = (INTERRUPTED, NODE, USAGE, CRASH)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def exit_code(cause: BaseException) -> int:
    """Return the exit code that one error stands for."""
    match cause:
        case KeyboardInterrupt():
            return INTERRUPTED
        case ConfigError() | UsageError():
            return USAGE
        case NodeUnavailable() | NodeRefused():
            return NODE
        case _:
            return CRASH


def _is_bug(cause: BaseException) -> bool:
    return not isinstance(cause, ImperviousError | KeyboardInterrupt)


def _report_bug(cause: BaseException) -> None:
    summary = "".join(traceback.format_exception_only(cause)).strip()
    if logging.getLogger().hasHandlers():  # the daemon's log keeps its form
        logger.critical("crashed: %s", summary, exc_info=cause)
        return
    traceback.print_exception(cause)
    print(f"impervious: crashed: {summary}", file=sys.stderr)
