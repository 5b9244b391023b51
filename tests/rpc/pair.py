"""Our client and our server on the two ends of streams in memory, and a service that does a bit of everything."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from impervious.pb.grpc.health.v1 import HealthCheckRequest as Text
from impervious.rpc import CallInfo, Channel, ChannelLimits, Server, ServerLimits, open_channel_over
from impervious.rpc.server import Servable
from impervious.rpc.server_link import OnCall
from impervious.rpc.server_stream import ServerStream

TextStream = ServerStream[Text, Text]

UNARY = "/test.Play/Unary"
LIST = "/test.Play/List"
COUNT = "/test.Play/Count"
CHAT = "/test.Play/Chat"
SLEEP = "/test.Play/Sleep"
FAIL = "/test.Play/Fail"
CUSTOM = "/test.Play/Custom"
CUSTOM_UNARY = "/test.Play/CustomUnary"


@dataclass
class Play:
    """Methods to play with. `events` tells what handlers went through; `custom` is a handler that a test brings."""

    events: list[str] = field(default_factory=list)
    custom: Callable[[TextStream], object] | None = None
    running: int = 0

    async def unary(self, stream: TextStream) -> None:
        """Answers with the request."""
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(request)

    async def listing(self, stream: TextStream) -> None:
        """Answers "5" with 0, 1, 2, 3, 4."""
        request = await stream.recv_message()
        assert request is not None
        for number in range(int(request.service)):
            await stream.send_message(Text(service=str(number)))

    async def count(self, stream: TextStream) -> None:
        """Answers with the number of requests and of their characters."""
        lengths = [len(request.service) async for request in stream]
        await stream.send_message(Text(service=f"{len(lengths)}/{sum(lengths)}"))

    async def chat(self, stream: TextStream) -> None:
        """Answers each request as it comes."""
        async for request in stream:
            await stream.send_message(Text(service=request.service.upper()))

    async def sleep(self, stream: TextStream) -> None:
        """Never answers, and notes how it ended."""
        self.running += 1
        self.events.append("asleep")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.events.append("cancelled")
            raise
        finally:
            self.running -= 1

    async def fail(self, stream: TextStream) -> None:
        """Fails as told: "5:text" is a status, anything else an exception."""
        request = await stream.recv_message()
        assert request is not None
        number, _, text = request.service.partition(":")
        if number.isdigit():
            raise GRPCError(Status(int(number)), text, b"details")
        raise RuntimeError(f"secret {request.service}")

    async def run_custom(self, stream: TextStream) -> None:
        assert self.custom is not None
        await self.custom(stream)  # type: ignore[misc]  # any coroutine function will do

    def __mapping__(self) -> Mapping[str, Handler]:
        unary, many = Cardinality.UNARY_UNARY, Cardinality.STREAM_STREAM
        return {
            UNARY: Handler(self.unary, unary, Text, Text),
            LIST: Handler(self.listing, Cardinality.UNARY_STREAM, Text, Text),
            COUNT: Handler(self.count, Cardinality.STREAM_UNARY, Text, Text),
            CHAT: Handler(self.chat, many, Text, Text),
            SLEEP: Handler(self.sleep, unary, Text, Text),
            FAIL: Handler(self.fail, unary, Text, Text),
            CUSTOM: Handler(self.run_custom, many, Text, Text),
            CUSTOM_UNARY: Handler(self.run_custom, unary, Text, Text),
        }


MakePair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Where a server accepts streams that `connect` makes.

    Args:
      make_pair: memory_stream_pair buffers without limit; lockstep_stream_pair holds nothing.
    """

    def __init__(self, make_pair: MakePair = trio.testing.memory_stream_pair) -> None:
        self._make_pair = make_pair
        # Zero: a connection attempt waits for the server's accept.
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](0)
        self.client_ends: list[trio.abc.Stream] = []

    async def connect(self) -> trio.abc.Stream:
        """A new stream to the server."""
        client, server = self._make_pair()
        try:
            await self._send.send(server)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionRefusedError(111, "refused") from None
        self.client_ends.append(client)
        return client

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._receive.close()
        self._send.close()
        await trio.lowlevel.checkpoint()


@dataclass
class Pair:
    """A running server and a channel to it."""

    channel: Channel
    server: Server
    listener: MemoryListener
    play: Play
    server_scope: trio.CancelScope

    async def unary(self, text: str = "hello") -> str:
        """One call; the text that came back."""
        return (await self.channel.unary_unary(UNARY, Text(service=text), Text)).service


@asynccontextmanager
async def serving(
    *services: Servable,
    limits: ServerLimits | None = None,
    on_call: OnCall | None = None,
    grace_s: float = 2.0,
    make_pair: MakePair = trio.testing.memory_stream_pair,
) -> AsyncIterator[tuple[Server, MemoryListener, trio.CancelScope]]:
    """A server on a MemoryListener, stopped at the end."""
    server = Server(services, limits=limits, on_call=on_call)
    listener = MemoryListener(make_pair)
    scope = trio.CancelScope()

    async def serve(task_status: trio.TaskStatus[object]) -> None:  # noqa: ASYNC128 - serve_listeners tells it
        with scope:
            await server.serve_listeners([listener], grace_s=grace_s, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        try:
            yield server, listener, scope
        finally:
            scope.cancel()


@asynccontextmanager
async def connected(
    *more: Servable,
    server_limits: ServerLimits | None = None,
    channel_limits: ChannelLimits | None = None,
    on_call: Callable[[CallInfo], object] | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    grace_s: float = 2.0,
    make_pair: MakePair = trio.testing.memory_stream_pair,
) -> AsyncIterator[Pair]:
    """Both ends, with a Play service."""
    play = Play()
    services: Iterable[Servable] = [play, *more]
    hook: OnCall | None = on_call  # type: ignore[assignment]  # tests pass what is handy
    async with serving(*services, limits=server_limits, on_call=hook, grace_s=grace_s, make_pair=make_pair) as (
        server,
        listener,
        scope,
    ):
        async with open_channel_over(
            listener.connect, authority="memory:1", metadata=metadata, limits=channel_limits
        ) as channel:
            yield Pair(channel, server, listener, play, scope)
