"""The UDP relay beside the loop one writes first and beside socat: datagrams a second without loss, and stalls.

Every relay runs in a process of its own; this process is both endpoints of all sessions. For the rate it keeps a few
hundred datagrams under way, never more than the buffers hold, so that none is lost and the relay is never idle: what
comes out is the highest rate without loss. All share one core, so that work is compared, and not how well two cores of
a busy machine wake each other; they take turns, and what is compared is ours and theirs in the same round. For the
stalls the endpoints of many sessions all send bursts at once, at a fixed rate in all.
"""

import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Final

from impervious.relay.burst import BURST, open_burst

from .options import Options, print_table
from .relay_peers import BUFFER_BYTES, HOST, bound

SIZES: Final = (200, 1200)
WINDOW: Final = 512
"""Datagrams under way."""
ROOM_BYTES: Final = 4096
"""What a datagram of the larger size takes in a buffer, at most."""
LOST_S: Final = 0.25
"""What has not come after so long has been lost."""

SESSIONS: Final = 20
PACKETS_PER_S: Final = 40_000
BURST_PACKETS: Final = 64
"""Of each endpoint, all at once: as video and file transfers send."""
STALL_S: Final = 10.0

CORES: Final = frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else frozenset()

_OURS = "ours"
_SOCAT = "socat"


class Pair:
    """The two endpoints of a session, known to the relay."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self.one, self.other = bound(), bound()
        for sock, port in zip((self.one, self.other), ports, strict=True):
            sock.connect((HOST, port))
        self._meet()

    def _meet(self) -> None:
        """Send until each has heard the other: socat opens its second port when it has heard the first endpoint."""
        give_up_at = time.monotonic() + 10
        heard: set[socket.socket] = set()
        while len(heard) < 2:
            if time.monotonic() > give_up_at:
                raise TimeoutError("the relay does not relay")
            for sock in (self.one, self.other):
                try:
                    sock.send(b"x")
                    sock.recv(65_535)
                except OSError:
                    continue  # nothing yet, or nobody listens yet
                heard.add(sock)
            time.sleep(0.01)
        for sock in (self.one, self.other):
            drain(sock)


class Stream:
    """Sends datagrams of one size through a session, one way, as fast as none is lost."""

    def __init__(self, pair: Pair, size: int) -> None:
        self._pair = pair
        self._sending, self._receiving = open_burst(), open_burst()
        granted_bytes = pair.other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._window = max(BURST, min(WINDOW, granted_bytes // ROOM_BYTES))
        with bound() as source, bound() as target:  # fill the slots that are sent, once
            source.connect(target.getsockname())
            for _ in range(BURST):
                source.send(bytes(size))
            assert len(self._sending.receive(target)) == BURST
        self._readable = selectors.DefaultSelector()
        self._readable.register(pair.other, selectors.EVENT_READ)

    def measure(self, seconds: float) -> float:
        """Datagrams a second that came out.

        Raises:
          RuntimeError: some were lost.
        """
        sent = received = 0
        began = time.perf_counter()
        while True:
            if time.perf_counter() > began + seconds:
                if received == sent:
                    return received / (time.perf_counter() - began)
            elif sent + BURST <= received + self._window:
                sent += self._sending.send(self._pair.one, 0, BURST)
            try:
                received += len(self._receiving.receive(self._pair.other))
            except BlockingIOError:
                idle = sent + BURST > received + self._window or time.perf_counter() > began + seconds
                if idle and received < sent and not self._readable.select(LOST_S):
                    raise RuntimeError(f"{sent - received} of {sent} datagrams were lost") from None


def run(options: Options) -> None:
    with one_core():
        compete(options)
    look_for_stalls()


def compete(options: Options) -> None:
    """Measure and show medians, and of ours over theirs the median of all rounds."""
    with ExitStack() as stack:
        streams: dict[tuple[str, int], Stream] = {}
        for kind, start in contestants().items():
            pair = Pair(stack.enter_context(start()))
            streams |= {(kind, size): Stream(pair, size) for size in SIZES}
        kinds = list(dict.fromkeys(kind for kind, _ in streams))
        rates: dict[tuple[str, int], list[float]] = {each: [] for each in streams}
        for _ in range(options.rounds):
            for each, stream in streams.items():
                rates[each].append(stream.measure(options.seconds))
    rows = [[kind, *(shown(rates[kind, size], rates[_OURS, size]) for size in SIZES)] for kind in kinds]
    note = f"median of {options.rounds} rounds of {options.seconds:g} s; in brackets ours over it, in the same round"
    head = ["", *(f"{size} bytes" for size in SIZES)]
    print_table(f"One session of the UDP relay: datagrams a second without loss ({note})", head, rows)


def shown(theirs: list[float], ours: list[float]) -> str:
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return f"{statistics.median(theirs):,.0f} ({ratio:.2f}x)"


Start = Callable[[], AbstractContextManager[tuple[int, int]]]


def contestants() -> dict[str, Start]:
    found: dict[str, Start] = {kind: partial(one_session, kind) for kind in (_OURS, "naive", "drained")}
    if shutil.which(_SOCAT):
        found[_SOCAT] = socat
    else:
        print("socat is left out: it is not installed (apt install socat)")
    return found


def look_for_stalls() -> None:
    """Send at a fixed rate through many sessions and show how long each relay kept other tasks waiting."""
    rows = []
    for kind in (_OURS, "drained", "naive"):
        with program(kind, SESSIONS) as relay, program("idle", 0) as idle:
            pairs = [Pair(ports) for ports in relay.ports]
            relay.stalls_ms()
            idle.stalls_ms()
            sent, received = pace(pairs, PACKETS_PER_S, STALL_S)
            late_ms, turn_ms = relay.stalls_ms()
            idle_ms, _ = idle.stalls_ms()
        numbers = (f"{late_ms:.1f}", f"{idle_ms:.1f}", f"{turn_ms:.1f}")
        rows.append([kind, f"{sent / STALL_S:,.0f}", f"{sent - received:,}", *numbers])
    print_table(
        f"{SESSIONS} sessions, both ways, {PACKETS_PER_S:,} datagrams of {SIZES[0]} bytes a second in bursts of "
        f"{BURST_PACKETS} from everybody at once, {STALL_S:g} s: longest stalls of the loop in ms",
        ["", "sent a second", "lost", "a task was late", "idle process beside it", "work in one turn"],
        rows,
    )


def pace(pairs: list[Pair], packets_per_s: float, seconds: float) -> tuple[int, int]:
    """Send at a rate, a burst from every endpoint at a time; return how many went in and how many came out."""
    sockets = [sock for pair in pairs for sock in (pair.one, pair.other)]
    datagram, receiving = bytes(SIZES[0]), open_burst()
    sent = received = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        if sent <= (now - began) * packets_per_s:
            for sock in sockets:
                for _ in range(BURST_PACKETS):
                    sock.send(datagram)
            sent += len(sockets) * BURST_PACKETS
        received += sum(take(receiving.receive, sock) for sock in sockets)
        time.sleep(0.001)
    settle_at = time.perf_counter() + LOST_S
    while received < sent and time.perf_counter() < settle_at:
        received += sum(take(receiving.receive, sock) for sock in sockets)
    return sent, received


def take(receive: Callable[[socket.socket], list[int]], sock: socket.socket) -> int:
    try:
        return len(receive(sock))
    except BlockingIOError:
        return 0


def drain(sock: socket.socket) -> None:
    """Throw away what waits, and what comes within a moment."""
    time.sleep(0.02)
    while True:
        try:
            sock.recv(65_535)
        except BlockingIOError:
            return


class Program:
    """A relay of ours or of the peers, with its ports."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        pairs = [pair.split(":") for pair in self._line().split()]
        self.ports = [(int(first), int(second)) for first, second in pairs]

    def stalls_ms(self) -> tuple[float, float]:
        """The longest stalls since it was asked last: a task that was late, and work in one turn."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        late_ms, turn_ms = self._line().split()
        return float(late_ms), float(turn_ms)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def program(kind: str, sessions: int) -> Iterator[Program]:
    command = [sys.executable, "-m", "benchmarks.relay_peers", kind, str(sessions)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


@contextmanager
def one_session(kind: str) -> Iterator[tuple[int, int]]:
    with program(kind, 1) as relay:
        yield relay.ports[0]


@contextmanager
def socat() -> Iterator[tuple[int, int]]:
    with bound() as one, bound() as other:
        first, second = one.getsockname()[1], other.getsockname()[1]
    sides = [f"UDP4-LISTEN:{port},bind={HOST},rcvbuf={BUFFER_BYTES},sndbuf={BUFFER_BYTES}" for port in (first, second)]
    with subprocess.Popen([_SOCAT, "-b", "65536", *sides]) as process:
        try:
            yield first, second
        finally:
            process.kill()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core, where the system lets us."""
    if CORES:
        os.sched_setaffinity(0, [max(CORES)])
    try:
        yield
    finally:
        if CORES:
            os.sched_setaffinity(0, CORES)
