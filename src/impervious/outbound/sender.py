"""Everything in flight: a lane for each recipient, deliveries in each lane, places for all of them.

Messages are taken from the outbox in the order in which they were accepted, those of an earlier run first. A lane works
on as many messages at a time as one recipient may have payments; the recipient restores the order. A lane's queue holds
tickets only, so a large backlog costs little memory; it needs no bound because the outbox itself is the queue.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn

import trio

from impervious.backoff import delays_s
from impervious.errors import NodeRefused, NodeUnavailable, NotFound
from impervious.gate import PaymentGate
from impervious.hub import Hub
from impervious.model import MessageId, MessageReport, MessageState, NodePubkey
from impervious.node import PaymentNode
from impervious.outbound.accept import SendPolicy
from impervious.outbound.delivery import Delivery
from impervious.outbound.lane import Lane
from impervious.outbound.outcome import Failure, conclude, given_up, raise_for
from impervious.outbound.own_hints import OwnHints
from impervious.outbound.places import Everywhere
from impervious.outbound.progress import Progress
from impervious.outbound.report import report
from impervious.outbound.signing import Signer
from impervious.outbound.tools import FIRST_RETRY_S, LAST_RETRY_S, MAX_LOOKUPS, Tools
from impervious.store import Store, Tx, hints, outbox
from impervious.store.outbox import Ticket
from impervious.wire.envelope import MAX_VOID_ORDERS

logger = logging.getLogger(__name__)

PAGE: Final = 512
"""Tickets read from the outbox at a time, and given up in one transaction."""
_LOOK_AGAIN_S: Final = 60.0
"""A clock that was set moves deadlines: they are compared with it at least this often."""


class Outbound:
    """Delivers what is in the outbox."""

    def __init__(
        self,
        node: PaymentNode,
        store: Store,
        hub: Hub,
        policy: SendPolicy,
        *,
        random: Callable[[], float],
        gate: PaymentGate | None = None,
    ) -> None:
        self._node = node
        self._store = store
        self._hub = hub
        self.policy = policy
        self._random = random
        self._gate = gate or PaymentGate()
        self._own_hints = OwnHints(node)
        # Of the present `run`, and of no other: a lane whose tasks have ended would keep what is queued in it for ever.
        self._lanes: dict[NodePubkey, Lane] = {}
        self._deliveries: dict[MessageId, Delivery] = {}
        self._everywhere = Everywhere()
        self._lookups = trio.CapacityLimiter(MAX_LOOKUPS)
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
        self._everywhere, self._lookups = Everywhere(), trio.CapacityLimiter(MAX_LOOKUPS)
        try:
            with self._hub.waiting_for("outbound") as wakes:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear_of_channels)
                    while True:
                        last = await self._enqueue_new(last, nursery)
                        await wakes.receive()
        finally:
            self._lanes.clear()
            self._deliveries.clear()
        raise AssertionError("delivering never ends by itself")  # pragma: no cover

    async def _hear_of_channels(self) -> NoReturn:
        """Have everything tried again that waits whenever a payment channel becomes active, or the node comes back."""
        told = ""
        while True:
            for delay_s in delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random):
                await self._node.wait_ready()
                try:
                    async with self._node.channel_news() as news:
                        self._nudge()  # what became active before this was not told
                        async for _ in news:
                            self._nudge()
                    break
                except (NodeUnavailable, NodeRefused) as error:
                    if str(error) != told:
                        logger.info("payment channels that become active are not heard of now: %s", error)
                    told = str(error)
                await trio.sleep(delay_s)
            await trio.sleep(FIRST_RETRY_S)
        raise AssertionError("it is heard for ever")  # pragma: no cover

    def _nudge(self) -> None:
        self._own_hints.expire()
        for lane in self._lanes.values():
            lane.nudge()

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
            lane = self._lanes[ticket.recipient] = Lane(self._everywhere, self.policy.in_flight_per_peer)
            nursery.start_soon(self._run_lane, ticket.recipient, lane)
        lane.add(ticket)

    async def _run_lane(self, recipient: NodePubkey, lane: Lane) -> None:
        """Work on one recipient's messages until there are none."""
        tools = Tools(
            node=self._node,
            store=self._store,
            policy=self.policy,
            random=self._random,
            lane=lane,
            lookups=self._lookups,
            gate=self._gate,
            own_hints=self._own_hints,
        )
        async with trio.open_nursery() as nursery:
            while not lane.ended:
                for ticket in lane.startable():
                    nursery.start_soon(self._deliver, ticket, tools)
                if overdue := lane.overdue(self._store.now_ms(), PAGE):
                    await self._give_up(overdue, tools)
                    continue
                with trio.move_on_after(self._until_overdue_s(lane)):
                    await lane.wait_news()
            del self._lanes[recipient]  # no checkpoint since the last look: nobody can have queued behind it

    def _until_overdue_s(self, lane: Lane) -> float:
        deadline_ms = lane.next_deadline_ms
        if deadline_ms is None:
            return float("inf")
        return min(max(0.0, (deadline_ms - self._store.now_ms()) / 1000), _LOOK_AGAIN_S)

    async def _deliver(self, ticket: Ticket, tools: Tools) -> None:
        def load(tx: Tx) -> Delivery:
            stored, parts = outbox.load(tx, ticket.id)
            voids = outbox.voids(tx, ticket.recipient, MAX_VOID_ORDERS)
            first_bytes = max((part.length for part in parts if part.offset == 0), default=0)
            signer = Signer(tools, stored, voids, self._local, first_bytes)
            return Delivery(tools, stored, parts, signer, Progress(stored), hints.find(tx, ticket.recipient))

        delivery = await self._store.read(load)
        self._deliveries[ticket.id] = delivery
        try:
            await delivery.run()
        finally:
            self._deliveries.pop(ticket.id, None)
        tools.lane.open -= 1
        if not delivery.resting:
            tools.lane.running -= 1
        tools.lane.wake()

    async def _give_up(self, tickets: Sequence[Ticket], tools: Tools) -> None:
        """End messages whose turn did not come in time: none of those that are not signed was ever sent."""
        last = tools.lane.why_not_sent(self._node.status)
        failure = Failure(reason=given_up(self.policy.ttl_ms // 1000, last), retryable=True)
        kept: list[Ticket] = []

        def end(tx: Tx) -> None:
            kept.clear()
            for ticket in tickets:
                stored = outbox.load_intent(tx, ticket.id)
                assert stored is not None, "messages are never deleted while they are open"
                if stored.state is MessageState.ACCEPTED:
                    conclude(tx, stored, self._local, failure)
                else:
                    kept.append(ticket)

        await tools.write(tickets[0].id, end)
        for ticket in reversed(kept):  # parts of them may be paid: they are looked for when their turn comes
            tools.lane.put_back(ticket)

    async def report(self, message_id: MessageId) -> MessageReport:
        """Say how far a message is.

        Raises:
          NotFound: there is no such message.
        """
        delivery = self._deliveries.get(message_id)
        found = await self._store.read(lambda tx: report(tx, message_id, delivery))
        if found is None:
            raise NotFound(f"no message has the id {message_id}")
        return found

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
