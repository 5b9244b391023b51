"""One request over HTTP/1.1 and its answer, between h11 and an ASGI application.

Two tasks share an exchange. One runs the application. The other reads on: the request's body, which the application
takes piece by piece, then what the peer sends behind it, which waits for its turn. So the end of the peer is seen
whatever is buffered and whatever the application does, and it ends the exchange: at once for a stream, else after
`HALF_CLOSED_S`, because a peer that has only finished sending still waits for its answer.
"""

from typing import Final

import h11
import trio
from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, HTTPScope

from impervious.server.convert import Problem, problem
from impervious.server.http.asgi import JSON_HEADERS, Headers
from impervious.server.http.transport import PeerLost, Transport

READ_AHEAD_BYTES: Final = 64 << 10
"""What a peer may send behind a request that is being answered: a peer that sends more is cut off, because not to read
on would be not to see its end."""
HALF_CLOSED_S: Final = 1.0
"""How long a call may go on for a peer that has ended its side, in seconds."""
ABANDONED_S: Final = 1.0
"""How long an application may take to notice that its peer is gone, before it is cancelled, in seconds."""

H11Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class RudePeer(Exception):
    """The peer does what no client does."""


class Exchange:
    """A request and its answer.

    Args:
      http: of the connection; has just returned the request.
      transport: of the connection.
      scope: the request, for the application.
    """

    def __init__(self, http: h11.Connection, transport: Transport, scope: HTTPScope) -> None:
        self._http = http
        self._transport = transport
        self._scope = scope
        # One event: more waits in the socket. The reader waits for the application, which takes every body to its end
        # or answers; the answer ends the reader.
        self._to_app, self._events = trio.open_memory_channel[ASGIReceiveEvent](1)
        self._held = b""
        """The head of an answer that is short enough to leave together with its body."""
        self._is_bodiless = scope["method"] == "HEAD"
        self._scope_of_app = trio.CancelScope()
        self._pointless = trio.Event()
        """Nothing is left to be waited for once the peer has ended its side."""
        self.body_since: float | None = trio.current_time()
        """Since when the request's body has been arriving; None once it has."""
        self._left = False
        """The application has learnt, or will when it receives, that nobody waits for its answer."""
        self._fault: h11.RemoteProtocolError | RudePeer | None = None

    async def run(self, app: ASGIFramework) -> None:
        """Have the application answer.

        Where both ends were done, h11 says so in its states. Otherwise the connection cannot go on.

        Raises:
          RudePeer: the peer is to be cut off.
          h11.RemoteProtocolError: what came is not HTTP; not answered yet if h11's state is SEND_RESPONSE.
        """
        # Before the application runs, so that it is known whether there is a body to be waited for.
        first = self._http.next_event()
        if isinstance(first, h11.EndOfMessage):
            self.body_since = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_on, first)
            with self._scope_of_app:
                await self._run_app(app)
            nursery.cancel_scope.cancel()
        if self._fault is not None:
            raise self._fault

    async def _run_app(self, app: ASGIFramework) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # the outermost boundary of a request: a bug must not end more than that
            await self._answer(problem(error, self._scope["path"]))
        else:
            if self._http.our_state is h11.SEND_RESPONSE and not self._left:
                await self._answer(problem(AssertionError("the application did not answer"), self._scope["path"]))

    async def _answer(self, found: Problem) -> None:
        if self._http.our_state is h11.SEND_RESPONSE:
            await self._write(whole_answer(self._http, found))

    # --- The application's side ---------------------------------------------------------------------------------------

    async def _receive(self) -> ASGIReceiveEvent:
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            return {"type": "http.disconnect"}

    async def _send(self, event: ASGISendEvent) -> None:
        if self._http.our_state is h11.ERROR:  # the peer is gone
            await trio.lowlevel.checkpoint()
        elif event["type"] == "http.response.start":
            await self._send_head(int(event["status"]), list(event["headers"]))
        elif event["type"] == "http.response.body":
            await self._send_body(bytes(event["body"]), more=event["more_body"])
        else:
            raise AssertionError(f"{event['type']} is no part of an HTTP answer")

    async def _send_head(self, status: int, headers: Headers) -> None:
        if self._http.their_state is h11.SEND_BODY:  # the rest of it is not worth waiting for
            headers.append((b"connection", b"close"))
        self._is_bodiless = self._is_bodiless or status in (204, 304)
        head = self._http.send(h11.Response(status_code=status, headers=headers))
        if any(name.lower() == b"content-length" for name, _ in headers):
            self._held = head
            await trio.lowlevel.checkpoint()
        else:
            self._pointless.set()
            await self._write(head)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        data, self._held = self._held, b""
        if body and not self._is_bodiless:
            data += self._http.send(h11.Data(data=body))
        if not more:
            data += self._http.send(h11.EndOfMessage())
        await self._write(data)

    async def _write(self, data: bytes | None) -> None:
        try:
            await self._transport.write(data or b"")
        except PeerLost:
            self._http.send_failed()
            self._pointless.set()

    # --- The peer's side ----------------------------------------------------------------------------------------------

    async def _read_on(self, first: H11Event) -> None:
        try:
            with self._to_app:
                try:
                    await self._read_body(first)
                    await self._read_ahead()
                finally:
                    self._left = True
        except PeerLost:
            self._http.send_failed()
            self._pointless.set()
        except (h11.RemoteProtocolError, RudePeer) as error:
            self._fault = error
            self._scope_of_app.cancel()
        # The application learns that its peer has left when it receives; one that does not receive is ended.
        await trio.sleep(ABANDONED_S)
        self._scope_of_app.cancel()

    async def _read_body(self, event: H11Event) -> None:
        while True:
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._transport.read())
            elif isinstance(event, h11.Data):
                await self._to_app.send({"type": "http.request", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                self.body_since = None
                await self._to_app.send({"type": "http.request", "body": b"", "more_body": False})
                return
            else:
                raise AssertionError(f"h11 says {event!r} in the middle of a request")
            event = self._http.next_event()

    async def _read_ahead(self) -> None:
        while len(self._http.trailing_data[0]) <= READ_AHEAD_BYTES:
            data = await self._transport.read()
            self._http.receive_data(data)
            if not data:
                with trio.move_on_after(HALF_CLOSED_S):
                    await self._pointless.wait()
                return
        raise RudePeer(f"{READ_AHEAD_BYTES} bytes behind a request that is not answered yet")


def whole_answer(http: h11.Connection, found: Problem, *, extra: Headers | None = None) -> bytes:
    """Make an answer that is the last of its connection."""
    body = found.body
    headers = [*JSON_HEADERS, *(extra or ()), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    head = http.send(h11.Response(status_code=found.http_status, headers=headers))
    return head + http.send(h11.Data(data=body)) + http.send(h11.EndOfMessage())
