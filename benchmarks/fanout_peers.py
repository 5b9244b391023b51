"""The servers of the fan-out: each prints its port, then reads from stdin how many events to publish."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import trio

FRAME_BYTES: Final = 304
"""300 bytes of JSON and 4 of frame."""
PAD: Final = "x" * 300
ID: Final = "5fed0c3a-9c2c-4f5c-8a4b-3f1d2e0c9b8a"


def event_json(seq: int) -> str:
    """An event as any application would write it, 300 bytes long."""
    text = json.dumps({"result": {"id": ID, "seq": f"{seq:012}", "data": PAD}}, separators=(",", ":"))
    return text.replace(PAD, "x" * (300 - len(text) + len(PAD)))


async def read_orders(publish: Callable[[int], Awaitable[None]]) -> None:
    async with trio.lowlevel.FdStream(0) as orders:
        rest = b""
        async for chunk in orders:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                await publish(int(line))


# --- Ours -------------------------------------------------------------------------------------------------------------


async def ours(*, stored: bool) -> None:
    """A node on a simulated Lightning node, and its doors."""
    from impervious.config import Address, Config, ServerConfig
    from impervious.model import EventKind, NewEvent, ServiceType
    from impervious.server.frames import Framing, Shape, frame_event
    from impervious.sim import SimNetwork
    from impervious.supervisor import open_node
    from impervious.units import Msat
    from impervious.wire.json import Encoding

    plain, free = Config(), Address(host="127.0.0.1", port=0)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(
            plain,
            server=ServerConfig(grpc_addr=free, http_addr=free),
            store=replace(plain.store, path=Path(folder) / "imp.db"),
        )
        async with (
            SimNetwork.line("alice", "bob", seed=1).open() as network,
            open_node(config, lightning=network.node("alice"), doors=True) as node,
        ):
            sender = network.node("bob").pubkey
            context = node.messages.context
            seq = 0

            def event(data: str) -> NewEvent:
                return NewEvent(
                    kind=EventKind.MESSAGE,
                    id=UUID(ID),
                    reply_to=None,
                    sender=sender,
                    service_type=ServiceType("message"),
                    topic=ServiceType("message"),
                    data=data.encode(),
                    amount=Msat(1000),
                    sent_at_ms=1_760_000_000_000,
                    verified=True,
                )

            shape = Shape(Framing.WEBSOCKET, Encoding.TEXT)
            room = FRAME_BYTES - len(frame_event(event(PAD).at(1), shape)) + len(PAD) + 1

            async def publish(number: int) -> None:
                nonlocal seq
                news = [event("x" * (room - len(str(seq + each)))) for each in range(1, number + 1)]
                seq += number
                if stored:
                    await context._store.write(lambda tx: [tx.emit(each) for each in news])
                else:
                    context._hub.publish([each.at(seq) for seq, each in enumerate(news, seq - number + 1)], set())

            assert node.addresses is not None
            print(node.addresses.http.port, flush=True)
            await read_orders(publish)


# --- What one would use instead ---------------------------------------------------------------------------------------


async def trio_websocket() -> None:
    """trio-websocket, a queue for each subscriber, JSON made once."""
    from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

    queues: set[trio.MemorySendChannel[str]] = set()
    seq = 0

    async def subscriber(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        send, receive = trio.open_memory_channel[str](1000)
        queues.add(send)
        with send, receive:
            try:
                async for text in receive:
                    await websocket.send_message(text)
            except ConnectionClosed:
                queues.discard(send)

    async def publish(number: int) -> None:
        nonlocal seq
        for _ in range(number):
            seq += 1
            text = event_json(seq)
            for queue in queues:
                await queue.send(text)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, subscriber, "127.0.0.1", 0, None)
        print(server.port, flush=True)
        await read_orders(publish)
        nursery.cancel_scope.cancel()


async def uvicorn_websockets() -> None:
    """An ASGI application on uvicorn with websockets, a queue for each subscriber, JSON made once."""
    import uvicorn

    queues: set[asyncio.Queue[str]] = set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        queue: asyncio.Queue[str] = asyncio.Queue(1000)
        await receive()
        queues.add(queue)
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": await queue.get()})
        finally:
            queues.discard(queue)

    # No pings: our client only counts bytes and answers none, and after 40 s uvicorn would hang up on it.
    config = uvicorn.Config(
        app, port=0, ws="websockets-sansio", ws_ping_interval=None, lifespan="off", log_level="error"
    )
    server = uvicorn.Server(config)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    seq = 0
    while line := await orders.readline():
        for _ in range(int(line)):
            seq += 1
            text = event_json(seq)
            for queue in queues:
                await queue.put(text)
    serving.cancel()


SERVERS: Final[dict[str, Callable[[], None]]] = {
    "ours": lambda: trio.run(partial(ours, stored=True)),
    "ours, without the log": lambda: trio.run(partial(ours, stored=False)),
    "trio-websocket": lambda: trio.run(trio_websocket),
    "uvicorn + websockets": lambda: asyncio.run(uvicorn_websockets()),
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]]()
