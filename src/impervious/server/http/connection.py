"""One HTTP/1.1 connection of a client: Hypercorn's `TCPServer`, with an end that always comes.

What is different here:
- One task reads, whatever is buffered and whatever the application does, and so sees the end of the peer. It ends the
  exchange: at once for a stream, else after `HALF_CLOSED_S`, because a peer that has only finished sending still waits
  for its answer.
- An exception in one connection ends that connection. Upstream it ends the server: bytes sent right behind a websocket
  upgrade are enough.
- A peer that does not read cannot hold a task for ever, because `Transport` bounds each write. Upstream shields writes
  without a bound, so one such peer hangs the shutdown.
"""

import logging
import ssl
from typing import Final, cast

import h11
import trio
from grpclib.const import Status
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from impervious.log_limit import LimitedLog
from impervious.server.closing import Closing
from impervious.server.convert import Problem
from impervious.server.http import exchange
from impervious.server.http.exchange import RudePeer
from impervious.server.http.protocol import CONFIG, Http11
from impervious.server.http.transport import PeerLost, Transport
from impervious.server.http.websocket import Websocket

logger = logging.getLogger(__name__)
_limited = LimitedLog(logger)

KEEP_ALIVE_S: Final = 30.0
"""Between requests, and for the head of one to arrive: bounds what a connection that says nothing may cost."""
HANDSHAKE_S: Final = 10.0
"""For TLS."""

_TOO_SLOW: Final = Problem(
    code=Status.DEADLINE_EXCEEDED,
    message=f"the head of the request did not arrive within {KEEP_ALIVE_S:g} s",
    status=408,
)


class Connection(TCPServer):
    """A connection, from its accept to its end.

    Args:
      app: what answers.
      stream: the accepted socket. *Ownership:* the connection closes it.
      ssl_context: for TLS; None for plaintext.
      closing: begins when no new request is to be waited for.
    """

    def __init__(
        self, app: ASGIFramework, stream: trio.SocketStream, ssl_context: ssl.SSLContext | None, closing: Closing
    ) -> None:
        self._transport = Transport(stream, ssl_context)
        self._closing = closing
        self._waiting_since: float | None = trio.current_time()
        self._reading = trio.CancelScope()
        """Around the reader's wait, which it ends early."""
        self._is_over = False
        """Nothing more is to be read or begun."""
        context = WorkerContext(None)
        self._http = Http11(app, context, self._transport, closing, self.protocol_send, self.write)
        super().__init__(self._http.app, CONFIG, context, {}, cast("_TlsStream", stream))
        self.protocol = cast("ProtocolWrapper", self._http)  # which would switch to HTTP/2

    async def run(self) -> None:
        """Serve it until either end has had enough. Raises nothing but the end of the daemon."""
        transport = self._transport
        try:
            await transport.handshake(HANDSHAKE_S)
            await self._serve()
        except PeerLost as error:
            logger.debug("%s: connection lost: %s", transport, error)
        except Exception:
            # The outermost boundary of a connection: what one client can reach must not take the others down.
            _limited.warning("%s: connection failed", transport, exc_info=True)
        finally:
            await transport.aclose()

    @property
    def host(self) -> str | None:
        """The address of the client."""
        return self._transport.peer[0] if self._transport.peer else None

    @property
    def waiting_since(self) -> float | None:
        """Since when it has been waiting for a request, or for the rest of one; None while it answers one."""
        answering = self._http.exchange
        return answering.body_since if answering is not None and self._http.is_answering else self._waiting_since

    def give_way(self) -> None:
        """End at once, in favour of another."""
        self.cut()

    def cut(self) -> None:
        """Close the socket under everything that still uses it, which ends it at once."""
        self._transport.cut()

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol wants: write, end the connection, or wait for the next request."""
        if isinstance(event, RawData):
            await self.write(event.data)
        elif isinstance(event, Closed):
            self._end()
        elif isinstance(event, Updated):
            self._waiting_since = trio.current_time() if event.idle else None
            if self._waiting_since is not None:
                self._reading.deadline = self._waiting_since + KEEP_ALIVE_S
                if self._http.http.trailing_data[0] or self._transport.ended:
                    self._wake()

    async def write(self, data: bytes) -> None:
        """Write all of it, or end the connection. Does not checkpoint where the socket takes everything at once."""
        try:
            await self._transport.write(data)
        except PeerLost as error:
            self._lose(error)

    async def _serve(self) -> None:
        with trio.CancelScope() as until_abandoned:
            async with TaskGroup() as group:
                self._http.task_group = group
                await self._read_data()
                # The application learns that its peer has left when it receives; one that does not receive is ended.
                until_abandoned.deadline = trio.current_time() + exchange.ABANDONED_S
        if self._is_unread():
            await self._transport.linger()

    async def _read_data(self) -> None:
        http = self._http
        try:
            while not self._is_over:
                await self._read_on()
            if http.http.error is not None:
                status = str(http.http.error.error_status_hint)
                _limited.warning("%s: not HTTP/1.1: %s", self._transport, http.http.error, kind=status)
        except PeerLost as error:
            self._lose(error)
        except RudePeer as error:
            _limited.warning("%s: ended: %s", self._transport, error, kind=str(error))
            if http.exchange is not None:
                http.exchange.abandon()
            await http.refuse(Problem(code=Status.INVALID_ARGUMENT, message=f"refused: {error}"), [])
        await http.handle(Closed())

    async def _read_on(self) -> None:
        """Wait for what comes next, or until woken, and handle it."""
        http, data, waiting_since = self._http, None, self._waiting_since
        is_last = self._closing.begun and waiting_since is None
        with trio.CancelScope() if is_last else self._closing.wait() as self._reading:
            if waiting_since is not None:
                self._reading.deadline = waiting_since + KEEP_ALIVE_S
            data = await self._next_bytes()
        if self._is_over:
            return
        if data is not None:
            await http.handle(RawData(data))
        elif self._waiting_since is not None and self._waiting_since == waiting_since:  # and nothing came
            if http.http.trailing_data[0] and not self._closing.begun:
                _limited.warning("%s: ended: the head of its request did not come", self._transport)
                await http.refuse(_TOO_SLOW, [])
            self._end()
        else:
            await http.go_on()
        if self._transport.ended and not http.is_answering:
            self._end()

    async def _next_bytes(self) -> bytes | None:
        answering = self._http.exchange if self._http.is_answering else None
        if answering is not None and self._transport.ended:
            with trio.move_on_after(exchange.HALF_CLOSED_S):
                await answering.pointless.wait()
            self._end()
            return None
        if isinstance(answering, Websocket) and answering.pause_s:
            await trio.sleep(answering.pause_s)
        return await self._transport.read()

    def _wake(self) -> None:
        """Have the reader look again: at what is buffered, at the time, or at the end."""
        self._reading.cancel()

    def _end(self) -> None:
        self._is_over = True
        self._wake()

    def _lose(self, error: PeerLost) -> None:
        logger.debug("%s: connection lost: %s", self._transport, error)
        self._http.http.send_failed()
        self._end()

    def _is_unread(self) -> bool:
        """Whether the peer has its last answer and is still sending."""
        http = self._http.http
        answered = http.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        unread = http.their_state in (h11.SEND_BODY, h11.ERROR) or bool(http.trailing_data[0])
        return answered and unread and not self._transport.ended


_TlsStream = trio.SSLStream[trio.SocketStream]
