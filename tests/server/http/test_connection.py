"""Hostile connections over real sockets: each may end itself, never the server."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
from tests.server.house import ALICE, House, config, new, open_doors, open_house
from trio_websocket import ConnectionClosed, open_websocket_url

from impervious.config import Address
from impervious.server.http import connection, exchange, transport
from impervious.server.http.protocol import HEAD_BYTES
from impervious.store.database import in_thread

UPGRADE: Final = (
    b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO: Final = b"\x81\x85\0\0\0\0hello"
CLOSE: Final = b"\x88\x80\0\0\0\0"


def with_header(header: bytes) -> bytes:
    return UPGRADE.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n")


@asynccontextmanager
async def serving_house(tmp_path: Path) -> AsyncIterator[tuple[House, Address]]:
    async with open_house(config(tmp_path), run_sync=in_thread) as house, open_doors(house) as listeners:
        yield house, listeners.addresses.http


async def connect(address: Address) -> trio.SocketStream:
    return await trio.open_tcp_stream(address.host, address.port)


async def read_until_closed(stream: trio.SocketStream) -> bytes:
    found = b""
    try:
        async for chunk in stream:
            found += chunk
    except trio.BrokenResourceError:
        pass
    return found


async def still_serves(address: Address) -> None:
    async with await connect(address) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b'{"alive":true}' in await read_until_closed(stream)


BEFORE_THE_HANDSHAKE = {
    "a frame right behind the upgrade": UPGRADE + HELLO,
    "garbage right behind the upgrade": UPGRADE + os.urandom(200),
    "an upgrade with a body": with_header(b"Content-Length: 5") + b"hello",
    "an upgrade with a chunked body": with_header(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "two upgrades": UPGRADE + UPGRADE,
}


@pytest.mark.parametrize("name", BEFORE_THE_HANDSHAKE)
async def test_bytes_before_the_websocket_is_open_end_their_connection_only(tmp_path: Path, name: str) -> None:
    async with serving_house(tmp_path) as (house, address):
        with trio.fail_after(5):
            async with await connect(address) as stream:
                await stream.send_all(BEFORE_THE_HANDSHAKE[name])
                await read_until_closed(stream)  # not: waits until we leave, or for ever
            await still_serves(address)
            while house.stream.statistics().subscribers:  # noqa: ASYNC110
                await trio.sleep(0.01)


@pytest.mark.parametrize(
    "offer", [b"permessage-deflate; client_max_window_bits=zzz", b";;;===,,", b"permessage-deflate"]
)
async def test_extensions_are_neither_read_nor_taken(tmp_path: Path, offer: bytes) -> None:
    async with serving_house(tmp_path) as (house, address):
        with trio.fail_after(5):
            async with await connect(address) as stream:
                await stream.send_all(with_header(b"Sec-WebSocket-Extensions: " + offer))
                answer = await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 101")
                assert b"extensions" not in answer.lower()
                await house.emit(new("x" * 1000))
                assert (await stream.receive_some()).startswith(b"\x81\x7e")
            await still_serves(address)


AFTER_THE_HANDSHAKE = {
    "data after the close": [CLOSE, HELLO, HELLO],
    "an unmasked frame": [b"\x81\x05hello", HELLO, HELLO],
    "reserved bits": [b"\xff\xff\xff\xff" * 5, HELLO],
    "no UTF-8": [b"\x81\x81\0\0\0\0\xff", HELLO],
    "a frame of 2**63 bytes": [b"\x81\xff" + b"\xff" * 8 + bytes(4), HELLO],
    "a message over the limit": [b"\x01\xfe\xff\xff\0\0\0\0" + bytes(0xFFFF)] * 20,
    "half a frame, then nothing": [b"\x81\xff\0\0"],
}


@pytest.mark.parametrize("name", AFTER_THE_HANDSHAKE)
async def test_frames_that_are_none_end_their_connection_only(tmp_path: Path, name: str) -> None:
    async with serving_house(tmp_path) as (house, address):
        with trio.fail_after(5):
            async with await connect(address) as stream:
                await stream.send_all(UPGRADE)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
                try:
                    for chunk in AFTER_THE_HANDSHAKE[name]:
                        await stream.send_all(chunk)
                except trio.BrokenResourceError:
                    pass
            await still_serves(address)
            while house.stream.statistics().subscribers:  # noqa: ASYNC110
                await trio.sleep(0.01)


REQUESTS = {
    "no HTTP": (b"\x16\x03\x01\0\xa5\r\n\r\n", b"HTTP/1.1 400"),
    "headers without end": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (17 << 10), b"HTTP/1.1 431"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000, b"HTTP/1.1 431"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 400"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
    "a long head that is complete": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",
        b"HTTP/1.1 431",
    ),
    "a longer one": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 7_000 + b"\r\n",
        b"HTTP/1.1 431",
    ),
    "length and chunks": (
        (
            b"POST /v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ),
        b"HTTP/1.1 400",
    ),
    "two lengths": (
        b"POST /v1/message/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 400",
    ),
    "a bad chunk": (
        b"POST /v1/message/send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 400",
    ),
    "a bad byte in the target": (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 400"),
    "HTTP/2 as known before": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 4"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_requests_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    sent, answer = REQUESTS[name]
    async with serving_house(tmp_path) as (_, address):
        with trio.fail_after(5):
            async with await connect(address) as stream:
                await stream.send_all(sent)
                await stream.send_eof()
                received = await read_until_closed(stream)
            assert received.startswith(answer)
            assert b"alive" not in received
            await still_serves(address)


async def test_what_is_not_http_and_what_is_too_long_have_a_log_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_house(tmp_path) as (_, address):
        with trio.fail_after(5):
            for name in ("no HTTP", "a long head that is complete", "no HTTP", "a longer one"):
                async with await connect(address) as stream:
                    await stream.send_all(REQUESTS[name][0])
                    await read_until_closed(stream)
    assert len([message for message in caplog.messages if "not HTTP/1.1" in message]) == 2


async def test_a_head_just_within_the_limit_is_read(tmp_path: Path) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: %b\r\n\r\n"
    long = head % (b"x" * (HEAD_BYTES - len(head) + 2))
    assert len(long) == HEAD_BYTES
    async with serving_house(tmp_path) as (_, address), await connect(address) as stream:
        with trio.fail_after(5):
            await stream.send_all(long)
            assert (await read_until_closed(stream)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("ending", [b"X: y\r\n" * 3_000 + b"\r\n", b"X: " + b"y" * 17_000 + b"\r\n\r\n"])
async def test_trailers_are_bounded_as_heads_are(tmp_path: Path, ending: bytes) -> None:
    begin = b"POST /v1/sign HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    async with serving_house(tmp_path) as (_, address), await connect(address) as stream:
        with trio.fail_after(5):
            await stream.send_all(begin + ending)
            assert (await read_until_closed(stream)).startswith(b"HTTP/1.1 431")


async def test_a_client_still_sending_a_refused_body_gets_its_answer(tmp_path: Path) -> None:
    size = 16 << 20  # more than sockets hold
    async with serving_house(tmp_path) as (_, address), await connect(address) as stream:
        with trio.fail_after(10):
            await stream.send_all(
                b"POST /v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
            )
            assert (await read_until_closed(stream)).startswith(b"HTTP/1.1 413")


async def test_an_offer_of_http_2_is_declined(tmp_path: Path) -> None:
    offer = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    async with serving_house(tmp_path) as (_, address):
        async with await connect(address) as stream:
            await stream.send_all(offer)
            assert (await read_until_closed(stream)).startswith(b"HTTP/1.1 200")


async def test_requests_one_behind_the_other(tmp_path: Path) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving_house(tmp_path) as (_, address):
        async with await connect(address) as stream:
            await stream.send_all(one * 20 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert (await read_until_closed(stream)).count(b'{"alive":true}') == 21


async def test_an_error_in_one_connection_is_logged_and_ends_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_house(tmp_path) as (_, address):

        async def broken(self: object, event: object) -> None:
            await trio.lowlevel.checkpoint()
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(exchange.Exchange, "handle", broken)
            async with await connect(address) as stream:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert await read_until_closed(stream) == b""
        await still_serves(address)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "connection failed" in record.getMessage()
    assert record.exc_info


async def test_a_real_client_sees_events_pings_and_large_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_house(tmp_path) as (house, address):
        async with open_websocket_url(f"ws://{address}/v1/subscribe", max_message_size=1 << 20) as websocket:
            await websocket.send_message("hello")
            large = os.urandom(480_000)
            await house.emit(new("a"), new(large), new("b"))
            shown = [json.loads(await websocket.get_message())["result"] for _ in range(3)]
            assert [each["seq"] for each in shown] == ["1", "2", "3"]
            assert len(shown[1]["data"]) == 640_000
            assert shown[0]["fromPubkey"] == ALICE.hex
            with trio.fail_after(5):
                await websocket.ping()  # returns with the pong


async def test_a_client_slow_to_say_anything_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.05)
    async with serving_house(tmp_path) as (_, address):
        with trio.fail_after(5):
            async with await connect(address) as silent, await connect(address) as slow:
                for byte in b"GET /healthz HTTP/1.1\r\nHost:":
                    try:
                        await slow.send_all(bytes((byte,)))
                    except trio.BrokenResourceError:
                        break
                    await trio.sleep(0.005)
                assert (await read_until_closed(slow)).startswith(b"HTTP/1.1 408")
                assert await read_until_closed(silent) == b""


async def test_a_client_that_does_not_read_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "STALL_S", 0.05)
    async with serving_house(tmp_path) as (house, address):
        with trio.fail_after(10):
            async with await connect(address) as stream:
                await stream.send_all(UPGRADE)
                await stream.receive_some()
                while house.stream.statistics().subscribers:
                    await house.emit(*(new(os.urandom(100_000)) for _ in range(8)))
                    await trio.sleep(0.01)
        assert any("has not read for" in record.getMessage() for record in caplog.records)
        await still_serves(address)


async def test_a_websocket_that_is_closed_by_its_client_gets_its_answer(tmp_path: Path) -> None:
    async with serving_house(tmp_path) as (_, address):
        async with open_websocket_url(f"ws://{address}/v1/subscribe") as websocket:
            await websocket.aclose(1000)
            with pytest.raises(ConnectionClosed) as caught:
                await websocket.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1000
