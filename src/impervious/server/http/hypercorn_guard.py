"""Hypercorn 0.18's HTTP/1.1, made fit to face strangers; pinned, because it builds on its inner classes.

What is different here, each shown by a test:
- An exception in one connection ends that connection. Upstream it ends the server: bytes sent right behind a websocket
  upgrade are enough, and so is a malformed offer of a websocket extension.
- A peer that does not read cannot hold a task for ever: a write has a deadline, and `cut` ends it at once. Upstream
  shields writes without any, so one such peer hangs the shutdown.
- A connection that is to be closed is closed, also when the application is cancelled at that moment.
- Only HTTP/1.1 is spoken: no upgrade to HTTP/2, whose many streams would need limits of their own.
- Websockets are not compressed, so frames made once serve all (`asgi.FRAMES`), and there are no zip bombs.
"""

import dataclasses
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Data, Request
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGISendEvent, ConnectionState
from hypercorn.utils import parse_socket_addr

from impervious.server.http.asgi import FRAMES

logger = logging.getLogger(__name__)

STALL_S: Final = 60.0
"""How long one write, of 64 KiB or of one frame, may take: a peer slower than that is cut off. As for gRPC."""

T = TypeVar("T")
Write = Callable[[bytes], Awaitable[None]]
TlsStream = trio.SSLStream[trio.SocketStream]


class RudePeer(Exception):
    """The peer does what no client does."""


class Websocket(WSStream):
    """A websocket that takes ready frames, offers no extensions, and ends with a peer that jumps the handshake."""

    write: Write
    """Straight to the connection: nothing between has anything to add to ready frames."""

    async def handle(self, event: StreamEvent) -> None:
        """Take what came from the peer."""
        if isinstance(event, Request):
            kept = [(name, value) for name, value in event.headers if name.lower() != b"sec-websocket-extensions"]
            event = dataclasses.replace(event, headers=kept)
        early = isinstance(event, Body | Data) and not self.closed and not self.handshake.accepted
        await super().handle(event)
        if early:  # upstream has answered 400 and now forgets to tell the application, which would wait for ever
            raise RudePeer("bytes before the websocket was open")

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take what the application sends."""
        if message is None or cast("str", message["type"]) != FRAMES:
            await super().app_send(message)
        elif not self.closed and self.state is ASGIWebsocketState.CONNECTED:
            await self.write(cast("dict[str, bytes]", message)["bytes"])


class Http11(H11Protocol):
    """HTTP/1.1 and nothing else, with our websockets."""

    write: Write
    """The connection's."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Upgrade to no other protocol: a client that offers HTTP/2 goes on with HTTP/1.1 (RFC 9110, section 7.8)."""

    async def _create_stream(self, request: h11.Request) -> None:
        stream_class: type[Websocket | HTTPStream] = Websocket if _is_upgrade(request) else HTTPStream
        self.stream = stream_class(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        if isinstance(self.stream, Websocket):
            self.stream.write = self.write
            self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


def _is_upgrade(request: h11.Request) -> bool:
    headers = {name.lower(): value.strip().lower() for name, value in request.headers}
    tokens = [token.strip() for token in headers.get(b"connection", b"").split(b",")]
    return request.method == b"GET" and b"upgrade" in tokens and headers.get(b"upgrade") == b"websocket"


class Connection(TCPServer):
    """One connection, from its accept to its end.

    Args:
      app: what answers.
      config: Hypercorn's.
      context: tells when the server stops.
      stream: the connected transport. *Ownership:* the connection closes it.
    """

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, stream: trio.SocketStream | TlsStream
    ) -> None:
        super().__init__(app, config, context, {}, cast("TlsStream", stream))
        self._is_tls = isinstance(stream, trio.SSLStream)
        self._socket = (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket

    async def run(self) -> None:
        """Serve it. Nothing that the peer does, and no bug that it finds, is raised."""
        try:
            if await self._handshake():
                await self._serve()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            logger.debug("%s: connection lost", self._peer())
        except* RudePeer as group:
            logger.debug("%s: %s", self._peer(), group.exceptions[0])
        except* Exception:
            # The outermost boundary of a connection: what one client can reach must not take the others down.
            logger.warning("%s: connection failed", self._peer(), exc_info=True)
        finally:
            await trio.aclose_forcefully(self.stream)

    def cut(self) -> None:
        """Close the socket under everything that still uses it, which ends it at once."""
        self._socket.close()

    async def _handshake(self) -> bool:
        if not self._is_tls:
            return True
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await self.stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            logger.debug("%s: no TLS: %s", self._peer(), error.__cause__ or error)
            return False
        return True

    async def _serve(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        async with TaskGroup() as group:
            self._task_group = group
            protocol = Http11(
                self.app,
                self.config,
                self.context,
                group,
                ConnectionState({}),
                self._is_tls,
                parse_socket_addr(self._socket.family, self._socket.getpeername()),
                parse_socket_addr(self._socket.family, self._socket.getsockname()),
                self.protocol_send,
            )
            protocol.write = self.write
            self.protocol = cast("ProtocolWrapper", protocol)  # which would switch to HTTP/2
            await self.idle_task.restart(group, self._idle_timeout)
            await self._read_data()
            await self.idle_task.stop()  # upstream lets it sleep on, and the connection with it

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol wants: write, close, or mind the time of an idle connection.

        Cancellation: it is finished first, within `STALL_S`. Upstream is cancelled here when the application ends
        while it is being told that it has ended, and then never closes what it should.
        """
        if isinstance(event, RawData):
            await self.write(event.data)
        else:
            await self._within_bounds(super().protocol_send, event)

    async def write(self, data: bytes) -> None:
        """Write all of it, or end the connection. Does not checkpoint where the socket takes everything at once."""
        rest = self._write_now(data)
        if rest:
            await self._within_bounds(self._write_rest, rest)

    def _write_now(self, data: bytes) -> bytes | memoryview:
        """Write what the socket takes, which is mostly all, at a fraction of the cost of being ready to wait for it."""
        if self._is_tls or self.send_lock.locked():
            return data
        try:
            written = os.write(self._socket.fileno(), data)
        except OSError:  # it takes nothing now, or it is gone, which the next attempt will tell
            return data
        return memoryview(data)[written:]

    async def _write_rest(self, data: bytes | memoryview) -> None:
        async with self.send_lock:
            await self.stream.send_all(data)

    async def _within_bounds(self, act: Callable[[T], Awaitable[None]], argument: T) -> None:
        try:
            with trio.fail_after(STALL_S, shield=True):
                await act(argument)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        except trio.TooSlowError:
            logger.warning("%s: cut off, because it has not read for %g s", self._peer(), STALL_S)
            self.cut()
            await self.protocol.handle(Closed())

    def _peer(self) -> str:
        try:
            host, port = self._socket.getpeername()[:2]
        except OSError:
            return "a client that has left"
        return f"{host}:{port}"
