"""A client in a process of its own: `python -m tests.interop.call KIND PORT SCENARIO… [--root CERT]`.

KIND is grpcio or grpclib. Prints one JSON object: scenario -> what was observed, for the tests to compare.
"""

import argparse
import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .service import METHODS, NASTY, path

LARGE = {"1MB": 1_000_000, "16MB": 16_000_000}
DEADLINE_S = 25.0


class Caller:
    """What a scenario needs: the methods of interop.proto, in one shape for both libraries."""

    payload: Any

    async def unary(self, method: str, request: Any, *, time_limit: float | None = None, **options: Any) -> Any:
        raise NotImplementedError

    async def down(self, method: str, request: Any) -> list[Any]:
        raise NotImplementedError

    async def up(self, method: str, requests: list[Any]) -> Any:
        raise NotImplementedError

    async def chat(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError

    async def cancel_sleep(self) -> None:
        """Starts a Sleep, waits for its first message, cancels it."""
        raise NotImplementedError

    async def metadata(self, pairs: list[tuple[str, str | bytes]]) -> tuple[list[Any], list[Any]]:
        """Calls Metadata; returns initial and trailing."""
        raise NotImplementedError

    def failure(self, error: Exception) -> tuple[int, str] | None:
        """Status and message of an error of a call."""
        raise NotImplementedError


class Grpcio(Caller):
    def __init__(self, port: int, root: str | None, *, gzip: bool = False) -> None:
        import grpc

        self.grpc = grpc
        self.payload = importlib.import_module("interop_pb2").Payload
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        compression = grpc.Compression.Gzip if gzip else None
        if root is None:
            self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options, compression)
        else:
            credentials = grpc.ssl_channel_credentials(Path(root).read_bytes())
            self.channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options, compression)
        self.stub = importlib.import_module("interop_pb2_grpc").PeerStub(self.channel)

    async def unary(self, method: str, request: Any, *, time_limit: float | None = None, **options: Any) -> Any:
        return await getattr(self.stub, method)(request, timeout=time_limit, **options)

    async def down(self, method: str, request: Any) -> list[Any]:
        return [response async for response in getattr(self.stub, method)(request)]

    async def up(self, method: str, requests: list[Any]) -> Any:
        return await getattr(self.stub, method)(iter(requests))

    async def chat(self, requests: list[Any]) -> list[Any]:
        call = self.stub.Chat()
        responses = []
        for request in requests:
            await call.write(request)
            responses.append(await call.read())
        await call.done_writing()
        assert await call.read() is self.grpc.aio.EOF
        return responses

    async def cancel_sleep(self) -> None:
        call = self.stub.Sleep(self.payload())
        assert (await call.read()).text == "asleep"
        call.cancel()

    async def metadata(self, pairs: list[tuple[str, str | bytes]]) -> tuple[list[Any], list[Any]]:
        call = self.stub.Metadata(self.payload(), metadata=tuple(pairs))
        await call
        return list(await call.initial_metadata()), list(await call.trailing_metadata())

    def failure(self, error: Exception) -> tuple[int, str] | None:
        if not isinstance(error, self.grpc.aio.AioRpcError):
            return None
        return error.code().value[0], error.details() or ""


class Grpclib(Caller):
    def __init__(self, port: int, root: str | None) -> None:
        import ssl

        from grpclib.client import Channel

        context = None
        if root is not None:
            context = ssl.create_default_context(cafile=root)
            context.set_alpn_protocols(["h2"])
        self.payload = importlib.import_module("interop_pb2").Payload
        self.channel = Channel("127.0.0.1", port, ssl=context)

    def request(self, method: str, **options: Any) -> Any:
        return self.channel.request(path(method), METHODS[method], self.payload, self.payload, **options)

    async def unary(self, method: str, request: Any, *, time_limit: float | None = None, **options: Any) -> Any:
        async with self.request(method, timeout=time_limit, **options) as stream:
            await stream.send_message(request, end=True)
            return await stream.recv_message()

    async def down(self, method: str, request: Any) -> list[Any]:
        async with self.request(method) as stream:
            await stream.send_message(request, end=True)
            return [response async for response in stream]

    async def up(self, method: str, requests: list[Any]) -> Any:
        async with self.request(method) as stream:
            for request in requests:
                await stream.send_message(request)
            await stream.end()
            return await stream.recv_message()

    async def chat(self, requests: list[Any]) -> list[Any]:
        async with self.request("Chat") as stream:
            responses = []
            for request in requests:
                await stream.send_message(request)
                responses.append(await stream.recv_message())
            await stream.end()
            assert await stream.recv_message() is None
            return responses

    async def cancel_sleep(self) -> None:
        async with self.request("Sleep") as stream:
            await stream.send_message(self.payload(), end=True)
            assert (await stream.recv_message()).text == "asleep"
            await stream.cancel()

    async def metadata(self, pairs: list[tuple[str, str | bytes]]) -> tuple[list[Any], list[Any]]:
        async with self.request("Metadata", metadata=pairs) as stream:
            await stream.send_message(self.payload(), end=True)
            await stream.recv_message()
            await stream.recv_trailing_metadata()
            return list(stream.initial_metadata.items()), list(stream.trailing_metadata.items())

    def failure(self, error: Exception) -> tuple[int, str] | None:
        from grpclib.exceptions import GRPCError

        if isinstance(error, asyncio.TimeoutError):
            return 4, "grpclib raises TimeoutError for its own deadline"
        return (error.status.value, error.message or "") if isinstance(error, GRPCError) else None


# --- Scenarios: each returns something that JSON can carry ------------------------------------------------------------


async def failed(caller: Caller, call: Awaitable[Any]) -> Any:
    try:
        return repr(await call)
    except Exception as error:
        return caller.failure(error) or repr(error)


async def unary(caller: Caller) -> Any:
    response = await caller.unary("Unary", caller.payload(data=b"\x00\xff", number=-1, text="käse"))
    empty = await caller.unary("Unary", caller.payload())
    return [list(response.data), response.number, response.text, empty == caller.payload()]


async def server_streaming(caller: Caller) -> Any:
    responses = await caller.down("List", caller.payload(number=1000, data=b"x" * 1000))
    return [[each.number for each in responses] == list(range(1000)), sum(len(each.data) for each in responses)]


async def client_streaming(caller: Caller) -> Any:
    response = await caller.up("Count", [caller.payload(data=b"x" * 1000)] * 1000)
    return [response.number, response.text]


async def bidirectional(caller: Caller) -> Any:
    requests = [caller.payload(number=number, data=b"x" * number * 100) for number in range(100)]
    return await caller.chat(requests) == requests


async def large(caller: Caller) -> Any:
    sizes = []
    for size in LARGE.values():
        data = bytes(range(256)) * (size // 256)
        response = await caller.unary("Unary", caller.payload(data=data))
        sizes.append(response.data == data)
    return sizes


async def concurrent(caller: Caller) -> Any:
    calls = [caller.unary("Slow", caller.payload(number=50, text=str(number))) for number in range(100)]
    return [response.text for response in await asyncio.gather(*calls)] == [str(number) for number in range(100)]


async def cancellation(caller: Caller) -> Any:
    before = (await caller.unary("Cancelled", caller.payload())).number
    for _ in range(10):
        await caller.cancel_sleep()
    for _ in range(100):
        after = (await caller.unary("Cancelled", caller.payload())).number
        if after == before + 10:
            break
        await asyncio.sleep(0.05)
    return after - before


async def deadline(caller: Caller) -> Any:
    before = (await caller.unary("Cancelled", caller.payload())).number
    failures = [(await failed(caller, caller.unary("Slow", caller.payload(number=5000), time_limit=0.2)))[0]]
    after = (await caller.unary("Cancelled", caller.payload())).number
    return [failures, after - before]


async def statuses(caller: Caller) -> Any:
    outcomes = [
        await failed(caller, caller.unary("Fail", caller.payload(number=number, text=NASTY))) for number in range(1, 17)
    ]
    return outcomes


async def metadata(caller: Caller) -> Any:
    sent: list[tuple[str, str | bytes]] = [("echo", "one"), ("echo-bin", bytes(range(256))), ("echo", "two, three")]
    initial, trailing = await caller.metadata(sent)
    return [
        [(key, list(value) if isinstance(value, bytes) else value) for key, value in pairs if key.startswith("echo")]
        for pairs in (initial, trailing)
    ]


async def too_large(caller: Caller) -> Any:
    first = await failed(caller, caller.unary("Unary", caller.payload(data=bytes(33 << 20))))
    again = await caller.unary("Unary", caller.payload(text="still here"))
    return [first[0], again.text]


async def unknown_method(caller: Caller) -> Any:
    if not isinstance(caller, Grpcio):
        return None
    call = caller.channel.unary_unary("/interop.Peer/Nothing")
    return (await failed(caller, call(b"")))[0]


async def killed(caller: Caller) -> Any:
    """Tells when the stream has begun, and how it ended when the server was killed."""
    print("started", flush=True)
    if isinstance(caller, Grpcio):
        call = caller.stub.Sleep(caller.payload())
        await call.read()
        print("streaming", flush=True)
        return (await failed(caller, call.read()))[0]
    assert isinstance(caller, Grpclib)
    try:
        async with caller.request("Sleep") as stream:
            await stream.send_message(caller.payload(), end=True)
            await stream.recv_message()
            print("streaming", flush=True)
            await stream.recv_message()
    except Exception as error:
        return type(error).__name__
    return "ended"


async def graceful(caller: Caller) -> Any:
    """A slow call that is running when the server is told to stop."""
    print("started", flush=True)
    task = asyncio.ensure_future(caller.unary("Slow", caller.payload(number=1500, text="finished")))
    await asyncio.sleep(0.3)
    print("streaming", flush=True)
    response = await task
    later = await failed(caller, caller.unary("Unary", caller.payload(), time_limit=5.0))
    return [response.text, later[0]]


SCENARIOS: dict[str, Callable[[Caller], Awaitable[Any]]] = {
    scenario.__name__: scenario
    for scenario in (
        unary,
        server_streaming,
        client_streaming,
        bidirectional,
        large,
        concurrent,
        cancellation,
        deadline,
        statuses,
        metadata,
        too_large,
        unknown_method,
        killed,
        graceful,
    )
}


async def run(kind: str, port: int, names: list[str], root: str | None, *, gzip: bool) -> dict[str, Any]:
    caller: Caller = Grpcio(port, root, gzip=gzip) if kind == "grpcio" else Grpclib(port, root)
    observed: dict[str, Any] = {}
    for name in names:
        try:
            observed[name] = await asyncio.wait_for(SCENARIOS[name](caller), DEADLINE_S)
        except Exception as error:
            observed[name] = f"failed: {error!r}"
    closed = caller.channel.close()  # type: ignore[attr-defined]  # both have one
    if closed is not None:
        await closed
    return observed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["grpcio", "grpclib"])
    parser.add_argument("port", type=int)
    parser.add_argument("scenario", nargs="+")
    parser.add_argument("--root")
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(run(options.kind, options.port, options.scenario, options.root, gzip=options.gzip))))


if __name__ == "__main__":
    main()
