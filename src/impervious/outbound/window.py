"""How many payments to one recipient are worth having under way: as many as succeed, and no more than makes them slow.

Each success while all places are taken makes room for one more, so the number doubles in the time of a payment; after
the first failure it grows by one in that time. A failure of a payment that was sent since the last cut halves it (as
TCP does with packets: additive increase, multiplicative decrease), unless nothing arrives at all. Pure: times are
given, in seconds of any clock.
"""

from typing import Final

START: Final = 16
LEAST: Final = 2
MOST: Final = 483
"""HTLCs that a payment channel holds in one direction (BOLT 2, max_accepted_htlcs)."""
SLOWDOWN: Final = 12.0
"""Payments that take so many times as long as the quickest only wait for each other: lnd was measured to take 0.1 s for
one, 0.4 s with 16 under way and 1.0 s with 64, of which it then ended 62 in a second."""
FORGETTING: Final = 1.002
"""The quickest time of long ago counts less with each success: routes change."""


class Window:
    """The number for one recipient."""

    def __init__(self, most: int | None) -> None:
        """Make it.

        Args:
          most: what the operator allows, where it begins then; None: up to MOST.
        """
        self._most = most or MOST
        self._size = float(most or START)
        self._linear_from = float(self._most)
        self._quickest_s = 0.0
        self._cut_s = -1.0
        self._any_arrived = False
        """Since the last cut."""

    @property
    def size(self) -> int:
        """How many payments may be under way."""
        return int(self._size)

    def succeeded(self, took_s: float, *, full: bool) -> None:
        """Note a payment that arrived.

        Args:
          took_s: from its sending to its end.
          full: whether all places were taken.
        """
        self._any_arrived = True
        self._quickest_s = min(took_s, self._quickest_s * FORGETTING) if self._quickest_s else took_s
        if not full or took_s > SLOWDOWN * self._quickest_s:
            return
        self._size = min(self._most, self._size + (1 if self._size < self._linear_from else 1 / self._size))

    def failed(self, *, sent_s: float, now_s: float) -> None:
        """Note a payment that did not arrive.

        Args:
          sent_s: when it was sent.
          now_s: the time.
        """
        if sent_s <= self._cut_s or not self._any_arrived:
            return  # it was one of too many, and that was seen; or nothing arrives, and then few would not either
        self._cut_s, self._any_arrived = now_s, False
        self._size = self._linear_from = max(min(LEAST, self._most), self._size / 2)
