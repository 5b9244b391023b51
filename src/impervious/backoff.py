"""Delays between attempts: doubling, capped, jittered, as plain numbers."""

from collections.abc import Callable, Iterator
from typing import Final

JITTER: Final = 0.5
"""Each delay is drawn from the upper half of its step, so that many waiters do not return together."""


def delays_s(*, first_s: float, cap_s: float, random: Callable[[], float]) -> Iterator[float]:
    """Yield delays without end: each step is twice the one before it, up to `cap_s`.

    Args:
      first_s: the first step.
      cap_s: the largest step.
      random: returns numbers from 0 to 1, as `random.random` does.
    """
    step_s = first_s
    while True:
        yield step_s * (1 - JITTER * random())
        step_s = min(cap_s, step_s * 2)
