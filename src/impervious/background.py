"""Tasks that run beside a block and end with it.

A nursery wraps whatever its body raises into a group, and a cancellation from outside ends body and tasks at the same
moment. A context manager that hides a nursery would do both to everybody who uses it. Here the block ends first and its
tasks after it, whatever ends the block; and what comes out is what happened: the block's own exception as it went in,
or the error of the task that failed.
"""

import logging
import math
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, NoReturn, Protocol, TypeVar, TypeVarTuple, Unpack, cast

import trio

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
Announced = TypeVar("Announced", covariant=True)
Arguments = TypeVarTuple("Arguments")


class Startable(Protocol[Announced]):
    """A coroutine function that says when it has started."""

    def __call__(self, *, task_status: trio.TaskStatus[Announced]) -> Awaitable[object]:
        """Call `task_status.started` once, and go on."""
        ...


class Tasks:
    """Where the tasks of a block are started. Made by `open_tasks`.

    A cancellation from outside reaches the block only. Its tasks run until it has ended, and are cancelled then.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._stopped = False

    def start_soon(self, run: Callable[[Unpack[Arguments]], Awaitable[object]], *args: *Arguments) -> None:
        """Start a task.

        Args:
          run: a coroutine function; what it raises ends the block.
          args: its arguments.

        Raises:
          trio.ClosedResourceError: the block has ended.
        """

        async def shielded() -> None:
            with self._scope(shield=True):
                await run(*args)

        self._require_open()
        self._nursery.start_soon(shielded, name=run)

    async def start(self, run: Startable[Value]) -> Value:
        """Start a task, and wait until it says that it has started.

        Args:
          run: what it raises before it has started is raised here; later, it ends the block.

        Returns:
          What it passes to `task_status.started`.

        Raises:
          trio.ClosedResourceError: the block has ended.

        Cancellation: ends the task, unless it has started.
        """

        async def shielded_once_started(*, task_status: trio.TaskStatus[Value]) -> None:  # noqa: ASYNC114, ASYNC128
            with self._scope(shield=False) as scope:
                await run(task_status=cast("trio.TaskStatus[Value]", _Started(task_status, scope)))

        self._require_open()
        value: Value = await self._nursery.start(shielded_once_started, name=run)
        return value

    def stop(self) -> None:
        """Cancel all tasks, those to come included."""
        self._stopped = True
        for scope in self._scopes:
            scope.cancel()

    def _require_open(self) -> None:
        if self._stopped:
            raise trio.ClosedResourceError("this is closed: open it again")

    @contextmanager
    def _scope(self, *, shield: bool) -> Iterator[trio.CancelScope]:
        with trio.CancelScope(shield=shield) as scope:
            if self._stopped:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)


class _Started(Generic[Value]):
    """A task status: until `started` the task belongs to its starter, then to the block."""

    def __init__(self, status: trio.TaskStatus[Value], scope: trio.CancelScope) -> None:
        self._status = status
        self._scope = scope

    def started(self, value: Value | None = None) -> None:
        # Trio leaves a task whose starter is cancelled with its starter, who then waits for it to end. Any other one is
        # shielded first: the block to which it moves may be cancelled already.
        self._scope.shield = trio.current_effective_deadline() > -math.inf
        self._status.started(value)  # type: ignore[arg-type]  # None only where Value is None


@asynccontextmanager
async def open_tasks() -> AsyncIterator[Tasks]:
    """Run tasks for as long as the block does: the nursery inside a context manager that other code uses.

    Raises:
      BaseException: what the block raises, the very object; else what a task raises, which cancels the block, taken
        out of the groups of the nurseries that it has passed. Of several errors the block's comes out, else the first;
        the others are notes on it, and in the log.

    Cancellation: ends the block; its tasks are cancelled once it has ended, and waited for.
    """
    of_block: BaseException | None = None
    cancelled: BaseException | None = None
    errors: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            try:
                yield tasks
            except BaseException as error:  # noqa: ASYNC103 - raised again behind the nursery
                cancelled, of_block = split_cancelled(error)
                if cancelled is not None:
                    raise cancelled from cancelled.__cause__  # noqa: ASYNC104
            finally:
                tasks.stop()
            cancelled = None
    except BaseExceptionGroup as group:
        errors = [error for error in leaves(group) if not isinstance(error, trio.Cancelled)]
    if of_block is not None:
        errors.insert(0, of_block)
    if errors:
        _raise(errors)
    if cancelled is not None:
        raise cancelled


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Take an error apart.

    Returns:
      What is Trio's own, and has to go on; and everything else. Either may be None, and is `error` if the other is.
    """
    if isinstance(error, BaseExceptionGroup):
        cancelled, rest = error.split(trio.Cancelled)
        return cancelled, rest if cancelled is not None else error
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group and in the groups in it, in order; of what is no group, the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def _raise(errors: Sequence[BaseException]) -> NoReturn:
    """Raise the first of some errors as it is; the others become notes on it, and their tracebacks log lines."""
    error, *others = errors
    for other in others:
        summary = "".join(traceback.format_exception_only(other)).strip()
        error.add_note(f"besides: {summary}")
        logger.error("besides %s: %s", type(error).__name__, summary, exc_info=other)
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context  # which `raise` has replaced by what is being handled: a cancellation
        del error, others, context, errors


@asynccontextmanager
async def background(task: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run `task` while the block runs, then cancel it. Raises, and is cancelled, as `open_tasks`."""
    async with open_tasks() as tasks:
        tasks.start_soon(task)
        yield
