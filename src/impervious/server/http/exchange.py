"""One request over HTTP/1.1 and its answer: Hypercorn's `HTTPStream`, with an end that always comes.

What is different here:
- A reader that waits for the application to take a body is released by the end of the exchange.
- Errors are answered in JSON, by the one table of errors.
- 100 Continue is sent once the application asks for the body, not before.
- A body that the application does not want is not waited for: the answer closes the connection.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, cast

import h11
import trio
from hypercorn.protocol.events import EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from impervious.server.convert import Problem, problem
from impervious.server.http.asgi import JSON_HEADERS, Headers

READ_AHEAD_BYTES: Final = 64 << 10
"""What a peer may send behind a request that is being answered: a peer that sends more is cut off, because not to read
on would be not to see its end."""
HALF_CLOSED_S: Final = 1.0
"""How long a call may go on for a peer that has ended its side, in seconds."""
ABANDONED_S: Final = 1.0
"""How long an application may take to notice that its peer is gone, before it is cancelled, in seconds."""

Refuse = Callable[[Problem, Headers], Awaitable[None]]


class RudePeer(Exception):
    """The peer does what no client does."""


class Exchange(HTTPStream):
    """A request and its answer. `attach` must follow its creation."""

    body_since: float | None
    """Since when the request's body has been arriving; None once it has."""

    def attach(self, app: ASGIFramework, http: h11.Connection, refuse: Refuse) -> None:
        """Connect it with its connection.

        Args:
          app: what answers.
          http: has just returned the request.
          refuse: answers with an error, unless an answer has begun.
        """
        self._http = http
        self._refuse = refuse
        self._app = app
        self.app = cast("AppWrapper", self._run)
        # One event: more waits in the socket. The reader waits for the application, which takes every body to its end
        # or answers; the answer ends the exchange, which releases the reader.
        self._to_app, self._events = trio.open_memory_channel[ASGIReceiveEvent](1)
        self._app_scope = trio.CancelScope()
        self.pointless = trio.Event()
        """Nothing is left to be waited for once the peer has ended its side."""
        self.body_since = trio.current_time()

    async def handle(self, event: StreamEvent) -> None:
        """Take what came from the peer."""
        if isinstance(event, EndBody):
            self.body_since = None
        await super().handle(event)
        if isinstance(event, Request):
            self.app_put = self._put

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take what the application sends; None when it has ended."""
        if message is None:
            if not self.closed and self.state is ASGIHTTPState.REQUEST:
                await self._answer(AssertionError("the application did not answer"))
        elif message["type"] == "http.response.start":
            headers = list(message["headers"])
            if self._http.their_state is h11.SEND_BODY:  # the rest of it is not worth waiting for
                headers.append((b"connection", b"close"))
            if not has_length(headers):
                self.pointless.set()
            message = {"type": "http.response.start", "status": message["status"], "headers": headers}
        await super().app_send(message)

    def abandon(self) -> None:
        """Cancel the application."""
        self.closed = True
        self._to_app.close()
        self._app_scope.cancel()

    async def _put(self, event: ASGIReceiveEvent) -> None:
        if event["type"] == "http.disconnect":
            self._to_app.close()
        else:
            with suppress(trio.ClosedResourceError):
                await self._to_app.send(event)

    async def _receive(self) -> ASGIReceiveEvent:
        if not self.closed and self._http.client_is_waiting_for_100_continue:
            await self.send(Response(stream_id=self.stream_id, status_code=100, headers=[]))
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            return {"type": "http.disconnect"}

    async def _run(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable, *threads: object) -> None:
        with self._app_scope:
            try:
                await self._app(scope, self._receive, send)
            except Exception as error:  # the outermost boundary of a request: a bug must not end more than that
                await self._answer(error)
            except BaseException:
                self.closed = True
                raise

    async def _answer(self, error: Exception) -> None:
        found = problem(error, self.scope["path"])
        if self.state is ASGIHTTPState.REQUEST:  # else the next request may be waiting for its answer already
            self.state = ASGIHTTPState.CLOSED
            await self._refuse(found, [])


def has_length(headers: Headers) -> bool:
    """Whether an answer says how long it is."""
    return any(name.lower() == b"content-length" for name, _ in headers)


def whole_answer(http: h11.Connection, found: Problem, extra: Headers) -> bytes:
    """Make an answer that is the last of its connection."""
    body = found.body
    headers = [*JSON_HEADERS, *extra, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    head = http.send(h11.Response(status_code=found.http_status, headers=headers))
    return head + http.send(h11.Data(data=body)) + http.send(h11.EndOfMessage())
