"""Websocket fan-out: events of 300 bytes to 100 subscribers, beside uvicorn with websockets and beside trio-websocket.

Each server runs in a process of its own; this process is the client of all, and gives the orders: it asks for a few
events, and for more as soon as they have come in everywhere. It only counts bytes, so that it is never what limits.
Ours is the whole way: an event is written to the durable log, committed, and then carried to the subscribers; the line
"without the log" leaves out what the others do not do either.
"""

import base64
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from .fanout_peers import FRAME_BYTES, SERVERS
from .options import Options, print_table

SUBSCRIBERS: Final = 100
SCENARIOS: Final = {"20 at a time": (20, 3), "one by one": (1, 1)}
"""Events asked for at a time, and how often before the first of them have come in."""


class Contestant:
    """A server, and a hundred subscribers of it."""

    def __init__(self, process: "subprocess.Popen[str]", subscribers: list[socket.socket]) -> None:
        self._process = process
        self._selector = selectors.DefaultSelector()
        for each in subscribers:
            self._selector.register(each, selectors.EVENT_READ)
        self._count = len(subscribers)
        self._buffer = bytearray(1 << 18)

    def measure(self, scenario: str, seconds: float) -> float:
        """Deliveries a second."""
        batch, ahead = SCENARIOS[scenario]
        asked, received = 0, 0
        whole = batch * self._count * FRAME_BYTES
        began = time.perf_counter()
        while True:
            running = time.perf_counter() < began + seconds
            while running and asked < received + ahead * whole:
                self._publish(batch)
                asked += whole
            if received >= asked:
                break
            received += self._receive()
        return received / FRAME_BYTES / (time.perf_counter() - began)

    def resident_mb(self) -> float:
        """Memory of the server."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _publish(self, number: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()

    def _receive(self) -> int:
        size = 0
        for key, _ in self._selector.select(10) or sys.exit("a server has fallen silent"):
            assert isinstance(key.fileobj, socket.socket)
            size += key.fileobj.recv_into(self._buffer) or sys.exit("a server has hung up")
        return size


def run(options: Options) -> None:
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(contestant(name)) for name in SERVERS}
        rates: dict[tuple[str, str], list[float]] = {(name, each): [] for name in contestants for each in SCENARIOS}
        for _ in range(options.rounds):
            for scenario in SCENARIOS:
                for name, each in contestants.items():
                    rates[name, scenario].append(each.measure(scenario, options.seconds))
        memory = {name: each.resident_mb() for name, each in contestants.items()}
    rows = []
    for name in contestants:
        cells = []
        for scenario in SCENARIOS:
            ours, theirs = rates["ours", scenario], rates[name, scenario]
            ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
            cells.append(f"{statistics.median(theirs):,.0f} ({ratio:.2f}x)")
        rows.append([name, *cells, f"{memory[name]:.0f}"])
    note = f"median of {options.rounds} rounds of {options.seconds:g} s; in brackets ours over it, in the same round"
    title = (
        f"Websocket fan-out to {SUBSCRIBERS} subscribers, frames of {FRAME_BYTES} bytes: deliveries a second ({note})"
    )
    print_table(title, ["", *SCENARIOS, "MB resident"], rows)


@contextmanager
def contestant(name: str) -> Iterator[Contestant]:
    command = [sys.executable, "-m", "benchmarks.fanout_peers", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            with ExitStack() as stack:
                subscribers = [stack.enter_context(subscribe(port)) for _ in range(SUBSCRIBERS)]
                yield Contestant(process, subscribers)
        finally:
            process.kill()


@contextmanager
def subscribe(port: int) -> Iterator[socket.socket]:
    """A websocket without compression; the frames that follow are only counted."""
    key = base64.b64encode(os.urandom(16)).decode()
    head = [
        "GET /v1/subscribe?encoding=text&v=2 HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
    ]
    head += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall("\r\n".join(head).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += stream.recv(1)
        assert b" 101 " in answer, answer
        yield stream
