import pytest
import trio
from trio.testing import MockClock

from impervious.lifetime import Lifetime


def test_what_is_closed_stays_closed_and_says_so() -> None:
    lifetime = Lifetime("the thing")
    lifetime.require_open()
    for _ in range(2):
        lifetime.close()
        with pytest.raises(trio.ClosedResourceError, match="the thing is closed: open it again"):
            lifetime.require_open()
        with pytest.raises(trio.ClosedResourceError), lifetime.waiting():
            raise AssertionError


async def test_closing_ends_every_wait(autojump_clock: MockClock) -> None:
    lifetime, ended = Lifetime("the thing"), 0

    async def wait() -> None:
        nonlocal ended
        with pytest.raises(trio.ClosedResourceError), lifetime.waiting():
            await trio.sleep_forever()
        ended += 1

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.sleep(1)
            with lifetime.waiting():  # what waits for nothing is not disturbed
                lifetime.close()
    assert ended == 3


async def test_a_wait_that_is_cancelled_is_just_that(autojump_clock: MockClock) -> None:
    lifetime = Lifetime("the thing")
    with trio.move_on_after(1) as scope, lifetime.waiting():
        await trio.sleep_forever()
    assert scope.cancelled_caught
