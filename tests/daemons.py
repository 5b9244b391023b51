"""Daemons as their users run them: processes with a configuration file, each on its node of a simulated network.

The network is in this process, behind TLS and macaroons; the daemons know nothing of that. They are started, killed
and asked over HTTP, and what they log is kept.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
import yaml
from trio_websocket import WebSocketConnection, open_websocket_url

from impervious.config import LndConfig
from impervious.model import NodePubkey
from impervious.sim import SimNetwork
from impervious.sim.face import Credentials, LndFace

PATIENCE_S = 60
"""How long a process may take for anything, on a machine that is busy."""


@dataclass
class Daemon:
    """One daemon, running or not."""

    name: str
    folder: Path
    pubkey: NodePubkey
    """Of its Lightning node."""
    settings: dict[str, Any]
    http: str = ""
    grpc: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Its log of this start."""
    process: trio.Process | None = None
    seen: int = 0
    """The `seq` of the last event that a test is done with."""

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC114 - started by its full name
        """Start it; it is started when it says so. Ends when the process does."""
        self.config.write_text(yaml.safe_dump(self.settings))
        command = [sys.executable, "-m", "impervious", "--config", str(self.config)]
        lines: list[dict[str, Any]] = []
        self.lines, self.http = lines, ""
        async with trio.open_nursery() as nursery:
            self.process = await nursery.start(partial(trio.run_process, command, stderr=subprocess.PIPE, check=False))
            assert self.process is not None
            assert self.process.stderr is not None
            buffer = b""
            async for chunk in self.process.stderr:
                *whole, buffer = (buffer + chunk).split(b"\n")
                lines.extend(self._read(line.decode(), task_status) for line in whole)
            await self.process.wait()
        if not any(line["msg"] == "IMPD started!" for line in lines):
            task_status.started()

    def _read(self, line: str, task_status: trio.TaskStatus[None]) -> dict[str, Any]:
        if not line.startswith("{"):
            line = json.dumps({"level": "text", "msg": line})
        logged: dict[str, Any] = json.loads(line)
        if logged["msg"] == "IMPD started!":
            self.http, self.grpc = logged["http"], logged["grpc"]
            task_status.started()
        return logged

    async def stop(self, number: signal.Signals) -> int:
        """Send it a signal, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()

    def kill(self) -> None:
        """End it now, if it runs."""
        if self.process is not None and self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)

    async def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Call it over REST, and return what it answers, errors too."""
        return await trio.to_thread.run_sync(partial(self._ask, path, json.dumps(body).encode(), headers or {}))

    async def get(self, path: str) -> dict[str, Any]:
        """Look something up over REST."""
        return await trio.to_thread.run_sync(partial(self._ask, path, None, {}))

    def _ask(self, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(f"http://{self.http}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))

    async def send(self, to: "Daemon", text: str, **fields: object) -> dict[str, Any]:
        """Send a text."""
        return await self.post("/v1/message/send", {"pubkey": to.pubkey.hex, "text": text, **fields})

    @asynccontextmanager
    async def events(self, since: int = 0) -> AsyncIterator[WebSocketConnection]:
        """Its websocket, from `since` on."""
        async with open_websocket_url(f"ws://{self.http}/v1/subscribe?since={since}&v=2") as connection:
            yield connection

    @property
    def warnings(self) -> list[str]:
        """What it warned about."""
        return [line["msg"] for line in self.lines if line["level"] == "warning"]


async def started(daemon: Daemon, nursery: trio.Nursery) -> Daemon:
    """Start a daemon, and wait until it says so."""
    with trio.fail_after(PATIENCE_S):
        await nursery.start(daemon.run)
    assert daemon.process is not None
    assert daemon.http, (daemon.process.returncode, daemon.lines)
    return daemon


async def next_event(connection: WebSocketConnection) -> dict[str, Any]:
    with trio.fail_after(PATIENCE_S):
        return dict(json.loads(await connection.get_message())["result"])


def on_lnd(name: str, folder: Path, pubkey: NodePubkey, lnd: LndConfig) -> Daemon:
    """A daemon that is to run on an LND."""
    settings = {
        "server": {"grpc_addr": "127.0.0.1:0", "http_addr": "127.0.0.1:0"},
        "sqlite3": {"path": str(folder / "imp.db")},
        "lightning": {
            "lnd_node": {
                "ip": "127.0.0.1",
                "port": lnd.port,
                "tls_cert": str(lnd.tls_cert),
                "admin_macaroon": str(lnd.macaroon),
                "pub_key": pubkey.hex,
            }
        },
    }
    return Daemon(name, folder, pubkey, settings)


@dataclass
class Town:
    """A network, its nodes' doors, and their daemons."""

    network: SimNetwork
    daemons: dict[str, Daemon]
    nursery: trio.Nursery

    async def start(self, name: str) -> Daemon:
        return await started(self.daemons[name], self.nursery)


@asynccontextmanager
async def town(folder: Path, *names: str, network: SimNetwork) -> AsyncIterator[Town]:
    """Serve a network and make ready the daemons of some of its nodes; all are killed at the end."""
    async with network.open() as opened, trio.open_nursery() as nursery:
        daemons = {}
        for name in names:
            home = folder / name
            credentials = Credentials.kept(home)
            port = await nursery.start(LndFace(opened.lnd(name), credentials).serve)
            daemons[name] = on_lnd(
                name,
                home,
                opened.lnd(name).pubkey,
                LndConfig(port=port, tls_cert=credentials.certificate, macaroon=credentials.macaroon),
            )
        there = Town(opened, daemons, nursery)
        try:
            yield there
        finally:
            for daemon in daemons.values():
                daemon.kill()
            nursery.cancel_scope.cancel()
