"""A client of ASGI applications, in the same task group: no socket, so that the clock may be virtual."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, TextMessage

HTTP = ("127.0.0.1", 8882)
TEXT = ("127.0.0.1", 8883)
Event = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Line:
    """An open request: what the application sends, as it comes."""

    def __init__(self) -> None:
        # As many as a test sends; the application must never wait for the test.
        self._to_app, self.app_receive = trio.open_memory_channel[Event](1000)
        self._from_app, self.sent = trio.open_memory_channel[Event](100_000)
        self._websocket = Connection(ConnectionType.CLIENT)
        self._frames: list[object] = []
        self.over = trio.Event()

    async def send_to_app(self, event: Event) -> None:
        await self._to_app.send(event)

    async def app_send(self, event: Event) -> None:
        await self._from_app.send(event)

    async def next(self) -> Event:
        with trio.fail_after(1000):
            return await self.sent.receive()

    async def expect(self, kind: str) -> Event:
        event = await self.next()
        assert event["type"] == kind, event
        return event

    async def body(self) -> bytes:
        """The next piece of a response's body."""
        return bytes((await self.expect("http.response.body"))["body"])

    async def frame(self) -> Any:
        """The next websocket frame: the JSON of a text frame, or "ping"."""
        while not self._frames:
            event = await self.expect("impervious.websocket.frames")
            self._websocket.receive_data(event["bytes"])
            self._frames.extend(self._websocket.events())
        frame = self._frames.pop(0)
        if isinstance(frame, Ping):
            return "ping"
        assert isinstance(frame, TextMessage)
        assert frame.message_finished
        return json.loads(frame.data)


def scope_of(
    method: str, url: str, headers: Mapping[str, str], server: tuple[str, int], *, websocket: bool = False
) -> Event:
    parts = urlsplit(url)
    found = {"host": f"{server[0]}:{server[1]}", **headers}
    return {
        "type": "websocket" if websocket else "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": method,
        "scheme": "ws" if websocket else "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in found.items() if value is not None],
        "client": ("127.0.0.1", 50_000),
        "server": server,
        "extensions": {},
        "subprotocols": [],
        "state": {},
    }


@asynccontextmanager
async def opened(
    app: Any,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    server: tuple[str, int] = HTTP,
    websocket: bool = False,
    body: bytes = b"",
    more_body: bool = False,
    line: Line | None = None,
) -> AsyncIterator[Line]:
    """A request that stays open; leaving the block disconnects."""
    line = line or Line()
    scope = scope_of(method, url, headers or {}, server, websocket=websocket)

    async def run() -> None:
        await app(scope, line.app_receive.receive, line.app_send)
        line.over.set()

    if websocket:
        await line.send_to_app({"type": "websocket.connect"})
    else:
        await line.send_to_app({"type": "http.request", "body": body, "more_body": more_body})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield line
        await line.send_to_app(
            {"type": "websocket.disconnect", "code": 1006} if websocket else {"type": "http.disconnect"}
        )
        with trio.fail_after(60):
            await line.over.wait()


async def request(
    app: Any,
    method: str,
    url: str,
    *,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    server: tuple[str, int] = HTTP,
) -> Reply:
    """One request and its whole answer."""
    raw = body.encode() if isinstance(body, str) else body
    async with opened(app, url, method=method, headers=headers, server=server, body=raw) as line:
        start = await line.expect("http.response.start")
        parts = []
        while True:
            event = await line.expect("http.response.body")
            parts.append(event["body"])
            if not event["more_body"]:
                break
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], answered, b"".join(parts))
