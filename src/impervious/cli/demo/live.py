"""Facts on a terminal: coloured lines, and below them a bar while a large message is under way."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from impervious.cli.demo.facts import Fact, Progressed, StepEnded, Stopping
from impervious.cli.demo.views import Show
from impervious.cli.demo.wording import Line, lines_of

STYLES: Final = {
    "heading": "bold",
    "good": "green",
    "bad": "bold red",
    "faint": "dim",
    "command": "yellow",
    "alice": "bold cyan",
    "carol": "bold magenta",
}


@contextmanager
def live_view(out: TextIO, environ: Mapping[str, str]) -> Iterator[Show]:
    """Show facts on a terminal; the terminal is as before when the block ends.

    Args:
      out: the terminal.
      environ: as rich reads it: NO_COLOR, TERM, COLUMNS.
    """
    console = Console(file=out, _environ=environ, force_terminal=True, highlight=False, soft_wrap=True)
    # Drawn when there is something new, by whoever brings it: rich's own refreshing would be a thread.
    with _bar(console) as progress:
        yield _Live(console, progress)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("payments settled"),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
    )


class _Live:
    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._task: TaskID | None = None

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Progressed):
            self._advance(fact)
        elif isinstance(fact, StepEnded | Stopping):
            self._remove_bar()
        for line in lines_of(fact):
            self._console.print(_styled(line))
        self._progress.refresh()

    def _advance(self, fact: Progressed) -> None:
        if self._task is None:
            self._task = self._progress.add_task(f"to {fact.to}", total=fact.parts)
        self._progress.update(self._task, completed=fact.settled, total=fact.parts)

    def _remove_bar(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def _styled(line: Line) -> Text:
    return Text.assemble(*((piece.text, STYLES.get(piece.meaning, "")) for piece in line))
