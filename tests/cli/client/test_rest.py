import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest
import trio
import trio.testing

from impervious.cli.client.answers import DaemonRefused, DaemonUnavailable
from impervious.cli.client.door import Door
from impervious.cli.client.rest import Facts, NoAnswer, number, open_rest, text
from impervious.cli.exits import UsageError
from impervious.config import Address


@asynccontextmanager
async def server(*chunks: bytes) -> AsyncIterator[tuple[Address, list[bytes]]]:
    """Answers one request with these bytes, whatever it is, and hangs up; keeps what it was asked."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        while b"}" not in b"".join(asked):
            asked.append(await stream.receive_some())
        for chunk in chunks:
            await stream.send_all(chunk)
            await trio.sleep(0.005)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with trio.fail_after(10):  # noqa: ASYNC100 - the test waits
            yield Address(host="127.0.0.1", port=port), asked
        nursery.cancel_scope.cancel()


async def ask(address: Address, path: str, body: Facts | None = None) -> Facts:
    async with open_rest(Door(address=address)) as rest:
        return await rest.ask(path, body)


class Silent(httpx2.AsyncBaseTransport):
    """Takes a request and says nothing."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await trio.sleep_forever()


def answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_call_and_its_answer() -> None:
    whole = answer("200 OK", b'{"id":"x"}')
    async with server(whole[:20], whole[20:45], whole[45:]) as (address, asked):
        assert await ask(address, "/v1/message/send?wait=true", {"text": "hé"}) == {"id": "x"}
    head, _, body = b"".join(asked).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/message/send?wait=true HTTP/1.1\r\n")
    assert f"host: {address}".encode() in head.lower()
    assert json.loads(body) == {"text": "hé"}


async def test_an_error_is_in_the_daemons_words() -> None:
    async with server(answer("429 Too Many", b'{"code":8,"message":"too much","details":[]}')) as (address, _):
        with pytest.raises(DaemonRefused, match=r"^too much$") as raised:
            await ask(address, "/", {})
    assert raised.value.code == 8


async def test_a_mistake_is_the_callers() -> None:
    async with server(answer("400 Bad Request", b'{"code":3,"message":"msg is empty","details":[]}')) as (address, _):
        with pytest.raises(UsageError, match=r"^msg is empty$"):
            await ask(address, "/", {})


@pytest.mark.parametrize("whole", [answer("404 Not Found", b"<html>"), answer("502 Bad Gateway", b'{"code":"x"}')])
async def test_what_is_no_daemon_is_said_to_be_none(whole: bytes) -> None:
    async with server(whole) as (address, _):
        with pytest.raises(UsageError, match="not as an impervious daemon does: see --url"):
            await ask(address, "/", {})


@pytest.mark.parametrize("body", [b"[]", b"<html>", b"7", b""])
async def test_an_answer_that_is_no_object_is_no_daemons(body: bytes) -> None:
    async with server(answer("200 OK", body)) as (address, _):
        with pytest.raises(UsageError, match="does --url name an impervious daemon"):
            await ask(address, "/", {})


@pytest.mark.parametrize("chunk", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", b"SSH-2.0\r\n\r\n"])
async def test_from_one_that_hangs_up_there_is_no_answer(chunk: bytes) -> None:
    async with server(*filter(None, [chunk])) as (address, _):
        with pytest.raises(NoAnswer, match=f"http://{address} went away before it answered"):
            await ask(address, "/", {})


async def test_nobody_there(unused_port: int) -> None:
    with pytest.raises(DaemonUnavailable, match="no daemon answers at http"):
        await ask(Address(host="127.0.0.1", port=unused_port), "/", {})


async def test_one_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_rest(Door(address=Address(host="127.0.0.1", port=1)), transport=Silent()) as rest:
        with pytest.raises(NoAnswer, match="does not answer"):
            await rest.ask("/v1/balance")


@pytest.mark.parametrize("value", [None, 7, ["x"]])
def test_a_text_that_is_none(value: object) -> None:
    assert text({"id": "x"}, "id") == "x"
    with pytest.raises(UsageError, match="the daemon's answer has no id"):
        text({"id": value}, "id")


@pytest.mark.parametrize("value", [None, "", "x", 1.5, ["1"]])
def test_a_number_that_is_none(value: object) -> None:
    assert (number({"n": 7}, "n"), number({"n": "8"}, "n")) == (7, 8)
    with pytest.raises(UsageError, match="the daemon's answer has no n"):
        number({"n": value}, "n")
