"""HTTP/1.1 and nothing else: Hypercorn's `H11Protocol`, whose reader never waits for an answer.

What is different here:
- A request that is buffered behind another is left in the buffer until its turn. Upstream the reader, the only task
  that could see the end of the peer, waits for that turn, and for ever if the peer has gone.
- A head leaves together with its body, and errors are answered in JSON.
- A head is counted when it is complete, too: h11 bounds only what is incomplete.
- A request with both Content-Length and Transfer-Encoding is refused.
- There is no upgrade to HTTP/2, whose many streams would need limits of their own.
"""

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import h11
import trio
from grpclib.const import Status
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, H11SendableEvent

from impervious.server.closing import Closing
from impervious.server.convert import Problem
from impervious.server.http.asgi import Headers
from impervious.server.http.exchange import READ_AHEAD_BYTES, Exchange, RudePeer, has_length, whole_answer
from impervious.server.http.transport import Transport
from impervious.server.http.websocket import Websocket, is_upgrade

HEAD_BYTES: Final = 16 << 10
"""Of one request: what gRPC is allowed too."""

_TOO_LONG: Final = Problem(
    code=Status.INVALID_ARGUMENT, message=f"the head of the request has more than {HEAD_BYTES} bytes", status=431
)
_SHOWN: Final = 100
"""Characters of an error that are repeated."""


def _config() -> Config:
    config = Config()
    config.errorlog = logging.getLogger(__name__)
    config.include_date_header = False
    config.include_server_header = False
    config.keep_alive_max_requests = sys.maxsize
    return config


CONFIG: Final = _config()
"""Hypercorn's. Limits of time are the connection's."""


class Http(h11.Connection):
    """h11 as Hypercorn's reader sees it: what must wait for its turn looks like nothing yet."""

    error: h11.RemoteProtocolError | None = None
    """What came is not HTTP."""

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Nothing for Hypercorn's reader: the exchange says it once the application asks for the body."""
        return False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what came next.

        Raises:
          RudePeer: too much came behind a request that is not answered yet.
          h11.RemoteProtocolError: what came is not HTTP.
        """
        if self.their_state not in (h11.DONE, h11.MUST_CLOSE):
            try:
                event = self._next_event()
            except h11.RemoteProtocolError as error:
                self.error = error
                raise
            if event is not h11.PAUSED:
                return event
        if len(self.trailing_data[0]) > READ_AHEAD_BYTES:
            raise RudePeer(f"{READ_AHEAD_BYTES} bytes behind a request that is not answered yet")
        return h11.NEED_DATA

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        buffered = len(self.trailing_data[0])
        event = super().next_event()
        if not isinstance(event, h11.Request | h11.EndOfMessage):
            return event
        if buffered - len(self.trailing_data[0]) > HEAD_BYTES:
            raise h11.RemoteProtocolError("the head or the trailers are too long", error_status_hint=431)
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if b"content-length" in names and b"transfer-encoding" in names:  # two ends for one body: smuggling
                raise h11.RemoteProtocolError("Content-Length beside Transfer-Encoding (RFC 9112, section 6.1)")
        return event


class Http11(H11Protocol):
    """The protocol of one connection.

    Args:
      app: what answers.
      context: the connection's.
      transport: of the connection.
      closing: begins when no new request is to be waited for.
      send: does what the protocol wants.
      write: to the connection.
    """

    def __init__(
        self,
        app: ASGIFramework,
        context: WorkerContext,
        transport: Transport,
        closing: Closing,
        send: Callable[[Event], Awaitable[None]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        peer, own = transport.peer, transport.own
        super().__init__(
            ASGIWrapper(app), CONFIG, context, TaskGroup(), ConnectionState({}), transport.is_tls, peer, own, send
        )
        self.http = Http(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.connection = self.http
        self.exchange: Exchange | Websocket | None = None
        """The last one."""
        self._closing = closing
        self.write = write
        self._framework = app
        self._held = b""
        """The head of an answer that is short enough to leave together with its body."""
        self._refused = False

    @property
    def is_answering(self) -> bool:
        """Whether a request has come that is not answered yet."""
        return self.stream is not None

    async def go_on(self) -> None:
        """Handle what is buffered."""
        await self._handle_events()

    async def refuse(self, found: Problem, extra: Headers) -> None:
        """Answer what is no request, or what failed, if no answer has begun. It is the last of the connection."""
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refused = True
            await self.write(whole_answer(self.http, found, extra))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Upgrade to no other protocol: a client that offers HTTP/2 goes on with HTTP/1.1 (RFC 9110, section 7.8)."""

    async def _create_stream(self, request: h11.Request) -> None:
        given = (
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
        if is_upgrade(request):
            if not isinstance(self.http.next_event(), h11.EndOfMessage):
                raise RudePeer("an upgrade with a body")
            self.stream = self.exchange = Websocket(*given)
            self.stream.attach(self._framework, self.refuse, self.write)
            self.connection = H11WSConnection(self.http)
        else:
            self.stream = self.exchange = Exchange(*given)
            self.stream.attach(self._framework, self.http, self.refuse)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if self._refused or self.http.our_state is h11.ERROR:  # it has its answer, or it is gone
            await trio.lowlevel.checkpoint()
            return
        data = self._held + self.http.send(event)
        self._held = b""
        if isinstance(event, h11.Response) and has_length(list(event.headers)):
            self._held = data
        elif data:
            await self.write(data)

    async def _send_error_response(self, status_code: int) -> None:
        text = f"this is not HTTP/1.1: {str(self.http.error)[:_SHOWN]}"
        too_long = status_code == _TOO_LONG.http_status
        if self.exchange is not None and self.is_answering:
            self.exchange.abandon()
        await self.refuse(_TOO_LONG if too_long else Problem(code=Status.INVALID_ARGUMENT, message=text), [])

    async def _maybe_recycle(self) -> None:
        if self._closing.begun:
            await self.context.terminated.set()
        await super()._maybe_recycle()
