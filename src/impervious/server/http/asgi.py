"""The little of ASGI that is spoken here: what a request is, and how an answer is given.

ASGI passes dictionaries; they are read once, at the door, and become an `HttpCall`.
"""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Self, cast

from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    WebsocketScope,
)

from impervious.server.convert import Problem
from impervious.wire.json import Encoding

Receive = ASGIReceiveCallable
Send = ASGISendCallable
WebScope = HTTPScope | WebsocketScope
Headers = list[tuple[bytes, bytes]]

FRAMES: Final = "impervious.websocket.frames"
"""Our own ASGI event: whole websocket frames, ready to be sent. `websocket` understands it."""

JSON_HEADERS: Final[Headers] = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


_SINGLE: Final = frozenset(
    {
        "access-control-request-method",
        "access-control-request-private-network",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "last-event-id",
        "origin",
        "proxy-authorization",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-websocket-key",
        "sec-websocket-version",
    }
)
"""Headers that are no lists. Of two, one program takes the first and another the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request or a websocket upgrade as it arrived."""

    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    """Names in small letters; several lines of one name are one list (RFC 9110, section 5.3)."""
    peer: str
    arrived_at: str | None
    """Our own address on this connection."""
    encoding: Encoding
    """What the listener speaks."""
    is_websocket: bool
    twice: str | None = None
    """The name of a header that came twice and may come once only."""
    target: str = ""
    """The path with its percent-encoding."""
    is_plain: bool = True
    """The path came as it is written here, without percent-encoding."""

    @classmethod
    def of(cls, scope: WebScope, *, encoding: Encoding) -> Self:
        """Read what ASGI says of it."""
        headers: dict[str, str] = {}
        twice: str | None = None
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name not in headers:
                headers[name] = value
            elif name in _SINGLE:
                twice = name
            else:
                headers[name] += ("; " if name == "cookie" else ", ") + value
        client, server = scope["client"], scope["server"]
        return cls(
            method="GET" if scope["type"] == "websocket" else scope["method"],
            path=scope["path"],
            query=scope["query_string"],
            headers=headers,
            peer=f"{client[0]}:{client[1]}" if client else "",
            arrived_at=server[0] if server else None,
            encoding=encoding,
            is_websocket=scope["type"] == "websocket",
            twice=twice,
            target=scope["raw_path"].decode("latin-1"),
            is_plain=scope["raw_path"] == scope["path"].encode("latin-1", "replace"),
        )


arrived: ContextVar[HttpCall] = ContextVar("arrived")
"""The request that the present task answers."""


def start_message(status: int, headers: Iterable[tuple[bytes, bytes]]) -> ASGISendEvent:
    """Begin an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def body_message(body: bytes, *, more: bool = False) -> ASGISendEvent:
    """Go on with an answer, or end it."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def frames_message(frames: bytes) -> ASGISendEvent:
    """Send websocket frames as they are."""
    return cast("ASGISendEvent", {"type": FRAMES, "bytes": frames})


async def answer(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """Give a whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send(start_message(status, [*headers, length]))
    await send(body_message(body))


async def refuse(send: Send, problem: Problem, *, is_websocket: bool) -> None:
    """Answer with an error: a websocket upgrade too, which then does not take place."""
    if not is_websocket:
        await answer(send, problem.http_status, JSON_HEADERS, problem.body)
        return
    headers = [*JSON_HEADERS, (b"content-length", b"%d" % len(problem.body))]
    await send({"type": "websocket.http.response.start", "status": problem.http_status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.body, "more_body": False})
