"""What the doors need of a node, and nothing else."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from impervious.events import EVERYTHING, Filter, Subscription
from impervious.server.readiness import Judged
from impervious.service import Service


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
    def services(self) -> Iterable[Service]:
        """What it offers."""
        ...
