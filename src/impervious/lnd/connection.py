"""Two gRPC channels to one LND, made with one reading of the credentials.

Invoices have a channel of their own: what their reader leaves unread then holds up no payment.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

import trio

from impervious.lnd.credentials import Credentials
from impervious.lnd.faults import MacaroonRefused, translated
from impervious.lnd.rpcs import Response, Rpc
from impervious.rpc import Channel, open_channel
from impervious.rpc.client_stream import ResponseStream
from impervious.rpc.message import Message

Value = TypeVar("Value", covariant=True)

Connect: TypeAlias = "Callable[[Credentials], AbstractAsyncContextManager[Connection]]"
"""Makes the channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The channels, and what they were made with."""

    credentials: Credentials
    calls: Channel
    invoices: Channel
    on_refusal: Callable[[MacaroonRefused], None] = lambda _error: None
    """Is called when LND refuses the macaroon of a call."""

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Call `on_refusal` if the block's call is refused for its macaroon."""
        try:
            yield
        except MacaroonRefused as error:
            self.on_refusal(error)
            raise


@asynccontextmanager
async def open_connection(credentials: Credentials) -> AsyncIterator[Connection]:
    """Open the channels; nothing is dialled before their first call. Calls that outlive the block fail."""
    context = credentials.ssl_context()
    metadata = credentials.metadata()

    def channel() -> AbstractAsyncContextManager[Channel]:
        return open_channel(credentials.host, credentials.port, ssl_context=context, metadata=metadata)

    async with channel() as calls, channel() as invoices:
        yield Connection(credentials=credentials, calls=calls, invoices=invoices)


async def call(channel: Channel, rpc: Rpc[Response], request: Message, *, host: str) -> Response:
    """Make a unary call; errors as `faults.translated`."""
    with translated(host):
        return await channel.unary_unary(rpc.path, request, rpc.response)


class LndStream(trio.abc.ReceiveChannel[Value], Generic[Response, Value]):
    """The messages of a streaming call: `async with stream: async for value in stream:`.

    It ends when LND ends the stream with status OK, as it does when it shuts down; errors as `faults.translated`.

    Args:
      channel: where to call.
      rpc: what to call.
      request: sent when the block is entered.
      convert: what becomes of each message.
      host: for error texts.
      noticing: `Connection.noticing`.

    Cancellation: `receive` loses nothing.
    """

    def __init__(
        self,
        channel: Channel,
        rpc: Rpc[Response],
        request: Message,
        convert: Callable[[Response], Value],
        *,
        host: str,
        noticing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._call = channel.unary_stream(rpc.path, request, rpc.response)
        self._responses: ResponseStream[Message, Response] | None = None
        self._convert = convert
        self._host = host
        self._noticing = noticing

    async def __aenter__(self) -> Self:
        with self._noticing(), translated(self._host):
            self._responses = await self._call.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with translated(self._host):  # hangs up; waits for nothing
            await self._call.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102

    async def receive(self) -> Value:
        """Wait for the next one.

        Raises:
          trio.EndOfChannel: there is none.
        """
        assert self._responses is not None, "enter the stream's block first"
        with self._noticing(), translated(self._host):
            message = await self._responses.recv_message()
        if message is None:
            raise trio.EndOfChannel
        return self._convert(message)

    async def aclose(self) -> None:
        """Hang up. What was received already cannot be read any more."""
        if self._responses is not None:
            await self._responses.cancel()
