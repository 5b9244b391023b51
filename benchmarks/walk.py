"""A message from one daemon's REST to another's websocket, beside the same bytes between two bare LND clients.

Everything runs as its users run it: `impervious simnet`, two daemons with their configuration files, and this process
as the application. The rival is what a program would do without us: `LndNode` sends one keysend and another `LndNode`
reads settled invoices, no log, no signature, no order. What is over its time is what the two daemons add.
"""

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from impervious.config import LndConfig
from impervious.lnd import LndNode, open_lnd
from impervious.model import InvoiceCursor, NodePubkey, Preimage
from impervious.units import Msat

from .options import Options, print_table

PORT_BASE: Final = 28810
TEXT: Final = "a short message of the kind that applications send all day long"
CALLERS: Final = 8
UNDER_WAY: Final = 64
"""Messages that were sent and have not arrived."""
ONE_BY_ONE: Final = 15
"""Messages of one round."""


@dataclass(frozen=True)
class Side:
    """One node of the network, and its daemon."""

    pubkey: str
    lnd: LndConfig
    http: str
    process: "subprocess.Popen[bytes]"

    def resident_mb(self) -> float:
        """Memory of the daemon."""
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder, simnet(Path(folder)) as network:
        with daemon(network["alice"]) as alice, daemon(network["carol"]) as carol:
            trio.run(_measure, alice, carol, options)


async def _measure(alice: Side, carol: Side, options: Options) -> None:
    idle = (alice.resident_mb(), carol.resident_mb())
    ours, bare = [], []
    async with posting(alice) as post, listening(carol) as events, bare_pair(alice, carol) as keysend:
        for _ in range(options.rounds):
            ours += [await _cross(post, events, carol) for _ in range(ONE_BY_ONE)]
            bare += [await keysend() for _ in range(ONE_BY_ONE)]
    rows = [
        ["REST to websocket, two daemons", *_times(ours)],
        ["keysend to settled invoice, two bare clients", *_times(bare)],
        ["added", f"{(statistics.median(ours) - statistics.median(bare)) * 1e3:.1f}", ""],
    ]
    note = f"{len(ours)} of each, taking turns; every settlement simulated alike"
    print_table(f"One message of {len(TEXT)} bytes, ms ({note})", ["", "median", "95 %"], rows)
    rate, count = await _flood(alice, carol, max(options.rounds * options.seconds, 2.0))
    after = (alice.resident_mb(), carol.resident_mb())
    rows = [
        ["messages a second, end to end", f"{rate:,.0f}", "200"],
        ["sender, MB resident: idle", f"{idle[0]:.0f}", "70"],
        ["receiver, MB resident: idle", f"{idle[1]:.0f}", "70"],
        ["sender, MB resident: then", f"{after[0]:.0f}", ""],
        ["receiver, MB resident: then", f"{after[1]:.0f}", ""],
    ]
    print_table(f"{count} messages, at most {UNDER_WAY} under way, all on this machine", ["", "", "target"], rows)


def _times(seconds: list[float]) -> list[str]:
    return [f"{statistics.median(seconds) * 1e3:.1f}", f"{statistics.quantiles(seconds, n=20)[-1] * 1e3:.1f}"]


# --- Through the daemons ----------------------------------------------------------------------------------------------


class Post:
    """One kept HTTP connection."""

    def __init__(self, stream: trio.SocketStream, host: str) -> None:
        self._stream = stream
        self._host = host

    async def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(data)}\r\n\r\n"
        await self._stream.send_all(head.encode() + data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await self._stream.receive_some()
        header, body_bytes = answer.split(b"\r\n\r\n", 1)
        length = int(header.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body_bytes) < length:
            body_bytes += await self._stream.receive_some()
        assert header.startswith(b"HTTP/1.1 200"), (header, body_bytes)
        return dict(json.loads(body_bytes))


@asynccontextmanager
async def posting(side: Side) -> AsyncIterator[Post]:
    host, port = side.http.split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield Post(stream, side.http)


@asynccontextmanager
async def listening(side: Side) -> AsyncIterator[WebSocketConnection]:
    async with open_websocket_url(f"ws://{side.http}/v1/subscribe?service_type=message") as connection:
        yield connection


async def _cross(post: Post, events: WebSocketConnection, to: Side) -> float:
    began = time.perf_counter()
    sent = await post("/v1/message/send", _message(to))
    event = json.loads(await events.get_message())["result"]
    assert event["id"] == sent["id"], (event, sent)
    return time.perf_counter() - began


def _message(to: Side) -> dict[str, Any]:
    return {"pubkey": to.pubkey, "msg": base64.b64encode(TEXT.encode()).decode()}


async def _flood(sender: Side, receiver: Side, seconds: float) -> tuple[float, int]:
    """Keep so many messages under way; return how many a second arrived until the last was there, and how many."""
    sent = received = 0
    room = trio.Semaphore(UNDER_WAY)
    began = time.perf_counter()

    async def caller() -> None:
        nonlocal sent
        async with posting(sender) as post:
            while time.perf_counter() < began + seconds:
                await room.acquire()
                sent += 1
                await post("/v1/message/send", _message(receiver))

    async with listening(receiver) as events:
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(caller)
            while received < sent or time.perf_counter() < began + seconds:
                with trio.move_on_after(30) as patience:
                    await events.get_message()
                    received += 1
                    room.release()
                assert not patience.cancelled_caught, f"{sent - received} of {sent} messages have not arrived"
    return received / (time.perf_counter() - began), received


# --- Without them -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def bare_pair(sender: Side, receiver: Side) -> "AsyncIterator[Any]":
    async with open_lnd(sender.lnd) as one, open_lnd(receiver.lnd) as other:
        await one.wait_ready()
        await other.wait_ready()
        async with other.settled_invoices(InvoiceCursor()) as news:
            with trio.move_on_after(1):  # what settled before
                while True:
                    await news.receive()

            async def keysend() -> float:
                return await _keysend(one, receiver.pubkey, news)

            yield keysend


async def _keysend(node: LndNode, pubkey: str, news: "trio.MemoryReceiveChannel[Any]") -> float:
    began = time.perf_counter()
    preimage = Preimage(os.urandom(32))
    records: dict[int, bytes] = {700_001: TEXT.encode()}
    async with trio.open_nursery() as nursery:

        async def pay() -> None:
            await node.send_keysend(
                NodePubkey.parse(pubkey), Msat(1000), preimage, records, fee_limit=Msat(3000), timeout_s=60
            )

        nursery.start_soon(pay)
        async for step in news:
            if step.invoice is not None and step.invoice.payment_hash == preimage.payment_hash:
                took = time.perf_counter() - began
                break
    return took


# --- Processes --------------------------------------------------------------------------------------------------------


@contextmanager
def simnet(folder: Path) -> Iterator[dict[str, Any]]:
    command = ["simnet", "--dir", str(folder), "--json", "--port-base", str(PORT_BASE)]
    command += ["--channels", "alice-bob:100000000,bob-carol:100000000", "--latency", "0"]
    environment = {**os.environ, "IMPERVIOUS_LIGHTNING__DAILY_LIMIT_SAT": "100000000"}
    os.environ.update(environment)
    with _impervious(*command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield dict(json.loads(process.stdout.readline())["nodes"])


@contextmanager
def daemon(node: dict[str, Any]) -> Iterator[Side]:
    with _impervious("run", "--config", node["config"], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"IMPD started!" in line:
                break
        else:
            sys.exit("a daemon did not start")
        devour = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # or it would block
        lnd = LndConfig(
            port=int(node["lnd"].split(":")[1]),
            tls_cert=Path(node["tls_cert"]),
            macaroon=Path(node["admin_macaroon"]),
        )
        yield Side(node["pubkey"], lnd, node["daemon"]["http"], process)
    devour.wait()


@contextmanager
def _impervious(*arguments: str, **pipes: int) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen([sys.executable, "-m", "impervious", *arguments], **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()
