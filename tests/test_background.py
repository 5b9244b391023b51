# ruff: noqa: PT012 - what comes out of whole blocks is the point
"""Blocks with tasks beside them: in which order they end, and what comes out."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from impervious.background import Tasks, background, open_tasks


async def test_a_task_runs_beside_the_body_and_ends_with_it(autojump_clock: MockClock) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(trio.current_time())
            await trio.sleep(1)

    start = trio.current_time()
    async with background(tick):
        await trio.sleep(2.5)
    await trio.sleep(5)
    assert [tick - start for tick in ticks] == [0, 1, 2]


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise KeyError("task")


def last_words(error: BaseException) -> Callable[[], Awaitable[None]]:
    """A task that fails as it is cancelled."""

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    return run


# --- What comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        KeyError("body"),
        StopIteration(),
        StopAsyncIteration(),
        ExceptionGroup("its own", [KeyError("body")]),
        SystemExit(3),
        KeyboardInterrupt(),
        BaseExceptionGroup("its own", [KeyboardInterrupt()]),
    ],
)
async def test_what_the_body_raises_comes_out_as_it_went_in(error: BaseException) -> None:
    cause = error.__cause__ = ValueError("why")
    with pytest.raises(type(error)) as caught:
        async with background(trio.sleep_forever), open_tasks() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error
    assert (error.__cause__, getattr(error, "__notes__", [])) == (cause, [])


async def test_a_task_that_fails_cancels_the_body_and_its_error_comes_out_bare() -> None:
    error = KeyError("task")

    async def deep() -> None:
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                outer.start_soon(trio.sleep_forever)
                try:
                    raise ValueError("why")
                except ValueError:
                    raise error  # noqa: B904 - the context is the point

    with pytest.raises(KeyError) as caught:
        async with background(deep):
            await trio.sleep_forever()
    assert caught.value is error
    assert repr(error.__context__) == "ValueError('why')"


async def test_of_two_errors_the_bodys_comes_out_and_the_other_is_on_it() -> None:
    with pytest.raises(ValueError, match="body") as caught:
        async with background(last_words(KeyError("task"))):
            await wait_all_tasks_blocked()
            raise ValueError("body")
    assert caught.value.__notes__ == ["besides: KeyError: 'task'"]


async def test_of_two_tasks_the_first_error_comes_out_and_the_other_is_on_it() -> None:
    with pytest.raises(KeyError, match="task") as caught:
        async with background(last_words(ValueError("second"))), open_tasks() as tasks:
            tasks.start_soon(last_words(ZeroDivisionError("third")))
            tasks.start_soon(fail)
            await trio.sleep_forever()
    assert caught.value.__notes__ == ["besides: ZeroDivisionError: third", "besides: ValueError: second"]


async def test_a_body_that_is_cancelled_and_fails_keeps_its_error() -> None:
    with trio.CancelScope() as scope, pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="its own")):
        async with background(trio.sleep_forever), trio.open_nursery() as nursery:
            nursery.start_soon(last_words(ValueError("its own")))
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()


async def test_a_failed_task_takes_a_cancellation_out_of_what_comes_out() -> None:
    with trio.CancelScope() as scope, pytest.raises(KeyError):
        async with background(last_words(KeyError())):
            scope.cancel()
            await trio.sleep_forever()


# --- In which order ---------------------------------------------------------------------------------------------------


async def test_cancelled_from_outside_the_block_ends_first_and_tasks_run_meanwhile(autojump_clock: MockClock) -> None:
    ended: list[tuple[str, float]] = []
    began = trio.current_time()

    def note(what: str) -> None:
        ended.append((what, trio.current_time() - began))

    async def work(name: str, asked: trio.MemoryReceiveChannel[trio.Event]) -> None:
        try:
            async for each in asked:
                await trio.sleep(1)
                each.set()
        finally:
            with trio.move_on_after(2, shield=True):
                await trio.sleep(0.5)
            note(name)

    async def leave(ask: trio.MemorySendChannel[trio.Event]) -> None:
        with trio.move_on_after(10, shield=True):
            answered = trio.Event()
            await ask.send(answered)
            await answered.wait()
        note("block")

    send, receive = trio.open_memory_channel[trio.Event](0)
    with send, receive, trio.move_on_after(1) as scope:
        async with open_tasks() as outer:
            outer.start_soon(work, "outer", receive.clone())
            async with open_tasks() as inner:
                inner.start_soon(work, "inner", receive)
                try:
                    await trio.sleep_forever()
                finally:
                    await leave(send)  # noqa: ASYNC102 - bounded there
    assert scope.cancelled_caught
    assert ended == [("block", 2), ("inner", 2.5), ("outer", 3)]


async def test_a_task_that_fails_ends_the_block_before_the_other_tasks(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("other")

    with pytest.raises(KeyError):
        async with open_tasks() as tasks:
            tasks.start_soon(other)
            tasks.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                ended.append("block")
    assert ended == ["block", "other"]


async def test_a_task_is_its_starters_until_it_has_started(autojump_clock: MockClock) -> None:
    async def slow(*, task_status: trio.TaskStatus[str]) -> None:  # noqa: ASYNC114, ASYNC128
        await trio.sleep(1)
        task_status.started("ready")
        await trio.sleep_forever()

    async def stubborn(*, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114, ASYNC128
        try:
            await trio.sleep_forever()
        finally:
            task_status.started()
            await trio.lowlevel.checkpoint()  # noqa: ASYNC102

    with trio.fail_after(10):
        async with open_tasks() as tasks:
            assert await tasks.start(slow) == "ready"
            with trio.move_on_after(0.5) as scope:
                await tasks.start(slow)
            assert scope.cancelled_caught
            with trio.move_on_after(0.5) as scope:  # too late to be moved
                await tasks.start(stubborn)
            assert scope.cancelled_caught
            with pytest.raises(KeyError):
                await tasks.start(failing)


async def failing(*, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114, ASYNC124, ASYNC128
    raise KeyError


async def test_nothing_is_started_once_the_block_has_ended() -> None:
    async def start_late(tasks: Tasks) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with pytest.raises(trio.ClosedResourceError):
                tasks.start_soon(trio.sleep_forever)

    async with open_tasks() as tasks:
        tasks.start_soon(start_late, tasks)
        await wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError):
        tasks.start_soon(trio.sleep_forever)
    with pytest.raises(trio.ClosedResourceError):
        await tasks.start(failing)
