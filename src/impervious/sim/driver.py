"""What makes a simulated network's time pass: one task that sleeps until something is due, and does it.

Every command runs `step` after it, so that its consequences are saved and told before the caller goes on.
"""

import math
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import NoReturn, Protocol

import trio

from impervious.sim.engine.engine import Engine
from impervious.sim.engine.world import News, Touched, World


class TrioTime:
    """Trio's clock for the agenda; the wall clock goes along with it, so virtual time moves both.

    Args:
      wall_s: seconds since 1970 at the first reading.
      now: reads the wall clock instead, where a machine may be suspended.
    """

    def __init__(self, now: Callable[[], float] | None, *, start: Callable[[], float] = time.time) -> None:
        self._now = now
        self._start = start
        self._wall_s = 0.0
        self._started_s: float | None = None

    def elapsed_s(self) -> float:
        """Trio's clock."""
        return trio.current_time()

    def wall_s(self) -> float:
        """Seconds since 1970."""
        if self._now is not None:
            return self._now()
        if self._started_s is None:  # both at the same moment: it may be long after the network was made
            self._wall_s, self._started_s = self._start(), trio.current_time()
        return self._wall_s + trio.current_time() - self._started_s


class Saver(Protocol):
    """Where changes are kept."""

    def save(self, world: World, touched: list[Touched]) -> None:
        """Keep what was touched, all of it or nothing."""
        ...


class Driver:
    """Steps an engine and hands its news to whom they concern."""

    def __init__(self, engine: Engine, saver: Saver | None = None) -> None:
        self.engine = engine
        self._saver = saver
        self._listeners: dict[str, Callable[[News], None]] = {}
        self._wake = trio.Event()
        self._sleeping_until_s = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0

    def listen(self, name: str, hear: Callable[[News], None]) -> None:
        """Send a node's news to `hear`, which must not call back."""
        self._listeners[name] = hear

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call something after a while; at once if there is none."""
        if delay_s <= 0:
            call()
            return
        self._numbers += 1
        heappush(self._calls, (trio.current_time() + delay_s, self._numbers, call))
        self._wake.set()

    def step(self) -> None:
        """Do what is due, save it, tell it."""
        while self._calls and self._calls[0][0] <= trio.current_time():
            heappop(self._calls)[2]()
        self.engine.advance()
        news, touched = self.engine.take_news(), self.engine.take_touched()
        if self._saver is not None and touched:
            self._saver.save(self.engine.world, touched)
        for item in news:
            self._listeners[item.name](item)
        if self._next_due_s() < self._sleeping_until_s:
            self._wake.set()

    async def run(self) -> NoReturn:
        """Step whenever something comes due."""
        while True:
            self._wake = trio.Event()
            self._sleeping_until_s = self._next_due_s()
            with trio.move_on_at(self._sleeping_until_s):
                await self._wake.wait()
            self.step()

    def _next_due_s(self) -> float:
        due_s = self.engine.world.next_due_s()
        calls_s = self._calls[0][0] if self._calls else math.inf
        return calls_s if due_s is None else min(due_s, calls_s)
