import logging

import pytest
import trio

from impervious.log_limit import EVERY_S, LimitedLog

logger = logging.getLogger(__name__)


async def test_lines_of_a_kind_come_once_in_a_while_and_count(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limited = LimitedLog(logger)
    for number in range(1000):
        limited.warning("%d: refused", number)
    limited.warning("another kind")
    assert caplog.messages == ["0: refused", "another kind"]
    await trio.sleep(EVERY_S)
    limited.warning("%d: refused", 1000)
    assert caplog.messages[2] == "1000: refused (and 999 more since the last such line)"
    await trio.sleep(EVERY_S)
    limited.warning("%d: refused", 1001)
    assert caplog.messages[3] == "1001: refused"


async def test_kinds_of_one_text_are_limited_and_counted_each(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limited = LimitedLog(logger)
    for _ in range(3):
        limited.warning("refused: %s", "host", kind="a")
        limited.warning("refused: %s", "origin", kind="b")
    assert caplog.messages == ["refused: host", "refused: origin"]
    await trio.sleep(EVERY_S)
    limited.warning("refused: %s", "host", kind="a")
    assert caplog.messages[2] == "refused: host (and 2 more since the last such line)"
