"""One call as the caller's code sees it, in the shape of grpclib.client.Stream.

Generated stubs yield inside `async with channel.request(…)`, so no nursery and no cancel scope is held between two
methods; a deadline is enforced at each wait instead. Leaving the block early cancels the call with a RST_STREAM that
needs no checkpoint, so it also goes out when the block is left by cancellation.
"""

import math
from types import TracebackType
from typing import Generic, Protocol, Self

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError

from impervious.wire.grpc.client import CANCELLED, ClientCall, ClientConnection
from impervious.wire.grpc.framing import frame_message
from impervious.wire.grpc.headers import Header, Metadata
from impervious.wire.grpc.status import Outcome

from .link import YIELD_EVERY, Wakeup
from .message import Message, Request, Response, parse


class CallHost(Protocol):
    """What a call needs of the connection that it is on."""

    @property
    def connection(self) -> ClientConnection:
        """The connection's state."""
        ...

    def start(self, stream: "BaseStream", headers: list[Header], *, end: bool) -> ClientCall:
        """Open a call that wakes `stream`. The stream holds a slot."""
        ...

    def flush(self) -> None:
        """Have what is queued sent."""
        ...

    def cancel(self, call: ClientCall) -> None:
        """Be done with a call, whatever its state; frees its slot."""
        ...

    def give_up_slot(self, stream: "BaseStream") -> None:
        """Free a slot for which no call was opened."""
        ...


class CallStarter(Protocol):
    """Where calls come from: the channel."""

    async def take_slot(self, stream: "BaseStream") -> CallHost:
        """A connection that is up, with a slot for one call of `stream` on it."""
        ...

    def request_headers(self, route: str, timeout_s: float, metadata: list[Header]) -> list[Header]:
        """The header list of a request; `timeout_s` may be infinite."""
        ...


class BaseStream:
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


class Stream(BaseStream, Generic[Request, Response]):
    """A call of any cardinality, to be used as an async context manager.

    One task may send while another receives; two tasks doing the same get trio.BusyResourceError.

    Cancellation:
      Every method may be cancelled and leaves the connection usable. A message whose sending is cancelled half-way
      takes its call with it.
    """

    def __init__(
        self,
        starter: CallStarter,
        route: str,
        cardinality: Cardinality,
        response_type: type[Response],
        metadata: list[Header],
        expires: float,
    ) -> None:
        super().__init__(starter, route, metadata, expires)
        self._cardinality = cardinality
        self._response_type = response_type
        self._received = 0

    @property
    def initial_metadata(self) -> Metadata | None:
        """What came before the first message; None until it came.

        Raises:
          ValueError: binary metadata that is not base64.
        """
        return self._call.initial_metadata() if self._call is not None and self._call.answered else None

    @property
    def trailing_metadata(self) -> Metadata | None:
        """What came with the status; None until it came.

        Raises:
          ValueError: binary metadata that is not base64.
        """
        return self._call.trailing_metadata() if self._call is not None and self._call.outcome is not None else None

    async def send_request(self, *, end: bool = False) -> None:
        """Send the headers without a message.

        Raises:
          ProtocolError: they have been sent, or this kind of call cannot go without a message.
          GRPCError: no connection (UNAVAILABLE) or no time (DEADLINE_EXCEEDED).
        """
        if end and not self._cardinality.client_streaming:
            raise ProtocolError(f"{self.route}: a unary request needs its message before it can end")
        await self._begin(end=end)

    async def send_message(self, message: Request, *, end: bool = False) -> None:
        """Send a message, and the headers first if need be. A unary request ends with its message.

        Raises:
          ProtocolError: the request has ended.
          GRPCError: the call failed, for instance because the server has refused it already.
        """
        await self._send(message, end=end or not self._cardinality.client_streaming)

    async def end(self) -> None:
        """Say that there are no more messages to come."""
        call = self._started()
        host = self._open_host()
        host.connection.end(call)
        host.flush()
        await trio.lowlevel.checkpoint()

    async def recv_initial_metadata(self) -> None:
        """Wait for `initial_metadata`.

        Raises:
          GRPCError: the call failed before anything else came.
        """
        call = self._started()
        await trio.lowlevel.checkpoint_if_cancelled()
        while not call.answered:
            await self._pause(self.readable)
        if call.outcome is not None and not call.inbox.unread_bytes:
            self._raise_unless_ok(call.outcome)

    async def recv_message(self) -> Response | None:
        """The next message, or None after the last.

        Raises:
          GRPCError: the call failed. Messages that came before the failure are returned first.
        """
        data = await self._receive()
        if data is not None:
            self._received += 1
            return parse(self._response_type, data)
        if not self._cardinality.server_streaming and self._received != 1:
            raise GRPCError(Status.UNIMPLEMENTED, f"{self.route}: the server ended a unary call with OK and no message")
        return None

    async def recv_trailing_metadata(self) -> None:
        """Wait for `trailing_metadata`.

        Raises:
          GRPCError: the call failed.
        """
        self._raise_unless_ok(await self._wait_outcome())

    async def cancel(self) -> None:
        """Tell the server to stop. What was received already can still not be read afterwards."""
        self.abort()
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._call is None:
            return
        try:
            if exc is None and not self._told and self._call.outcome is not CANCELLED:
                await self._leave(self._call)  # noqa: ASYNC102 - no cleanup, but what an undisturbed call ends with
        finally:
            self.abort()

    async def _leave(self, call: ClientCall) -> None:
        """The block was left without an error: see the call through, or cancel what is left of a stream."""
        if self._cardinality.server_streaming:
            if call.outcome is not None and not call.inbox.unread_bytes:
                self._raise_unless_ok(call.outcome)
            return
        if call.outcome is None and not call.local_ended:
            raise ProtocolError(f"{self.route}: end the request before leaving its block, or cancel it")
        while await self._receive() is not None:
            pass  # what the caller did not want to read still precedes the status


class ResponseStream(Stream[Request, Response]):
    """A call with one request and many responses; entering the block sends the request."""

    def __init__(
        self,
        starter: CallStarter,
        route: str,
        request: Request,
        response_type: type[Response],
        metadata: list[Header],
        expires: float,
    ) -> None:
        super().__init__(starter, route, Cardinality.UNARY_STREAM, response_type, metadata, expires)
        self._request = request

    async def __aenter__(self) -> Self:
        try:
            await self.send_message(self._request)
        except BaseException:
            self.abort()
            raise
        return self
