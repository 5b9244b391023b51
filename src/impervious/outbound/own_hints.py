"""The ways to our own node that go with what it sends, when it has only private channels."""

from typing import Final

import trio

from impervious.errors import NodeRefused, NodeUnavailable
from impervious.model import RouteHint
from impervious.node import PaymentNode

FRESH_S: Final = 3600.0
"""Channels come and go seldom; asking makes an invoice."""
AGAIN_S: Final = 60.0
"""When they have changed, or could not be told."""


class OwnHints:
    """Asks the node for them, and remembers what it said for a while."""

    def __init__(self, node: PaymentNode) -> None:
        self._node = node
        self._hints: tuple[RouteHint, ...] = ()
        self._asked_s = -FRESH_S
        self._fresh_s = 0.0
        self._asking = trio.Lock()

    def expire(self) -> None:
        """Ask again soon: channels have changed."""
        self._fresh_s = min(self._fresh_s, AGAIN_S)

    async def get(self) -> tuple[RouteHint, ...]:
        """Return the ways; none, if it has public channels or cannot be asked."""
        async with self._asking:
            if trio.current_time() - self._asked_s >= self._fresh_s:
                try:
                    self._hints, self._fresh_s = tuple(await self._node.route_hints()), FRESH_S
                except (NodeUnavailable, NodeRefused):
                    self._fresh_s = AGAIN_S
                self._asked_s = trio.current_time()
        return self._hints
