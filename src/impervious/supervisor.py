"""Owns every nursery, channel and resource of a running node; decides nothing.

Nurseries are nested in the order in which they stop: database, Lightning node, outbound and services, doors, inbound.
What is innermost starts last and stops first. Payments that are under way at a stop go on at the Lightning node; the
next start finds out what became of them. An error that nobody handles ends everything: a process manager starts it
again, and the log makes that safe.
"""

import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn, TypeVar

import trio

from impervious.background import open_tasks
from impervious.clock import NodeClock, Trust
from impervious.config import Config
from impervious.errors import NodeMisconfigured, NodeRefused, NodeUnavailable, StoreFull
from impervious.events import EVERYTHING, Events, Filter, Subscription
from impervious.gate import STARTING, PaymentGate
from impervious.hub import Hub
from impervious.inbound import Inbound
from impervious.inbound.reader import InboundPolicy
from impervious.lifetime import Lifetime
from impervious.model import NodeInfo, NodePubkey, NodeState, NodeStatus, Payment, RecordType, ServiceType
from impervious.node import LightningNode
from impervious.outbound import Outbound, SendPolicy, debts
from impervious.payment_books import Sent, keep_mark, newest_payment, note_mark, sent_by, unknown_message
from impervious.server.listeners import Addresses, Listeners, open_listeners
from impervious.service import Service
from impervious.service.discovery import find_services, with_entries
from impervious.service.host import Services
from impervious.service.projection import in_thread_of_its_own
from impervious.services.built_in import BUILT_IN
from impervious.services.message import MessageService
from impervious.store import Store, Tx, history, open_store, outbox, upkeep
from impervious.store.database import ThreadRunner, in_thread
from impervious.store.disk import LOOK_S, LOOK_SELDOM_S, Disk
from impervious.store.history import Mark
from impervious.store.upkeep import Retention
from impervious.timekeeping import COMPARE_SOON_S, Timekeeper
from impervious.units import msat

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Service)

START_S: Final = 20.0
"""How long a call that pays waits for what a start finds out first; it takes milliseconds when LND is ready."""
_JUST_STARTED: Final = (
    "the daemon has just started and first compares its clock with the chain and its database with LND's payments: call"
    " again in a moment"
)
TIDY_EVERY_S: Final = 300.0
"""A flood must not outgrow `limits.events_mb` for long; with nothing to do it takes a millisecond."""
TIDY_STEP_S: Final = 0.02
"""Between two steps: twice as long as one takes, so that what calls and payments write comes first."""
DEBTS_EVERY_S: Final = 600.0
FULL_S: Final = 5.0
"""How often a start on a full disk tries to go on."""
SET_BACK: Final = "set back"
_SET_BACK: Final = (
    "the database is older than what it was used for: LND has paid for messages of which it knows nothing, as after a"
    " restored backup. Nothing is paid, so that nothing is paid twice: stop the daemon, run `impervious db adopt`, and"
    " start it again"
)
LOW_DISK_BYTES: Final = 32 << 20
"""Below this the disk counts as full: a few of the largest messages and the database's own log need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a node takes from the world, so that a test can give it another one."""

    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    random: Callable[[], float] = random.random
    run_sync: ThreadRunner = in_thread
    elapsed_s: Callable[[], float] = trio.current_time
    """A clock that only counts: it shows when `now_ms` jumps."""


THE_WORLD = Surroundings()


class Node:
    """A running Impervious node. Made by `open_node`."""

    def __init__(
        self,
        config: Config,
        lightning: LightningNode,
        events: Events,
        services: Services,
        addresses: Addresses | None,
        disk: Disk,
        gate: PaymentGate,
        lifetime: Lifetime,
    ) -> None:
        self.config = config
        self.lightning = lightning
        """The Lightning node it runs on."""
        self.services = services
        """Everything it offers; `service` finds one."""
        self.addresses = addresses
        """Where the doors listen; None: it has none."""
        self._events = events
        self._disk = disk
        self._gate = gate
        self._lifetime = lifetime

    @property
    def messages(self) -> MessageService:
        """The message service: `await node.messages.send(...)`."""
        return self.services.get(MessageService)

    def service(self, service: type[S]) -> S:
        """Find a service by its class: `await node.service(KeyValueService).put(...)`.

        Raises:
          NotFound: this node does not have it.
        """
        return self.services.get(service)

    @property
    def status(self) -> NodeStatus:
        """Whether the Lightning node can serve and be paid with now, and if not, why."""
        status, reason = self.lightning.status, self._gate.reason
        if self.disk_problem is not None:
            return status  # that comes first: it may be why nothing can be paid
        return NodeStatus(state=NodeState.PAYING_NOTHING, reason=reason) if status.ready and reason else status

    @property
    def disk_problem(self) -> str | None:
        """Why the database cannot, or soon may not, store anything, as last looked at; None: it can."""
        if self._disk.replaced is not None:
            return self._disk.replaced
        free = self._disk.free_bytes
        if free >= LOW_DISK_BYTES:
            return None
        return f"the disk is full: {free >> 20} MB are left for the database in {self._disk.folder}; make room"

    async def resolve(self, node: str) -> NodePubkey:
        """Find the node that is meant by 66 hex digits, or by @ and the imp id of a peer.

        Raises:
          InvalidArgument: it is neither.
          NotFound: no peer goes by that name.
          FailedPrecondition: the peer that the name belonged to is gone; lists who else goes by it.
        """
        return await self.messages.context.resolve(node)

    async def wait_ready(self) -> NodeInfo:
        """Wait until the Lightning node can serve, then tell who it is.

        Raises:
          NodeMisconfigured: it can never serve as configured.
          trio.ClosedResourceError: this node was closed.
        """
        with self._lifetime.waiting():
            return await self.lightning.wait_ready()

    def events(
        self, *, since: int | None = None, wanted: Filter = EVERYTHING
    ) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe to everything that happens: `async with node.events() as events: async for event in events:`.

        Args:
          since: start behind this `seq`; 0: everything kept. None: only what happens from now on.
          wanted: leaves out the rest.

        Raises:
          trio.ClosedResourceError: this node is closed. So does reading, once it is.
        """
        self._lifetime.require_open()
        return self._events.subscribe(since=since, wanted=wanted)


@asynccontextmanager
async def open_node(
    config: Config,
    *,
    lightning: LightningNode | None = None,
    services: Sequence[type[Service]] = (),
    doors: bool = False,
    surroundings: Surroundings = THE_WORLD,
) -> AsyncIterator[Node]:
    """Run a node for as long as the block does.

    Args:
      config: what it is told; `read_config` reads one from a file.
      lightning: the Lightning node to run on; None: the LND that `config.lightning` names. *Ownership:* stays with the
        caller.
      services: services of yours, besides those that come with it and those that are installed.
      doors: whether to open gRPC and HTTP, unless `server.enabled` is false.
      surroundings: clock, randomness and threads.

    Raises:
      ConfigError: the configuration cannot work; says which key and what to put there.
      NodeMisconfigured: the Lightning node can never serve as configured.
      StoreError: the database cannot be used.

    What the block raises comes out as it is; so does an error that ends the node, alone. Of several, the block's comes
    out, else the first; the others are notes on it and in the log. Once the block has ended, whatever is called on the
    node or its services raises `trio.ClosedResourceError`.

    Cancellation: ends the block, and then everything in the same order as otherwise: calls that are being answered are
      answered, within the same times (under 5 s).
    """
    classes = find_services(BUILT_IN, services)
    config = with_entries(config, classes)
    hub, gate = Hub(), PaymentGate()
    clock = NodeClock(surroundings.now_ms, surroundings.elapsed_s)
    async with (
        _listening(config, wanted=doors) as listeners,
        _lightning(config, lightning) as lightning,
        open_store(
            config.store.path.expanduser(),
            config.store.password,
            on_commit=hub.publish,
            now_ms=clock.now_ms,
            run_sync=surroundings.run_sync,
        ) as store,
    ):
        disk = Disk(store, config.store.path.expanduser(), run_sync=surroundings.run_sync)
        await disk.look()
        keeper = Timekeeper(clock, lightning, store, gate)
        await keeper.begin()
        events = Events(store, hub, max_subscribers=config.limits.subscribers)
        outbound = Outbound(lightning, store, hub, send_policy(config), random=surroundings.random, gate=gate)
        hosted = Services(
            classes,
            config,
            node=lightning,
            store=store,
            hub=hub,
            outbound=outbound,
            random=surroundings.random,
            gate=gate,
            run_sync=in_thread_of_its_own if surroundings.run_sync is in_thread else surroundings.run_sync,
        )
        await hosted.begin()
        inbound = Inbound(
            lightning, store, hub, inbound_policy(config, hosted), random=surroundings.random, show=hosted.show
        )
        try:
            async with open_tasks() as work:
                identified = trio.Event()
                gate.close(STARTING, _JUST_STARTED)
                gate.look = partial(_look, identified, keeper)
                work.start_soon(keeper.run)
                work.start_soon(
                    _identify,
                    lightning,
                    store,
                    keeper,
                    gate,
                    record_types(config),
                    config.limits.idempotency_days,
                    identified,
                )
                for run in (
                    outbound.run,
                    partial(_keep_paying_debts, store, outbound.policy),
                    partial(keep_mark, lightning, store),
                    partial(_keep_tidy, lightning, store, hosted, clock, retention(config, hosted)),
                ):
                    work.start_soon(_after, identified, partial(_unless_set_back, gate, run))
                work.start_soon(partial(disk.keep_looking, every_s=LOOK_S if listeners else LOOK_SELDOM_S))
                await work.start(hosted.run)
                async with open_tasks() as entrance:
                    addresses = listeners.addresses if listeners else None
                    node = Node(config, lightning, events, hosted, addresses, disk, gate, hub.lifetime)
                    if listeners:
                        await entrance.start(partial(_serve_doors, node, listeners))
                    async with open_tasks() as sources:
                        sources.start_soon(_after, identified, inbound.run)
                        yield node
        finally:
            hub.close()


@asynccontextmanager
async def _lightning(config: Config, given: LightningNode | None) -> AsyncIterator[LightningNode]:
    if given is not None:
        yield given
        return
    # Here, because a program that brings its own node need not load LND's messages.
    from impervious.lnd import LIGHTNING_NODE, open_lnd

    async with open_lnd(config.lightning.lnd, requires=LIGHTNING_NODE) as node:
        yield node


@asynccontextmanager
async def _listening(config: Config, *, wanted: bool) -> AsyncIterator[Listeners | None]:
    """Take the ports first: that another program has one is what fails most."""
    if not (wanted and config.server.enabled):
        yield None
        return
    async with open_listeners(config.server) as listeners:
        yield listeners


async def _serve_doors(  # noqa: ASYNC114, ASYNC128 - the doors tell task_status
    node: Node, listeners: Listeners, *, task_status: trio.TaskStatus[None]
) -> NoReturn:
    # Here, because a program without doors need not load Quart and Hypercorn.
    from impervious.server.doors import Doors

    await Doors(node, node.config, listeners).serve(task_status=task_status)


async def _look(identified: trio.Event, keeper: Timekeeper) -> None:
    """Wait for what a start must know before it pays, but not for ever; see that no jump of the clock is overlooked."""
    with trio.move_on_after(START_S):
        await identified.wait()
    if identified.is_set():
        await keeper.look()


async def _identify(
    lightning: LightningNode,
    store: Store,
    keeper: Timekeeper,
    gate: PaymentGate,
    services: Mapping[RecordType, ServiceType],
    kept_days: int,
    identified: trio.Event,
) -> None:
    """Make sure that the database is this Lightning node's, and not older than what it was used for."""
    info = await lightning.wait_ready()

    await store.read(lambda tx: check_identity(tx, info.pubkey))
    await keeper.wait_compared()  # what may be forgotten depends on the time

    def known(tx: Tx) -> tuple[Mark | None, bool]:
        return history.mark(tx, kept_days=kept_days), history.is_set_back(tx)

    mark, set_back = await store.read(known)
    read = partial(sent_by, own=info.pubkey, services=services)
    lost, newest = (None, Mark()) if set_back else await _look_into_books(lightning, store, mark, read)

    def note(tx: Tx) -> None:
        outbox.set_identity(tx, info.pubkey)
        if lost is not None:
            history.begin_epoch(tx, set_back=True)
        elif not set_back:
            history.set_mark(tx, newest)

    while True:
        try:
            await store.write(note)
        except StoreFull as error:
            if lost is None and await store.read(outbox.identity) is not None:
                break  # that LND's payments were looked at can be noted another time
            gate.close(STARTING, str(error))
            logger.warning("nothing is sent and nothing is received yet: %s", error)
            await trio.sleep(FULL_S)
        else:
            break
    if lost is not None:
        logger.error(
            "LND has paid for message %s to %s, of which the database knows nothing",
            lost.part.message_id,
            lost.recipient,
        )
    if set_back or lost is not None:
        gate.close(SET_BACK, _SET_BACK)
        logger.error("%s", _SET_BACK)
    gate.open(STARTING)
    identified.set()


def check_identity(tx: Tx, pubkey: NodePubkey) -> None:
    """Refuse a database of another node: its counters and keys are worth nothing for this one.

    Raises:
      NodeMisconfigured: it is another's.
    """
    known = outbox.identity(tx)
    if known is not None and known != pubkey:
        raise NodeMisconfigured(
            f"the database belongs to node {known}, but LND is {pubkey}: give this node a database of its own"
            " (sqlite3.path), or connect it to the other LND"
        )


async def _look_into_books(
    lightning: LightningNode, store: Store, mark: Mark | None, read: Callable[[Payment], Sent | None]
) -> tuple[Sent | None, Mark]:
    """Ask, until the node answers, what it has paid that the database does not know."""
    while True:
        try:
            if mark is None:
                return None, await newest_payment(lightning)
            return await unknown_message(lightning, store, mark, read)
        except (NodeUnavailable, NodeRefused) as error:
            logger.warning("nothing is paid yet: LND's payments cannot be read: %s", error)
        await trio.sleep(COMPARE_SOON_S)
        await lightning.wait_ready()


async def _unless_set_back(gate: PaymentGate, run: Callable[[], Awaitable[object]]) -> None:
    """Run what pays, counts on knowing all payments, or forgets some, unless the database does not know all."""
    if not gate.is_closed(SET_BACK):
        await run()


async def _keep_tidy(
    lightning: LightningNode, store: Store, services: Services, clock: NodeClock, kept: Retention
) -> NoReturn:
    """Forget what is old, every few minutes and in steps, once it is certain what is old."""

    def begin(tx: Tx) -> None:
        services.pass_over(tx)
        history.note_time(tx)

    while True:
        if clock.trust is not Trust.RIGHT:
            await trio.sleep(COMPARE_SOON_S)
            continue
        removed = 0
        try:
            # First, or the next start would find payments of messages that are forgotten by then.
            await note_mark(lightning, store)
            await store.write(begin)
            while (step := await store.write(lambda tx: upkeep.tidy_step(tx, kept))).more:
                removed += step.events
                await trio.sleep(TIDY_STEP_S)
        except StoreFull as error:
            logger.warning("nothing was pruned: %s", error)
        except (NodeUnavailable, NodeRefused) as error:
            logger.debug("nothing is pruned yet: LND's payments cannot be read: %s", error)
            await lightning.wait_ready()
            await trio.sleep(COMPARE_SOON_S)
            continue
        if removed:
            logger.info("%d old events were pruned", removed)
        await trio.sleep(TIDY_EVERY_S)


async def _keep_paying_debts(store: Store, policy: SendPolicy) -> NoReturn:
    """Take up debts that could not be delivered: all of them now, since a start mends most, then each at its time."""
    begun = False

    def take_up(tx: Tx) -> int:
        if not begun:
            outbox.hasten_debts(tx)
        return debts.take_up(tx, policy)

    while True:
        taken = 0
        try:
            taken = await store.write(take_up)
        except StoreFull as error:
            logger.warning("debts wait: %s", error)
        else:
            begun = True
        await trio.sleep(0 if taken == debts.AT_A_TIME else DEBTS_EVERY_S)


async def _after(ready: trio.Event, run: Callable[[], Awaitable[object]]) -> None:
    await ready.wait()
    await run()


def send_policy(config: Config) -> SendPolicy:
    """Gather what every message is sent by."""
    return SendPolicy(
        record_types={service_type: record_type for record_type, service_type in record_types(config).items()},
        max_bytes=config.message.max_bytes,
        part_bytes=config.message.part_bytes,
        part_amount=msat(config.message.min_amount_sat),
        part_fee_limit=config.message.max_fee_msat_per_part,
        in_flight_per_peer=config.message.in_flight_per_peer,
        payment_timeout_s=config.lightning.payment_timeout_s,
        ttl_ms=config.message.ttl_s * 1000,
        daily_limit=config.lightning.daily_limit_sat,
        answers_limit=config.limits.auto_answers_sat_per_day,
    )


def inbound_policy(config: Config, services: Services) -> InboundPolicy:
    """Gather what is shown of what arrives."""
    return InboundPolicy(
        services=record_types(config),
        active=frozenset(entry.service_type for entry in config.services if entry.active),
        max_bytes=config.message.max_bytes,
        payments=services.wants_payments,
        raw=frozenset({MessageService.service_type}) if config.message.accept_unsigned else frozenset(),
    )


def retention(config: Config, services: Services) -> Retention:
    """Gather how long things are kept."""
    return Retention(
        readers=services.readers,
        events_days=config.limits.events_days,
        events_mb=config.limits.events_mb,
        idempotency_days=config.limits.idempotency_days,
    )


def record_types(config: Config) -> Mapping[RecordType, ServiceType]:
    """List our record numbers, those of switched-off services too."""
    return {entry.record_type: entry.service_type for entry in config.services if entry.record_type is not None}
