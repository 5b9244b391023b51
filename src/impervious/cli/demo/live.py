"""Facts on a terminal: coloured lines, and below them a bar while a large message is under way."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from impervious.cli.demo.facts import Fact, Progressed, StepEnded, Stopping, Tell
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
def live_view(out: TextIO, environ: Mapping[str, str]) -> Iterator[Tell]:
    """Show facts on a terminal; the terminal is as before when the block ends.

    Args:
      out: the terminal.
      environ: as rich reads it: NO_COLOR, TERM, COLUMNS.
    """
    live = _Live(Console(file=out, _environ=environ, force_terminal=True, highlight=False, soft_wrap=True))
    try:
        yield live
    finally:
        live.remove_bar()


class _Live:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Progressed):
            self._advance(fact)
        elif isinstance(fact, StepEnded | Stopping):
            self.remove_bar()
        for line in lines_of(fact):
            self._console.print(_styled(line))

    def remove_bar(self) -> None:
        """Take the bar away, and give the cursor back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _advance(self, fact: Progressed) -> None:
        if self._bar is None:
            self._bar = _new_bar(self._console)
            self._task = self._bar.add_task(f"to {fact.to}", total=fact.parts)
            self._bar.start()
        self._bar.update(self._task, completed=fact.settled, total=fact.parts, refresh=True)


def _new_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("payments settled"),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,  # rich's own refreshing would be a thread
        transient=True,
    )


def _styled(line: Line) -> Text:
    return Text.assemble(*((piece.text, STYLES.get(piece.meaning, "")) for piece in line))
