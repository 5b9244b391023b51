import pytest
import trio

from impervious.background import background


async def test_a_task_runs_beside_the_body_and_ends_with_it(autojump_clock: object) -> None:
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


async def test_what_the_body_raises_comes_out_as_it_went_in() -> None:
    with pytest.raises(KeyError, match="body"):
        async with background(trio.sleep_forever):
            raise KeyError("body")


async def test_a_task_that_fails_cancels_the_body() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("task")

    with pytest.RaisesGroup(KeyError):
        async with background(fail):
            await trio.sleep_forever()


async def test_cancelling_the_block_from_outside_reaches_both(autojump_clock: object) -> None:
    with trio.move_on_after(1) as scope:
        async with background(trio.sleep_forever):
            await trio.sleep_forever()
    assert scope.cancelled_caught
