"""One HTTP/1.1 connection of a client: its requests one after the other, and an end that always comes.

Nothing that a client sends, and no bug that it finds, gets further than `Connection.run`. There is no upgrade to
HTTP/2, whose many streams would need limits of their own.
"""

import logging
import ssl
from typing import Final
from urllib.parse import unquote

import h11
import trio
from grpclib.const import Status
from hypercorn.typing import ASGIFramework, ASGIVersions, ConnectionState, HTTPScope, WebsocketScope

from impervious.log_limit import LimitedLog
from impervious.server.closing import Closing
from impervious.server.convert import Problem
from impervious.server.http.exchange import Exchange, RudePeer, whole_answer
from impervious.server.http.transport import PeerLost, Transport
from impervious.server.http.websocket import WebsocketExchange, is_upgrade, offered_protocols

logger = logging.getLogger(__name__)
_limited = LimitedLog(logger)

HEAD_BYTES: Final = 16 << 10
"""Of one request: what gRPC is allowed too."""
KEEP_ALIVE_S: Final = 30.0
"""Between requests, and for the head of one to arrive: bounds what a connection that says nothing may cost."""
HANDSHAKE_S: Final = 10.0
"""For TLS."""

_TOO_SLOW: Final = Problem(
    code=Status.DEADLINE_EXCEEDED,
    message=f"the head of the request did not arrive within {KEEP_ALIVE_S:g} s",
    status=408,
)
_TOO_LONG: Final = Problem(
    code=Status.INVALID_ARGUMENT, message=f"the head of the request has more than {HEAD_BYTES} bytes", status=431
)


_SHOWN: Final = 100
"""Characters of an error that are repeated."""
_ASGI: Final[ASGIVersions] = {"spec_version": "2.3", "version": "3.0"}


class Connection:
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
        self._app = app
        self._transport = Transport(stream, ssl_context)
        self._closing = closing
        self._waiting_since: float | None = trio.current_time()
        self._exchange: Exchange | None = None
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

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
        return self._exchange.body_since if self._exchange is not None else self._waiting_since

    def give_way(self) -> None:
        """End at once, in favour of another."""
        self.cut()

    def cut(self) -> None:
        """Close the socket under everything that still uses it, which ends it at once."""
        self._transport.cut()

    async def _serve(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                self._waiting_since = None
                await self._answer(request)
                self._exchange = None
                self._waiting_since = trio.current_time()
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    break
                if self._closing.begun:
                    break
                self._http.start_next_cycle()
        except RudePeer as error:
            _limited.warning("%s: ended: %s", self._transport, error)
            await self._refuse(Problem(code=Status.INVALID_ARGUMENT, message=f"refused: {error}"))
        except h11.RemoteProtocolError as error:
            _limited.warning("%s: not HTTP/1.1: %s", self._transport, error)
            too_long = error.error_status_hint == _TOO_LONG.http_status
            text = f"this is not HTTP/1.1: {str(error)[:_SHOWN]}"
            await self._refuse(_TOO_LONG if too_long else Problem(code=Status.INVALID_ARGUMENT, message=text))
        if self._is_unread():
            await self._transport.linger()

    def _is_unread(self) -> bool:
        """Whether the peer has its last answer and is still sending."""
        http = self._http
        answered = http.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        unread = http.their_state in (h11.SEND_BODY, h11.ERROR) or bool(http.trailing_data[0])
        return answered and unread and not self._transport.ended

    async def _next_request(self) -> h11.Request | None:
        """Wait for the next request, or until there will be none."""
        request = None
        with self._closing.wait(KEEP_ALIVE_S) as waited:
            request = await self._read_head()
        if waited.cancelled_caught and self._http.trailing_data[0] and not self._closing.begun:
            _limited.warning("%s: ended: the head of its request did not come", self._transport)
            await self._refuse(_TOO_SLOW)
        return request

    async def _read_head(self) -> h11.Request | None:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._transport.read())
        return event if isinstance(event, h11.Request) else None

    async def _answer(self, request: h11.Request) -> None:
        if is_upgrade(request):
            scope = self._websocket_scope(request)
            await WebsocketExchange(self._http, self._transport, request, scope).run(self._app)
        else:
            self._exchange = Exchange(self._http, self._transport, self._http_scope(request))
            await self._exchange.run(self._app)

    def _http_scope(self, request: h11.Request) -> HTTPScope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": "https" if self._transport.is_tls else "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._transport.peer,
            "server": self._transport.own,
            "state": ConnectionState({}),
            "extensions": {},
        }

    def _websocket_scope(self, request: h11.Request) -> WebsocketScope:
        scope = self._http_scope(request)
        return {
            "type": "websocket",
            "asgi": _ASGI,
            "http_version": scope["http_version"],
            "scheme": "wss" if self._transport.is_tls else "ws",
            "path": scope["path"],
            "raw_path": scope["raw_path"],
            "query_string": scope["query_string"],
            "root_path": "",
            "headers": scope["headers"],
            "client": scope["client"],
            "server": scope["server"],
            "subprotocols": offered_protocols(request),
            "state": ConnectionState({}),
            "extensions": {"websocket.http.response": {}},
        }

    async def _refuse(self, found: Problem) -> None:
        """Answer what is no request, if it is not answered yet."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._transport.write(whole_answer(self._http, found))
