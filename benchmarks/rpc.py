"""gRPC client and server beside grpcio.aio and grpclib on asyncio: calls and messages a second.

Every contestant runs in a process of its own against the same other end, in turns.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .options import Options, print_table
from .rpc_peers import CLIENTS, SERVERS

_PEER = [sys.executable, "-m", "benchmarks.rpc_peers"]


def run(options: Options) -> None:
    clients(options)
    servers(options)


def clients(options: Options) -> None:
    """Three clients against one grpcio.aio server."""
    with server("grpcio.aio") as port:
        measured = {kind: [] for kind in CLIENTS}
        for _ in range(options.rounds):
            for kind in measured:
                measured[kind].append(client(kind, port, options))
    show("Clients against one grpcio.aio server", measured, options)


def servers(options: Options) -> None:
    """Two servers of grpclib service classes under one grpcio.aio client."""
    measured = {kind: [] for kind in SERVERS}
    for _ in range(options.rounds):
        for kind in measured:
            with server(kind) as port:
                measured[kind].append(client("grpcio.aio", port, options))
    show("Servers under one grpcio.aio client", measured, options)


@contextmanager
def server(kind: str) -> Iterator[int]:
    with subprocess.Popen([*_PEER, "server", kind], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def client(kind: str, port: int, options: Options) -> dict[str, float]:
    command = [*_PEER, "client", kind, str(port), str(options.seconds)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def show(title: str, measured: dict[str, list[dict[str, float]]], options: Options) -> None:
    """Medians, and ours as a multiple of each."""
    medians = {
        kind: {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        for kind, rounds in measured.items()
    }
    names = list(medians["ours"])
    rows = [
        [kind, *[f"{values[name]:,.0f} ({medians['ours'][name] / values[name]:.2f}x)" for name in names]]
        for kind, values in medians.items()
    ]
    note = f"median of {options.rounds} rounds of {options.seconds:g} s; in brackets ours as a multiple of it"
    print_table(f"{title}: messages of 200 bytes a second ({note})", ["", *names], rows)
