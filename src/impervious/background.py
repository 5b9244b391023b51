"""A task that runs beside a block and ends with it.

A nursery wraps whatever its body raises into a group, so a context manager that hides one would change the exceptions
of everybody who uses it. Here the body's own exception passes the nursery by and comes out as it went in; a group comes
out only if the task itself fails.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background(task: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run `task` while the body runs, then cancel it.

    Raises:
      ExceptionGroup: what `task` raised; the body is cancelled then.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        try:
            yield
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
