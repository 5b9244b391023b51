"""The messages to one recipient that wait for their turn, in the order in which they were accepted.

A queue holds tickets only, so a large backlog costs little memory; it needs no bound because the outbox itself is the
queue. Each ticket also lies in a heap by its deadline: what waits longer than it may is given up without being loaded.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import trio

from impervious.model import NodeStatus, PaymentHash
from impervious.outbound.places import Everywhere, Places
from impervious.store.outbox import Ticket

SCOUT_S: Final = 3.0
"""What to wait at most between attempts of the payment that is tried for all: how late an end of trouble is found."""
SCOUT_SHARE: Final = 30
"""Of trouble that lasts, attempts are this share of its age apart instead: at 4 minutes 8 s, at half an hour 60 s."""
_SPARE: Final = 64
"""Entries of the heap whose tickets have gone, beside as many as there are tickets, before it is made anew."""


class Lane:
    """One recipient's queue, and the places its messages share."""

    def __init__(self, everywhere: Everywhere, in_flight: int | None) -> None:
        self.places = Places(everywhere, in_flight)
        self.running = 0
        """Messages that are worked on and need places, now or later: not those that only wait for payments to end."""
        self.open = 0
        """All that are worked on."""
        self._waiting: OrderedDict[int, Ticket] = OrderedDict()
        self._deadlines: list[tuple[int, int]] = []
        """(deadline_ms, number): a heap. Numbers that are not waiting any more are skipped."""
        self._news = trio.Event()
        self._nudge = trio.Event()
        self._scout: PaymentHash | None = None
        self._failing_since_s = 0.0

    def why_not_sent(self, status: NodeStatus) -> str:
        """Say why a message of this lane was never handed to the node."""
        if not status.ready:
            return f"it was not sent: {status.reason}"
        return f"it was not sent: {self.places.taken} earlier payments to the recipient have not ended"

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not self.open

    def add(self, ticket: Ticket) -> None:
        """Queue a message."""
        self._waiting[ticket.number] = ticket
        if ticket.deadline_ms is not None:
            heapq.heappush(self._deadlines, (ticket.deadline_ms, ticket.number))
        self.wake()

    def put_back(self, ticket: Ticket) -> None:
        """Queue a message again, at the front and without a deadline."""
        self._waiting[ticket.number] = ticket
        self._waiting.move_to_end(ticket.number, last=False)

    def startable(self) -> Iterator[Ticket]:
        """Take messages from the front while more may be worked on."""
        while self._waiting and self.running < self.places.size:
            self.running += 1
            self.open += 1
            yield self._waiting.popitem(last=False)[1]
        if len(self._deadlines) > 2 * len(self._waiting) + _SPARE:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._waiting]
            heapq.heapify(self._deadlines)

    def overdue(self, now_ms: int, limit: int) -> list[Ticket]:
        """Take at most `limit` messages that have waited for longer than they may."""
        found: list[Ticket] = []
        while len(found) < limit and (first := self.next_deadline_ms) is not None and first <= now_ms:
            found.append(self._waiting.pop(heapq.heappop(self._deadlines)[1]))
        return found

    @property
    def next_deadline_ms(self) -> int | None:
        """When the next message has waited for too long; None: none will."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def nudge(self) -> None:
        """Have everything tried again at once that waits for its next attempt."""
        self._nudge.set()
        self._nudge = trio.Event()

    async def sleep(self, delay_s: float) -> None:
        """Wait before an attempt, until nudged."""
        with trio.move_on_after(delay_s):
            await self._nudge.wait()

    def retry_delay_s(self, payment: PaymentHash, delay_s: float) -> float:
        """Say how long a payment that failed waits: one of the lane is tried often, so that the others need not be.

        Args:
          payment: which failed.
          delay_s: what its own back-off says.
        """
        if self._scout is None:
            self._scout, self._failing_since_s = payment, trio.current_time()
        if payment != self._scout:
            return delay_s
        return min(delay_s, max(SCOUT_S, (trio.current_time() - self._failing_since_s) / SCOUT_SHARE))

    def arrived(self) -> None:
        """Note that a payment arrived: so will others."""
        if self._scout is not None:
            self._scout = None
            self.nudge()

    def ended_with(self, payment: PaymentHash) -> None:
        """Note that a payment is not tried again; if it was tried for the others, another one is."""
        if payment == self._scout:
            self.arrived()

    def wake(self) -> None:
        """Have the lane looked at again."""
        self._news.set()

    async def wait_news(self) -> None:
        """Wait until it is worth another look."""
        await self._news.wait()
        self._news = trio.Event()
