"""A page of docs/ and a desk to type its commands at: a shell for each block, in the order of the page."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from tests.cli.processes import PATIENCE_S, Running, free_base, started

BLOCK: Final = re.compile(r"(?:<!-- (?P<note>.*?) -->\n)?```sh\n(?P<commands>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Commands of the page."""

    note: str
    commands: str


def blocks(page: Path, chapter: str = "") -> list[Block]:
    """The commands of a page, or of one chapter of it, in order."""
    text = page.read_text()
    if chapter:
        text = text.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
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

    @asynccontextmanager
    async def town(self, simnet: Block, *daemons: Block) -> AsyncIterator[None]:
        """Serve the quickstart's network, with its two daemons."""
        async with AsyncExitStack() as stack:
            network = await stack.enter_async_context(self.stay(simnet))
            assert await network.line() == "ready"
            for daemon in daemons:
                await stack.enter_async_context(self.stay(daemon))
            for port in (8882, 8902):
                await self.answers(port)
            yield
