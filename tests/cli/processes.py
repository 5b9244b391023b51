"""Our commands as processes, as people start them."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from functools import partial

import trio

PATIENCE_S = 60
"""For anything, on a machine that is busy."""


def free_base(count: int) -> int:
    """A port from which on so many are free, at this moment; another process that asks begins elsewhere."""
    first = 20_000 + os.getpid() % 100 * 100
    for base in range(first, 32_000, count):
        with suppress(OSError), ExitStack() as taken:
            for port in range(base, base + count):
                taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base
    raise AssertionError("no ports are free")


class Running:
    """A process and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def line(self) -> str:
        """The next line of its stdout, which must come."""
        assert self.process.stdout
        with trio.fail_after(PATIENCE_S):
            while b"\n" not in self._rest:
                chunk = await self.process.stdout.receive_some()
                assert chunk, f"it ended with {await self.process.wait()} after {self._rest!r}"
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def rest(self) -> str:
        """Everything else that it prints until its end."""
        assert self.process.stdout
        with trio.fail_after(PATIENCE_S):
            async for chunk in self.process.stdout:
                self._rest += chunk
        return self._rest.decode()

    async def stop(self, number: int) -> int:
        """Send it a signal, and return its exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def leave(self) -> int:
        """Read no more, as `head` does when it has enough, and return its exit code."""
        assert self.process.stdout
        await self.process.stdout.aclose()
        return await self.ended()

    async def ended(self) -> int:
        """Wait until it ends by itself, which it must, and return its exit code."""
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()


def running(*arguments: str, environ: dict[str, str] | None = None) -> AbstractAsyncContextManager[Running]:
    """`impervious` with these arguments; killed at the end if it still runs."""
    return started(command(arguments), environ=environ)


@asynccontextmanager
async def started(command: Sequence[str], *, environ: dict[str, str] | None = None) -> AsyncIterator[Running]:
    """Any command; killed at the end if it still runs."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command,
            stdin=b"",
            stdout=subprocess.PIPE,
            stderr=None,
            check=False,
            env=environ,
        )
        process = await nursery.start(start)
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                process.kill()


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "impervious", *arguments]
