import pytest
import trio
import trio.testing
from grpclib.const import Status

from impervious.sim.engine.answers import LndError
from impervious.sim.streams import LiveStream

SHUT = LndError("server exiting")


async def test_what_was_sent_is_received_before_a_clean_end() -> None:
    stream = LiveStream[int]()
    stream.put(1)
    stream.put(2)
    stream.end()
    stream.put(3)
    assert [value async for value in stream] == [1, 2]
    with pytest.raises(trio.EndOfChannel):
        await stream.receive()


async def test_an_end_with_an_error_comes_after_what_was_sent() -> None:
    stream = LiveStream[int]()
    stream.put(1)
    stream.end(SHUT)
    assert await stream.receive() == 1
    for _ in range(2):
        with pytest.raises(LndError, match="server exiting"):
            await stream.receive()


async def test_a_break_loses_what_was_not_received() -> None:
    stream = LiveStream[int]()
    stream.put(1)
    stream.tear(LndError("gone", Status.UNAVAILABLE))
    with pytest.raises(LndError, match="gone"):
        await stream.receive()


async def test_a_break_wakes_who_waits(autojump_clock: trio.testing.MockClock) -> None:
    stream = LiveStream[int]()

    async def wait() -> None:
        with pytest.raises(LndError):
            await stream.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        stream.tear(SHUT)


async def test_a_break_after_the_end_changes_nothing() -> None:
    stream = LiveStream[int]()
    stream.put(1)
    stream.end()
    stream.tear(SHUT)
    assert [value async for value in stream] == [1]
    assert stream.ended


async def test_cancelling_a_wait_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    stream = LiveStream[int]()
    for _ in range(3):
        with trio.move_on_after(1):
            await stream.receive()
    stream.put(7)
    with trio.move_on_after(0):
        await stream.receive()
    assert await stream.receive() == 7


async def test_closing_is_final() -> None:
    stream = LiveStream[int]()
    with trio.testing.assert_checkpoints():
        await stream.aclose()
    assert stream.ended
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()
