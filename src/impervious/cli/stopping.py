"""SIGTERM and SIGINT: the first stops in order, the second at once.

Trio would turn the first SIGINT into a KeyboardInterrupt somewhere in the middle of things; here both are a
cancellation, so that everything ends in the order in which its nurseries are nested.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import trio

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def until_stopped(run: Callable[[], Awaitable[object]]) -> None:
    """Run something until it ends by itself, or this process is told to stop.

    Args:
      run: cancelled by the first signal. A second one ends the process, whatever `run` still has to do.
    """
    with trio.open_signal_receiver(*SIGNALS) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, received, nursery.cancel_scope)
            await run()
            nursery.cancel_scope.cancel()


async def _cancel_on_signal(received: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in received:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        scope.cancel()
        return
