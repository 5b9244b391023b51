"""The HTTP door as a task: connections accepted, served, and ended in order.

It stops by cancellation: no new connections, streams told to end, requests that run given a grace period, then answered
that the daemon stops, then cut. However badly a peer behaves, that takes no longer than the grace period says.
"""

import logging
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Final, NoReturn

import trio
from hypercorn.typing import ASGIFramework

from impervious.log_limit import LimitedLog
from impervious.rpc import Slots
from impervious.server.closing import Closing
from impervious.server.http.connection import Connection

logger = logging.getLogger(__name__)
_limited = LimitedLog(logger)

LAST_WORDS_S: Final = 0.5
"""How long requests may take to give up, and sockets to be closed, once the grace period is over."""


class HttpServer:
    """Serves an ASGI application over HTTP/1.1.

    Args:
      app: the application.
      streams: begun when the server is to stop: streams end.
      calls: begun at the end of the grace period: requests that still run are answered.
      slots: for connections; without one, a new connection is closed at once.
    """

    def __init__(self, app: ASGIFramework, *, streams: Closing, calls: Closing, slots: Slots) -> None:
        self._app = app
        self._streams = streams
        self._calls = calls
        self._slots = slots
        self._open: dict[Connection, trio.CancelScope] = {}
        self._empty = trio.Event()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        ssl_context: ssl.SSLContext | None,
        grace_s: float,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Serve until cancelled.

        Args:
          listeners: where clients come from. *Ownership:* closed at the end.
          ssl_context: for TLS; None for plaintext.
          grace_s: how long requests may go on once this is cancelled, in seconds.
          task_status: told when clients are accepted.

        Cancellation: stops in order; takes `grace_s` and two times `LAST_WORDS_S` at most.
        """

        async def accept(stream: trio.SocketStream) -> None:
            await self._accept(stream, ssl_context)

        async with trio.open_nursery() as connections:
            try:
                listening = await connections.start(
                    partial(trio.serve_listeners, accept, list(listeners), handler_nursery=connections)
                )
                task_status.started(listening)
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):  # bounded in each of its steps
                    await self._stop(grace_s)
        raise AssertionError("served for ever")  # pragma: no cover

    async def _accept(self, stream: trio.SocketStream, ssl_context: ssl.SSLContext | None) -> None:
        connection = Connection(self._app, stream, ssl_context, self._streams)
        full = None if self._streams.begun else self._slots.take(connection, connection.host)
        if full is not None:
            _limited.warning("a connection was refused: %d are open already %s", full.open, full)
        if full is not None or self._streams.begun:
            await trio.aclose_forcefully(stream)
            return
        # Shielded from the cancellation that stops the server, so that requests can finish; _stop ends it.
        with trio.CancelScope(shield=True) as scope:
            self._open[connection] = scope
            try:
                await connection.run()
            finally:
                self._slots.give_back(connection)
                del self._open[connection]
                if not self._open:
                    self._empty.set()

    async def _stop(self, grace_s: float) -> None:
        self._streams.begin()  # connections without a request close by themselves
        if await self._all_gone(grace_s):
            return
        self._calls.begin()
        if await self._all_gone(LAST_WORDS_S):
            return
        logger.info("%d connections are cut", len(self._open))
        for connection, scope in self._open.items():
            connection.cut()
            scope.cancel()
        await self._all_gone(LAST_WORDS_S)

    async def _all_gone(self, within_s: float) -> bool:
        with trio.move_on_after(within_s):
            while self._open:
                self._empty = trio.Event()
                await self._empty.wait()
        return not self._open
