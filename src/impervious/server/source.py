"""What the doors need of a node, and nothing else."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from impervious.events import EVERYTHING, Filter, Subscription
from impervious.model import NodePubkey
from impervious.server.readiness import Judged
from impervious.service import Service


class Source(Protocol):
    """Where subscriptions come from."""

    def events(
        self, *, since: int | None = None, wanted: Filter = EVERYTHING
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open one; see `impervious.events`."""
        ...

    async def resolve(self, node: str) -> NodePubkey:
        """Find the node that is meant by 66 hex digits, or by @ and the imp id of a peer; see `ServiceContext`."""
        ...


class Behind(Source, Judged, Protocol):
    """The node behind the doors."""

    @property
    def services(self) -> Iterable[Service]:
        """What it offers."""
        ...
