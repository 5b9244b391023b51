"""What the event streams of both doors are made from: where events come from, and the frames that all of them share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from impervious.config import ServiceConfig
from impervious.events import Subscription
from impervious.server.closing import Closing
from impervious.server.frames import Frames
from impervious.server.options import Watch
from impervious.server.source import Source

BATCH: Final = 64
"""Events that a stream takes at a time."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What streams are made from."""

    config: ServiceConfig
    """Of the `websocket` service, which streams are a part of."""
    source: Source
    """Where events come from."""
    frames: Frames
    closing: Closing
    """Begins when all streams are to end."""
    known_types: frozenset[str]
    """Service types that can be asked for."""

    @asynccontextmanager
    async def open(self, asked: Watch) -> AsyncIterator[tuple[Watch, Subscription]]:
        """Open what a client asked to see: that, with its names resolved, and the subscription.

        Raises:
          InvalidArgument, NotFound, FailedPrecondition: a node that was asked for is none.
          OutOfRange: the log does not reach back that far.
        """
        watch = await asked.resolved(self.source)
        async with self.source.events(since=watch.since, wanted=watch.wanted) as subscription:
            yield watch, subscription
