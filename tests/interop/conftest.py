"""Generated stubs and programs in other processes."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.rpc.certificates import Files, make_certificate

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE_S = 30.0
"""Only reached when something hangs."""


@dataclass
class Program:
    """A program in another process; its lines are collected by a thread, so that waiting for one can be bounded."""

    process: subprocess.Popen[str]
    lines: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip())

    def line(self) -> str:
        """The next line that it prints."""
        return self.lines.get(timeout=PATIENCE_S)

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


Start = Callable[..., Program]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with interop_pb2.py and interop_pb2_grpc.py."""
    folder = tmp_path_factory.mktemp("stubs")
    out = [f"--proto_path={HERE}", f"--python_out={folder}", f"--grpc_python_out={folder}", "interop.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *out], check=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextmanager
def running(stubs: Path, module: str, *arguments: str) -> Iterator[Program]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(stubs)]), "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, "-m", f"tests.interop.{module}", *arguments]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


@pytest.fixture
def start(stubs: Path) -> Iterator[Start]:
    """Starts programs that end with the test."""
    with ExitStack() as stack:
        yield lambda module, *arguments: stack.enter_context(running(stubs, module, *map(str, arguments)))


@pytest.fixture(scope="module")
def start_for_all(stubs: Path) -> Iterator[Start]:
    """Starts programs that end with the module."""
    with ExitStack() as stack:
        yield lambda module, *arguments: stack.enter_context(running(stubs, module, *map(str, arguments)))
