"""Following a stream in virtual time: the daemon at the other end of memory streams is trio-websocket's own server."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream

from impervious.cli.client.answers import DaemonUnavailable
from impervious.cli.client.door import Door
from impervious.cli.client.follow import LONGEST_DELAY_S, PONG_S, QUIET_S, Watched, follow
from impervious.cli.client.frames import StreamEvent
from impervious.cli.exits import UsageError
from impervious.config import Address

DOOR = Door(address=Address(host="::1", port=8882), path="/imp")
Serve = Callable[[WebSocketRequest], Awaitable[None]]


def frame(seq: int) -> str:
    shown = {"id": "x", "replyToId": "", "fromPubkey": "", "data": "", "serviceType": "message", "amount": "0"}
    return json.dumps({"result": {**shown, "seq": str(seq), "sentAtMs": "0", "verified": True}})


class Daemon:
    """Answers each connection by the next of its scripts."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.scripts: list[Serve | Exception] = []
        self.asked: list[dict[str, list[str]]] = []
        self.hosts: list[str] = []
        self.dialled_at: list[float] = []

    async def dial(self, door: Door) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled_at.append(trio.current_time())
        script = self.scripts.pop(0) if self.scripts else ConnectionRefusedError()
        if isinstance(script, Exception):
            raise script
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, ours, script)
        return theirs

    async def _serve(self, stream: trio.abc.Stream, script: Serve) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            path = urlsplit(request.path)
            assert path.path == "/imp/v1/subscribe"
            self.asked.append(parse_qs(path.query))
            self.hosts.append(request._event.host)  # shown nowhere else
            await script(request)
            nursery.cancel_scope.cancel()
        await stream.aclose()


def showing(*seqs: int, position: int | None = None, then: str = "break") -> Serve:
    """Show events, then break, close, fail or stay."""

    async def serve(request: WebSocketRequest) -> None:
        headers = [] if position is None else [(b"impervious-seq", b"%d" % position)]
        connection = await request.accept(extra_headers=headers)
        for seq in seqs:
            await connection.send_message(frame(seq))
        if then == "close":
            await connection.aclose(1001, "stopping")
        elif then == "stay":
            await _stay(connection)

    return serve


def failing(code: int, message: str) -> Serve:
    async def serve(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message(json.dumps({"error": {"code": code, "message": message, "details": []}}))
        await connection.aclose(1008, message)

    return serve


def rejecting(status: int, body: bytes) -> Serve:
    async def serve(request: WebSocketRequest) -> None:
        await request.reject(status, body=body)

    return serve


async def _stay(connection: WebSocketConnection) -> None:
    with suppress(ConnectionClosed):
        await connection.get_message()


@asynccontextmanager
async def daemon(*scripts: Serve | Exception) -> AsyncIterator[Daemon]:
    async with trio.open_nursery() as nursery:
        there = Daemon(nursery)
        there.scripts = list(scripts)
        yield there
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def following(
    there: Daemon, watched: Watched | None = None, **options: Any
) -> AsyncIterator[tuple[trio.MemoryReceiveChannel[StreamEvent], list[str]]]:
    said: list[str] = []
    with trio.fail_after(3600):
        async with follow(
            DOOR, watched or Watched(), say=said.append, dial=there.dial, random=lambda: 0.0, **options
        ) as events:
            yield events, said


async def seqs(events: trio.MemoryReceiveChannel[StreamEvent], number: int) -> list[int]:
    return [(await events.receive()).seq for _ in range(number)]


async def test_it_goes_on_behind_the_last_event(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon(showing(3, 5), showing(5, 6, then="close"), showing(8, then="stay")) as there:
        async with following(there, Watched(since=2)) as (events, said):
            assert await seqs(events, 4) == [3, 5, 6, 8]  # 5 came twice and is shown once
        assert [each["since"] for each in there.asked] == [["2"], ["5"], ["6"]]
        assert there.hosts == ["[::1]:8882"] * 3
        url = "http://[::1]:8882/imp"
        assert said == [f"{url} has closed the stream; trying again", f"{url} is back"] * 2


async def test_live_events_are_not_lost_before_the_first_one(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon(showing(position=41), showing(42, then="stay")) as there:
        async with following(there) as (events, _):
            assert await seqs(events, 1) == [42]
        assert ["since" in each for each in there.asked] == [False, True]
        assert there.asked[1]["since"] == ["41"]


async def test_what_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    watched = Watched(since=0, service_types=("message", "status"), senders=("02aa",))
    async with daemon(showing(1, then="stay")) as there:
        async with following(there, watched) as (events, _):
            await events.receive()
        assert there.asked == [
            {
                "v": ["2"],
                "encoding": ["base64"],
                "since": ["0"],
                "service_type": ["message", "status"],
                "from": ["02aa"],
            }
        ]


async def test_a_daemon_that_was_never_there(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon() as there:
        with pytest.raises(DaemonUnavailable, match="no daemon answers"):
            async with following(there) as (events, _):
                await events.receive()
        assert len(there.dialled_at) == 1


async def test_patience_waits_for_it_longer_and_longer(autojump_clock: trio.testing.MockClock) -> None:
    absences = [ConnectionRefusedError() for _ in range(8)]
    async with daemon(*absences, showing(1, then="stay")) as there:
        async with following(there, patient=True) as (events, said):
            assert await seqs(events, 1) == [1]
        waits = [after - before for before, after in zip(there.dialled_at, there.dialled_at[1:], strict=False)]
        assert waits == [0.5, 1, 2, 4, 8, *[LONGEST_DELAY_S] * 3]
        assert len(said) == 2  # gone, and back: not a line for each attempt
        assert "no daemon answers" in said[0]


async def test_a_daemon_that_has_no_room_or_is_stopping_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon(showing(1), failing(8, "1000 subscribers"), failing(14, "stopping"), showing(2)) as there:
        async with following(there, Watched(since=0)) as (events, _):
            assert await seqs(events, 2) == [1, 2]


@pytest.mark.parametrize(
    "script",
    [failing(11, "ask since=3"), failing(3, "ask since=3"), rejecting(403, b'{"code":7,"message":"ask since=3"}')],
)
async def test_what_would_be_refused_again_ends_it(autojump_clock: trio.testing.MockClock, script: Serve) -> None:
    async with daemon(showing(1), script) as there:
        with pytest.raises(UsageError, match="ask since=3"):
            async with following(there, Watched(since=0)) as (events, _):
                await seqs(events, 2)


async def test_a_server_that_is_no_daemon(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon(rejecting(404, b"<html>")) as there:
        with pytest.raises(UsageError, match="answers with HTTP 404"):
            async with following(there) as (events, _):
                await events.receive()


async def test_a_daemon_that_fell_silent_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """Its machine is gone: nothing comes, no close either."""

    async def deaf(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message(frame(1))
        connection._reader_running = False  # reads no further, so it answers no ping
        await trio.sleep_forever()

    async with daemon(deaf, showing(2, then="stay")) as there:
        async with following(there, Watched(since=0)) as (events, _):
            assert await seqs(events, 2) == [1, 2]
        silent_s = there.dialled_at[1] - there.dialled_at[0]
        assert QUIET_S + PONG_S <= silent_s <= 2 * (QUIET_S + PONG_S)


async def test_a_quiet_daemon_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon(showing(1, then="stay")) as there:
        async with following(there, Watched(since=0)) as (events, said):
            await events.receive()
            with trio.move_on_after(20 * QUIET_S):
                await events.receive()
        assert len(there.dialled_at) == 1
        assert said == []


async def test_what_the_block_raises_comes_out_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async with daemon(showing(1, then="stay")) as there:
        with pytest.raises(BrokenPipeError):
            await _raise_after_the_first(there)


async def _raise_after_the_first(there: Daemon) -> None:
    async with following(there, Watched(since=0)) as (events, _):
        await events.receive()
        raise BrokenPipeError
