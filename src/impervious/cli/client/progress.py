"""A progress bar on stderr: how much of a message has left, then how long its delivery has taken.

What happens between the two nodes is told by nobody before the outcome, so while it is awaited the bar only shows that
time passes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from impervious.background import background

REFRESH_S: Final = 0.1


class Bar:
    """What the verb tells of its progress. Made by `shown_progress`."""

    def __init__(self, progress: Progress | None, task: TaskID | None, total_bytes: int) -> None:
        self._progress = progress
        self._task = task
        self._total_bytes = total_bytes

    def uploaded(self, sent_bytes: int) -> None:
        """So much of the body has left."""
        self._show(f"to the daemon, {sent_bytes:,} of {self._total_bytes:,} bytes", completed=sent_bytes)

    def waiting(self) -> None:
        """It is accepted, and on its way."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description="accepted; waiting for the far node to settle", total=None)

    def _show(self, description: str, *, completed: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=description, completed=completed)


@asynccontextmanager
async def shown_progress(total_bytes: int, *, wanted: bool) -> AsyncIterator[Bar]:
    """Show a bar for as long as the block runs, if it is wanted."""
    if not wanted:
        yield Bar(None, None, total_bytes)
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Refreshed by a task: rich's own thread would write beside us.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total_bytes)

        async def refresh() -> NoReturn:
            while True:
                progress.refresh()
                await trio.sleep(REFRESH_S)

        async with background(refresh):
            yield Bar(progress, task, total_bytes)
