"""Wake-ups, causes in words, and what a link does with bytes that are left."""

import ssl

import pytest
import trio
import trio.testing

from impervious.rpc.limits import ChannelLimits, ServerLimits
from impervious.rpc.link import Link, Wakeup, cause
from impervious.wire.grpc.client import ClientConnection


async def test_a_wakeup_wakes_one_task_and_remembers_nothing(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    wakeup.wake()
    woken: list[float] = []

    async def wait() -> None:
        await wakeup.wait()
        woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wakeup.wait()
        assert woken == []
        wakeup.wake()
        wakeup.wake()
    assert len(woken) == 1


async def test_a_cancelled_wait_leaves_the_place_to_others(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    with trio.move_on_after(1) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught
    with trio.move_on_after(1) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


def test_causes_in_words() -> None:
    refused = ConnectionRefusedError(111, "Error connecting to ('127.0.0.1', 1)")
    outer = OSError("all attempts to connect to x:1 failed")
    outer.__cause__ = ExceptionGroup("many", [refused, ConnectionRefusedError(111, "[::1]")])
    assert cause(outer) == "Connection refused"
    assert cause(ExceptionGroup("", [ValueError("a"), ValueError("b"), ValueError("a")])) == "a; b"
    assert cause(trio.BrokenResourceError()) == "BrokenResourceError"
    wrapped = trio.BrokenResourceError()
    wrapped.__cause__ = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    assert "wrong version number" in cause(wrapped)


async def test_what_is_queued_is_written_before_the_transport_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    link = Link(near, ClientConnection(ChannelLimits().tuning()), lambda _: None)
    await link.close()
    data = await far.receive_some(1000)
    assert data.startswith(b"PRI * HTTP/2.0")
    assert await far.receive_some(1000) == b""


async def test_closing_a_broken_transport_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    await trio.aclose_forcefully(far)
    link = Link(near, ClientConnection(ChannelLimits().tuning()), lambda _: None)
    await link.close()


async def test_flushed_waits_for_the_writer(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    link = Link(near, ClientConnection(ServerLimits().tuning()), lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.write)
        with trio.move_on_after(1) as scope:
            await link.flushed()
        assert scope.cancelled_caught
        await far.receive_some(10_000)
        await link.flushed()
        nursery.cancel_scope.cancel()
