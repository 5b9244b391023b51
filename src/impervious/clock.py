"""The clock that everything in the database goes by: the machine's, as long as nothing contradicts it.

A machine's clock can jump, and what is forgotten or spent by it would be wrong for good. So a step is noticed (by a
clock that only counts), and what the clock says is compared with the chain: LND reports no chain as synced whose newest
block is older than two hours, and no node accepts a block from more than two hours ahead. While a step has not been
compared, and while the clock contradicts the chain, time goes on from what was known before.

So a clock that jumps ahead makes nothing be forgotten, pruned, or taken out of the budget's window early; and nothing
is written with a time that would bind the node after the clock has come back.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Final

STEP_MS: Final = 300_000
"""Between two looks at the clock; less than that is how clocks are corrected all the time."""
AGREES_MS: Final = 3 * 3_600_000
"""Between the clock and the newest block, either way: two hours as above, and one for what people set wrong."""


class Trust(Enum):
    """What is thought of the machine's clock."""

    UNCHECKED = "unchecked"
    """It has jumped, or the program has just started; the chain has not been asked since."""
    RIGHT = "right"
    WRONG = "wrong"
    """It contradicts the chain."""


class NodeClock:
    """Milliseconds since 1970, from a clock that may jump.

    Args:
      wall_ms: the machine's clock.
      elapsed_s: a clock that only counts, such as `trio.current_time`.
    """

    def __init__(self, wall_ms: Callable[[], int], elapsed_s: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._elapsed_s = elapsed_s
        self._trust = Trust.UNCHECKED
        self._base_ms: float | None = None
        """What it was at `_base_s`. None: nothing contradicts the machine's clock so far."""
        self._base_s = 0.0
        self._chain_s = 0

    @property
    def trust(self) -> Trust:
        """What is thought of the machine's clock."""
        self.now_ms()
        return self._trust

    @property
    def problem(self) -> str:
        """What is wrong with the machine's clock, and what cures it; empty: nothing that is known."""
        if self._trust is not Trust.WRONG:
            return ""
        off_s = self._wall_ms() // 1000 - self._chain_s
        return (
            f"this machine's clock says {_date(self._wall_ms())}, but the newest block is of"
            f" {_date(self._chain_s * 1000)}: the clock is {_span(abs(off_s))} {'ahead' if off_s > 0 else 'behind'};"
            " set it (with NTP); until then nothing is paid and nothing is forgotten"
        )

    def begin(self, last_ms: int) -> None:
        """Take up where the database ended: until the chain has been asked, no time counts as having passed.

        Args:
          last_ms: the newest time in the database; 0: it is new.
        """
        if last_ms:
            self._set(last_ms, self._elapsed_s())

    def now_ms(self) -> int:
        """Tell the time. Never goes back by itself, except to what the chain says."""
        wall_ms, elapsed_s = self._wall_ms(), self._elapsed_s()
        if self._base_ms is None:
            self._set(wall_ms, elapsed_s)
            return wall_ms
        expected_ms = self._base_ms + (elapsed_s - self._base_s) * 1000
        if self._trust is Trust.RIGHT:
            if abs(wall_ms - expected_ms) <= STEP_MS:
                self._set(wall_ms, elapsed_s)
                return wall_ms
            self._trust = Trust.UNCHECKED
            self._set(expected_ms, elapsed_s)
        return int(expected_ms)

    def compare(self, chain_s: int) -> bool:
        """Compare the machine's clock with the chain; say whether that changed what is thought of it.

        Args:
          chain_s: time of the newest block, in seconds since 1970, asked for after `trust` was last unchecked. 0: the
            node does not tell, and the machine's clock is believed.
        """
        before, now_ms, chain_ms = self.trust, self.now_ms(), chain_s * 1000
        self._chain_s = chain_s
        if not chain_s or abs(self._wall_ms() - chain_ms) <= AGREES_MS:
            self._trust = Trust.RIGHT
            self._set(self._wall_ms(), self._elapsed_s())
        else:
            self._trust = Trust.WRONG
            if abs(now_ms - chain_ms) > AGREES_MS:
                self._set(chain_ms, self._elapsed_s())
        return self._trust is not before

    def _set(self, now_ms: float, elapsed_s: float) -> None:
        self._base_ms, self._base_s = now_ms, elapsed_s


def _date(at_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "a year that no calendar has"


def _span(seconds: int) -> str:
    hours = seconds // 3600
    return f"{(hours + 12) // 24} days" if hours >= 48 else f"{hours} hours"
