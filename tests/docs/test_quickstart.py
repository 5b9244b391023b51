"""docs/quickstart.md, run as it stands: a shell for each block, in the order of the page."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import trio
import yaml
from tests.cli.processes import PATIENCE_S, Running, free_base, started
from tests.daemons import town

from impervious.sim import SimNetwork

PAGE: Final = Path("docs/quickstart.md")
BLOCK: Final = re.compile(r"(?:<!-- (?P<note>.*?) -->\n)?```sh\n(?P<commands>.*?)```", re.DOTALL)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Block:
    """Commands of the page."""

    note: str
    commands: str


def blocks(chapter: str) -> list[Block]:
    """The commands of one chapter, in order."""
    text = PAGE.read_text().partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    return [Block(found["note"] or "", found["commands"]) for found in BLOCK.finditer(text)]


class Desk:
    """A folder to work in, ports that are free instead of the published ones, and our commands on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = free_base(30)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environ = {**os.environ, "PATH": path, "HOME": str(folder)}

    def commands(self, block: Block) -> str:
        text = block.commands.replace("--dir simnet", f"--dir simnet --port-base {self.base}")
        return re.sub(r"127\.0\.0\.1:(88\d\d|89\d\d)", lambda found: f"127.0.0.1:{self.moved(int(found[1]))}", text)

    def moved(self, port: int) -> int:
        return port - 8881 + self.base

    async def run(self, block: Block) -> str:
        """Type a block into a shell of its own, and return what it prints."""
        command = ["sh", "-euc", self.commands(block)]
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(command, cwd=self.folder, env=self.environ, capture_stdout=True)
        return done.stdout.decode()

    @asynccontextmanager
    async def stay(self, block: Block) -> AsyncIterator[Running]:
        """Type a command that stays."""
        command = ["sh", "-euc", f"cd {self.folder} && exec {self.commands(block)}"]
        async with started(command, environ=self.environ) as process:
            yield process

    async def answers(self, port: int) -> None:
        """Wait until a daemon is ready."""
        url = f"http://127.0.0.1:{self.moved(port)}/readyz"
        command = ["curl", "-sf", "--retry", "100", "--retry-delay", "1", "--retry-all-errors", url]
        with trio.fail_after(PATIENCE_S):
            await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL)


async def test_the_simulated_network(tmp_path: Path) -> None:
    simnet, alice, carol, tail, send, curl, subscribe, photo, show = blocks("On a simulated network")
    assert [block.note for block in (simnet, alice, carol, tail, subscribe)] == ["stays"] * 5
    desk = Desk(tmp_path)
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(desk.stay(simnet))
        assert await network.line() == "ready"
        await stack.enter_async_context(desk.stay(alice))
        await stack.enter_async_context(desk.stay(carol))
        for port in (8882, 8902):
            await desk.answers(port)
        watching = await stack.enter_async_context(desk.stay(tail))
        assert (await desk.run(send)).endswith("\ndelivered\n")
        assert (await watching.line()).endswith(" 1 sat hello, carol")
        assert '"id"' in await desk.run(curl)
        assert (await watching.line()).endswith(" 1 sat hello from curl")
        async with desk.stay(subscribe) as stream:
            for text in ("aGVsbG8sIGNhcm9s", "aGVsbG8gZnJvbSBjdXJs"):
                assert text in await stream.line()
        assert (await desk.run(photo)).endswith("\ndelivered\n")
        assert "<100,000 bytes: " in await watching.line()
        assert "3 (3 message)" in await desk.run(show)


async def test_two_lnd_nodes(tmp_path: Path) -> None:
    init, check, run, send = blocks("On two LND nodes")
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    desk = Desk(tmp_path)
    async with town(tmp_path, "alice", "bob", network=network) as there:
        bob = await there.start("bob")
        assert "wrote alice.yml" in await desk.run(init)
        written = yaml.safe_load((tmp_path / "alice.yml").read_text())
        written["lightning"]["lnd_node"] = there.daemons["alice"].settings["lightning"]["lnd_node"]
        written["server"] = {"grpc_addr": f"127.0.0.1:{desk.base}", "http_addr": f"127.0.0.1:{desk.base + 1}"}
        (tmp_path / "alice.yml").write_text(yaml.safe_dump(written))
        assert (await desk.run(check)).endswith("alice.yml: ok\n")
        async with desk.stay(run):
            await desk.answers(8882)
            first = Block(send.note, send.commands.replace("THEIR_PUBKEY", bob.pubkey.hex))
            assert (await desk.run(first)).endswith("\ndelivered\n")


def test_every_command_is_run() -> None:
    """Or it says why not; and there are no others hidden in the text."""
    text = PAGE.read_text()
    found = [
        block.note for chapter in ("Install", "On a simulated network", "On two LND nodes") for block in blocks(chapter)
    ]
    assert len(found) == text.count("```sh") == len(BLOCK.findall(text))
    assert [note for note in found if note.startswith("not run")] == ["not run: the tests have it installed"]
