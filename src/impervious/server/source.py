"""What the doors need of a node, and nothing else."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from impervious.events import EVERYTHING, Filter, Subscription
from impervious.server.readiness import Judged
from impervious.services.message import MessageService
from impervious.services.socket import SocketService


class Source(Protocol):
    """Where subscriptions come from."""

    def events(
        self, *, since: int | None = None, wanted: Filter = EVERYTHING
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open one; see `impervious.events`."""
        ...


class Behind(Source, Judged, Protocol):
    """The node behind the doors."""

    @property
    def messages(self) -> MessageService:
        """Its message service."""
        ...

    @property
    def sockets(self) -> SocketService:
        """Its socket service."""
        ...
