"""The one way to read the stream: a cursor over the log, kept live by the hub.

A subscription first reads the log page by page. When it has caught up it is fed by the hub, without touching the
database; when it falls further behind than its feed is long, it goes back to the log. So it misses nothing, sees
everything once and in order, and never holds anyone else up.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

import trio

from impervious.errors import OutOfRange, ResourceExhausted
from impervious.hub import Hub
from impervious.model import Event, EventKind, NodePubkey
from impervious.store import Store, Tx, history, log

PAGE: Final = 256
"""Events read from the log at a time: about 100 KB of short messages."""
FEED_SIZE: Final = 256
"""Events a subscriber may be behind before it has to read the log again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events a subscriber wants. Empty means all."""

    service_types: frozenset[str] = frozenset()
    senders: frozenset[NodePubkey] = frozenset()
    quarantined: bool = False
    """Also payments that are not shown as what they claim to be; streams with `v=2` want them."""

    def wants(self, event: Event) -> bool:
        """Whether to show this event."""
        return (
            event.public
            and (self.quarantined or event.kind is not EventKind.QUARANTINED)
            and (not self.service_types or event.service_type in self.service_types)
            and (not self.senders or event.sender in self.senders)
        )


EVERYTHING: Final = Filter()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatistics:
    """What `Events.statistics` returns."""

    subscribers: int


class Subscription:
    """An open subscription. One task reads it."""

    def __init__(self, store: Store, hub: Hub, wanted: Filter, after: int, epoch: str = "") -> None:
        self._store = store
        self._hub = hub
        self._filter = wanted
        self._after = after
        self.epoch = epoch
        """Which history its `seq` numbers belong to, 32 hex digits: another one begins when a backup is restored."""
        self._ready: deque[Event] = deque()
        self._registered = ExitStack()
        self._feed: trio.MemoryReceiveChannel[Event] | None = None
        self._behind = True

    @property
    def position(self) -> int:
        """The `seq` behind which it goes on: everything up to there has been read or was there before."""
        return self._after

    def register(self) -> None:
        """Ask the hub for what comes from now on."""
        self._registered.close()
        self._feed = self._registered.enter_context(self._hub.live(FEED_SIZE))

    def close(self) -> None:
        """Leave the hub."""
        self._registered.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.receive()

    async def receive(self) -> Event:
        """Wait for the next event.

        Raises:
          OutOfRange: it was pruned before this subscriber came to it.
          StoreError: the log cannot be read.

        Cancellation: no event is lost.
        """
        if self._ready:
            await trio.lowlevel.checkpoint()
            return self._ready.popleft()
        while not self._ready:
            if self._behind:
                await self._read_page()
            else:
                await self._read_feed()
        return self._ready.popleft()

    def receive_ready(self, limit: int) -> list[Event]:
        """Take what has come already, at most `limit` events, without waiting."""
        while not self._behind and len(self._ready) < limit and self._feed is not None:
            try:
                self._accept(self._feed.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    async def _read_page(self) -> None:
        if self._feed is None:
            self.register()
        page = await self._store.read(self._page)
        self._behind = len(page) == PAGE
        for event in page:
            self._accept(event)

    def _page(self, tx: Tx) -> list[Event]:
        check_since(tx, self._after)
        return log.public_events(
            tx,
            after=self._after,
            limit=PAGE,
            service_types=sorted(self._filter.service_types),
            senders=sorted(self._filter.senders),
            quarantined=self._filter.quarantined,
        )

    async def _read_feed(self) -> None:
        assert self._feed is not None
        try:
            self._accept(await self._feed.receive())
        except trio.EndOfChannel:  # too far behind: what the feed held is read, the rest is in the log
            self._behind = True
            self._feed = None

    def _accept(self, event: Event) -> None:
        if event.seq <= self._after:
            return  # read from the log already
        self._after = event.seq
        if self._filter.wants(event):
            self._ready.append(event)


class Events:
    """The stream of everything that happens on this node."""

    def __init__(self, store: Store, hub: Hub, *, max_subscribers: int) -> None:
        self._store = store
        self._hub = hub
        self._max_subscribers = max_subscribers
        self._subscribers = 0

    @asynccontextmanager
    async def subscribe(self, *, since: int | None = None, wanted: Filter = EVERYTHING) -> AsyncIterator[Subscription]:
        """Open a subscription; iterate over it for its events.

        Args:
          since: start behind this `seq`; 0: everything kept. None: only what happens from now on.
          wanted: leaves out the rest.

        Raises:
          OutOfRange: events behind `since` are no longer kept, or it was never given out; says which are kept.
          ResourceExhausted: as many subscribers as `limits.subscribers` allows are here.
        """
        if self._subscribers >= self._max_subscribers:
            raise ResourceExhausted(
                f"{self._max_subscribers} subscribers are connected: close some or raise limits.subscribers"
            )
        self._subscribers += 1
        try:
            subscription = await self._opened(since, wanted)
            try:
                yield subscription
            finally:
                subscription.close()
        finally:
            self._subscribers -= 1

    async def _opened(self, since: int | None, wanted: Filter) -> Subscription:
        def begin(tx: Tx) -> tuple[int, str]:
            if since is not None:
                check_since(tx, since)
            return log.newest(tx) if since is None else since, history.epoch(tx)

        after, epoch = await self._store.read(begin)
        return Subscription(self._store, self._hub, wanted, after, epoch)

    def statistics(self) -> EventStatistics:
        """How many are connected."""
        return EventStatistics(subscribers=self._subscribers)


def check_since(tx: Tx, since: int) -> None:
    """Refuse a position of which the log cannot tell everything that came behind it.

    Raises:
      OutOfRange: says what is kept.
    """
    gone = log.pruned_through(tx)
    if 0 < since < gone:
        raise OutOfRange(f"events up to {gone} are pruned: the oldest kept is {gone + 1}; ask since={gone} or since=0")
    newest = log.newest(tx)
    if since > newest:
        raise OutOfRange(f"since={since} is ahead of this log, whose newest event is {newest}: ask since={newest}")
