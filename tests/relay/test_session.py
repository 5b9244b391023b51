import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from tests.relay.endpoint import Endpoint

from impervious.config.address import Address
from impervious.errors import FailedPrecondition
from impervious.relay import (
    Closed,
    CloseReason,
    Fact,
    Moved,
    Opened,
    Paired,
    Relay,
    Session,
    SessionOptions,
    open_relay,
)
from impervious.relay.burst import BURST
from impervious.relay.session import PATROL_S


@dataclass
class Run:
    relay: Relay
    session: Session

    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        first, second = self.session.ports
        return Endpoint(first), Endpoint(second)

    async def fact(self) -> Fact:
        with trio.fail_after(10):
            return await self.relay.facts.receive()


@asynccontextmanager
async def running(**options: object) -> AsyncIterator[Run]:
    async with open_relay() as relay:
        chosen = {"ports": (0, 0), "bind": "127.0.0.1"} | options
        session = relay.open("default", SessionOptions(**chosen))  # type: ignore[arg-type]
        run = Run(relay, session)
        assert await run.fact() == Opened(session="default", id=session.id, ports=session.ports)
        yield run


def received(run: Run) -> int:
    return run.session.statistics().sides[0].received_packets


async def until(condition: Callable[[], bool]) -> None:
    """Let the relay work until something is so, also while the clock stands still."""
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        await trio.lowlevel.checkpoint()


async def test_a_session_from_open_to_stop() -> None:
    async with running() as run:
        one, other = run.endpoints()
        with one, other:
            one.send(b"hello")
            other.send(b"")
            assert await run.fact() == Paired(
                session="default",
                id=run.session.id,
                endpoints=(Address(host="127.0.0.1", port=one.port), Address(host="127.0.0.1", port=other.port)),
            )
            other.send(b"hello yourself")
            await until(lambda: run.session.statistics().sides[1].forwarded_packets == 1)
            assert (one.received(), other.received()) == ([b"hello yourself"], [b"hello"])
            await run.session.stop()
            closed = await run.fact()
    assert isinstance(closed, Closed)
    assert closed.reason is CloseReason.STOPPED
    assert closed.statistics == run.session.statistics()
    assert closed.statistics.paired
    assert [side.forwarded_packets for side in closed.statistics.sides] == [1, 1]


async def test_stopped_ports_are_free_at_once_and_stopping_again_is_harmless() -> None:
    async with running() as run:
        ports = run.session.ports
        await run.session.stop()
        await run.session.stop()
        assert run.relay.open("again", SessionOptions(ports=ports, bind="127.0.0.1")).ports == ports


async def test_a_session_can_be_stopped_before_its_task_has_begun() -> None:
    async with open_relay() as relay:
        session = relay.open("brief", SessionOptions(ports=(0, 0)))
        with trio.fail_after(5):
            await session.stop()
            assert await relay.facts.receive() == session.opened
            assert isinstance(await relay.facts.receive(), Closed)


async def test_a_relay_that_ends_does_not_call_its_sessions_idle(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="impervious.relay"):
        async with running():
            pass
    assert "default: relay closed (stopped)" in caplog.messages


async def test_silence_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing comes in from the network here, so the clock may jump."""
    begun = trio.current_time()
    async with running(idle_timeout_s=120) as run:
        with trio.fail_after(121):
            closed = await run.relay.facts.receive()
        assert trio.current_time() == pytest.approx(begun + 120)
    assert isinstance(closed, Closed)
    assert closed.reason is CloseReason.IDLE
    assert not closed.statistics.paired
    assert closed.statistics.age_s == pytest.approx(120)


async def test_an_empty_datagram_keeps_it_alive(mock_clock: trio.testing.MockClock) -> None:
    async with running(idle_timeout_s=120) as run:
        one, other = run.endpoints()
        with one, other:
            for count in range(1, 5):
                one.send(b"")
                await until(lambda count=count: received(run) == count)  # type: ignore[misc]
                mock_clock.jump(100)
                await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(19.9)
            await trio.testing.wait_all_tasks_blocked()
            assert run.relay.statistics()
            mock_clock.jump(0.2)
            closed = await run.relay.facts.receive()
    assert isinstance(closed, Closed)
    assert closed.reason is CloseReason.IDLE
    assert closed.statistics.age_s == pytest.approx(420.1)


async def test_an_endpoint_that_moves_is_told() -> None:
    async with running(require_token=False, replace_after_s=0.01) as run:
        one, other = run.endpoints()
        with one, other, Endpoint(run.session.ports[1]) as restarted:
            one.send(b"")
            other.send(b"")
            assert isinstance(await run.fact(), Paired)
            await until(lambda: (run.session.statistics().sides[1].silent_s or 0) > 0.01)
            restarted.send(b"new")
            assert await run.fact() == Moved(
                session="default",
                id=run.session.id,
                side=2,
                endpoint=Address(host="127.0.0.1", port=restarted.port),
            )


async def test_a_flood_of_strangers_is_looked_at_in_small_doses(mock_clock: trio.testing.MockClock) -> None:
    async with running() as run:
        one, other = run.endpoints()
        with one, other, Endpoint(run.session.ports[0]) as stranger:
            one.send(b"")
            other.send(b"")
            await run.relay.facts.receive()
            for doses in range(1, 4):
                stranger.send(*[b"flood"] * 70)
                one.send(b"data")
                await until(lambda doses=doses: b"data" in other.received())  # type: ignore[misc]
                await trio.testing.wait_all_tasks_blocked()
                assert run.session.statistics().sides[0].dropped.stranger == doses * BURST
                mock_clock.jump(PATROL_S)


async def test_nobody_reads_the_facts_and_datagrams_still_flow() -> None:
    async with open_relay() as relay:
        for number in range(6):
            session = relay.open(str(number), SessionOptions(ports=(0, 0), bind="127.0.0.1"))
            first, second = session.ports
            with Endpoint(first) as one, Endpoint(second) as other:
                one.send(b"a")
                other.send(b"b")
                await until(lambda: relay.statistics()[-1].paired)
                one.send(b"c")
                await until(lambda other=other: b"c" in other.received())  # type: ignore[misc]


@pytest.mark.parametrize("number", [0, 1])
async def test_a_taken_port_leaves_nothing_open(number: int) -> None:
    async with running() as run:
        taken = run.session.ports[number]
        with Endpoint(0) as unused:
            free = unused.port
        wanted = (taken, free) if number == 0 else (free, taken)
        with pytest.raises(FailedPrecondition, match=f"UDP port {taken} "):
            run.relay.open("second", SessionOptions(ports=wanted, bind="127.0.0.1"))
        with Endpoint(0, own_port=free):
            assert [counted.session for counted in run.relay.statistics()] == ["default"]


async def test_tokens_are_made_only_where_they_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(require_token=True) as run:
        assert run.session.tokens is not None
        first, second = run.session.tokens
        assert first != second
        assert first.hex not in repr(run.session.tokens) + repr(run.session.statistics()) + caplog.text
    async with running() as run:
        assert run.session.tokens is None
