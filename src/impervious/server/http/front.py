"""The HTTP door's first room: everybody passes here, and is sent on or sent away.

Pages of foreign origins are refused before anything else is looked at, then `authorize` decides, for websocket upgrades
as for requests. Streams go to `stream`, all else to the routes.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from grpclib.const import Status
from hypercorn.typing import ASGISendEvent, Scope

from impervious.errors import ImperviousError, InvalidArgument
from impervious.log_limit import LimitedLog
from impervious.server.convert import Problem, problem
from impervious.server.guard import Authorizer, BrowserRules, CallFacts, caller
from impervious.server.http.asgi import (
    Headers,
    HttpCall,
    Receive,
    Send,
    WebScope,
    answer,
    arrived,
    refuse,
)
from impervious.server.http.stream import EPOCH, POSITION, Streams
from impervious.wire.json import Encoding

_limited = LimitedLog(logging.getLogger(__name__))

SUBSCRIBE: Final = "/v1/subscribe"
_STREAM_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_ALLOWED_HEADERS: Final = b"authorization, cache-control, content-type, idempotency-key, last-event-id"
_PREFLIGHT_S: Final = b"600"
"""How long a browser need not ask again."""

App = Callable[[WebScope, Receive, Send], Awaitable[None]]


class Front:
    """The ASGI application of both HTTP listeners.

    Args:
      rules: for browsers.
      authorizer: decides who may call.
      streams: the event stream.
      routes: everything else.
      encoding_at: what the listener at one of our addresses speaks.
    """

    def __init__(
        self,
        *,
        rules: BrowserRules,
        authorizer: Authorizer,
        streams: Streams,
        routes: App,
        encoding_at: Callable[[tuple[str, int | None] | None], Encoding],
    ) -> None:
        self._rules = rules
        self._authorizer = authorizer
        self._streams = streams
        self._routes = routes
        self._encoding_at = encoding_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            raise AssertionError("the doors are opened and closed by their nursery")
        call = HttpCall.of(scope, encoding=self._encoding_at(scope["server"]))
        origin = call.headers.get("origin")
        is_cross = origin is not None and self._rules.is_cross_origin(origin)
        if origin is not None and is_cross:  # before anything is refused: the page is to be able to read why
            send = _telling_browser(send, origin)
        try:
            if call.twice is not None:
                raise InvalidArgument(f"the header {call.twice} is given twice: give it once")
            self._rules.check(call.headers, arrived_at=call.arrived_at)
            if is_cross and _is_preflight(call):
                await answer(send, 204, _preflight_headers(call), b"")
                return
            if not call.is_plain:  # one path has one spelling, because proxies and scopes judge by it
                await refuse(send, not_found(call.target), is_websocket=call.is_websocket)
                return
            facts = CallFacts(path=call.path, peer=call.peer, metadata=call.headers)
            caller.set(await self._authorizer(facts))
        except ImperviousError as error:
            reason = type(error).__name__ + (" of a preflight" if _is_preflight(call) else "")
            _limited.warning("%s: refused: %s", call.peer, error, kind=reason)
            await refuse(send, problem(error, call.path), is_websocket=call.is_websocket)
            return
        await self._pass_on(call, scope, receive, send)

    async def _pass_on(self, call: HttpCall, scope: WebScope, receive: Receive, send: Send) -> None:
        if call.path != SUBSCRIBE:
            if call.is_websocket:
                await refuse(send, not_found(call.path), is_websocket=True)
                return
            if not call.path.startswith("/"):  # "OPTIONS *", "CONNECT host:1"; the routes would stumble
                await refuse(send, not_found(call.path), is_websocket=False)
                return
            if call.method != call.method.upper():  # the routes would take it for the other
                await refuse(send, _not_a_method(call.method), is_websocket=False)
                return
            arrived.set(call)
            await self._routes(scope, receive, send)
        elif call.method == "OPTIONS":
            await answer(send, 204, [(b"allow", ", ".join(_STREAM_METHODS).encode())], b"")
        elif call.method in _STREAM_METHODS:
            await self._streams.serve(call, receive, send)
        else:
            await refuse(send, wrong_method(call.method, call.path, "GET"), is_websocket=False)


def not_found(path: str) -> Problem:
    """Make the answer for a path that is not there."""
    return Problem(
        code=Status.NOT_FOUND,
        message=f"there is no {_shown(path)} here: see /openapi.json for what there is, such as POST /v1/message/send",
    )


def wrong_method(method: str, path: str, allowed: str) -> Problem:
    """Make the answer for a path that is there, for another method."""
    return Problem(code=Status.UNIMPLEMENTED, message=f"{path} does not take {_shown(method)}: use {allowed}")


def _not_a_method(method: str) -> Problem:
    text = f"there is no method {_shown(method)}: methods are case-sensitive, use {_shown(method.upper())}"
    return Problem(code=Status.UNIMPLEMENTED, message=text)


def _shown(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "…"


def _is_preflight(call: HttpCall) -> bool:
    return call.method == "OPTIONS" and "access-control-request-method" in call.headers


def _preflight_headers(call: HttpCall) -> Headers:
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", _PREFLIGHT_S),
    ]
    if "access-control-request-private-network" in call.headers:  # a public page asks for this machine
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers


def _telling_browser(send: Send, origin: str) -> Send:
    """Add to every answer that pages of `origin` may read it."""
    told: Headers = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b", ".join((POSITION, EPOCH))),
        (b"vary", b"Origin"),
    ]

    async def tell(event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            await send({"type": event["type"], "status": event["status"], "headers": [*event["headers"], *told]})
        else:
            await send(event)

    return tell
