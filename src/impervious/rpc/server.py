"""A gRPC server: the service classes that grpclib's Server takes, on Trio.

It stops by cancellation: no new connections, GOAWAY to the clients, a grace period for the calls that are running, then
UNAVAILABLE to the rest.
"""

import logging
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

import trio
from grpclib.const import Handler

from impervious.log_limit import LimitedLog
from impervious.wire.grpc.framing import Budget

from .limits import ServerLimits
from .link import CLEANUP_S, TRANSPORT_ERRORS, cause
from .message import Decode, plainly
from .server_link import OnCall, ServerLink
from .server_stream import Peer
from .slots import Slots, client_of, fair_share
from .tls import require_http2

logger = logging.getLogger(__name__)
_limited = LimitedLog(logger)

S = TypeVar("S", bound=trio.abc.Stream)


class Servable(Protocol):
    """A service class, generated or written by hand."""

    def __mapping__(self) -> Mapping[str, Handler]:
        """Path -> handler."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A server at one moment."""

    connections: int
    """Clients connected, TLS done."""
    calls: int
    """Handlers running."""


class Server:
    """Serves gRPC services, in one `serve` or `serve_listeners` at a time.

    Args:
      services: instances of service classes.
      limits: sizes, numbers and times.
      on_call: where authentication stands. Called for each call to a known method before its handler, within its
        deadline, with path, metadata and peer; a GRPCError raised here is the answer. It may be a coroutine function.

      decode: reads requests. Whatever it raises, the answer is INVALID_ARGUMENT with its text.

    Raises:
      ValueError: two services answer to one path.
    """

    def __init__(
        self,
        services: Iterable[Servable],
        *,
        limits: ServerLimits | None = None,
        on_call: OnCall | None = None,
        decode: Decode = plainly,
    ) -> None:
        self._mapping: dict[str, Handler] = {}
        for service in services:
            for path, handler in service.__mapping__().items():
                if path in self._mapping:
                    raise ValueError(f"two services answer to {path}")
                self._mapping[path] = handler
        self._limits = limits or ServerLimits()
        self._on_call = on_call
        self._decode = decode
        self._budget = Budget(self._limits.unfinished_bytes)
        self._budgets: dict[str, Budget] = {}
        """Of clients that are connected."""
        self._links: dict[ServerLink, trio.CancelScope] = {}
        self._slots = Slots(self._limits.connections, self._limits.connections_per_client)
        self._stopping = False

    def statistics(self) -> ServerStatistics:
        """The server's present state."""
        return ServerStatistics(connections=len(self._links), calls=sum(link.calls_open for link in self._links))

    async def serve(  # noqa: ASYNC128 - serve_listeners tells task_status
        self,
        host: str | None,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        grace_s: float = 2.0,
        task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Listen on TCP and serve. Started with the addresses that were bound, as (host, port).

        Args:
          host: name or address; None for every interface.
          port: 0 for any free one.
          ssl_context: for TLS (see `server_context`); None for plaintext.
          grace_s: how long running calls may go on once this is cancelled, in seconds.
          task_status: told the addresses.

        Raises:
          OSError: the address cannot be bound.

        Cancellation:
          Stops the server; takes up to `grace_s` and a little more.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        await self.serve_listeners(listeners, ssl_context=ssl_context, grace_s=grace_s, task_status=task_status)

    async def serve_listeners(
        self,
        listeners: Sequence[trio.abc.Listener[S]],
        *,
        ssl_context: ssl.SSLContext | None = None,
        grace_s: float = 2.0,
        task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Serve on listeners that are open already. See `serve`.

        Args:
          listeners: where clients come from. *Ownership:* closed at the end.
          ssl_context: for TLS; None for plaintext.
          grace_s: how long running calls may go on once this is cancelled, in seconds.
          task_status: told the addresses of those that are TCP.
        """
        if ssl_context is not None:
            require_http2(ssl_context)
        self._stopping = False

        async def accept(stream: S) -> None:
            await self._accept(stream, ssl_context)

        async def listen(  # noqa: ASYNC114, ASYNC128 - trio.serve_listeners tells task_status
            task_status: trio.TaskStatus[list[trio.abc.Listener[S]]],
        ) -> None:
            await trio.serve_listeners(accept, list(listeners), handler_nursery=connections, task_status=task_status)

        async with trio.open_nursery() as connections:
            try:
                await connections.start(listen)
                task_status.started(
                    [
                        listener.socket.getsockname()[:2]
                        for listener in listeners
                        if isinstance(listener, trio.SocketListener)
                    ]
                )
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(grace_s + 2 * CLEANUP_S, shield=True):
                    await self._stop(grace_s)
        raise AssertionError("served for ever")  # pragma: no cover

    # --- Connections --------------------------------------------------------------------------------------------------

    async def _accept(self, stream: trio.abc.Stream, ssl_context: ssl.SSLContext | None) -> None:
        """One connection, from accept to close. Nothing a client does may raise here."""
        address = peer_address(stream)
        place = _Place()
        full = None if self._stopping else self._slots.take(place, address[0] if address else None)
        if full is not None:
            host = address[0] if address else "a client"
            _limited.warning("%s: refused, %d connections are open already %s", host, full.open, full)
        if full is not None or self._stopping:
            await trio.aclose_forcefully(stream)
            return
        try:
            with place.scope:
                await self._serve_connection(stream, ssl_context, address, place)
            if place.scope.cancelled_caught:
                await trio.aclose_forcefully(stream)  # it gave way
        finally:
            self._slots.give_back(place)
            client = client_of(address[0]) if address else None
            if client in self._budgets and not self._slots.of(client):
                del self._budgets[client]

    def _budget_of(self, address: tuple[str, int] | None) -> Budget:
        client = client_of(address[0]) if address else None
        if client is None:
            return self._budget
        share = max(fair_share(self._limits.unfinished_bytes), self._limits.message_bytes)
        return self._budgets.setdefault(client, Budget(share, within=self._budget))

    async def _serve_connection(
        self,
        stream: trio.abc.Stream,
        ssl_context: ssl.SSLContext | None,
        address: tuple[str, int] | None,
        place: "_Place",
    ) -> None:
        certificate = None
        if ssl_context is not None:
            secured = trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True)
            try:
                with trio.fail_after(self._limits.handshake_s):
                    await secured.do_handshake()
            except (*TRANSPORT_ERRORS, trio.TooSlowError) as error:
                logger.debug("%s: no TLS: %s", address, cause(error))
                await trio.aclose_forcefully(secured)
                return
            stream, certificate = secured, secured.getpeercert()
        peer = Peer(address, certificate)
        link = ServerLink(
            stream, self._mapping, self._limits, self._budget_of(address), self._on_call, peer, self._decode
        )
        # Shielded from the cancellation that stops the server, so that calls can finish; _stop ends it.
        with trio.CancelScope(shield=True) as scope:
            self._links[link] = place.scope = scope
            place.link = link
            try:
                await link.run()
            finally:
                del self._links[link]

    async def _stop(self, grace_s: float) -> None:
        """Let the clients go: first gently, then firmly, then at once."""
        self._stopping = True
        for link in self._links:
            link.drain()
        with trio.move_on_after(grace_s, shield=True):
            await self._all_finished()
        for link in self._links:
            link.cancel_calls()
        with trio.move_on_after(CLEANUP_S, shield=True):
            await self._all_finished()
        for scope in self._links.values():
            scope.cancel()

    async def _all_finished(self) -> None:
        for link in list(self._links):
            await link.finished.wait()


class _Place:
    """A connection, from its accept to its end, as `Slots` knows it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.link: ServerLink | None = None
        self._since = trio.current_time()

    @property
    def waiting_since(self) -> float | None:
        """Since when it has been waiting for its client."""
        return self._since if self.link is None else self.link.waiting_since

    def give_way(self) -> None:
        """End at once."""
        self.scope.cancel()


def peer_address(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Host and port of the far end of a TCP stream; None for any other, or one that is gone."""
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return None
    return host, port
