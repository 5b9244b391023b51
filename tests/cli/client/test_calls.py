"""Calls in virtual time: the daemon is a transport that answers, or breaks, as each test says."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio
import trio.testing

from impervious.cli.client.answers import DaemonRefused, DaemonUnavailable
from impervious.cli.client.calls import (
    ASK_AGAIN_S,
    PATIENCE_S,
    PIECE_BYTES,
    Calls,
    Message,
    open_calls,
)
from impervious.cli.client.door import Door
from impervious.cli.client.rest import ANSWER_S, NoAnswer
from impervious.cli.exits import UsageError
from impervious.config import Address

DOOR = Door(address=Address(host="127.0.0.1", port=8882))
MESSAGE = Message(body=b'{"msg":"aGk="}', key="k")
OK = b'{"id":"5fed"}'
Answer = Callable[[], Awaitable[tuple[int, bytes]]]


class Daemon(httpx2.AsyncBaseTransport):
    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[httpx2.Request] = []
        self.bodies: list[bytes] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else absent
        if answer is not absent:
            self.bodies.append(await request.aread())
        status, body = await answer()
        return httpx2.Response(status, content=body)

    @property
    def keys(self) -> set[str]:
        return {each.headers["idempotency-key"] for each in self.asked}


async def absent() -> tuple[int, bytes]:
    await trio.lowlevel.checkpoint()
    raise httpx2.ConnectError("refused")


async def breaking() -> tuple[int, bytes]:
    await trio.lowlevel.checkpoint()
    raise httpx2.ReadError("reset")


async def silent() -> tuple[int, bytes]:
    await trio.sleep_forever()


def saying(status: int, body: bytes, *, after_s: float = 0) -> Answer:
    async def answer() -> tuple[int, bytes]:
        await trio.sleep(after_s)
        return status, body

    return answer


def problem(status: int, code: int, message: str) -> Answer:
    return saying(status, json.dumps({"code": code, "message": message, "details": []}).encode())


@asynccontextmanager
async def calling(there: Daemon) -> AsyncIterator[Calls]:
    with trio.fail_after(3600):
        async with open_calls(DOOR, transport=there, random=lambda: 0.0) as calls:
            yield calls


def nothing(_sent: int) -> None:
    return


async def test_what_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    there, uploaded = Daemon(saying(200, OK)), list[int]()
    message = Message(body=b"x" * (2 * PIECE_BYTES + 1), key="k")
    async with calling(there) as calls:
        assert await calls.send(message, uploaded=uploaded.append) == "5fed"
    [request] = there.asked
    assert str(request.url) == "http://127.0.0.1:8882/v1/message/send?encoding=base64"
    assert request.headers["content-length"] == str(len(message.body))
    assert "transfer-encoding" not in request.headers
    assert there.bodies == [message.body]
    assert uploaded == [0, PIECE_BYTES, 2 * PIECE_BYTES, len(message.body)]


async def test_an_answer_that_got_lost_is_asked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    there = Daemon(breaking, absent, problem(503, 14, "stopping"), breaking, saying(200, OK))
    async with calling(there) as calls:
        assert await calls.send(MESSAGE, uploaded=nothing) == "5fed"
    assert there.keys == {"k"}
    assert set(there.bodies) == {MESSAGE.body}


async def test_a_daemon_that_is_not_there_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    for first, words in ((absent, "no daemon answers"), (problem(503, 14, "LND is locked"), "LND is locked")):
        there = Daemon(first, saying(200, OK))
        async with calling(there) as calls:
            with pytest.raises(DaemonUnavailable, match=words):
                await calls.send(MESSAGE, uploaded=nothing)
        assert len(there.asked) == 1


async def test_a_daemon_that_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    there = Daemon(breaking)
    async with calling(there) as calls:
        with pytest.raises(NoAnswer, match="went away before it answered"):
            await calls.send(MESSAGE, uploaded=nothing)
    assert PATIENCE_S < trio.current_time() < 2 * PATIENCE_S


async def test_a_daemon_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with calling(Daemon(silent, silent)) as calls:
        with pytest.raises(NoAnswer, match="does not answer"):
            await calls.send(MESSAGE, uploaded=nothing)
    assert trio.current_time() >= 2 * ANSWER_S


async def test_what_the_daemon_says_is_final(autojump_clock: trio.testing.MockClock) -> None:
    there = Daemon(breaking, problem(400, 3, "too long"))
    async with calling(there) as calls:
        with pytest.raises(UsageError, match="too long"):
            await calls.send(MESSAGE, uploaded=nothing)
    assert len(there.asked) == 2


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b'{"name":"x"}'])
async def test_a_server_that_is_no_daemon(autojump_clock: trio.testing.MockClock, body: bytes) -> None:
    async with calling(Daemon(saying(200, body))) as calls:
        with pytest.raises(UsageError, match="does --url name an impervious daemon"):
            await calls.send(MESSAGE, uploaded=nothing)


async def test_an_outcome_is_waited_for_however_long(autojump_clock: trio.testing.MockClock) -> None:
    there = Daemon(*[silent] * 20, saying(200, OK, after_s=20))
    async with calling(there) as calls:
        with trio.fail_after(20 * ASK_AGAIN_S + 30):
            await calls.wait(MESSAGE)
    assert {each.url.params["wait"] for each in there.asked} == {"true"}
    assert there.keys == {"k"}


async def test_a_restart_of_the_daemon_does_not_end_the_waiting(autojump_clock: trio.testing.MockClock) -> None:
    there = Daemon(silent, problem(503, 14, "stopping"), breaking, absent, absent, absent, saying(200, OK))
    async with calling(there) as calls:
        await calls.wait(MESSAGE)
    assert there.answers == []


async def test_a_message_that_failed(autojump_clock: trio.testing.MockClock) -> None:
    there = Daemon(silent, problem(409, 10, "not delivered: no route"))
    async with calling(there) as calls:
        with pytest.raises(DaemonRefused, match="no route") as caught:
            await calls.wait(MESSAGE)
    assert caught.value.code == 10


async def test_waiting_ends_when_the_daemon_stays_away(autojump_clock: trio.testing.MockClock) -> None:
    async with calling(Daemon(silent)) as calls:
        with pytest.raises(DaemonUnavailable, match="no daemon answers"):
            await calls.wait(MESSAGE)
    assert trio.current_time() - ASK_AGAIN_S >= PATIENCE_S
