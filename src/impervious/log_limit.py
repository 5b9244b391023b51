"""Log lines that others can cause as often as they like, and that appear only so often."""

import logging
import math
from typing import Final

import trio

EVERY_S: Final = 10.0
"""How often one kind of line appears at most."""


class LimitedLog:
    """A logger whose lines of one kind come once in a while, with the number of those left out in between.

    Args:
      logger: where they go.
      every_s: how often each kind may come, in seconds.
    """

    def __init__(self, logger: logging.Logger, *, every_s: float = EVERY_S) -> None:
        self._logger = logger
        self._every_s = every_s
        # Text and kind -> when it came last, and how often it was left out since. Both are constants, so these are few.
        # For each run of Trio, because each has a clock of its own.
        self._kinds: trio.lowlevel.RunVar[dict[tuple[str, str], tuple[float, int]]] = trio.lowlevel.RunVar("kinds")

    def warning(self, text: str, *arguments: object, kind: str = "", exc_info: bool = False) -> None:
        """Log a warning, unless one with the same `text` and `kind` came within the last `every_s`.

        Args:
          text: a constant, with % where the arguments go: it is what makes lines be of one kind.
          arguments: what differs from line to line.
          kind: what else divides lines into kinds; one of few values.
          exc_info: with the traceback of what is being handled.
        """
        now = trio.current_time()
        kinds = self._kinds.get({})
        self._kinds.set(kinds)
        last, missed = kinds.get((text, kind), (-math.inf, 0))
        if now < last + self._every_s:
            kinds[text, kind] = (last, missed + 1)
            return
        kinds[text, kind] = (now, 0)
        more = f" (and {missed} more since the last such line)" if missed else ""
        self._logger.warning(f"{text}%s", *arguments, more, exc_info=exc_info)  # noqa: G004 - it holds the placeholders
