"""The services of one node: made, run, and shown their facts.

Each service that is switched on gets two tasks: its own `run`, and a reader that shows it the log. Neither can hold up
another service or the doors.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NoReturn, TypeVar

import trio

from impervious.backoff import delays_s
from impervious.config import Config
from impervious.errors import NodeRefused, NodeUnavailable, NotFound, StoreFull
from impervious.hub import Hub
from impervious.model import Event, ServiceType
from impervious.node import PaymentNode
from impervious.outbound import Outbound
from impervious.service.context import ServiceContext
from impervious.service.contract import Service
from impervious.service.facts import fact_of
from impervious.store import Store, Tx, log, log_topic

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Service)

PAGE: Final = 64
"""Facts read from the log at a time."""
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0

_PASSING: Final = (NodeUnavailable, NodeRefused, StoreFull)
"""What a service may run into that is not its fault and may be over later."""


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
    """

    def __init__(
        self,
        classes: Iterable[type[Service]],
        config: Config,
        *,
        node: PaymentNode,
        store: Store,
        hub: Hub,
        outbound: Outbound,
        random: Callable[[], float],
    ) -> None:
        self._store = store
        self._hub = hub
        self._random = random
        self._services: dict[ServiceType, Service] = {}
        for each in classes:
            entry = config.service(each.service_type)
            context = ServiceContext(entry, settings=config, node=node, store=store, hub=hub, outbound=outbound)
            self._services[each.service_type] = each(context)

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

    async def begin(self) -> None:
        """Note where services that are new begin to read, before anything can happen that they should see."""

        def note(tx: Tx) -> None:
            for name in self.readers:
                if log.reader_position(tx, name) is None:
                    log.advance_reader(tx, name, log.newest(tx))

        await self._store.write(note)

    async def run(self) -> None:
        """Run every service that is switched on.

        Raises: whatever a service raises that it must not.
        """
        async with trio.open_nursery() as nursery:
            for each in self.active:
                nursery.start_soon(self._run, each)
                if each.handles_facts:
                    nursery.start_soon(self._read, each)

    async def _run(self, service: Service) -> None:
        for delay_s in delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random):
            try:
                return await service.run()
            except _PASSING as error:
                logger.warning("%s: stopped, and starts again in %.0f s: %s", service.service_type, delay_s, error)
            await trio.sleep(delay_s)

    async def _read(self, service: Service) -> NoReturn:
        """Show a service every fact that concerns it, from where it stopped."""
        name, topic = reader_name(service), service.service_type
        with self._hub.waiting_for(log_topic(topic)) as wakes:
            position = await self._store.read(lambda tx: log.reader_position(tx, name)) or 0
            while True:
                page = await self._store.read(partial(log.events_for, topic=topic, after=position, limit=PAGE))
                for event in page:
                    await self._show_until_handled(service, name, event)
                    position = event.seq
                if len(page) < PAGE:
                    await wakes.receive()
        raise AssertionError("the log never ends")  # pragma: no cover

    async def _show_until_handled(self, service: Service, name: str, event: Event) -> None:
        for delay_s in delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random):
            try:
                return await self._show(service, name, event)
            except _PASSING as error:
                logger.warning("%s: event %d waits: %s", service.service_type, event.seq, error)
            await trio.sleep(delay_s)

    async def _show(self, service: Service, name: str, event: Event) -> None:
        fact = fact_of(event)
        effect = await service.handle(fact) if fact else None

        def commit(tx: Tx) -> None:
            if effect is not None:
                effect(service.context.bind(tx))
            log.advance_reader(tx, name, event.seq)

        await self._store.write(commit)


def reader_name(service: Service) -> str:
    """Name the cursor of a service."""
    return f"service {service.service_type}"
