"""What the work on one recipient's messages shares."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import trio

from impervious.backoff import delays_s
from impervious.errors import StoreFull
from impervious.gate import PaymentGate
from impervious.model import MessageId
from impervious.node import PaymentNode
from impervious.outbound.accept import SendPolicy
from impervious.outbound.lane import Lane
from impervious.outbound.own_hints import OwnHints
from impervious.store import Store, Tx

logger = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0
MAX_LOOKUPS: Final = 32
"""Questions about payments of unknown fate at a time: after a crash there can be thousands."""


@dataclass(slots=True, kw_only=True)
class Tools:
    """What a delivery works with."""

    node: PaymentNode
    store: Store
    policy: SendPolicy
    random: Callable[[], float]
    lane: Lane
    lookups: trio.CapacityLimiter
    gate: PaymentGate
    own_hints: OwnHints

    def delays(self) -> Iterator[float]:
        """Yield how many seconds to wait before each attempt but the first."""
        return delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self.random)

    async def write(self, message_id: MessageId, work: Callable[[Tx], None]) -> None:
        """Write, waiting while the disk is full: what was paid must be stored."""
        delays = self.delays()
        while True:
            try:
                await self.store.write(work)
            except StoreFull as error:
                logger.warning("message %s waits: %s", message_id, error)
                await trio.sleep(next(delays))
            else:
                return
