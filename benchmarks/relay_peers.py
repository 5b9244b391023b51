"""The relays that benchmarks.relay starts: `python -m benchmarks.relay_peers KIND SESSIONS`.

Each prints the ports of its sessions, "1000:1001 1002:1003 …". With other than one session it answers each line that it
is sent with its longest stalls since the line before, in milliseconds: see `Stalls`.
"""

import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NoReturn

import trio

from impervious.relay import SessionOptions, open_relay

Ports = list[tuple[int, int]]
Status = trio.TaskStatus[Ports]

HOST: Final = "127.0.0.1"
BUFFER_BYTES: Final = 4 << 20
"""What our own relay asks for; every contestant gets it."""
LOOK_S: Final = 0.005
DRAIN: Final = 64


async def ours(sessions: int, *, task_status: Status) -> None:  # noqa: ASYNC114 - started from RELAYS
    """The relay of the package."""
    async with open_relay() as relay:
        options = SessionOptions(ports=(0, 0), bind=HOST)
        task_status.started([relay.open(str(number), options).ports for number in range(sessions)])
        async for _ in relay.facts:
            pass


async def naive(sessions: int, *, task_status: Status) -> None:  # noqa: ASYNC114 - started from RELAYS
    """What one writes first: a task for each socket that waits for a datagram and sends it on."""
    endpoints: dict[trio.socket.SocketType, tuple[str, int]] = {}

    async def forward(inbound: trio.socket.SocketType, outbound: trio.socket.SocketType) -> NoReturn:
        while True:
            datagram, sender = await inbound.recvfrom(65_535)
            if endpoints.setdefault(inbound, sender) == sender and outbound in endpoints:
                await outbound.sendto(datagram, endpoints[outbound])
        raise AssertionError("forwarded for ever")  # pragma: no cover

    async with trio.open_nursery() as nursery:
        pairs = [(bound(), bound()) for _ in range(sessions)]
        for first, second in pairs:
            one, other = trio.socket.from_stdlib_socket(first), trio.socket.from_stdlib_socket(second)
            nursery.start_soon(forward, one, other)
            nursery.start_soon(forward, other, one)
        task_status.started([(first.getsockname()[1], second.getsockname()[1]) for first, second in pairs])


async def drained(sessions: int, *, task_status: Status) -> None:  # noqa: ASYNC114 - started from RELAYS
    """The sketch that stalled: a task for each socket, connected once known, up to 64 datagrams each time it wakes."""
    known: set[socket.socket] = set()

    async def forward(inbound: socket.socket, outbound: socket.socket) -> NoReturn:
        await trio.lowlevel.wait_readable(inbound)
        inbound.connect(inbound.recvfrom(65_535)[1])
        known.add(inbound)
        buffer = bytearray(65_536)
        view = memoryview(buffer)
        while True:
            await trio.lowlevel.wait_readable(inbound)
            for _ in range(DRAIN):
                try:
                    size = inbound.recv_into(buffer)
                    if outbound in known:
                        outbound.send(view[:size])
                except OSError:
                    break
        raise AssertionError("forwarded for ever")  # pragma: no cover

    async with trio.open_nursery() as nursery:
        pairs = [(bound(), bound()) for _ in range(sessions)]
        for one, other in pairs:
            nursery.start_soon(forward, one, other)
            nursery.start_soon(forward, other, one)
        task_status.started([(one.getsockname()[1], other.getsockname()[1]) for one, other in pairs])


async def idle(_sessions: int, *, task_status: Status) -> None:  # noqa: ASYNC114 - started from RELAYS
    """No relay at all: how long this machine keeps a loop waiting that has nothing to do."""
    task_status.started([])
    await trio.sleep_forever()


Relay = Callable[..., Awaitable[None]]
RELAYS: Final[dict[str, Relay]] = {"ours": ours, "naive": naive, "drained": drained, "idle": idle}


def bound() -> socket.socket:
    """Open a UDP socket on loopback, with the buffers that everybody gets."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    sock.bind((HOST, 0))
    return sock


class Stalls(trio.abc.Instrument):
    """How long the loop keeps tasks waiting: by a task that is due every few milliseconds, and by the loop's own work.

    The first is what others feel, the pauses that the machine gives the process included. The second is the time that
    this thread has computed between two looks at what else is ready, which nobody else can lengthen.
    """

    def __init__(self) -> None:
        self._late_s = self._turn_s = 0.0
        self._began_s = time.thread_time()

    def after_io_wait(self, timeout: float) -> None:
        self._began_s = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        self._turn_s = max(self._turn_s, time.thread_time() - self._began_s)

    async def watch(self) -> NoReturn:
        trio.lowlevel.add_instrument(self)
        while True:
            due = time.perf_counter() + LOOK_S
            await trio.sleep(LOOK_S)
            self._late_s = max(self._late_s, time.perf_counter() - due)
        raise AssertionError("watched for ever")  # pragma: no cover

    def take_ms(self) -> tuple[float, float]:
        found = self._late_s * 1000, self._turn_s * 1000
        self._late_s = self._turn_s = 0.0
        return found


async def main(kind: str, sessions: int, *, with_stalls: bool) -> None:
    stalls = Stalls()
    async with trio.open_nursery() as nursery:
        ports: Ports = await nursery.start(RELAYS[kind], sessions)
        if with_stalls:
            nursery.start_soon(stalls.watch)
        print(" ".join(f"{first}:{second}" for first, second in ports), flush=True)
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as orders:
            async for _ in orders:
                print(*stalls.take_ms(), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sessions = int(sys.argv[2])
    trio.run(partial(main, sys.argv[1], sessions, with_stalls=sessions != 1))
