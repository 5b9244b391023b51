"""What streams show of the messages of a service that decides about it: asked outside of the database's writer.

A service's projections run in a thread of their own, one after the other. One that takes long, or never returns, holds
up the messages of its service and nothing else.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol, TypeVar, cast

import trio

from impervious.errors import Malformed, StoreFull
from impervious.hub import Hub
from impervious.model import Shown
from impervious.service.contract import InTurnService, Service
from impervious.service.facts import VerifiedMessage
from impervious.service.transaction import ServiceTx
from impervious.store import Store, Tx, inbox, is_environmental, unshown
from impervious.store.database import ThreadRunner
from impervious.store.unshown import Unshown

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE: Final = 64
"""Messages of one service that share a transaction at most."""


class _Legacy(Protocol):
    """A service written for the first interface, whose `show` writes."""

    def show(self, tx: ServiceTx, message: VerifiedMessage) -> Shown | None: ...


async def in_thread_of_its_own(function: Callable[[], T], /, *, limiter: trio.CapacityLimiter) -> T:
    """Run a projection in a thread, which is left to itself when the node stops: it may never return."""
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)


def projects(service: Service) -> bool:
    """Whether a service has a projection of its own, and its messages wait for it."""
    if isinstance(service, InTurnService):
        return False
    return type(service).project is not Service.project or is_legacy(service)


def is_legacy(service: Service) -> bool:
    """Whether a service defines `show`, as the first interface had it."""
    return not isinstance(service, InTurnService) and callable(getattr(service, "show", None))


class Projector:
    """Shows the messages of one service."""

    def __init__(
        self, service: Service, store: Store, hub: Hub, run_sync: ThreadRunner, delays: Callable[[], Iterator[float]]
    ) -> None:
        self._service = service
        self._store = store
        self._hub = hub
        self._run_sync = run_sync
        self._delays = delays
        self._thread = trio.CapacityLimiter(1)

    async def run(self) -> NoReturn:
        """Show what comes, for as long as this runs.

        Raises:
          StoreError: the database cannot be used.
        """
        service_type = self._service.service_type
        if is_legacy(self._service):
            logger.warning(
                "%s: it defines show(), which writes while everything else waits: define project() instead"
                " (docs/services.md)",
                service_type,
            )
        with self._hub.waiting_for(unshown.topic(service_type)) as wakes:
            while True:
                page = await self._store.read(partial(unshown.oldest, service_type=service_type, limit=PAGE))
                if page:
                    await self._show(page)
                if len(page) < PAGE:
                    await wakes.receive()
        raise AssertionError("messages never end")  # pragma: no cover

    async def _show(self, page: Sequence[Unshown]) -> None:
        views: Sequence[Shown | None] = [None] * len(page)
        if not is_legacy(self._service):
            views = await self._run_sync(lambda: [self._project(message) for message in page], limiter=self._thread)

        def take(tx: Tx) -> None:
            for message, projected in zip(page, views, strict=True):
                view = self._written(tx, message) if is_legacy(self._service) else projected
                unshown.take(tx, message, view)
                if view is None:
                    inbox.count(tx, "dropped_messages")

        for delay_s in self._delays():
            try:
                return await self._store.write(take)
            except StoreFull as error:
                logger.warning("%s: messages wait to be shown: %s", self._service.service_type, error)
            await trio.sleep(delay_s)

    def _project(self, message: Unshown) -> Shown | None:
        return self._asked(message, lambda: self._service.project(_fact(message)), is_written=False)

    def _written(self, tx: Tx, message: Unshown) -> Shown | None:
        service = cast("_Legacy", self._service)
        context = self._service.context

        def show() -> Shown | None:
            with tx.attempt():
                return context.run_effect(tx, lambda bound: service.show(bound, _fact(message)), what=service.show)

        return self._asked(message, show, is_written=True)

    def _asked(self, message: Unshown, ask: Callable[[], Shown | None], *, is_written: bool) -> Shown | None:
        """Ask; what a service cannot read, or breaks at, is dropped.

        Args:
          message: that is to be shown.
          ask: the service.
          is_written: whether it is asked in our transaction; errors of another database are the service's own.
        """
        try:
            return _checked(ask())
        except Malformed as error:
            logger.info("%s: message %s of %s is dropped: %s", message.service_type, message.id, message.sender, error)
        except BaseException as error:  # noqa: ASYNC103 - in a thread, where nothing is cancelled
            if is_written and is_environmental(error):
                raise
            logger.exception("%s: message %s of %s is dropped", message.service_type, message.id, message.sender)
        return None  # noqa: ASYNC104


def _fact(message: Unshown) -> VerifiedMessage:
    return VerifiedMessage(
        seq=0,
        id=message.id,
        sender=message.sender,
        reply_to=message.reply_to,
        data=message.data,
        amount=message.amount,
        sent_at_ms=message.sent_at_ms,
    )


def _checked(view: object) -> Shown | None:
    """See that a view is one, before it is written.

    Raises:
      TypeError: it is none.
    """
    if view is None:
        return None
    if not (isinstance(view, Shown) and isinstance(view.data, bytes) and isinstance(view.secret, bytes | None)):
        raise TypeError(f"{view!r:.200} is not a Shown with bytes")
    return view
