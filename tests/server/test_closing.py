import trio
import trio.testing

from impervious.server.closing import Closing


async def sleep() -> None:
    """trio.sleep_forever, of which mypy knows that nothing comes behind it."""
    await trio.Event().wait()


async def test_begin_ends_every_wait_and_those_to_come(autojump_clock: trio.testing.MockClock) -> None:
    closing, ended = Closing(), []

    async def waiter(name: str) -> None:
        with closing.wait() as scope:
            await sleep()
        ended.append((name, scope.cancelled_caught))

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(waiter, name)
        await trio.testing.wait_all_tasks_blocked()
        before = closing.begun
        closing.begin()
        closing.begin()
    assert (before, closing.begun) == (False, True)
    assert sorted(ended) == [("a", True), ("b", True), ("c", True)]
    await waiter("late")
    assert ended[-1] == ("late", True)


async def test_a_wait_may_also_end_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    closing = Closing()
    with closing.wait(30) as scope:
        await sleep()
    assert scope.cancelled_caught
    assert not closing.begun
    assert trio.current_time() == 30
    with closing.wait(30) as scope:
        await trio.sleep(1)
    assert not scope.cancelled_caught
    closing.begin()  # nobody is left to be told
