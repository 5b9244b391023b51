"""How many payments may be under way at a time: to one recipient, and in all.

A place is for a payment that was just handed to the Lightning node. One that has not ended after `SLOW_S` moves to a
pool for slow payments, so that a recipient that holds payments back does not stop what is sent to it later; when that
pool is full it keeps its place. A payment of unknown fate (after a crash of either side) holds no place at all: it was
counted when it was sent, and whether it still is under way, only the Lightning node knows.
"""

from typing import Final

import trio

from impervious.model import PaymentHash
from impervious.outbound.window import Window

MAX_IN_FLIGHT: Final = 256
"""Payments just sent, in all; a channel of LND holds 483."""
SLOW_S: Final = 30.0
"""A payment that arrives at all does so in a few seconds, also over many hops."""
MAX_SLOW: Final = 128
"""Slow payments in all: with MAX_IN_FLIGHT less than a channel holds."""
MAX_SLOW_PER_PEER: Final = 48


class Everywhere:
    """Places of all recipients together."""

    def __init__(self) -> None:
        self.sent = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self.slow = trio.CapacityLimiter(MAX_SLOW)


class Places:
    """Places for the payments to one recipient, first come, first served."""

    def __init__(self, everywhere: Everywhere, most: int | None) -> None:
        """Make them.

        Args:
          everywhere: of all recipients.
          most: how many the operator allows; None: as many as succeed.
        """
        self._everywhere = everywhere
        self._window = Window(most)
        self._sent = trio.CapacityLimiter(self._window.size)
        self._since_s: dict[PaymentHash, float] = {}
        self._slow = trio.CapacityLimiter(MAX_SLOW_PER_PEER)
        self._of: dict[PaymentHash, tuple[trio.CapacityLimiter, trio.CapacityLimiter]] = {}

    @property
    def taken(self) -> int:
        """How many payments have one, slow ones included."""
        return len(self._of)

    @property
    def size(self) -> int:
        """How many payments may be under way, slow ones not counted."""
        return self._window.size

    def note(self, payment: PaymentHash, *, arrived: bool) -> None:
        """Learn from how a payment ended that has a place."""
        since_s = self._since_s.get(payment)
        if since_s is None:
            return  # a slow one, or it was sent in an earlier run
        now_s = trio.current_time()
        if arrived:
            self._window.succeeded(now_s - since_s, full=not self._sent.available_tokens)
        else:
            self._window.failed(sent_s=since_s, now_s=now_s)
        self._sent.total_tokens = self._window.size

    def has(self, payment: PaymentHash) -> bool:
        """Whether a payment has one."""
        return payment in self._of

    async def take(self, payment: PaymentHash) -> None:
        """Wait for a place."""
        await self._sent.acquire_on_behalf_of(payment)
        try:
            await self._everywhere.sent.acquire_on_behalf_of(payment)
        except trio.Cancelled:
            self._sent.release_on_behalf_of(payment)
            raise
        self._of[payment] = (self._sent, self._everywhere.sent)
        self._since_s[payment] = trio.current_time()

    def make_slow(self, payment: PaymentHash) -> bool:
        """Let others have the place of a payment that does not end. False: it keeps it, too many are slow."""
        pools = (self._slow, self._everywhere.slow)
        if any(not pool.available_tokens for pool in pools):
            return False
        self.give_back(payment)
        for pool in pools:
            pool.acquire_on_behalf_of_nowait(payment)
        self._of[payment] = pools
        return True

    def give_back(self, payment: PaymentHash) -> None:
        """Give the place of a payment back, if it has one."""
        self._since_s.pop(payment, None)
        for pool in self._of.pop(payment, ()):
            pool.release_on_behalf_of(payment)
