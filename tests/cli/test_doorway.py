import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from impervious.cli.doorway import DaemonAway, DaemonRefused, post
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


def answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_call_and_its_answer() -> None:
    whole = answer("200 OK", b'{"id":"x"}')
    async with server(whole[:20], whole[20:45], whole[45:]) as (address, asked):
        assert await post(address, "/v1/message/send?wait=true", {"text": "hé"}) == {"id": "x"}
    head, _, body = b"".join(asked).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/message/send?wait=true HTTP/1.1\r\n")
    assert f"host: {address}".encode() in head.lower()
    assert json.loads(body) == {"text": "hé"}


async def test_a_chunked_answer() -> None:
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'
    async with server(chunked) as (address, _):
        assert await post(address, "/", {}) == {"a": 1}


async def test_an_error_is_in_the_daemons_words() -> None:
    async with server(answer("400 Bad Request", b'{"code":3,"message":"msg is empty","details":[]}')) as (address, _):
        with pytest.raises(DaemonRefused, match=r"^msg is empty$") as raised:
            await post(address, "/", {})
    assert raised.value.code == 3


@pytest.mark.parametrize(
    "whole", [answer("404 Not Found", b"<html>"), answer("200 OK", b"[]"), answer("502 Bad Gateway", b'{"code":"x"}')]
)
async def test_what_is_no_daemon_is_said_to_be_none(whole: bytes) -> None:
    async with server(whole) as (address, _):
        with pytest.raises(DaemonRefused, match="no daemon of ours"):
            await post(address, "/", {})


@pytest.mark.parametrize("chunk", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", b"SSH-2.0\r\n\r\n"])
async def test_one_that_hangs_up_is_away(chunk: bytes) -> None:
    async with server(*filter(None, [chunk])) as (address, _):
        with pytest.raises(DaemonAway, match=f"no daemon answers at {address}: "):
            await post(address, "/", {})


async def test_nobody_there() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = Address(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
    await listeners[0].aclose()
    with pytest.raises(DaemonAway, match="no daemon answers"):
        await post(address, "/", {})
