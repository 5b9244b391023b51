import io

import pytest
import trio
import trio.testing
from rich.console import Console

from impervious.cli.client import progress
from impervious.cli.client.progress import REFRESH_S, shown_progress


async def test_it_tells_how_far_it_is_and_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=out, force_terminal=True, width=100))
    async with shown_progress(640_000, wanted=True) as bar:
        bar.uploaded(320_000)
        await trio.sleep(2 * REFRESH_S)
        assert "to the daemon, 320,000 of 640,000 bytes" in out.getvalue()
        bar.waiting()
        await trio.sleep(2 * REFRESH_S)
        assert "accepted; waiting for the far node to settle" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")  # the line is wiped


async def test_without_a_terminal_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    async with shown_progress(640_000, wanted=False) as bar:
        bar.uploaded(1)
        bar.waiting()
    assert capsys.readouterr() == ("", "")
