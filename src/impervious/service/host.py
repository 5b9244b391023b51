"""The services of one node: made, run, and shown their facts.

Each service that is switched on gets two tasks: its own `run`, and a reader that shows it the log. Neither can hold up
another service or the doors, and no mistake in one ends them (`faults`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import signature
from typing import Final, NoReturn, Protocol, TypeVar, cast

import trio

from impervious.backoff import delays_s
from impervious.config import Config
from impervious.errors import ConfigError, Malformed, NotFound, StoreFull
from impervious.gate import PaymentGate
from impervious.hub import Hub
from impervious.inbound.turns import LATER
from impervious.model import Event, EventKind, ServiceType, Shown
from impervious.node import LightningNode
from impervious.outbound import Outbound
from impervious.service import faults, tables
from impervious.service.context import ServiceContext
from impervious.service.contract import InTurnService, Service
from impervious.service.facts import VerifiedMessage, fact_of
from impervious.service.projection import Projector, in_thread_of_its_own, projects
from impervious.store import Store, Tx, is_environmental, log, log_topic, settled, unshown
from impervious.store.database import ThreadRunner
from impervious.store.inbox import Complete
from impervious.store.settled import PAYMENTS

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Service)

PAGE: Final = 64
"""Facts read from the log at a time."""
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0


class _Startable(Protocol):
    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None: ...  # noqa: ASYNC114


class _Once:
    """A task status that may be told again what it knows."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status: trio.TaskStatus[None] | None = status

    def started(self, value: None = None) -> None:
        if self._status is not None:
            self._status.started(value)
            self._status = None


class Services:
    """Every service of a node.

    Args:
      classes: from `find_services`.
      config: with an entry for each, from `with_entries`.
      node: the Lightning node.
      store: the database.
      hub: wake-ups.
      outbound: sends for them.
      random: for back-off.
      gate: says whether anything may be paid. None: it may.
      run_sync: runs their projections.
    """

    def __init__(
        self,
        classes: Iterable[type[Service]],
        config: Config,
        *,
        node: LightningNode,
        store: Store,
        hub: Hub,
        outbound: Outbound,
        random: Callable[[], float],
        gate: PaymentGate | None = None,
        run_sync: ThreadRunner = in_thread_of_its_own,
    ) -> None:
        self._run_sync = run_sync
        self._store = store
        self._hub = hub
        self._random = random
        self._services: dict[ServiceType, Service] = {}
        self._broken: set[Service] = set()
        """Of which that has been told."""
        for each in classes:
            entry = config.service(each.service_type)
            context = ServiceContext(
                entry, settings=config, node=node, store=store, hub=hub, outbound=outbound, gate=gate
            )
            try:
                made = faults.told_by(each.service_type, "cannot be made", partial(each, context))
            except ConfigError as error:
                if entry.active:
                    raise
                logger.warning("%s: it is switched off, and left out: %s", each.service_type, error)
                continue
            self._services[each.service_type] = made

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    def get(self, service: type[S]) -> S:
        """Find a service by its class.

        Raises:
          NotFound: this node does not have it.
        """
        found = self._services.get(service.service_type)
        if not isinstance(found, service):
            raise NotFound(
                f"this node has no service {service.__name__}: pass it to open_node(services=[…]), or install it"
            )
        return found

    @property
    def active(self) -> list[Service]:
        """Those that are switched on."""
        return [each for each in self if each.context.config.active]

    @property
    def readers(self) -> frozenset[str]:
        """Names of the cursors that are read now."""
        return frozenset(reader_name(each) for each in self.active if each.handles_facts)

    @property
    def _payment_readers(self) -> frozenset[str]:
        return frozenset(reader_name(each) for each in self.active if each.handles_facts and each.handles_payments)

    @property
    def wants_payments(self) -> bool:
        """Whether payments that are no message of anybody are of use to a service."""
        return any(each.handles_facts and each.handles_payments for each in self.active)

    async def begin(self) -> None:
        """Bring their tables up to date, and note where new ones begin to read, before anything can happen.

        Raises:
          ConfigError: the tables of one cannot be used; says of which.
          StoreFull: there is no room to bring the tables up to date.
        """

        def note(tx: Tx) -> None:
            for each in self.active:
                tables.migrate(tx, each.service_type, each.migrations)
                if not projects(each):
                    _show_left(tx, each.service_type)
            if self.wants_payments:
                settled.since_s(tx)
            for name in self.readers:
                if log.reader_position(tx, name) is None:
                    log.advance_reader(tx, name, log.newest(tx))
            self.pass_over(tx)

        try:
            await self._store.write(note)
        except StoreFull as error:
            full = error
        else:
            return
        if not await self._store.read(self._has_begun):
            raise full
        logger.warning("the disk is full: services begin with what is stored")

    def _has_begun(self, tx: Tx) -> bool:
        """Whether an earlier start did all that `begin` does, but for moving readers on."""
        return (
            all(tables.is_current(tx, each.service_type, each.migrations) for each in self.active)
            and all(log.reader_position(tx, name) is not None for name in self.readers)
            and (not self.wants_payments or settled.has_begun(tx))
        )

    def pass_over(self, tx: Tx) -> None:
        """Move readers over what is not theirs: an idle service must not keep the log from being pruned."""
        for each in self.active:
            if not each.handles_facts:
                continue
            name = reader_name(each)
            position = log.reader_position(tx, name) or 0
            if not log.events_for(tx, each.service_type, after=position, limit=1, payments=each.handles_payments):
                log.advance_reader(tx, name, log.newest(tx))

    def show(self, tx: Tx, service_type: ServiceType, message: Complete) -> Shown | None:
        """Decide what streams show of a message that has its turn."""
        service = self._services.get(service_type)
        if service is not None and projects(service):
            unshown.add(tx, service_type, message)
            return LATER
        if not isinstance(service, InTurnService):
            return Shown(data=message.data)
        fact = VerifiedMessage(
            seq=0,
            id=message.id,
            sender=message.sender,
            reply_to=message.reply_to,
            data=message.data,
            amount=message.amount,
            sent_at_ms=message.sent_at_ms,
        )
        try:
            with tx.attempt():
                return service.show(service.context.bind(tx), fact)
        except Malformed as error:
            logger.info("%s: message %s of %s is dropped: %s", service_type, message.id, message.sender, error)
        except BaseException as error:  # noqa: ASYNC103 - one message can never stop a node
            if is_environmental(error):  # KeyboardInterrupt, too: control-C comes to the main thread only
                raise
            logger.exception("%s: message %s of %s is dropped", service_type, message.id, message.sender)
        return None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC114
        """Run every service that is switched on. Started when all of them are.

        Raises:
          ConfigError, StoreUnusable: what a service raised that only the operator can mend.
        """
        async with trio.open_nursery() as nursery:
            for each in self.active:
                if projects(each):
                    nursery.start_soon(Projector(each, self._store, self._hub, self._run_sync, self._delays).run)
                await nursery.start(self._run, each)
                if each.handles_facts:
                    nursery.start_soon(self._read, each)
            task_status.started()

    async def _run(self, service: Service, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114, ASYNC128 - `_Once` tells it
        once = _Once(task_status)
        if "task_status" in signature(service.run).parameters:
            run = partial(cast("_Startable", service.run), task_status=once)
        else:
            run = partial(service.run)
            once.started()
        delays = self._delays()
        while True:
            began = trio.current_time()
            error = await faults.mistake_made(run)
            if error is None:
                break
            if faults.is_one_of(error, faults.FATAL_BY_ITSELF):
                raise error
            if trio.current_time() - began > LAST_RETRY_S:
                delays = self._delays()  # it ran well: this is no part of a series of failures
            delay_s = next(delays)
            if faults.is_passing(error):
                logger.warning("%s: stopped, and starts again in %.0f s: %s", service.service_type, delay_s, error)
            else:
                logger.error("%s: broken, and starts again in %.0f s", service.service_type, delay_s, exc_info=error)
                await self._tell_broken(service, error)
            once.started()  # nobody waits for what is away
            await trio.sleep(delay_s)
        once.started()

    async def _read(self, service: Service) -> NoReturn:
        """Show a service every fact that concerns it, from where it stopped."""
        name, topic = reader_name(service), service.service_type
        topics = {log_topic(topic), *([log_topic(PAYMENTS)] if service.handles_payments else [])}
        read = partial(log.events_for, topic=topic, limit=PAGE, payments=service.handles_payments)
        with self._hub.waiting_for(*topics) as wakes:
            position = await self._store.read(lambda tx: log.reader_position(tx, name)) or 0
            while True:
                page = await self._store.read(partial(read, after=position))
                for event in page:
                    await self._show_until_handled(service, name, event)
                    position = event.seq
                if len(page) < PAGE:
                    await wakes.receive()
        raise AssertionError("the log never ends")  # pragma: no cover

    async def _show_until_handled(self, service: Service, name: str, event: Event) -> None:
        broke = 0
        for delay_s in self._delays():
            error = await faults.mistake_made(partial(self._show, service, name, event))
            if error is None:
                return
            if faults.is_one_of(error, faults.FATAL):
                raise error
            if faults.is_passing(error):
                logger.warning("%s: event %d waits: %s", service.service_type, event.seq, error)
            else:
                broke += 1
                logger.error("%s: event %d broke it (%d)", service.service_type, event.seq, broke, exc_info=error)
                if broke >= faults.TRIES and await self._set_aside(service, name, event, error):
                    return
            await trio.sleep(delay_s)

    async def _show(self, service: Service, name: str, event: Event) -> None:
        fact = fact_of(event)
        effect = await service.handle(fact) if fact else None

        def commit(tx: Tx) -> None:
            if effect is not None:
                service.context.run_effect(tx, effect)
            log.advance_reader(tx, name, event.seq)
            if event.kind is EventKind.PAYMENT:
                log.forget_payment(tx, event.seq, self._payment_readers)

        await self._store.write(commit)

    async def _set_aside(self, service: Service, name: str, event: Event, error: BaseException) -> bool:
        """Go on behind a fact at which a service breaks; False: that could not be stored, so it is shown again."""

        def commit(tx: Tx) -> None:
            faults.tell_set_aside(service.context.bind(tx), event, error)
            log.advance_reader(tx, name, event.seq)

        try:
            await self._store.write(commit)
        except StoreFull as full:
            logger.warning("%s: event %d cannot be set aside: %s", service.service_type, event.seq, full)
            return False
        logger.error(
            "%s: event %d is set aside: %s (id %s) will not be dealt with; mend the service, and look into the log",
            service.service_type,
            event.seq,
            event.kind.value,
            event.id,
        )
        return True

    def _delays(self) -> Iterator[float]:
        return delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random)

    async def _tell_broken(self, service: Service, error: BaseException) -> None:
        if service in self._broken:
            return  # once each start: it may break every minute for ever
        try:
            await service.context.transaction(lambda tx: faults.tell_broken(tx, error))
        except StoreFull as full:
            logger.warning("%s: an event is lost: %s", service.service_type, full)
        else:
            self._broken.add(service)


def _show_left(tx: Tx, service_type: ServiceType) -> None:
    """Show what was queued for a version of a service that had a projection."""
    while page := unshown.oldest(tx, service_type, PAGE):
        for message in page:
            unshown.take(tx, message, Shown(data=message.data))


def reader_name(service: Service) -> str:
    """Name the cursor of a service."""
    return f"service {service.service_type}"
