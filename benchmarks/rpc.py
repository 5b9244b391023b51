"""gRPC client and server beside grpcio.aio and grpclib on asyncio: messages a second.

Every contestant runs in a process of its own. They take turns of a fraction of a second against the same kind of other
end, because the speed of a shared machine changes by the second; what is compared is ours and theirs in the same round.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from .options import Options, print_table
from .rpc_peers import CLIENTS, SCENARIOS, SERVERS

_OURS = "ours"


class Client:
    """A client program that waits for orders."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def measure(self, scenario: str, seconds: float) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{scenario} {seconds}\n")
        self._process.stdin.flush()
        return float(self.line())


def run(options: Options) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(server("grpcio.aio"))
        clients = {kind: stack.enter_context(client(kind, port)) for kind in CLIENTS}
        compete("Clients against one grpcio.aio server", clients, options)
    with ExitStack() as stack:
        clients = {
            kind: stack.enter_context(client("grpcio.aio", stack.enter_context(server(kind)))) for kind in SERVERS
        }
        compete("Servers, each under a grpcio.aio client", clients, options)


def compete(title: str, clients: Mapping[str, Client], options: Options) -> None:
    """Measure and show medians, and of ours over theirs the median of all rounds."""
    rates: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in clients for name in SCENARIOS}
    for _ in range(options.rounds):
        for name in SCENARIOS:
            for kind, contestant in clients.items():
                rates[kind, name].append(contestant.measure(name, options.seconds))
    rows = []
    for kind in clients:
        cells = []
        for name in SCENARIOS:
            ratios = [ours / theirs for ours, theirs in zip(rates[_OURS, name], rates[kind, name], strict=True)]
            cells.append(f"{statistics.median(rates[kind, name]):,.0f} ({statistics.median(ratios):.2f}x)")
        rows.append([kind, *cells])
    note = f"median of {options.rounds} rounds of {options.seconds:g} s; in brackets ours over it, in the same round"
    print_table(f"{title}: messages of 200 bytes a second ({note})", ["", *SCENARIOS], rows)


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "benchmarks.rpc_peers", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def server(kind: str) -> Iterator[int]:
    with program("server", kind) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextmanager
def client(kind: str, port: int) -> Iterator[Client]:
    with program("client", kind, str(port)) as process:
        contestant = Client(process)
        assert contestant.line() == "ready"
        yield contestant
