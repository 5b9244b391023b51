"""Wake-ups: who waits for what. Knows no database.

Two kinds. A *topic* only says "there is something new, look": a channel of size 1 for each waiter, where a second
wake-up before the first is taken is dropped, harmlessly. A *live feed* carries the events themselves to one subscriber:
when it is full the hub closes it, so the subscriber drains it, sees its end and reads on from the log. Nobody is ever
waited for.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final

import trio

from impervious.lifetime import Lifetime
from impervious.model import Event

WAKE_SIZE: Final = 1
"""One pending wake-up says as much as many."""


class Hub:
    """Hands news to those who asked for it. Must be used in the Trio thread."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[trio.MemorySendChannel[None]]] = {}
        self._receivers: set[trio.MemoryReceiveChannel[None]] = set()
        self._feeds: set[trio.MemorySendChannel[Event]] = set()
        self.lifetime = Lifetime("the node")
        """Of the node whose news these are."""

    def close(self) -> None:
        """End every wait for news, with `trio.ClosedResourceError`: no news will come."""
        self.lifetime.close()
        for receiver in self._receivers:
            receiver.close()
        for feed in self._feeds:
            feed.close()  # its reader drains it, then finds the log closed
        self._feeds.clear()

    def publish(self, events: Sequence[Event], wakes: AbstractSet[str]) -> None:
        """Hand on what a commit wrote; never blocks.

        Args:
          events: in `seq` order, all higher than any published before.
          wakes: topics whose waiters are to look.
        """
        for event in events:
            for feed in tuple(self._feeds):
                try:
                    feed.send_nowait(event)
                except trio.WouldBlock:
                    self._feeds.discard(feed)
                    feed.close()  # its reader drains it, then goes to the log
        for topic in wakes:
            self.wake(topic)

    def wake(self, topic: str) -> None:
        """Tell everyone who waits for `topic` to look."""
        for waiter in self._waiters.get(topic, ()):
            try:
                waiter.send_nowait(None)
            except trio.WouldBlock:
                continue  # it has not looked since the last one, so it will see this too

    @contextmanager
    def waiting_for(self, *topics: str) -> Iterator[trio.MemoryReceiveChannel[None]]:
        """Register for wake-ups; look once after entering, then after each.

        Raises:
          trio.ClosedResourceError: the hub is closed; so does receiving from the channel once it is.
        """
        self.lifetime.require_open()
        send, receive = trio.open_memory_channel[None](WAKE_SIZE)
        with send, receive:
            self._receivers.add(receive)
            for topic in topics:
                self._waiters.setdefault(topic, set()).add(send)
            try:
                yield receive
            finally:
                self._receivers.discard(receive)
                for topic in topics:
                    self._waiters[topic].discard(send)
                    if not self._waiters[topic]:
                        del self._waiters[topic]

    @contextmanager
    def live(self, size: int) -> Iterator[trio.MemoryReceiveChannel[Event]]:
        """Register for every event from now on; the channel ends when `size` of them were not taken in time.

        Raises:
          trio.ClosedResourceError: the hub is closed; the channel ends when it is.
        """
        self.lifetime.require_open()
        send, receive = trio.open_memory_channel[Event](size)
        with send, receive:
            self._feeds.add(send)
            try:
                yield receive
            finally:
                self._feeds.discard(send)
