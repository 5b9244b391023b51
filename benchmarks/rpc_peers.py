"""The programs that benchmarks.rpc starts: `python -m benchmarks.rpc_peers server|client KIND …`.

All speak the same two methods with the same message class (google.protobuf.BytesValue), so that only the transports
differ. A server prints its port. A client reads lines "SCENARIO SECONDS" and answers each with messages a second, so
that several clients can take turns without starting again.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from google.protobuf.wrappers_pb2 import BytesValue, Int32Value
from grpclib.const import Cardinality, Handler

ECHO: Final = "/bench.Echo/Echo"
STREAM: Final = "/bench.Echo/Stream"
PAYLOAD: Final = BytesValue(value=b"x" * 200)
IN_FLIGHT: Final = 32
CHUNK: Final = 2000
"""Messages of one streamed call."""


class Echo:
    """The service, as grpclib and our server take it."""

    async def echo(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def stream(self, stream: Any) -> None:
        request = await stream.recv_message()
        for _ in range(request.value):
            await stream.send_message(PAYLOAD)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            ECHO: Handler(self.echo, Cardinality.UNARY_UNARY, BytesValue, BytesValue),
            STREAM: Handler(self.stream, Cardinality.UNARY_STREAM, Int32Value, BytesValue),
        }


# --- Servers ----------------------------------------------------------------------------------------------------------


async def serve_grpcio() -> None:
    import grpc

    async def echo(request: BytesValue, context: Any) -> BytesValue:  # noqa: ASYNC124 - grpcio awaits it
        return request

    async def stream(request: Int32Value, context: Any) -> None:
        for _ in range(request.value):
            await context.write(PAYLOAD)

    server = grpc.aio.server()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo, BytesValue.FromString, BytesValue.SerializeToString),
        "Stream": grpc.unary_stream_rpc_method_handler(stream, Int32Value.FromString, BytesValue.SerializeToString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


async def serve_grpclib() -> None:
    from grpclib.server import Server

    server = Server([Echo()])
    await server.start("127.0.0.1", 0)
    listening: Any = server._server
    print(listening.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


async def serve_ours() -> None:
    import trio

    from impervious.rpc import Server

    async with trio.open_nursery() as nursery:
        [(_, port)] = await nursery.start(Server([Echo()]).serve, "127.0.0.1", 0)
        print(port, flush=True)


# --- Clients ----------------------------------------------------------------------------------------------------------

Call = Callable[[], Awaitable[int]]
"""One call; returns how many messages came back."""

Together = Callable[[Call, int, float], Awaitable[list[int]]]
"""Makes calls, so many at once, until a time; returns what they returned."""


async def client_grpcio(port: int) -> None:
    import grpc

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary(ECHO, BytesValue.SerializeToString, BytesValue.FromString)
        stream = channel.unary_stream(STREAM, Int32Value.SerializeToString, BytesValue.FromString)

        async def unary() -> int:
            await echo(PAYLOAD)
            return 1

        async def streamed() -> int:
            return len([None async for _ in stream(Int32Value(value=CHUNK))])

        await obey_on_asyncio(unary, streamed)


async def client_grpclib(port: int) -> None:
    from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

    channel = Channel("127.0.0.1", port)
    echo = UnaryUnaryMethod(channel, ECHO, BytesValue, BytesValue)
    stream = UnaryStreamMethod(channel, STREAM, Int32Value, BytesValue)

    async def unary() -> int:
        await echo(PAYLOAD)
        return 1

    async def streamed() -> int:
        async with stream.open() as call:
            await call.send_message(Int32Value(value=CHUNK), end=True)
            return len([None async for _ in call])

    try:
        await obey_on_asyncio(unary, streamed)
    finally:
        channel.close()


async def client_ours(port: int) -> None:
    import trio

    from impervious.rpc import open_channel

    async with open_channel("127.0.0.1", port) as channel:

        async def unary() -> int:
            await channel.unary_unary(ECHO, PAYLOAD, BytesValue)
            return 1

        async def streamed() -> int:
            async with channel.unary_stream(STREAM, Int32Value(value=CHUNK), BytesValue) as call:
                return len([None async for _ in call])

        async def together(call: Call, count: int, until: float) -> list[int]:
            counts: list[int] = []

            async def worker() -> None:
                while time.perf_counter() < until:
                    counts.append(await call())

            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(worker)
            return counts

        await obey(together, unary, streamed)


async def obey_on_asyncio(unary: Call, streamed: Call) -> None:
    async def together(call: Call, count: int, until: float) -> list[int]:
        counts: list[int] = []

        async def worker() -> None:
            while time.perf_counter() < until:
                counts.append(await call())

        await asyncio.gather(*[worker() for _ in range(count)])
        return counts

    await obey(together, unary, streamed)


async def obey(together: Together, unary: Call, streamed: Call) -> None:
    """Do as told on stdin, after a warm-up. Waiting for a line stops the event loop; nothing else is going on then."""
    await together(unary, IN_FLIGHT, time.perf_counter() + 0.3)
    print("ready", flush=True)
    for line in sys.stdin:  # noqa: ASYNC251 - see above
        name, seconds = line.split()
        call, count = {"unary": (unary, 1), f"unary-x{IN_FLIGHT}": (unary, IN_FLIGHT), "stream": (streamed, 1)}[name]
        start = time.perf_counter()
        messages = sum(await together(call, count, start + float(seconds)))
        print(messages / (time.perf_counter() - start), flush=True)


SCENARIOS: Final = ("unary", f"unary-x{IN_FLIGHT}", "stream")
SERVERS: Final = {"grpcio.aio": serve_grpcio, "grpclib": serve_grpclib, "ours": serve_ours}
CLIENTS: Final = {"grpcio.aio": client_grpcio, "grpclib": client_grpclib, "ours": client_ours}


def run_async(kind: str, program: Callable[..., Any], *arguments: object) -> Any:
    """Run a program on the event loop of its kind."""
    if kind == "ours":
        import trio

        return trio.run(program, *arguments)
    return asyncio.run(program(*arguments))


if __name__ == "__main__":
    role, kind, *rest = sys.argv[1:]
    if role == "server":
        run_async(kind, SERVERS[kind])
    else:
        run_async(kind, CLIENTS[kind], int(rest[0]))
