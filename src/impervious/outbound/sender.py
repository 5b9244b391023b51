"""Everything in flight: a lane for each recipient, deliveries in each lane, places for all of them.

Messages are taken from the outbox in the order in which they were accepted, those of an earlier run first. A lane works
on as many messages at a time as one recipient may have payments; the recipient restores the order. A lane's queue holds
tickets only, so a large backlog costs little memory; it needs no bound because the outbox itself is the queue.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

import trio

from impervious.errors import NotFound
from impervious.hub import Hub
from impervious.model import MessageId, NodePubkey
from impervious.node import PaymentNode
from impervious.outbound.accept import SendPolicy
from impervious.outbound.delivery import Delivery, Slots, Tools
from impervious.outbound.outcome import raise_for
from impervious.store import Store, Tx, outbox
from impervious.store.outbox import Ticket
from impervious.wire.envelope import MAX_VOID_ORDERS

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 256
"""Payments under way in all; a channel of LND holds 483."""
PAGE: Final = 512
"""Tickets read from the outbox at a time."""


class _Lane:
    """The messages to one recipient that wait, and the places they share."""

    def __init__(self, everywhere: trio.Semaphore, in_flight: int) -> None:
        self.waiting: deque[Ticket] = deque()
        self.running = 0
        self.news = trio.Event()
        self.in_flight = in_flight
        self.slots = Slots(trio.Semaphore(in_flight), everywhere)

    def wake(self) -> None:
        self.news.set()


class Outbound:
    """Delivers what is in the outbox."""

    def __init__(
        self, node: PaymentNode, store: Store, hub: Hub, policy: SendPolicy, *, random: Callable[[], float]
    ) -> None:
        self._node = node
        self._store = store
        self._hub = hub
        self.policy = policy
        self._random = random
        self._lanes: dict[NodePubkey, _Lane] = {}
        self._everywhere = trio.Semaphore(MAX_IN_FLIGHT)
        self._local: NodePubkey | None = None

    async def run(self) -> NoReturn:
        """Deliver for as long as this runs.

        Raises:
          NodeMisconfigured: it is another node than the configuration names.
          StoreError: the database cannot be used.

        Cancellation: payments under way go on at the Lightning node; the next start finds out what became of them.
        """
        self._local = await self._store.read(outbox.identity)
        last = 0
        with self._hub.waiting_for("outbound") as wakes:
            async with trio.open_nursery() as nursery:
                while True:
                    last = await self._enqueue_new(last, nursery)
                    await wakes.receive()
        raise AssertionError("delivering never ends by itself")  # pragma: no cover

    async def _enqueue_new(self, last: int, nursery: trio.Nursery) -> int:
        while True:
            page = await self._store.read(partial(outbox.tickets, after=last, limit=PAGE))
            for ticket in page:
                self._enqueue(ticket, nursery)
                last = ticket.number
            if len(page) < PAGE:
                return last

    def _enqueue(self, ticket: Ticket, nursery: trio.Nursery) -> None:
        lane = self._lanes.get(ticket.recipient)
        if lane is None:
            lane = self._lanes[ticket.recipient] = _Lane(self._everywhere, self.policy.in_flight_per_peer)
            nursery.start_soon(self._run_lane, ticket.recipient, lane)
        lane.waiting.append(ticket)
        lane.wake()

    async def _run_lane(self, recipient: NodePubkey, lane: _Lane) -> None:
        """Work on one recipient's messages until there are none."""
        tools = Tools(node=self._node, store=self._store, policy=self.policy, random=self._random, slots=lane.slots)
        async with trio.open_nursery() as nursery:
            while lane.waiting or lane.running:
                while lane.waiting and lane.running < lane.in_flight:
                    lane.running += 1
                    nursery.start_soon(self._deliver, lane.waiting.popleft(), lane, tools)
                await lane.news.wait()
                lane.news = trio.Event()
            del self._lanes[recipient]  # no checkpoint since the last look: nobody can have queued behind it

    async def _deliver(self, ticket: Ticket, lane: _Lane, tools: Tools) -> None:
        def load(tx: Tx) -> Delivery:
            stored, parts = outbox.load(tx, ticket.id)
            voids = outbox.voids(tx, ticket.recipient, MAX_VOID_ORDERS)
            return Delivery(tools, stored, parts, voids, self._local)

        delivery = await self._store.read(load)
        await delivery.run()
        lane.running -= 1
        lane.wake()

    async def wait(self, message_id: MessageId) -> None:
        """Wait for the end of a message.

        Raises:
          DeliveryFailed: it was not delivered.
          NotFound: there is no such message.

        Cancellation: stops waiting, not delivering.
        """
        with self._hub.waiting_for(f"outcome {message_id}") as wakes:
            while True:
                found = await self._store.read(lambda tx: outbox.state(tx, message_id))
                if found is None:
                    raise NotFound(f"no message has the id {message_id}")
                if found[1] is not None:
                    raise_for(found[1])
                    return
                await wakes.receive()
