"""One call of a client in bytes: a request out, messages in, deadlines, the end.

Generated stubs yield inside `async with channel.request(…)`, so no nursery and no cancel scope is held between two
methods; a deadline is enforced at each wait instead. Giving a call up sends a RST_STREAM without a checkpoint, so it
also goes out when the reason is a cancellation.
"""

import math
from typing import Protocol

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError

from impervious.wire.grpc.client import ClientCall, ClientConnection
from impervious.wire.grpc.framing import frame_message
from impervious.wire.grpc.headers import Header
from impervious.wire.grpc.status import Outcome

from .link import YIELD_EVERY, Wakeup
from .message import Message


class CallHost(Protocol):
    """What a call needs of the connection that it is on."""

    @property
    def connection(self) -> ClientConnection:
        """The connection's state."""
        ...

    def start(self, stream: "RawStream", headers: list[Header], *, end: bool) -> ClientCall:
        """Open a call that wakes `stream`. The stream holds a slot."""
        ...

    def flush(self) -> None:
        """Have what is queued sent."""
        ...

    def cancel(self, call: ClientCall) -> None:
        """Be done with a call, whatever its state; frees its slot."""
        ...

    def give_up_slot(self, stream: "RawStream") -> None:
        """Free a slot for which no call was opened."""
        ...


class CallStarter(Protocol):
    """Where calls come from: the channel."""

    async def take_slot(self, stream: "RawStream") -> CallHost:
        """A connection that is up, with a slot for one call of `stream` on it."""
        ...

    def request_headers(self, route: str, timeout_s: float, metadata: list[Header]) -> list[Header]:
        """The header list of a request; `timeout_s` may be infinite."""
        ...


class RawStream:
    """One call: bytes of messages out and in, deadlines, the end.

    Args:
      starter: the channel.
      route: path of the method, such as "/lnrpc.Lightning/GetInfo".
      metadata: encoded already.
      expires: Trio time at which the call is given up; math.inf for never.
    """

    def __init__(self, starter: CallStarter, route: str, metadata: list[Header], expires: float) -> None:
        self.route = route
        self.readable = Wakeup()
        self.writable = Wakeup()
        self._starter = starter
        self._metadata = metadata
        self._expires = expires
        self._host: CallHost | None = None
        self._call: ClientCall | None = None
        self._passed = 0
        self._told = False
        self._sending = False

    def wake(self) -> None:
        """Something changed about the call."""
        self.readable.wake()
        self.writable.wake()

    async def _begin(self, *, end: bool) -> ClientCall:
        if self._call is not None:
            raise ProtocolError(f"{self.route}: the request has been sent already")
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._expires == math.inf:
            host = await self._starter.take_slot(self)
        else:
            with trio.CancelScope(deadline=self._expires) as scope:
                host = await self._starter.take_slot(self)
            if scope.cancelled_caught:
                raise self._too_late()
        try:
            # Cancelled while it waited for a connection: then there is no call to be made any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            now = trio.current_time()
            if self._expires <= now:
                raise self._too_late()
            timeout_s = min(trio.current_effective_deadline(), self._expires) - now
            headers = self._starter.request_headers(self.route, timeout_s, self._metadata)
            call = host.start(self, headers, end=end)
        except BaseException:
            host.give_up_slot(self)
            raise
        self._host, self._call = host, call
        host.flush()
        return call

    async def _send(self, message: Message, *, end: bool) -> None:
        frame: bytes | memoryview = frame_message(message.SerializeToString())
        if self._sending:
            raise trio.BusyResourceError(f"{self.route}: another task is sending on this call")
        self._sending = True
        try:
            call = self._call or await self._begin(end=False)
            await trio.lowlevel.checkpoint_if_cancelled()
            if call.local_ended:
                raise ProtocolError(f"{self.route}: the request has been ended already")
            host = self._open_host()
            while call.outcome is None:
                sent = host.connection.send(call, frame, end=end)
                host.flush()
                if sent == len(frame):
                    break
                frame = memoryview(frame)[sent:]
                await self._pause(self.writable)
            else:
                # The server has answered already. OK means that it needs no more; anything else is told at once.
                self._raise_unless_ok(call.outcome)
        except BaseException:
            if self._call is not None and self._call.mid_message:
                self.abort()  # half a message is out: nothing sensible can follow it
            raise
        finally:
            self._sending = False
        if not end:
            await self._passed_one()

    async def _receive(self) -> bytes | None:
        call = self._started()
        connection = self._open_host().connection
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                data = connection.read(call)
            except GRPCError:
                self.abort()
                raise
            if data is not None:
                if not waited:
                    await self._passed_one()
                return data
            if call.outcome is not None:
                self._raise_unless_ok(call.outcome)
                if call.inbox.torn:
                    raise GRPCError(Status.INTERNAL, f"{self.route}: the server ended the call within a message")
                return None
            self._flush_credit()
            await self._pause(self.readable)
            waited = True

    def _flush_credit(self) -> None:
        host = self._open_host()
        if host.connection.backlog_bytes:
            host.flush()

    def _raise_unless_ok(self, outcome: Outcome) -> None:
        self._told = True
        if outcome.status is not Status.OK:
            raise outcome.error()

    async def exchange(self, request: Message) -> bytes:
        """The whole of a unary call: the only response to the only request."""
        await self._send(request, end=True)
        response = await self._receive()
        if response is None or await self._receive() is not None:
            count = "no message" if response is None else "more than one message"
            raise GRPCError(Status.UNIMPLEMENTED, f"{self.route}: the server answered a unary call with {count}")
        return response

    async def _wait_outcome(self) -> Outcome:
        call = self._started()
        await trio.lowlevel.checkpoint_if_cancelled()
        while call.outcome is None:
            await self._pause(self.readable)
        return call.outcome

    async def _pause(self, wakeup: Wakeup) -> None:
        """Wait for a wake-up, no longer than the call may take."""
        if self._expires == math.inf:
            await wakeup.wait()
            return
        with trio.CancelScope(deadline=self._expires) as scope:
            await wakeup.wait()
        if scope.cancelled_caught:
            self.abort()
            raise self._too_late()

    async def _passed_one(self) -> None:
        self._passed += 1
        if self._passed % YIELD_EVERY == 0:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _too_late(self) -> GRPCError:
        return GRPCError(Status.DEADLINE_EXCEEDED, f"{self.route}: no answer within the time given")

    def _started(self) -> ClientCall:
        if self._call is None:
            raise ProtocolError(f"{self.route}: send the request first")
        return self._call

    def _open_host(self) -> CallHost:
        assert self._host is not None  # it comes with the call
        return self._host

    def abort(self) -> None:
        """Be done with the call: RST_STREAM if it is open. Never blocks, may be repeated."""
        if self._host is not None and self._call is not None:
            self._host.cancel(self._call)
