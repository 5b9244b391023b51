"""A simulated LND's port: it listens while the node's process runs, and its connections break when told to."""

import socket
import struct
import weakref
from typing import Final, NoReturn

import trio

from impervious.rpc import CallInfo, Server, ServerLimits, server_context
from impervious.sim.engine.answers import NOT_YET, LndError, from_hex
from impervious.sim.face.answering import Gate, answering
from impervious.sim.face.caveats import Caller
from impervious.sim.face.credentials import Credentials
from impervious.sim.face.invoices import Invoices
from impervious.sim.face.lightning import Lightning
from impervious.sim.face.network import Network
from impervious.sim.face.permissions import OPEN, REQUIRED
from impervious.sim.face.router import Router
from impervious.sim.face.state import State
from impervious.sim.face.versioner import Versioner
from impervious.sim.lnd import SimLnd

GRACE_S: Final = 1.0
"""For answers that are under way when the node is shut down; its streams end by themselves."""

LIMITS: Final = ServerLimits(message_bytes=200 << 20, unfinished_bytes=256 << 20, calls=100_000)
"""LND receives up to 200 MiB and knows no limit of streams."""

_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends a reset."""


class LndFace:
    """The gRPC server of one simulated LND.

    Args:
      lnd: the node.
      credentials: its certificate and the root key of its macaroons.
    """

    def __init__(self, lnd: SimLnd, credentials: Credentials) -> None:
        self._lnd = lnd
        self._rpcs = lnd.rpcs
        self._gate = Gate(credentials)
        self._context = server_context(credentials.certificate, credentials.key)
        self._checked: set[tuple[bytes, str]] = set()

    async def serve(  # noqa: ASYNC128 - started as soon as the port is known
        self, host: str = "127.0.0.1", port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Serve for as long as this runs, and as the node's process does. Started with the port.

        Args:
          host: to listen on.
          port: 0 for a free one, which is then kept.
          task_status: told the port.

        Raises:
          OSError: the port cannot be bound.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        port = listeners[0].socket.getsockname()[1]
        task_status.started(port)
        while True:
            if self._rpcs.up:
                await self._serve_until_down([_Listener(listener) for listener in listeners])
            else:
                for listener in listeners:
                    await listener.aclose()
            while not self._rpcs.up:
                await self._rpcs.wait_changed()
            listeners = await trio.open_tcp_listeners(port, host=host)

    async def _serve_until_down(self, listeners: list["_Listener"]) -> None:
        """Serve one life of the node's process."""
        services = (
            Lightning(self._lnd, self._gate),
            Network(self._lnd, self._gate),
            Router(self._rpcs),
            State(self._rpcs),
            Invoices(self._rpcs),
            Versioner(self._rpcs),
        )
        server = Server(services, limits=LIMITS, on_call=self._admit)
        life = self._rpcs.life

        def tear() -> None:
            for listener in listeners:
                listener.tear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run, server, listeners)
            with self._rpcs.breaking(tear):
                while self._rpcs.up and self._rpcs.life == life:
                    await self._rpcs.wait_changed()
            nursery.cancel_scope.cancel()

    async def _run(self, server: Server, listeners: list["_Listener"]) -> None:
        await server.serve_listeners(listeners, ssl_context=self._context, grace_s=GRACE_S)

    def _admit(self, call: CallInfo) -> None:
        """LND's interceptors: first the wallet's state, then the macaroon."""
        if call.path in OPEN:
            return
        with answering():
            if self._rpcs.state in NOT_YET:
                raise LndError(NOT_YET[self._rpcs.state])
            presented = call.metadata.getall("macaroon", [])
            if len(presented) != 1:
                raise LndError(f"expected 1 macaroon, got {len(presented)}")
            host = call.peer.addr()
            caller = Caller(host="" if host is None else host[0], now_s=self._rpcs.now_exactly_s)
            self._check(str(presented[0]), call.path, caller)

    def _check(self, text: str, path: str, caller: Caller) -> None:
        data = from_hex(text)
        if (data, path) not in self._checked and self._gate.check(data, [REQUIRED[path]], path, caller):
            self._checked.add((data, path))  # without caveats: a caller may make up as many of those as it likes


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """A listener that can break every connection it has accepted."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._accepted: weakref.WeakSet[trio.SocketStream] = weakref.WeakSet()

    async def accept(self) -> trio.SocketStream:
        stream = await self._listener.accept()
        self._accepted.add(stream)
        return stream

    def tear(self) -> None:
        """Reset every connection that is open, as when a machine dies."""
        for stream in self._accepted:
            if stream.socket.fileno() >= 0:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                stream.socket.close()

    async def aclose(self) -> None:
        await self._listener.aclose()
