import io
import re
from dataclasses import replace

from tests.cli.demo.facts import ARRIVED, BEGAN, DELIVERED, ENDED, HALF, SENT, STOPPING

from impervious.cli.demo.facts import Fact, Progressed
from impervious.cli.demo.live import live_view

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def shown(*facts: Fact, **environ: str) -> str:
    out = io.StringIO()
    with live_view(out, {"TERM": "xterm-256color", "COLUMNS": "100", **environ}) as show:
        for fact in facts:
            show(fact)
    return out.getvalue()


def test_lines_are_coloured() -> None:
    text = shown(BEGAN, ARRIVED, DELIVERED)
    assert "\x1b[1m2/3 alice sends a lot\x1b[0m" in text
    assert "\x1b[1;35mcarol\x1b[0m  receives" in text
    assert "\x1b[32mdelivered\x1b[0m" in text
    assert HIDE not in text


def test_a_bar_moves_while_something_is_under_way_and_leaves_nothing_behind() -> None:
    text = shown(SENT, HALF, Progressed(to="carol", settled=10, parts=10), ARRIVED, ENDED, DELIVERED)
    assert "to carol" in text
    assert text.index(" 5/10") < text.index("10/10") < text.index("done in")
    assert (text.count(HIDE), text.count(SHOW)) == (1, 1)
    assert text.index(SHOW) < text.index("done in")
    assert "10/10" not in text[text.index("done in") :]


def test_the_cursor_comes_back_however_it_ends() -> None:
    for facts in ((HALF,), (HALF, STOPPING)):
        text = shown(*facts)
        assert text.rindex(SHOW) > text.rindex(HIDE)


def test_no_color_means_none() -> None:
    text = shown(BEGAN, ARRIVED, HALF, ENDED, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-9])[0-9;]*m", text)


def test_text_from_others_is_not_markup() -> None:
    assert "[red]x[/red]" in shown(replace(ARRIVED, text="[red]x[/red]", size=12))
