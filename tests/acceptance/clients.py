"""Programs of 2021, as far as a daemon can tell: what they send, and what they read of the answers.

They block, know nothing of Trio, and look at nothing that was added later.
"""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE_S = 60
"""Only reached when something hangs."""

FORM = "application/x-www-form-urlencoded"
"""What curl says of any body that it is given with -d."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    content_type: str | None


def curl(
    address: str, path: str, data: object = b"", *, method: str = "POST", content_type: str | None = FORM
) -> Answer:
    """`curl -d DATA http://ADDRESS/PATH`."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        headers = {} if content_type is None else {"Content-Type": content_type}
        connection.request(method, path, raw, headers)
        answer = connection.getresponse()
        return Answer(answer.status, json.load(answer), answer.getheader("content-type"))
    finally:
        connection.close()


class Stream:
    """A websocket on which JSON arrives."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def result(self) -> dict[str, Any]:
        """The next event, as programs read it."""
        text = self.connection.recv(timeout=PATIENCE_S)
        assert isinstance(text, str), "a text frame, not a binary one"
        assert not text.endswith("\n")
        found: dict[str, Any] = json.loads(text)["result"]
        return found

    def until(self, identifier: str) -> dict[str, Any]:
        """The event with this id, behind whatever other programs cause."""
        while (result := self.result())["id"] != identifier:
            pass
        return result

    def of_type(self, service_type: str) -> dict[str, Any]:
        """The next event of a type, as programs wait for it that know no other."""
        while (result := self.result())["serviceType"] != service_type:
            pass
        return result

    def is_silent(self) -> bool:
        """Whether nothing comes: asked after a ping has come back, which anything sent before would have overtaken."""
        assert self.connection.ping().wait(PATIENCE_S)
        try:
            self.connection.recv(timeout=0)
        except TimeoutError:
            return True
        return False


@contextmanager
def subscribed(address: str, path: str = "/v1/subscribe") -> Iterator[Stream]:
    with connect(f"ws://{address}{path}", max_size=None, proxy=None) as connection:
        yield Stream(connection)


class Grpc:
    """A program with generated stubs, in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def call(self, path: str, **fields: Any) -> dict[str, Any]:
        return self._do({"call": path, "fields": fields, "timeout_s": PATIENCE_S})

    def subscribe(self) -> None:
        self._do({"call": "websocket.Websocket/Subscribe", "timeout_s": PATIENCE_S})

    def next(self) -> dict[str, Any]:
        return self._do({"next": True})

    def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def grpc_program(stubs: Path, address: str) -> Iterator[Grpc]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(stubs)]), "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, "-m", "tests.acceptance.grpc_client", address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Grpc(process)
        finally:
            process.kill()


def make_stubs(folder: Path, *, text: bool) -> Path:
    """Generate stubs from the definitions of v0.1.4, or of v0.1.3, where `msg` and `data` were strings."""
    folder.mkdir()
    for source in (HERE / "published").glob("*.proto"):
        definition = source.read_text()
        if text:
            definition = definition.replace("bytes msg", "string msg").replace("bytes data", "string data")
        (folder / source.name).write_text(definition)
    out = [f"--proto_path={folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    names = [source.name for source in folder.glob("*.proto")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *out, *names], check=True, timeout=PATIENCE_S)
    return folder


def grpcurl(address: str, path: str, body: str) -> dict[str, Any]:
    """`grpcurl -plaintext -d BODY ADDRESS PATH`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.grpcurl", address, path],
        input=body,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
