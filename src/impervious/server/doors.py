"""Both doors of a node, put together and kept open.

Whatever the doors share is made here: the table of operations, the frames of events, who is let in, and how everything
ends. The rooms below know nothing of HTTP and gRPC, and the two know nothing of each other.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import trio

from impervious.config import Config
from impervious.errors import ConfigError
from impervious.model import ServiceType
from impervious.rpc import Health, Servable, Server, ServerLimits, Slots
from impervious.server import commands, strict
from impervious.server.api.table import operations
from impervious.server.closing import Closing
from impervious.server.feed import Feed
from impervious.server.frames import Frames
from impervious.server.grpc import HostedService, StreamService, TableService, asks
from impervious.server.guard import Authorizer, BrowserRules, authorize
from impervious.server.http.bodies import Bodies
from impervious.server.http.front import Front
from impervious.server.http.routes import make_routes
from impervious.server.http.serving import HttpServer
from impervious.server.http.stream import Streams
from impervious.server.listeners import Listeners, socket_address
from impervious.server.open_files import make_room
from impervious.server.operations import service_names
from impervious.server.options import known_types
from impervious.server.readiness import readiness
from impervious.server.reflection import Reflection
from impervious.server.source import Behind
from impervious.service import Service
from impervious.service.faults import told_by
from impervious.wire.json import Encoding

if TYPE_CHECKING:
    from impervious.server.openapi.document import Document

logger = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S: Final = 2.0
"""How long calls may go on once the doors are to close: with the steps after it, well under the 5 s of a stop."""
SPARE_CONNECTIONS: Final = 256
"""Beside those of subscribers: for calls."""
HEALTH_S: Final = 1.0
"""How often gRPC's health service looks whether we are ready."""

_JSON_GROWTH: Final = 6
"""A byte of text takes at most so many in JSON (an escaped control character); base64 takes less."""
_JSON_SPARE_BYTES: Final = 64 << 10
"""For the other fields of a request."""
_REQUEST_BYTES: Final = 4 << 20
"""What gRPC servers usually take."""

_WEBSOCKET: Final = ServiceType("websocket")


def _grpc_services(service: Service) -> list[HostedService]:
    def ask() -> list[HostedService]:
        return [HostedService(service.context.config, inner) for inner in service.grpc_services()]

    return _unless_off(service, partial(told_by, service.service_type, "cannot say its gRPC services", ask), [])


def _descriptors(service: Service) -> bytes:
    ask = partial(told_by, service.service_type, "cannot describe its gRPC services", service.grpc_descriptors)
    return _unless_off(service, ask, b"")


def _unless_off(service: Service, ask: Callable[[], T], otherwise: T) -> T:
    """Ask; of a service that is switched off, no mistake matters."""
    try:
        return ask()
    except ConfigError as error:
        if service.context.config.active:
            raise
        logger.warning("%s: it is switched off, and left out: %s", service.service_type, error)
        return otherwise


def largest_request(config: Config) -> int:
    """Say how many bytes a request may have at either door."""
    return max(_REQUEST_BYTES, _JSON_GROWTH * config.message.max_bytes + _JSON_SPARE_BYTES)


class Doors:
    """The doors of a node.

    Args:
      node: what stands behind them.
      config: what they are told.
      listeners: where they listen. *Ownership:* stays with the caller.
      authorizer: decides who may call.
    """

    def __init__(
        self, node: Behind, config: Config, listeners: Listeners, *, authorizer: Authorizer = authorize
    ) -> None:
        self._node = node
        self._config = config
        self._listeners = listeners
        self._authorizer = authorizer
        self.streams = Closing()
        """Begins when streams are to end."""
        self.calls = Closing()
        """Begins when calls that still run are to be answered that the daemon stops."""
        self.table = operations(node.services)
        """Everything that can be called under a published path."""
        self._commands = commands.routes(node.services)
        self._hosted = [hosted for each in node.services for hosted in _grpc_services(each)]
        self._document: Document | None = None
        self._feed = Feed(config.service(_WEBSOCKET), node, Frames(), self.streams, known_types(config))
        self._names = [*service_names(self.table), *sorted(name for each in self._hosted for name in each.names)]
        self._health = Health(dict.fromkeys(self._names, False))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Serve until cancelled. Started when clients are accepted.

        Cancellation: closes the doors in order; takes under 4 s, whatever clients do.
        """
        listeners, certificates = self._listeners, self._listeners.certificates
        grpc, http = self.grpc_server(), self.http_server()
        make_room(2 * self._connections)

        everywhere = (*listeners.http, *listeners.http_text)
        grpc_tls, http_tls = (certificates.grpc, certificates.http) if certificates else (None, None)
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(
                    partial(grpc.serve_listeners, listeners.grpc, ssl_context=grpc_tls, grace_s=GRACE_S)
                )
                await nursery.start(partial(http.serve, everywhere, ssl_context=http_tls, grace_s=GRACE_S))
                task_status.started()
                await self.follow_health()
            finally:
                self.streams.begin()
        raise AssertionError("served for ever")  # pragma: no cover

    async def follow_health(self) -> NoReturn:
        """Tell gRPC's health service what /readyz would say; the empty name only says that we are alive."""
        while True:
            ready = readiness(self._node).ready
            for name in self._names:
                self._health.set(name, serving=ready)
            await trio.sleep(HEALTH_S)
        raise AssertionError("followed for ever")  # pragma: no cover

    def grpc_server(self) -> Server:
        """Make the gRPC server, to serve on any listener."""
        limits = ServerLimits(
            message_bytes=largest_request(self._config),
            connections=self._connections,
            connections_per_client=self._config.limits.connections_per_address,
        )
        services: list[Servable] = [TableService(self.table), StreamService(self._feed), self._health, *self._hosted]
        described = [(each.service_type, _descriptors(each)) for each in self._node.services]
        try:
            everything = [*services, Reflection(services, described)]
            return Server(everything, limits=limits, on_call=asks(self._authorizer), decode=strict.decode)
        except ValueError as error:
            raise ConfigError(f"gRPC: {error}: remove one of the services that bring it") from None

    def http_server(self) -> HttpServer:
        """Make the HTTP server, to serve on TCP listeners."""
        slots = Slots(self._connections, self._config.limits.connections_per_address)
        return HttpServer(self.http_app(), streams=self.streams, calls=self.calls, slots=slots)

    def http_app(self) -> Front:
        """Make the ASGI application of the HTTP server."""
        server = self._config.server
        return Front(
            rules=BrowserRules.of(self._http_addresses(), server.cors_origins, server.allowed_hosts),
            authorizer=self._authorizer,
            streams=Streams(self._feed),
            routes=make_routes(
                self.table,
                self._commands,
                self._node,
                self.calls,
                document=self._described,
                bodies=Bodies(largest=largest_request(self._config)),
            ),
            encoding_at=self._encoding_at,
        )

    def _described(self, encoding: Encoding) -> bytes:
        # Here, because what it reads descriptors with takes 10 MB that most daemons never need.
        from impervious.server.openapi.document import Document

        if self._document is None:
            self._document = Document(self.table, self._commands, self._feed.known_types)
        return self._document.as_json(encoding)

    @property
    def _connections(self) -> int:
        return self._config.limits.subscribers + SPARE_CONNECTIONS

    def _http_addresses(self) -> list[tuple[str, int]]:
        listeners = (*self._listeners.http, *self._listeners.http_text)
        named = [self._config.server.http_addr, self._config.server.http_text_addr]
        return [
            *(socket_address(listener) for listener in listeners),
            *((address.host, address.port) for address in named if address),
        ]

    def _encoding_at(self, arrived_at: tuple[str, int | None] | None) -> Encoding:
        """Tell the listeners apart: by port, and by host where they share it."""
        for listener in self._listeners.http_text:
            host, port = socket_address(listener)
            if arrived_at and arrived_at[1] == port and host in (arrived_at[0], "0.0.0.0", "::"):
                return Encoding.TEXT
        return Encoding(self._config.server.payload_encoding)
