"""An HTTP server over real sockets that a test starts and stops by itself, and whose connections it can count."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from tests.server.house import House, Inside, config, open_app

from impervious.rpc import Slots
from impervious.server.http.serving import LAST_WORDS_S, HttpServer

SEND = b"POST /v1/message/send?wait=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADE = (
    b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Door:
    """A server that a test starts and stops by itself."""

    def __init__(self, inside: Inside, server: HttpServer, stop: Callable[[], Awaitable[None]]) -> None:
        self.house: House = inside.house
        self.table = inside.doors.table
        self.server = server
        self.address = inside.http
        self.stop = stop

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)

    async def until_connected(self, number: int) -> None:
        while self.server.connections < number:  # noqa: ASYNC110
            await trio.sleep(0.001)


@asynccontextmanager
async def open_door(
    tmp_path: Path, *, grace_s: float = 0.05, max_connections: int = 100, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Door]:
    async with open_app(config(tmp_path)) as inside, trio.open_nursery() as nursery:
        server = HttpServer(
            inside.app, streams=inside.doors.streams, calls=inside.doors.calls, slots=Slots(max_connections, 0)
        )
        scope, stopped = trio.CancelScope(), trio.Event()

        async def serve(*, task_status: trio.TaskStatus[object]) -> None:  # noqa: ASYNC128 - the server tells it
            with scope:
                await server.serve(
                    inside.listeners.http, ssl_context=ssl_context, grace_s=grace_s, task_status=task_status
                )
            stopped.set()

        async def stop() -> None:
            scope.cancel()
            with trio.fail_after(grace_s + 2 * LAST_WORDS_S + 1):
                await stopped.wait()

        await nursery.start(serve)
        yield Door(inside, server, stop)
        nursery.cancel_scope.cancel()
