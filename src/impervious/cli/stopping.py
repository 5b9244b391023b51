"""SIGTERM and SIGINT: the first asks to stop, the second stops at once.

Nothing is cancelled from outside: the first signal ends what merely waits, so that blocks are left one after the other,
from the inside out. Signals are taken until the last of them has ended, also when something else ends them.
"""

import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from impervious.background import open_tasks
from impervious.server.closing import Closing

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def stopped_by_signals() -> AsyncIterator[Closing]:
    """Take this process's signals for as long as the block runs.

    Yields:
      What begins with the first one: what waits with it ends then, and so does `told`.
    """
    closing = Closing()
    async with open_tasks() as tasks:
        await tasks.start(partial(when_told, closing.begin))
        yield closing


async def told(closing: Closing) -> None:
    """Wait until it begins."""
    with closing.wait():
        await trio.sleep_forever()


async def when_told(  # noqa: ASYNC114 - started as soon as signals are taken
    stop: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at the first signal, and leave the second to the system, which ends the process."""
    with trio.open_signal_receiver(*SIGNALS) as received:
        task_status.started()
        number = await anext(aiter(received))
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    logger.info("%s: stopping; a second one stops at once", signal.Signals(number).name)
    stop()
