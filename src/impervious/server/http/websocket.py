"""One websocket: Hypercorn's `WSStream`, which takes ready frames and ignores what its client says.

What clients send is read only to know that they are there, so messages are not put together and cannot be too long.
Extensions are not taken, so frames made once serve all, and there are no zip bombs.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final, cast

import h11
import trio
from grpclib.const import Status
from hypercorn.protocol.events import Body, Data, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import AppWrapper, ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Ping

from impervious.server.convert import Problem, problem
from impervious.server.http.asgi import FRAMES, Headers
from impervious.server.http.exchange import Refuse, RudePeer

_VERSION: Final = b"13"
"""The only one there is (RFC 6455, section 4.1)."""
_KEY_BYTES: Final = 24
_YIELD_EVERY: Final = 32
BURST_BYTES: Final = 64 << 10
"""What a client may send at once into a stream, where it is ignored."""
BYTES_PER_S: Final = 64 << 10
"""How fast it may go on after that: it is read no faster, so that a chatterer costs little."""


def is_upgrade(request: h11.Request) -> bool:
    """Whether a request asks for a websocket. Both headers are lists, which may come in several lines."""
    headers = list(request.headers)
    return (
        request.method == b"GET"
        and b"upgrade" in _tokens(headers, b"connection")
        and b"websocket" in _tokens(headers, b"upgrade")
    )


def _tokens(headers: Headers, name: bytes) -> list[bytes]:
    return [token.strip().lower() for each, value in headers if each == name for token in value.split(b",")]


class Websocket(WSStream):
    """A websocket, from the request that asks for it to its end. `attach` must follow its creation."""

    body_since: float | None = None

    def attach(self, app: ASGIFramework, refuse: Refuse, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Connect it with its connection.

        Args:
          app: what answers.
          refuse: answers with an error, unless an answer has begun.
          write: to the connection: nothing between has anything to add to ready frames.
        """
        self._refuse = refuse
        self._write = write
        self._app = app
        self.app = cast("AppWrapper", self._run)
        self._app_scope = trio.CancelScope()
        self.pointless = trio.Event()
        """Set: a websocket ends with its peer."""
        self.pointless.set()
        self._spare, self._since = float(BURST_BYTES), trio.current_time()

    @property
    def pause_s(self) -> float:
        """How long nothing should be read from it."""
        return max(0.0, -self._spare / BYTES_PER_S)

    async def handle(self, event: StreamEvent) -> None:
        """Take what came from the peer.

        Raises:
          RudePeer: the peer sends before the websocket is open.
        """
        if isinstance(event, Request):
            await self._begin(event)
            return
        is_data = isinstance(event, Body | Data)
        if is_data and not self.closed and not self.handshake.accepted:
            raise RudePeer("bytes before the websocket was open")
        await super().handle(event)
        if isinstance(event, Body | Data):
            now = trio.current_time()
            filled = self._spare + (now - self._since) * BYTES_PER_S
            self._spare, self._since = min(BURST_BYTES, filled) - len(event.data), now

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take what the application sends; None when it has ended."""
        if message is not None and cast("str", message["type"]) == FRAMES:
            is_open = not self.closed and self.state is ASGIWebsocketState.CONNECTED
            if is_open and self.connection.state is ConnectionState.OPEN:
                await self._write(cast("dict[str, bytes]", message)["bytes"])
        elif message is not None and message["type"] == "websocket.http.response.start":
            headers = [*message["headers"], (b"connection", b"close")]
            await super().app_send({"type": message["type"], "status": message["status"], "headers": headers})
        else:
            await super().app_send(message)

    def abandon(self) -> None:
        """Cancel the application."""
        self.closed = True
        self._app_scope.cancel()

    async def _begin(self, request: Request) -> None:
        fault, extra = _handshake_fault(request)
        if fault is not None:
            await self._refuse(fault, extra)
            self.closed = True
            await self.send(StreamClosed(stream_id=self.stream_id))
            return
        # Hypercorn reads the last line of each name, and would read the extensions that are offered.
        lists = (b"connection", b"upgrade", b"sec-websocket-protocol", b"sec-websocket-extensions")
        kept = [(name, value) for name, value in request.headers if name not in lists]
        kept += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        offered = [value for name, value in request.headers if name == b"sec-websocket-protocol"]
        if offered:
            kept.append((b"sec-websocket-protocol", b", ".join(offered)))
        await super().handle(dataclasses.replace(request, headers=kept))

    async def _handle_events(self) -> None:
        for count, event in enumerate(self.connection.events(), start=1):
            if count % _YIELD_EVERY == 0:  # thousands of short ones may have come in one read
                await trio.lowlevel.checkpoint()
            if isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._send_wsproto_event(event.response())  # none if this answers ours
                await self.send(StreamClosed(stream_id=self.stream_id))
                return

    async def _run(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable, *threads: object) -> None:
        with self._app_scope:
            try:
                await self._app(scope, receive, send)
            except Exception as error:  # the outermost boundary of a request: a bug must not end more than that
                found = problem(error, self.scope["path"])
                if self.state is ASGIWebsocketState.HANDSHAKE:
                    await self._refuse(found, [])
                    self.state = ASGIWebsocketState.HTTPCLOSED


def _handshake_fault(request: Request) -> tuple[Problem | None, Headers]:
    found = {name: [value for each, value in request.headers if each == name] for name in (_KEY, _VERSIONS)}
    if found[_VERSIONS] != [_VERSION]:
        text = "the websocket's version must be 13: send Sec-WebSocket-Version: 13"
        return Problem(code=Status.INVALID_ARGUMENT, message=text, status=426), [(_VERSIONS, _VERSION)]
    if len(found[_KEY]) != 1 or len(found[_KEY][0]) != _KEY_BYTES:
        text = "a websocket needs one Sec-WebSocket-Key of 16 bytes in base64"
        return Problem(code=Status.INVALID_ARGUMENT, message=text), []
    if request.http_version != "1.1":
        return Problem(code=Status.INVALID_ARGUMENT, message="a websocket needs HTTP/1.1"), []
    return None, []


_KEY: Final = b"sec-websocket-key"
_VERSIONS: Final = b"sec-websocket-version"
