"""`LndClient`: one LND as a Trio client of any of its RPCs, and how far it is from serving.

A task of its own (`watch`) keeps the connection; the methods here use what it has at that moment and never wait for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.errors import NodeMisconfigured, NodeRefused, NodeUnavailable
from impervious.invoice_feed import FeedPace
from impervious.lnd.connection import Connection, LndStream, call
from impervious.lnd.faults import MacaroonRefused
from impervious.lnd.rpcs import AnyRpc, Response, Rpc
from impervious.lnd.watch import Watch
from impervious.model import NodeInfo, NodeState, NodeStatus
from impervious.rpc.message import Message

_CALLERS_OWN: Final = (Status.DEADLINE_EXCEEDED, Status.CANCELLED)
"""How a call ends whose caller has run out of time: no news of LND."""


class LndClient:
    """One LND, whatever it is asked."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.pace = FeedPace()
        """How often invoices are read."""
        self._refused_by: Connection | None = None
        self._refused: set[str] = set()
        """Paths of what its macaroon does not allow."""

    # --- Readiness ----------------------------------------------------------------------------------------------------

    @property
    def status(self) -> NodeStatus:
        """Whether it can serve now, and if not, why. Never blocks."""
        return self._watch.status

    async def status_after(self, seen: NodeStatus) -> NodeStatus:
        """Wait until the status is another than `seen`, and return it. Those that pass quickly may be missed.

        Raises:
          trio.ClosedResourceError: this client was closed.
        """
        self._watch.lifetime.require_open()
        while self._watch.status == seen:
            await self._watch.wait_change()
        await trio.lowlevel.checkpoint()
        return self._watch.status

    async def wait_ready(self) -> NodeInfo:
        """Wait until it can serve, then tell who it is.

        Raises:
          NodeMisconfigured: it is another node than the configuration names. What its operator can cure while we wait
            (keysend off, a macaroon that allows too little) is waited for; `status` says which.
          trio.ClosedResourceError: this client was closed.
        """
        self._watch.lifetime.require_open()
        status = self.status
        while not status.ready:
            if status.state is NodeState.MISTAKEN:
                raise NodeMisconfigured(status.reason)
            status = await self.status_after(status)
        await trio.lowlevel.checkpoint()
        assert self._watch.info is not None, "ready is only said of a node that has told who it is"
        return self._watch.info

    # --- Any RPC ------------------------------------------------------------------------------------------------------

    async def call(self, rpc: Rpc[Response], request: Message) -> Response:
        """Make any unary call of LND's.

        Args:
          rpc: one of `lnd.rpcs`, or one made for the purpose.
          request: its request.

        Raises:
          NodeUnavailable: LND is not ready, or went away before it answered.
          LndRefused: LND answered with an error.
          trio.ClosedResourceError: this client is closed.
        """
        connection = self._ready()
        with self._doubting(connection), connection.noticing():
            return await call(connection.calls, rpc, request, host=connection.credentials.host)

    def stream(self, rpc: Rpc[Response], request: Message) -> LndStream[Response, Response]:
        """Make any call of LND's that answers with a stream: `async with node.stream(…) as stream`.

        Long streams that bring much belong on a connection of their own; see `settled_invoices`.

        Raises:
          NodeUnavailable: LND is not ready. Entering and reading the stream raise as `call` does.
          trio.ClosedResourceError: this client is closed.
        """
        connection = self._ready()
        return LndStream(
            connection.calls,
            rpc,
            request,
            lambda message: message,
            host=connection.credentials.host,
            noticing=connection.noticing,
        )

    @contextmanager
    def _if_allowed(self, rpc: AnyRpc) -> Iterator[None]:
        """Make a call that the macaroon need not allow: what LND refuses once is not asked again in a connection.

        Raises:
          NodeRefused: the macaroon does not allow it.
        """
        connection = self._ready()
        if self._refused_by is not connection:
            self._refused_by = connection
            self._refused.clear()
        if rpc.path in self._refused:
            raise NodeRefused(f"the macaroon does not allow {rpc.name}")
        try:
            yield
        except MacaroonRefused as error:
            if not error.for_this_call:
                raise
            self._refused.add(rpc.path)
            raise NodeRefused(f"the macaroon does not allow {rpc.name}") from error

    def _ready(self) -> Connection:
        self._watch.lifetime.require_open()
        connection, status = self._watch.connection, self._watch.status
        if connection is None or not status.ready:
            raise NodeUnavailable(status.reason or "the connection to LND is being made anew")
        return connection

    @contextmanager
    def _doubting(self, connection: Connection) -> Iterator[None]:
        """Let nobody be told any more that LND is ready when the block finds it gone."""
        try:
            yield
        except NodeUnavailable as error:
            cause = error.__cause__
            of_the_caller = isinstance(cause, GRPCError) and cause.status in _CALLERS_OWN
            if not of_the_caller and not isinstance(error, MacaroonRefused):
                self._watch.doubt(connection, str(error))
            raise
