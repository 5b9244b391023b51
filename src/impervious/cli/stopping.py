"""SIGTERM and SIGINT: the first stops in order, the second at once.

Trio would turn the first SIGINT into a KeyboardInterrupt somewhere in the middle of things; here both are a
cancellation, so that everything ends in the order in which its nurseries are nested.
"""

import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import trio

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def until_stopped(run: Callable[[], Awaitable[object]]) -> None:
    """Run something until it ends by itself, or this process is told to stop.

    Args:
      run: cancelled by the first signal. A second one ends the process, whatever `run` still has to do.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(when_told, nursery.cancel_scope.cancel)
        await run()
        nursery.cancel_scope.cancel()


async def when_told(
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
