"""The socket service on two nodes of a simulated network, in virtual time, with real UDP sockets on this machine.

The clock may jump only while nothing waits at a socket: loopback delivers at once, so everything that was sent is
relayed before `wait_all_tasks_blocked` returns.
"""

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from tests.conftest import Wall
from tests.relay.endpoint import Endpoint, frame, ready
from tests.walks import Stage, detail, everything, stage, take
from trio.testing import MockClock

from impervious.config import SocketConfig
from impervious.errors import (
    AlreadyExists,
    DeliveryFailed,
    FailedPrecondition,
    InvalidArgument,
    NodeUnavailable,
    NotFound,
    PaymentFailure,
    ResourceExhausted,
    StoreFull,
)
from impervious.services.socket import SocketService
from impervious.supervisor import Node

HOST = "127.0.0.1"


def free_pairs(number: int) -> tuple[tuple[int, int], ...]:
    endpoints = [Endpoint(0) for _ in range(2 * number)]
    ports = [endpoint.port for endpoint in endpoints]
    for endpoint in endpoints:
        endpoint.sock.close()
    return tuple(zip(ports[::2], ports[1::2], strict=True))


def here(*, pairs: int = 1, **settings: Any) -> SocketConfig:
    return SocketConfig(**{"server_ip": HOST, "ports": free_pairs(pairs), **settings})


def sockets(node: Node) -> SocketService:
    return node.service(SocketService)


@asynccontextmanager
async def lone(folder: Path, wall: Wall, settings: SocketConfig) -> AsyncIterator[tuple[Stage, Node]]:
    async with stage(folder, wall) as where:
        where.config = replace(where.config, socket=settings)
        async with where.node("alice") as alice:
            await alice.wait_ready()
            await trio.sleep(1)
            yield where, alice


async def test_a_far_node_hears_of_a_relay_and_its_program_uses_it(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with lone(tmp_path, wall, here()) as (where, alice), where.node("carol") as carol:
        me, you = (await alice.wait_ready()).pubkey, (await carol.wait_ready()).pubkey
        opened = await sockets(alice).start()
        sent = await sockets(alice).send(you, wait=True)
        [event] = await take(carol, 1)
        assert (event.id, event.sender, event.service_type) == (sent, me, "socket")
        told = json.loads(event.data)
        first, second = opened.ports
        published = {"protocol": "udp", "ip": HOST, "port1": f":{first}", "port2": f":{second}"}
        assert told == {"recordId": "SOCKET", **published}

        with Endpoint(first) as near, Endpoint(int(told["port2"][1:]), told["ip"]) as far:
            near.send(b"")
            far.send(b"hello")
            await trio.testing.wait_all_tasks_blocked()
            near.send(b"hello yourself", b"x" * 65_507)
            await trio.testing.wait_all_tasks_blocked()
            assert near.received() == [b"hello"]
            assert far.received() == [b"hello yourself", b"x" * 65_507]
            with Endpoint(first) as stranger:
                stranger.send(b"let me in", b"x" * 65_507)
                await trio.testing.wait_all_tasks_blocked()
                assert (stranger.received(), far.received()) == ([], [])
            await sockets(alice).stop()

        await trio.sleep(1)  # the relay's facts become events behind the call
        begun, paired, closed = [event for event in await everything(alice) if event.service_type == "socket"]
        assert begun.id == opened.id == paired.reply_to == closed.reply_to
        assert detail(begun) == {"recordId": "OPENED", "session": "default", **published}
        assert detail(paired) == {
            "recordId": "PAIRED",
            "session": "default",
            "endpoint1": f"{HOST}:{near.port}",
            "endpoint2": f"{HOST}:{far.port}",
        }
        end = detail(closed)
        assert (end["recordId"], end["session"], end["reason"]) == ("CLOSED", "default", "stopped")
        assert (end["side1"]["receivedPackets"], end["side1"]["forwardedPackets"]) == (3, 2)
        assert (end["side1"]["receivedBytes"], end["side1"]["forwardedBytes"]) == (65_521, 65_521)
        assert end["side1"]["dropped"]["stranger"] == 2
        assert end["side2"]["endpoint"] == f"{HOST}:{far.port}"
        assert set(end["side2"]["dropped"].values()) == {0}
        assert {event.sender for event in (begun, paired, closed)} == {me}


async def test_a_silent_session_ends_with_an_event_and_can_be_started_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with lone(tmp_path, wall, here(idle_timeout_s=120)) as (_, alice):
        first = await sockets(alice).start()
        begun = trio.current_time()
        _, closed = await take(alice, 2, service="socket")
        assert trio.current_time() - begun == pytest.approx(120, abs=0.1)
        assert (closed.reply_to, detail(closed)["reason"], detail(closed)["ageS"]) == (first.id, "idle", 120)
        with pytest.raises(NotFound, match="no session 'default' is open"):
            await sockets(alice).stop()
        again = await sockets(alice).start()
        assert again.ports == first.ports
        assert again.id != first.id


async def test_events_of_a_name_given_again_keep_to_their_session(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with lone(tmp_path, wall, here()) as (_, alice):
        ids: list[UUID] = []
        for _ in range(3):
            ids.append((await sockets(alice).start()).id)
            await trio.testing.wait_all_tasks_blocked()
            await sockets(alice).stop()
        events = await take(alice, 6, service="socket")
        assert [event.reply_to or event.id for event in events] == [each for each in ids for _ in range(2)]


async def test_each_name_has_a_pair_and_the_first_is_kept_for_the_calls_of_2021(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    settings = here(pairs=3)
    async with lone(tmp_path, wall, settings) as (where, alice), where.node("carol") as carol:
        relay = sockets(alice)
        assert (await relay.start("chess")).ports == settings.ports[1]
        assert (await relay.start()).ports == settings.ports[0]
        assert (await relay.start("go")).ports == settings.ports[2]
        assert [each.session for each in relay.sessions()] == ["chess", "default", "go"]
        with pytest.raises(
            ResourceExhausted, match=r"all 3 pairs of socket\.ports are in use, by 'chess', 'default', 'go'"
        ):
            await relay.start("more")
        await relay.stop("default")
        assert relay.free_pairs() == [settings.ports[0]]
        assert (await relay.start("more")).ports == settings.ports[0]

        await relay.send((await carol.wait_ready()).pubkey, "go", wait=True)
        [event] = await take(carol, 1)
        port = settings.ports[2][0]
        assert (detail(event)["session"], detail(event)["port1"]) == ("go", f":{port}")


async def test_two_sessions_do_not_mix(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with lone(tmp_path, wall, here(pairs=2)) as (_, alice):
        for name in ("one", "other"):
            await sockets(alice).start(name)
        with (
            Endpoint(sockets(alice).statistics("one").sides[0].port) as a,
            Endpoint(sockets(alice).statistics("one").sides[1].port) as b,
            Endpoint(sockets(alice).statistics("other").sides[0].port) as c,
            Endpoint(sockets(alice).statistics("other").sides[1].port) as d,
        ):
            for each in (a, b, c, d):
                each.send(b"")
            await trio.testing.wait_all_tasks_blocked()
            a.send(b"for b")
            d.send(b"for c")
            await trio.testing.wait_all_tasks_blocked()
            assert [each.received() for each in (a, b, c, d)] == [[], [b"for b"], [b"for c"], []]


async def test_tokens_let_their_endpoint_in_and_are_told_to_nobody_else(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with lone(tmp_path, wall, here(require_token=True)) as (where, alice), where.node("carol") as carol:
        opened = await sockets(alice).start()
        assert opened.tokens
        await sockets(alice).send((await carol.wait_ready()).pubkey, wait=True)
        first, second = opened.ports
        with Endpoint(first) as one, Endpoint(second) as other:
            for endpoint, token in zip((one, other), opened.tokens, strict=True):
                endpoint.send(b"ignored", frame(1, b"sixteen letters!", token.raw))
                await trio.sleep(1)
                [challenge] = endpoint.received()
                endpoint.send(frame(3, challenge[-16:], token.raw))
                await trio.sleep(1)
                assert endpoint.received() == [ready(challenge[-16:], token.raw)]
            one.send(b"hello")
            await trio.testing.wait_all_tasks_blocked()
            assert other.received() == [b"hello"]
        await sockets(alice).stop()
        await trio.sleep(1)
        shown = b"".join([event.data for node in (alice, carol) for event in await everything(node)])
        for token in opened.tokens:
            assert token.hex.encode() not in shown
            assert token.hex not in caplog.text + repr(opened)


async def test_limits_of_the_configuration_hold(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with lone(tmp_path, wall, here(packets_per_s=40, bytes_per_s=1_000_000)) as (_, alice):
        first, second = (await sockets(alice).start()).ports
        with Endpoint(first) as one, Endpoint(second) as other:
            one.send(b"")
            other.send(b"")
            await trio.testing.wait_all_tasks_blocked()
            one.send(*[b"x"] * 50)
            await trio.testing.wait_all_tasks_blocked()
            assert len(other.received()) == 10  # a quarter of a second's worth
            assert sockets(alice).statistics().sides[0].dropped.rate == 40


@pytest.mark.parametrize(
    ("server_ip", "bind"), [(HOST, HOST), ("192.0.2.1", ""), ("relay.example.com", ""), ("localhost", "")]
)
async def test_a_relay_that_is_told_at_loopback_listens_there_only(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, server_ip: str, bind: str
) -> None:
    async with lone(tmp_path, wall, here(server_ip=server_ip)) as (_, alice):
        opened = await sockets(alice).start()
        assert opened.ip == server_ip
        [session] = sockets(alice).running.sessions()
        assert session.options.bind == bind


# --- Requests that are refused, without effect -----------------------------------------------------------------------


async def test_a_session_is_started_once_and_stopped_once(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with lone(tmp_path, wall, here()) as (_, alice):
        with pytest.raises(NotFound, match="start it first"):
            await sockets(alice).stop()
        opened = await sockets(alice).start()
        with pytest.raises(AlreadyExists, match=f"is open already, on UDP ports {opened.ports[0]} and"):
            await sockets(alice).start()
        assert [each.id for each in sockets(alice).sessions()] == [opened.id]
        await sockets(alice).stop()
        with pytest.raises(NotFound, match="start it first"):
            await sockets(alice).stop()
        await trio.sleep(1)
        assert [detail(event)["recordId"] for event in await everything(alice)] == ["OPENED", "CLOSED"]


@pytest.mark.parametrize("number", [0, 1])
async def test_an_occupied_port_is_named_and_nothing_stays_open(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, number: int
) -> None:
    settings = here()
    async with lone(tmp_path, wall, settings) as (_, alice):
        taken = settings.ports[0][number]
        with Endpoint(0, own_port=taken), pytest.raises(FailedPrecondition, match=f"UDP port {taken} .*is taken"):
            await sockets(alice).start()
        assert (sockets(alice).sessions(), sockets(alice).free_pairs()) == (
            (),
            list(settings.ports),
        )
        await trio.sleep(1)
        assert await everything(alice) == []
        assert (await sockets(alice).start()).ports == settings.ports[0]


async def test_without_an_address_the_relay_is_off(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with lone(tmp_path, wall, here(server_ip=None)) as (where, alice):
        with pytest.raises(FailedPrecondition, match=r"the relay is off: set socket\.server_ip"):
            await sockets(alice).start()
        with pytest.raises(FailedPrecondition, match=r"the relay is off: set socket\.server_ip"):
            await sockets(alice).send(where.network.node("carol").pubkey)
        assert sockets(alice).sessions() == ()


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", "\x7f"])
async def test_names_that_are_none(tmp_path: Path, wall: Wall, autojump_clock: MockClock, name: str) -> None:
    async with lone(tmp_path, wall, here()) as (where, alice):
        carol = where.network.node("carol").pubkey
        for call in (
            sockets(alice).start(name),
            sockets(alice).stop(name),
            sockets(alice).send(carol, name),
        ):
            with pytest.raises(InvalidArgument, match="session is not a name: give 1 to 64 characters"):
                await call
        with pytest.raises(InvalidArgument, match="session is not a name"):
            sockets(alice).statistics(name)


async def test_a_session_that_is_not_open_is_told_to_nobody(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with lone(tmp_path, wall, here()) as (where, alice):
        with pytest.raises(NotFound, match="no session 'default' is open: start it first"):
            await sockets(alice).send(where.network.node("carol").pubkey)
        await sockets(alice).start()
        with pytest.raises(InvalidArgument, match="own"):
            await sockets(alice).send(where.network.node("alice").pubkey)
        with pytest.raises(NotFound, match="no session 'other' is open"):
            await sockets(alice).send(where.network.node("carol").pubkey, "other")
        where.network.lnd("alice").lock()
        await trio.sleep(1)
        with pytest.raises(NodeUnavailable, match="lock"):
            await sockets(alice).send(where.network.node("carol").pubkey)
        await sockets(alice).stop()  # the relay itself needs no Lightning node
        await sockets(alice).start()


async def test_a_notice_that_does_not_arrive_is_told_to_whoever_waits(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with lone(tmp_path, wall, here()) as (where, alice):
        await sockets(alice).start()
        where.network.lnd("alice").fail_next_payment(PaymentFailure.INCORRECT_PAYMENT_DETAILS, after_attempt=True)
        with pytest.raises(DeliveryFailed):
            await sockets(alice).send(where.network.node("carol").pubkey, wait=True)


async def test_a_full_disk_costs_an_event_and_not_the_relay(
    tmp_path: Path,
    wall: Wall,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with lone(tmp_path, wall, here()) as (_, alice):

        async def full(effect: object) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreFull("the disk is full: make room")

        monkeypatch.setattr(sockets(alice).context, "transaction", full)
        first, second = (await sockets(alice).start()).ports
        with Endpoint(first) as one, Endpoint(second) as other:
            one.send(b"hello")
            other.send(b"")
            await trio.testing.wait_all_tasks_blocked()
            assert other.received() == [b"hello"]
        assert "default: an event is lost, the relay goes on: the disk is full" in caplog.text


# --- When the service breaks ------------------------------------------------------------------------------------------


async def test_a_restart_of_the_service_gives_its_ports_back(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.disable()  # or it might come to the sockets in time
    try:
        async with lone(tmp_path, wall, here(pairs=2)) as (_, alice):
            for times in range(1, 4):
                opened = [await sockets(alice).start(name) for name in ("default", "other")]
                with monkeypatch.context() as patch, Endpoint(opened[0].ports[0]) as endpoint:
                    patch.setattr("impervious.relay.sockets.Door.receive", broken)
                    endpoint.send(b"")
                    await trio.testing.wait_all_tasks_blocked()
                for call in (sockets(alice).start, sockets(alice).stop):
                    with pytest.raises(NodeUnavailable, match="the socket service is restarting: call again"):
                        await call("default")
                assert sockets(alice).sessions() == ()
                for look in (sockets(alice).statistics, sockets(alice).free_pairs):
                    with pytest.raises(NodeUnavailable, match="the socket service is restarting: call again"):
                        look()
                await trio.sleep(60)
                assert (sockets(alice).sessions(), len(sockets(alice).free_pairs())) == ((), 2), times
                again = [await sockets(alice).start(name) for name in ("default", "other")]
                assert [each.ports for each in again] == [each.ports for each in opened]
                for name in ("default", "other"):
                    await sockets(alice).stop(name)
    finally:
        gc.enable()


def broken(*_args: object) -> object:
    raise ZeroDivisionError("nobody foresaw this")
