import errno
import gc
from dataclasses import replace

import pytest
import trio
from tests.relay.endpoint import Endpoint

from impervious.errors import AlreadyExists, NotFound
from impervious.relay import Closed, Opened, SessionOptions, open_relay

HERE = SessionOptions(ports=(0, 0), bind="127.0.0.1")


async def test_sessions_have_names() -> None:
    async with open_relay() as relay:
        one, other = relay.open("one", HERE), relay.open("other", HERE)
        assert relay.session("one") is one
        assert relay.session("other") is other
        assert relay.sessions() == (one, other)
        assert one.id != other.id
        assert [counted.session for counted in relay.statistics()] == ["one", "other"]
        assert (await relay.stop("one")).session == "one"
        assert [counted.session for counted in relay.statistics()] == ["other"]


async def test_a_name_is_taken_until_its_session_has_ended() -> None:
    async with open_relay() as relay:
        first, second = relay.open("default", HERE).ports
        with pytest.raises(AlreadyExists, match=f"'default' is open already, on UDP ports {first} and {second}"):
            relay.open("default", HERE)
        await relay.stop("default")
        relay.open("default", HERE)


async def test_unknown_names() -> None:
    async with open_relay() as relay:
        with pytest.raises(NotFound, match="no session 'nine' is open"):
            relay.session("nine")
        with pytest.raises(NotFound, match="start it first"):
            await relay.stop("nine")


async def test_facts_of_a_restarted_session_are_in_order() -> None:
    async with open_relay() as relay:
        for _ in range(3):
            session = relay.open("default", HERE)
            await trio.testing.wait_all_tasks_blocked()
            await session.stop()
        await trio.testing.wait_all_tasks_blocked()
        kinds = [type(relay.facts.receive_nowait()) for _ in range(6)]
    assert kinds == [Opened, Closed] * 3


async def test_leaving_the_block_closes_every_port() -> None:
    async with open_relay() as relay:
        ports = [port for name in ("one", "other") for port in relay.open(name, HERE).ports]
        for _ in range(20):  # more facts than wait for a reader: leaving does not hang on them
            relay.open("brief", HERE)
            await relay.stop("brief")
    for port in ports:
        with Endpoint(0, own_port=port):
            pass


async def test_sessions_know_each_others_ports() -> None:
    """A datagram forged to come from another session's port would join the two sessions in a loop."""
    async with open_relay() as relay:
        first = relay.open("first", HERE).ports[0]
        second = relay.open("second", HERE)
        door = second._sides[0].door.sock
        door.sendto(b"forged", ("127.0.0.1", first))
        with trio.fail_after(5):
            while not relay.statistics()[0].sides[0].dropped.stranger:  # noqa: ASYNC110 - counters have no event
                await trio.sleep(0.001)
        assert relay.statistics()[0].sides[0].endpoint is None


async def test_a_bug_in_one_session_ends_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that nobody foresaw take the process down with a traceback, instead of a relay that looks alive."""

    def broken(*_args: object) -> object:
        raise OSError(errno.EBADF, "not open")

    async def relay_until_it_breaks() -> None:
        async with open_relay() as relay:
            first, _ = relay.open("default", HERE).ports
            monkeypatch.setattr("impervious.relay.sockets.Door.receive", broken)
            with Endpoint(first) as endpoint:
                endpoint.send(b"")
                await trio.sleep(5)

    with pytest.raises(OSError, match="not open"):
        await relay_until_it_breaks()


async def test_a_relay_that_has_ended_opens_nothing() -> None:
    with Endpoint(0) as endpoint:
        port = endpoint.port
    async with open_relay() as relay:
        await trio.lowlevel.checkpoint()
    gc.disable()
    try:
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                relay.open("default", replace(HERE, ports=(port, 0)))
        with Endpoint(0, own_port=port):
            assert relay.sessions() == ()
    finally:
        gc.enable()
