import io
import json
import subprocess
import sys

import pytest
from tests.cli.demo.facts import ARRIVED, EVERY, HALF, SENT

from impervious.cli.demo.views import choose


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO, environ: dict[str, str], *, as_json: bool = False) -> str:
    with choose(out, environ, as_json=as_json) as show:
        for fact in EVERY:
            show(fact)
    return out.getvalue()


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_json_is_an_object_a_line(out: type[io.StringIO]) -> None:
    facts = [json.loads(line) for line in shown(out(), {"TERM": "xterm"}, as_json=True).splitlines()]
    assert [fact["event"] for fact in facts] == [
        "opened",
        "step_began",
        "sent",
        "progressed",
        "arrived",
        "concluded",
        "concluded",
        "step_ended",
        "tour_ended",
        "stopping",
    ]
    assert facts[0]["places"][1]["http"] == "127.0.0.1:8892"
    assert facts[3] == {"event": "progressed", "to": "carol", "settled": 5, "parts": 10}


@pytest.mark.parametrize(
    ("out", "environ"), [(io.StringIO, {"TERM": "xterm"}), (Terminal, {"TERM": "dumb"}), (Terminal, {})]
)
def test_lines_are_plain_where_nothing_can_move(out: type[io.StringIO], environ: dict[str, str]) -> None:
    text = shown(out(), environ)
    assert "\x1b" not in text
    assert '  carol  receives   "hello"  from alice, 1 sat  01234567\n' in text


def test_each_line_is_written_at_once() -> None:
    class Reader(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    out = Reader()
    with choose(out, {}, as_json=False) as show:
        for fact in (SENT, HALF, ARRIVED):
            show(fact)
            assert out.flushed == len(out.getvalue()) > 0


def test_a_terminal_gets_the_live_view() -> None:
    assert "\x1b[" in shown(Terminal(), {"TERM": "xterm"})


@pytest.mark.slow
def test_only_the_live_view_loads_its_library() -> None:
    program = "import sys, impervious.cli.verbs.demo; print('rich' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"
