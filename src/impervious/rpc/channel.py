"""A client channel: calls go in, one connection at a time carries them.

The channel connects when the first call needs it, and again at the next call after the connection is gone; every call
makes at most one attempt, shared with all calls that wait at that moment, and no failed call is ever repeated here.
Calls beyond the server's stream limit wait their turn, first come first served. A connection that the server drains
(GOAWAY) finishes the calls it has while new ones go to a new connection.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from hpack import NeverIndexedHeaderTuple

from impervious.background import Tasks
from impervious.wire.grpc.headers import Header, MetadataLike, encode_metadata, encode_timeout

from .client_link import ClientLink, ConnectFailed
from .client_stream import ResponseStream, Stream
from .limits import ChannelLimits
from .link import TRANSPORT_ERRORS, cause
from .message import Message, Request, Response, parse
from .raw_stream import CallHost, RawStream

_USER_AGENT: Final = b"impervious-grpc"
_CONNECT_ERRORS: Final = (*TRANSPORT_ERRORS, ConnectFailed, UnicodeError)
"""What can go wrong before the first call; UnicodeError is for a host that can be no DNS name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """A channel at one moment."""

    connected: bool
    """There is a connection that takes calls."""
    connections_made: int
    """How many connections there have been."""
    calls_open: int
    """Calls on the current connection."""
    calls_waiting: int
    """Calls that wait for their turn under the server's stream limit."""


class ChannelClosed(GRPCError, trio.ClosedResourceError):
    """A call on a channel whose block has ended; UNAVAILABLE to who knows only gRPC's errors."""

    def __init__(self, authority: str) -> None:
        super().__init__(Status.UNAVAILABLE, f"the channel to {authority} is closed")


class _Attempt:
    """One attempt to connect, shared by all calls that wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: str | None = None


Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""Makes a connected transport, or raises OSError, trio.BrokenResourceError or ssl.SSLError."""


class Channel:
    """Calls to one server. Made by `open_channel`."""

    def __init__(
        self,
        tasks: Tasks,
        dial: Dial,
        *,
        authority: str,
        scheme: str,
        metadata: list[Header],
        limits: ChannelLimits,
    ) -> None:
        self.limits = limits
        self._tasks = tasks
        self._dial = dial
        self._authority = authority
        self._scheme = scheme
        self._metadata = metadata
        self._link: ClientLink | None = None
        self._attempt: _Attempt | None = None
        self._connections_made = 0
        self._closed = False
        self._prefixes: dict[str, list[Header]] = {}

    # --- Calls --------------------------------------------------------------------------------------------------------

    def request(
        self,
        route: str,
        cardinality: Cardinality,
        request_type: type[Request],
        response_type: type[Response],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: MetadataLike | None = None,
    ) -> Stream[Request, Response]:
        """A call, not yet begun. What generated stubs use; see grpclib.client.Channel.request.

        Args:
          route: path of the method, such as "/lnrpc.Lightning/GetInfo".
          cardinality: who may send more than one message.
          request_type: class of the requests.
          response_type: class of the responses.
          timeout: seconds from now after which the call fails with DEADLINE_EXCEEDED. Prefer `trio.fail_after`.
          deadline: the same as a point in time; the earlier one counts.
          metadata: added to the channel's.

        betterproto2's stubs work on it, but for methods where both sides stream: those start an asyncio task. Its stubs
        for streamed responses leave a generator to the garbage collector when they are left early; `unary_stream`
        does not.

        Raises:
          ValueError: metadata that gRPC does not allow.
        """
        expires = math.inf if timeout is None else trio.current_time() + timeout
        if deadline is not None:
            expires = min(expires, trio.current_time() + deadline.time_remaining())
        return Stream(self, route, cardinality, response_type, self._call_metadata(metadata), expires)

    async def unary_unary(
        self, route: str, request: Message, response_type: type[Response], *, metadata: MetadataLike | None = None
    ) -> Response:
        """Send a request and return its response.

        Args:
          route: path of the method.
          request: the message to send.
          response_type: class of the response.
          metadata: added to the channel's.

        Raises:
          GRPCError: the call failed; UNAVAILABLE if there is no connection, with host, port and cause.
          ChannelClosed: the channel was closed before the call; a `trio.ClosedResourceError`, too.

        Cancellation:
          Tells the server to stop. Whether it had acted already is unknown.
        """
        stream = RawStream(self, route, self._call_metadata(metadata), math.inf)
        try:
            data = await stream.exchange(request)
        except BaseException:
            stream.abort()
            raise
        return parse(response_type, data)

    def unary_stream(
        self, route: str, request: Request, response_type: type[Response], *, metadata: MetadataLike | None = None
    ) -> AbstractAsyncContextManager[ResponseStream[Request, Response]]:
        """A call with one request and many responses.

        Use: `async with channel.unary_stream(…) as responses: async for response in responses: …`. Leaving the block
        cancels what is left of the stream.

        Args:
          route: path of the method.
          request: sent when the block is entered.
          response_type: class of the responses.
          metadata: added to the channel's.
        """
        return ResponseStream(self, route, request, response_type, self._call_metadata(metadata), math.inf)

    def statistics(self) -> ChannelStatistics:
        """The channel's present state."""
        link = self._link
        return ChannelStatistics(
            connected=link is not None and link.connection.accepts_calls(),
            connections_made=self._connections_made,
            calls_open=0 if link is None else len(link.connection.calls),
            calls_waiting=0 if link is None else link.slots.statistics().tasks_waiting,
        )

    # --- For the streams ----------------------------------------------------------------------------------------------

    def _call_metadata(self, metadata: MetadataLike | None) -> list[Header]:
        return [*self._metadata, *encode_metadata(metadata)] if metadata else self._metadata

    def request_headers(self, route: str, timeout_s: float, metadata: list[Header]) -> list[Header]:
        """The header list of a request; `timeout_s` may be infinite."""
        prefix = self._prefixes.get(route)
        if prefix is None:
            prefix = self._prefixes[route] = [
                (b":method", b"POST"),
                (b":scheme", self._scheme.encode()),
                (b":path", route.encode("ascii")),
                (b":authority", self._authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", _USER_AGENT),
            ]
        if timeout_s == math.inf:
            return [*prefix, *metadata]
        # Every timeout differs: kept out of the compression table, or it would drive everything else out of it.
        return [*prefix, NeverIndexedHeaderTuple(b"grpc-timeout", encode_timeout(timeout_s)), *metadata]

    async def take_slot(self, stream: RawStream) -> CallHost:
        """A connection that is up, with a slot for one call of `stream` on it. One attempt to connect at most.

        Raises:
          GRPCError: UNAVAILABLE.
          ChannelClosed: the channel is closed.
        """
        if self._closed:
            raise ChannelClosed(self._authority)
        tried = False
        while True:
            link = self._link
            if link is None or not link.connection.accepts_calls():
                if tried:
                    why = "the connection was closed at once" if link is None else link.why
                    raise GRPCError(Status.UNAVAILABLE, f"{self._authority} takes no calls: {why}")
                tried = True
                await self._connect()
                continue
            await link.take_slot(stream)
            if link.connection.accepts_calls():
                return link
            link.give_up_slot(stream)

    # --- Connecting ---------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        if self._closed:
            raise ChannelClosed(self._authority)
        attempt = self._attempt
        if attempt is None:
            attempt = self._attempt = _Attempt()
            # A task of the channel's: the attempt must survive the call that happened to be first.
            self._tasks.start_soon(self._run_attempt, attempt)
        await attempt.done.wait()
        if attempt.failure is not None:
            raise GRPCError(Status.UNAVAILABLE, attempt.failure)

    async def _run_attempt(self, attempt: _Attempt) -> None:
        attempt.failure = f"the channel to {self._authority} was closed"
        try:
            with trio.fail_after(self.limits.connect_s):
                link = ClientLink(await self._dial(), self.limits)
                await self._tasks.start(link.run)
            self._link = link
            self._connections_made += 1
            attempt.failure = None
        except trio.TooSlowError:
            attempt.failure = f"cannot connect to {self._authority}: no answer within {self.limits.connect_s:g} s"
        except _CONNECT_ERRORS as error:
            attempt.failure = f"cannot connect to {self._authority}: {cause(error)}"
        finally:
            self._attempt = None
            attempt.done.set()

    def close(self) -> None:
        """Refuse new calls; its tasks end the rest."""
        self._closed = True
        if self._link is not None:
            self._link.say_goodbye()
