"""Two daemons on one simulated network, started as people start them, for all of the suite."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.clients import PATIENCE_S, Grpc, curl, grpc_program, make_stubs
from tests.cli.processes import command, free_base


@dataclass(frozen=True)
class Daemon:
    """One daemon's addresses."""

    pubkey: str
    grpc: str
    http: str
    text: str


@dataclass(frozen=True)
class Pair:
    """Alice and carol; bob stands between them."""

    alice: Daemon
    carol: Daemon


@contextmanager
def running(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(arguments), text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def started(stack: ExitStack, node: dict[str, Any]) -> Daemon:
    stack.enter_context(running("run", "--config", node["config"]))
    daemon = Daemon(node["pubkey"], **node["daemon"])
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if curl(daemon.http, "/readyz", method="GET").status == 200:
                return daemon
        except OSError:
            pass
        assert time.monotonic() < deadline, "the daemon does not get ready"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("acceptance") / "net"
    with ExitStack() as stack:
        options = ("--json", "--latency", "0", "--port-base", str(free_base(30)))
        simnet = stack.enter_context(running("simnet", "--dir", str(folder), *options))
        assert simnet.stdout
        nodes = json.loads(simnet.stdout.readline())["nodes"]
        yield Pair(started(stack, nodes["alice"]), started(stack, nodes["carol"]))


@pytest.fixture(scope="session", params=["v0.1.3", "v0.1.4"])
def stubs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated from the definitions of that version."""
    return make_stubs(tmp_path_factory.mktemp("stubs") / request.param, text=request.param == "v0.1.3")


@dataclass(frozen=True)
class Door:
    """A listener, and how programs that were written for it show bytes."""

    name: str

    def of(self, daemon: Daemon) -> str:
        """Its address."""
        return daemon.text if self.name == "text" else daemon.http

    def shown(self, data: bytes) -> str:
        """What `msg` and `data` look like."""
        return data.decode() if self.name == "text" else base64.b64encode(data).decode()

    def bytes_of(self, shown: str) -> bytes:
        return shown.encode() if self.name == "text" else base64.b64decode(shown, validate=True)


@pytest.fixture(params=["base64", "text"])
def door(request: pytest.FixtureRequest) -> Door:
    """Each of the two listeners."""
    return Door(request.param)


@pytest.fixture
def alice(pair: Pair, stubs: Path) -> Iterator[Grpc]:
    with grpc_program(stubs, pair.alice.grpc) as program:
        yield program


@pytest.fixture
def carol(pair: Pair, stubs: Path) -> Iterator[Grpc]:
    with grpc_program(stubs, pair.carol.grpc) as program:
        yield program
