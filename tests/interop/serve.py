"""A server in a process of its own: `python -m tests.interop.serve KIND [CERT KEY]`, KIND one of grpcio, grpclib, ours.

Prints its port. SIGTERM stops it gracefully, with five seconds for calls that are running.
"""

import asyncio
import importlib
import signal
import sys
from pathlib import Path
from typing import Any

from .service import Peer

GRACE_S = 5.0
LIMIT_BYTES = 32 << 20


async def serve_grpcio(files: list[str]) -> None:
    import grpc

    payload = importlib.import_module("interop_pb2").Payload
    stubs = importlib.import_module("interop_pb2_grpc")
    cancelled = 0

    class Servicer(stubs.PeerServicer):  # type: ignore[misc,name-defined]  # generated without types
        async def Unary(self, request: Any, context: Any) -> Any:
            return request

        async def List(self, request: Any, context: Any) -> Any:
            for number in range(request.number):
                yield payload(number=number, data=request.data)

        async def Count(self, requests: Any, context: Any) -> Any:
            sizes = [len(request.data) async for request in requests]
            return payload(number=len(sizes), text=str(sum(sizes)))

        async def Chat(self, requests: Any, context: Any) -> Any:
            async for request in requests:
                yield request

        async def Fail(self, request: Any, context: Any) -> Any:
            codes = {code.value[0]: code for code in grpc.StatusCode}
            await context.abort(codes[request.number], request.text)

        async def Sleep(self, request: Any, context: Any) -> Any:
            nonlocal cancelled
            yield payload(text="asleep")
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled += 1

        async def Cancelled(self, request: Any, context: Any) -> Any:
            return payload(number=cancelled)

        async def Metadata(self, request: Any, context: Any) -> Any:
            echo = [pair for pair in context.invocation_metadata() if pair[0] in ("echo", "echo-bin")]
            await context.send_initial_metadata(echo)
            context.set_trailing_metadata(echo)
            return payload()

        async def Slow(self, request: Any, context: Any) -> Any:
            await asyncio.sleep(request.number / 1000)
            return request

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    stubs.add_PeerServicer_to_server(Servicer(), server)
    if files:
        port = server.add_secure_port("127.0.0.1:0", credentials(*files))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(GRACE_S)


def credentials(certificate: str, key: str) -> Any:
    import grpc

    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(certificate).read_bytes())])


async def serve_grpclib(files: list[str]) -> None:
    from grpclib.config import Configuration
    from grpclib.server import Server

    payload = importlib.import_module("interop_pb2").Payload
    server = Server([Peer(payload, asyncio.sleep)], config=Configuration())
    await server.start("127.0.0.1", 0)
    listening: Any = server._server
    print(listening.sockets[0].getsockname()[1], flush=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    await server.wait_closed()


async def serve_ours(files: list[str]) -> None:
    import trio
    from grpclib.reflection.service import ServerReflection

    from impervious.rpc import Health, Server, ServerLimits, server_context

    payload = importlib.import_module("interop_pb2").Payload
    context = server_context(Path(files[0]), Path(files[1])) if files else None
    peer = Peer(payload, trio.sleep)
    peer_name: Any = peer
    services = ServerReflection.extend(
        [peer_name, Health()], pool=importlib.import_module("interop_pb2").DESCRIPTOR.pool
    )
    server = Server(services, limits=ServerLimits(message_bytes=LIMIT_BYTES))
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:  # noqa: ASYNC114, ASYNC128 - serve tells it
            await server.serve("127.0.0.1", 0, ssl_context=context, grace_s=GRACE_S, task_status=task_status)

        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            [(_, port)] = await nursery.start(listen)
            print(port, flush=True)
            async for _signal in signals:
                break
        nursery.cancel_scope.cancel()


def main() -> None:
    kind, *files = sys.argv[1:]
    if kind == "ours":
        import trio

        trio.run(serve_ours, files)
    else:
        asyncio.run({"grpcio": serve_grpcio, "grpclib": serve_grpclib}[kind](files))


if __name__ == "__main__":
    main()
