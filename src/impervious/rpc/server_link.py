"""A server's connection to one client: a task for each call, and an eye on what the client does to us.

Nothing that a client sends, and nothing that a handler raises, gets further than this module. A call that the client
takes back, or whose time is up, is a cancelled scope around its handler.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import trio
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline

from impervious.log_limit import LimitedLog
from impervious.wire.grpc.framing import Budget
from impervious.wire.grpc.headers import Metadata
from impervious.wire.grpc.http2 import PeerFlood
from impervious.wire.grpc.server import ServerCall, ServerConnection
from impervious.wire.grpc.status import OK, Outcome

from .limits import ServerLimits
from .link import CLEANUP_S, TRANSPORT_ERRORS, Link, PeerSilent, Wakeup, cause
from .message import Decode, Message, plainly
from .server_stream import Peer, ServerStream, details_bytes

logger = logging.getLogger(__name__)
_limited = LimitedLog(logger)

_FAILED: Final = Outcome(Status.UNKNOWN, "Internal Server Error")
"""What a client learns of an exception in a handler. The rest is in our log."""
_TOO_LATE: Final = Outcome(Status.DEADLINE_EXCEEDED, "the deadline passed before the answer was ready")
_CLIENT_FAULTS: Final = frozenset(
    {
        Status.INVALID_ARGUMENT,
        Status.NOT_FOUND,
        Status.ALREADY_EXISTS,
        Status.PERMISSION_DENIED,
        Status.RESOURCE_EXHAUSTED,
        Status.OUT_OF_RANGE,
        Status.UNIMPLEMENTED,
        Status.UNAUTHENTICATED,
    }
)
"""What a client can avoid. The others, such as UNAVAILABLE or a payment without a route, are nobody's fault."""
_SHORTEST_S: Final = 0.01
"""A deadline below this cannot be met: a call that misses it failed by the client's fault."""
_STOPPING: Final = Outcome(Status.UNAVAILABLE, "the server is stopping")


@dataclass(frozen=True, slots=True)
class CallInfo:
    """A call before its handler sees it."""

    path: str
    """Such as "/grpc.health.v1.Health/Check"."""
    metadata: Metadata
    peer: Peer
    deadline: Deadline | None
    user_agent: str | None


OnCall = Callable[[CallInfo], Awaitable[None] | None]


class _Allowance:
    """So many at once, growing back with time."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = trio.current_time()

    def take(self, count: int) -> bool:
        """Use some up; False if there were not enough left."""
        now = trio.current_time()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - count
        self._at = now
        return self._left >= 0


class ServerLink:
    """One connection of a server.

    Args:
      stream: the connected transport, TLS done. *Ownership:* the link closes it.
      mapping: path -> handler.
      limits: the server's.
      budget: shared by all connections of the server.
      on_call: see `Server`.
      peer: who connected.
      decode: see `Server`.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        mapping: Mapping[str, Handler],
        limits: ServerLimits,
        budget: Budget,
        on_call: OnCall | None,
        peer: Peer,
        decode: Decode = plainly,
    ) -> None:
        self.connection = ServerConnection(
            limits.tuning(),
            budget,
            max_calls=limits.calls,
            control_burst=limits.control_frames,
            control_per_s=limits.control_frames_per_s,
        )
        self.finished = trio.Event()
        self._link: Link[ServerCall] = Link(stream, self.connection, self._wake)
        self._mapping = mapping
        self._limits = limits
        self._on_call = on_call
        self._peer = peer
        self._decode = decode
        self._streams: dict[ServerCall, ServerStream[Message, Message]] = {}
        self._resets = _Allowance(limits.resets, limits.resets_per_s)
        self._early_ends = 0
        self._failures = _Allowance(limits.failures, limits.failures_per_s)
        self._fresh_failures = 0
        """Not taken from the allowance yet."""
        self._idle_since = trio.current_time()
        self._departing = False
        self._leaving = False
        self._nursery: trio.Nursery
        """Open while `run` runs."""

    @property
    def calls_open(self) -> int:
        """How many handlers run."""
        return len(self._streams)

    @property
    def waiting_since(self) -> float | None:
        """Since when it has been waiting for its client: for a call, or for the messages of all that are open."""
        if not self._streams:
            return self._idle_since
        since = [stream.waiting_since for stream in self._streams.values()]
        return None if None in since else min(each for each in since if each is not None)

    # --- Running ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the client until it leaves, breaks the protocol or falls silent."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._expire)
                try:
                    await self._link.read(self._after_read)
                except PeerFlood:
                    self._wake(self.connection.lose())  # no answer may follow the GOAWAY
                    self._link.flush()
                    with trio.move_on_after(CLEANUP_S):
                        await self._link.flushed()  # noqa: ASYNC120 - the GOAWAY, behind what is being written
                    raise
                finally:
                    # Before the handlers notice: what they still try to send must go nowhere.
                    self._wake(self.connection.lose())
                    self._leaving = True  # whatever stops the server now: the nursery takes nobody any more
                nursery.cancel_scope.cancel()
        except* PeerFlood as group:
            address = self._peer.address[0] if self._peer.address else "a client"
            why = cause(group)
            _limited.warning("%s: disconnected: %s", address, why, kind=why)
        except* TRANSPORT_ERRORS as group:
            logger.debug("%s: connection ended: %s", self._peer.address, cause(group))
        except* Exception:
            # The outermost boundary of a connection: a bug that one client can reach must not take the others down.
            logger.exception("%s: connection failed", self._peer.address)
        finally:
            with trio.move_on_after(CLEANUP_S, shield=True):
                await self._link.close()
            self.finished.set()

    def drain(self) -> None:
        """Ask the client to leave; ends once its calls are done."""
        self.connection.drain()
        self._link.flush()

    def cancel_calls(self) -> None:
        """Answer all calls that are still open with UNAVAILABLE, then end the connection."""
        self._departing = True
        for stream in self._streams.values():
            stream.scope.cancel()
        self._leave_if_done()

    async def _write(self) -> None:
        await self._link.write(stall_s=self._limits.slow_reader_s)

    async def _watch(self) -> None:
        limits = self._limits
        await self._link.watch(
            silence_s=limits.keepalive_s,
            answer_s=limits.keepalive_answer_s,
            only_with_calls=False,
            first_call=Wakeup(),
        )

    async def _expire(self) -> None:
        """End a connection that never begins, and one that is not used."""
        limits = self._limits
        await trio.sleep(limits.handshake_s)
        if not self.connection.settled:
            raise PeerSilent(f"no HTTP/2 within {limits.handshake_s:g} s")
        while self._streams or trio.current_time() < self._idle_since + limits.idle_s:
            since = trio.current_time() if self._streams else self._idle_since
            await trio.sleep_until(since + limits.idle_s)
        self.drain()
        await trio.sleep(limits.handshake_s)
        if not self._streams:
            raise PeerSilent("idle, and did not react to GOAWAY")
        # Calls that were under way when the GOAWAY went out: the end of the last one ends the connection.
        self._departing = True

    def _leave_if_done(self) -> None:
        if self._streams or self._leaving:
            return
        if self._departing or self.connection.done:
            self._leaving = True
            self._nursery.start_soon(self._leave, self._nursery.cancel_scope)

    async def _leave(self, scope: trio.CancelScope) -> None:
        await self._link.flushed()
        scope.cancel()

    # --- Calls --------------------------------------------------------------------------------------------------------

    def _wake(self, changed: Iterable[ServerCall]) -> None:
        for call in changed:
            stream = self._streams.get(call)
            if stream is not None:
                stream.wake()
                if call.abandoned:
                    stream.scope.cancel()

    def _after_read(self) -> None:
        connection = self.connection
        for call in connection.take_opened():
            self._start(call)
        if connection.early_ends > self._early_ends:
            fresh, self._early_ends = connection.early_ends - self._early_ends, connection.early_ends
            if not self._resets.take(fresh):
                connection.expel("too many calls taken back")
                raise PeerFlood("too many calls taken back (rapid reset)")
        failed = self._fresh_failures + connection.take_refused()
        self._fresh_failures = 0
        if failed and not self._failures.take(failed):
            connection.expel("too many calls that fail")
            raise PeerFlood("too many calls that fail")
        self._leave_if_done()

    def _start(self, call: ServerCall) -> None:
        if call.abandoned:
            return  # opened and taken back within one read
        handler = self._mapping.get(call.path)
        if handler is None:
            self._fresh_failures += 1
            self.connection.finish(call, Outcome(Status.UNIMPLEMENTED, f"no such method: {call.path[:200]}"))
        elif len(self._streams) >= self._limits.calls:
            self.connection.refuse(call)
        else:
            stream: ServerStream[Message, Message] = ServerStream(
                call, self._link, self.connection, handler, self._peer, self._decode, self._limits.request_s
            )
            self._streams[call] = stream
            self._nursery.start_soon(self._serve, stream, handler, name=call.path)

    async def _serve(self, stream: ServerStream[Message, Message], handler: Handler) -> None:
        outcome = _STOPPING  # unless something else is known by the end
        try:
            with stream.scope:
                outcome = await self._answer(stream, handler)
            if stream.scope.cancelled_caught:
                outcome = _STOPPING if trio.current_time() < stream.scope.deadline else _TOO_LATE
        except Exception:
            # From a nursery of the handler that was cancelled and failed at once.
            logger.exception("%s: the handler failed", stream.path)
            outcome = _FAILED
        finally:
            del self._streams[stream.call]
            self._fresh_failures += self._by_client(stream.call, outcome)
            self._idle_since = trio.current_time()
            self.connection.finish(stream.call, outcome)
            self._link.flush()
            self._leave_if_done()

    def _by_client(self, call: ServerCall, outcome: Outcome) -> bool:
        """Whether a call failed by the client's fault."""
        if outcome is _TOO_LATE:
            return call.timeout_s is not None and call.timeout_s < _SHORTEST_S
        return outcome.status in _CLIENT_FAULTS

    async def _answer(self, stream: ServerStream[Message, Message], handler: Handler) -> Outcome:
        try:
            if self._on_call is not None:
                info = CallInfo(stream.path, stream.metadata, stream.peer, stream.deadline, stream.user_agent)
                verdict = self._on_call(info)
                if inspect.isawaitable(verdict):
                    await verdict
            await handler.func(stream)
        except GRPCError as error:
            return Outcome(error.status, error.message, details_bytes(error.details))
        except Exception:
            logger.exception("%s: the handler failed", stream.path)
            return _FAILED
        if not stream.answered and not stream.call.finished:
            logger.error("%s: the handler ended without the message that a unary answer needs", stream.path)
            return _FAILED
        return OK
