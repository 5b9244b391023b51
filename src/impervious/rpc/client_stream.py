"""One call as the caller's code sees it, in the shape of grpclib.client.Stream."""

from types import TracebackType
from typing import Generic, Self

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError

from impervious.wire.grpc.client import CANCELLED, ClientCall
from impervious.wire.grpc.headers import Header, Metadata

from .message import Request, Response, parse
from .raw_stream import CallStarter, RawStream


class Stream(RawStream, Generic[Request, Response]):
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
        """The block was left without an error: see a unary response through; what is left of a stream is not wanted.

        A status that nobody waited for is no error: who has seen the last update of a payment must not learn on leaving
        that the connection was lost a moment later.
        """
        if self._cardinality.server_streaming:
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
