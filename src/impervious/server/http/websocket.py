"""One websocket: the upgrade, ready frames out, and a peer whose frames are read only to know that it is there.

What clients send is ignored, so messages are not put together and cannot be too long. Extensions are not taken, so
frames made once serve all, and there are no zip bombs.
"""

from contextlib import suppress
from typing import Final, cast

import h11
import trio
from grpclib.const import Status
from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, WebsocketScope
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Ping
from wsproto.utilities import LocalProtocolError, generate_accept_token

from impervious.server.convert import Problem, problem
from impervious.server.http.asgi import FRAMES, Headers
from impervious.server.http.exchange import ABANDONED_S, RudePeer, whole_answer
from impervious.server.http.transport import PeerLost, Transport

_VERSION: Final = b"13"
"""The only one there is (RFC 6455, section 4.1)."""
_KEY_BYTES: Final = 24
_INTERNAL_ERROR: Final = 1011
_ABNORMAL: Final = 1006
_YIELD_EVERY: Final = 32
BURST_BYTES: Final = 64 << 10
"""What a client may send at once into a stream, where it is ignored."""
BYTES_PER_S: Final = 64 << 10
"""How fast it may go on after that: it is read no faster, so that a chatterer costs little."""


def is_upgrade(request: h11.Request) -> bool:
    """Whether a request asks for a websocket. Both headers are lists, which may come in several lines."""
    return (
        request.method == b"GET"
        and b"upgrade" in _tokens(request, b"connection")
        and b"websocket" in _tokens(request, b"upgrade")
    )


def offered_protocols(request: h11.Request) -> list[str]:
    """List the subprotocols that a client offers, in one line or several."""
    lines = [value.decode("latin-1") for name, value in request.headers if name == b"sec-websocket-protocol"]
    return [each.strip() for line in lines for each in line.split(",") if each.strip()]


def _tokens(request: h11.Request, name: bytes) -> list[bytes]:
    return [token.strip().lower() for each, value in request.headers if each == name for token in value.split(b",")]


class WebsocketExchange:
    """A websocket, from the request that asks for it to its end.

    Args:
      http: of the connection; has just returned the request.
      transport: of the connection.
      request: asks for the upgrade.
      scope: the request, for the application.
    """

    def __init__(self, http: h11.Connection, transport: Transport, request: h11.Request, scope: WebsocketScope) -> None:
        self._http = http
        self._transport = transport
        self._request = request
        self._scope = scope
        self._accepted = trio.Event()
        self._frames = Connection(ConnectionType.SERVER)
        self._connected = False
        """The application knows of the request."""
        self._gone = trio.Event()
        self._rude = False
        self._refused: ASGISendEvent | None = None
        self._scope_of_app = trio.CancelScope()

    async def run(self, app: ASGIFramework) -> None:
        """Have the application accept it or not, and send.

        Raises:
          PeerLost: the peer was gone before it was answered.
          RudePeer: the peer sends before the websocket is open.
          h11.RemoteProtocolError: the request has a body that is not HTTP.
        """
        if not isinstance(self._http.next_event(), h11.EndOfMessage):
            raise RudePeer("an upgrade with a body")
        fault, extra = self._handshake_fault()
        if fault is not None:
            await self._transport.write(whole_answer(self._http, fault, extra=extra))
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_on)
            with self._scope_of_app:
                await self._run_app(app)
            nursery.cancel_scope.cancel()
        if self._rude:
            raise RudePeer("bytes before the websocket was open")

    def _handshake_fault(self) -> tuple[Problem | None, Headers]:
        found = {name: [value for each, value in self._request.headers if each == name] for name in (_KEY, _VERSIONS)}
        if found[_VERSIONS] != [_VERSION]:
            text = "the websocket's version must be 13: send Sec-WebSocket-Version: 13"
            return Problem(code=Status.INVALID_ARGUMENT, message=text, status=426), [(_VERSIONS, _VERSION)]
        if len(found[_KEY]) != 1 or len(found[_KEY][0]) != _KEY_BYTES:
            text = "a websocket needs one Sec-WebSocket-Key of 16 bytes in base64"
            return Problem(code=Status.INVALID_ARGUMENT, message=text), []
        return None, []

    async def _run_app(self, app: ASGIFramework) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # the outermost boundary of a request: a bug must not end more than that
            found = problem(error, self._scope["path"])
            if not self._accepted.is_set():
                await self._write(whole_answer(self._http, found))
            else:
                await self._say_goodbye(CloseConnection(code=_INTERNAL_ERROR, reason=None))

    # --- The application's side ---------------------------------------------------------------------------------------

    async def _receive(self) -> ASGIReceiveEvent:
        if not self._connected:
            self._connected = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        await self._gone.wait()
        return {"type": "websocket.disconnect", "code": _ABNORMAL}

    async def _send(self, event: ASGISendEvent) -> None:
        if cast("str", event["type"]) == FRAMES:
            if self._frames.state is ConnectionState.OPEN:
                await self._write(cast("dict[str, bytes]", event)["bytes"])
        elif self._gone.is_set():
            await trio.lowlevel.checkpoint()
        elif event["type"] == "websocket.accept":
            await self._accept(list(event["headers"]))
        elif event["type"] == "websocket.close":
            await self._say_goodbye(CloseConnection(code=event["code"], reason=event["reason"]))
        elif event["type"] == "websocket.http.response.start":
            self._refused = event
            await trio.lowlevel.checkpoint()
        elif event["type"] == "websocket.http.response.body":
            await self._refuse(event["body"])
        else:
            raise AssertionError(f"{event['type']} is no part of a websocket")

    async def _accept(self, more: Headers) -> None:
        [key] = [value for name, value in self._request.headers if name == _KEY]
        headers = [
            (b"upgrade", b"WebSocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", generate_accept_token(key)),
            *more,
        ]
        data = self._http.send(h11.InformationalResponse(status_code=101, headers=headers))
        self._accepted.set()
        await self._write(data)

    async def _refuse(self, body: bytes) -> None:
        start = self._refused
        assert start is not None
        assert start["type"] == "websocket.http.response.start"
        headers = [*start["headers"], (b"connection", b"close")]
        data = self._http.send(h11.Response(status_code=start["status"], headers=headers))
        await self._write(data + self._http.send(h11.Data(data=body)) + self._http.send(h11.EndOfMessage()))

    async def _say_goodbye(self, goodbye: CloseConnection) -> None:
        try:
            data = self._frames.send(goodbye)
        except LocalProtocolError:  # it has been said
            return
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        try:
            await self._transport.write(data)
        except PeerLost:
            self._gone.set()

    # --- The peer's side ----------------------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        with suppress(PeerLost):
            await self._read_frames()
        # The application learns that its peer has left when it receives; one that does not receive is ended.
        self._gone.set()
        await trio.sleep(ABANDONED_S)
        self._scope_of_app.cancel()

    async def _read_frames(self) -> None:
        spare, since = float(BURST_BYTES), trio.current_time()
        if self._http.trailing_data[0]:
            self._rude = True
            return
        while data := await self._transport.read():
            if not self._accepted.is_set():
                self._rude = True
                return
            self._frames.receive_data(data)
            for count, event in enumerate(self._frames.events(), start=1):
                if count % _YIELD_EVERY == 0:  # thousands of short ones may have come in one read
                    await trio.lowlevel.checkpoint()
                if isinstance(event, Ping):
                    await self._write(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    await self._say_goodbye(event.response())
                    return
            now = trio.current_time()
            spare, since = min(BURST_BYTES, spare + (now - since) * BYTES_PER_S) - len(data), now
            if spare < 0:
                await trio.sleep(-spare / BYTES_PER_S)


_KEY: Final = b"sec-websocket-key"
_VERSIONS: Final = b"sec-websocket-version"
