"""Ways to show facts: an object a line for programs, plain lines, and on a terminal colours and a progress bar.

Only the last one needs a library (rich), which is loaded when it is used: bars that redraw themselves below lines that
stay are worth 50 ms at a terminal, and nothing elsewhere.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Final, TextIO

from impervious.cli.demo.facts import Fact, Tell
from impervious.cli.demo.wording import lines_of


def choose(out: TextIO, environ: Mapping[str, str], *, as_json: bool) -> AbstractContextManager[Tell]:
    """Choose how to show facts.

    Args:
      out: stdout, as a rule.
      environ: TERM=dumb means a terminal that cannot move its cursor; NO_COLOR is honoured too.
      as_json: whether programs read it.
    """
    if as_json:
        return nullcontext(_Written(out, _as_json))
    if out.isatty() and environ.get("TERM") not in (None, "", "dumb"):
        # Here, because only people at a terminal need it.
        from impervious.cli.demo.live import live_view

        return live_view(out, environ)
    return nullcontext(_Written(out, _as_text))


class _Written:
    """Shows facts as text that stays."""

    def __init__(self, out: TextIO, write: Callable[[Fact], str]) -> None:
        self._out = out
        self._write = write

    def __call__(self, fact: Fact) -> None:
        text = self._write(fact)
        if text:
            self._out.write(text)
            self._out.flush()


_NEXT_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")


def _as_json(fact: Fact) -> str:
    return json.dumps({"event": _NEXT_WORD.sub("_", type(fact).__name__).lower(), **asdict(fact)}) + "\n"


def _as_text(fact: Fact) -> str:
    return "".join("".join(piece.text for piece in line) + "\n" for line in lines_of(fact))
