"""However a connection ends, its slot is free again: counted for each kind of end, with TLS and without."""

import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from tests.rpc.certificates import Files, make_certificate
from tests.server.house import ALICE
from tests.server.http.door import GET, SEND, UPGRADE, Door, open_door

from impervious.rpc import slots

POST = b"POST /v1/message/send HTTP/1.1\r\nHost: localhost\r\n"
SUBSCRIBE = b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\n\r\n"
SSE = b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
WAITS = b'{"pubkey":"%b","msg":"aGk="}' % ALICE.hex.encode()

SENT = {
    "nothing": b"",
    "half a head": GET[:20],
    "a request": GET,
    "two requests": GET * 2,
    "many requests": GET * 500,
    "a request and half of another": GET + GET[:20],
    "a request and garbage": GET + os.urandom(300),
    "a request and much garbage": GET + bytes(300_000),
    "a call and garbage": POST + b"Content-Length: 2\r\n\r\n{}" + os.urandom(300),
    "a call that waits": SEND % (len(WAITS), WAITS),
    "two calls that wait": SEND % (len(WAITS), WAITS) * 2,
    "half a body": POST + b"Content-Length: 20\r\n\r\n{",
    "no body": POST + b"Content-Length: 20\r\n\r\n",
    "a body that may not come": POST + b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{",
    "half of a chunk's length": POST + b"Transfer-Encoding: chunked\r\n\r\n1",
    "chunks without the last": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "half of the trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + bytes(1000),
    "a body that is refused": POST + b"Origin: http://evil.example\r\nContent-Length: 900000\r\n\r\n" + bytes(800_000),
    "a body that is too large": POST + b"Content-Length: 90000000\r\n\r\n" + bytes(800_000),
    "a stream with a body": SUBSCRIBE.replace(b"\r\n\r\n", b"\r\nContent-Length: 900000\r\n\r\n") + bytes(800_000),
    "a stream": SUBSCRIBE,
    "a stream and more": SUBSCRIBE + GET,
    "a stream and garbage": SUBSCRIBE + os.urandom(300),
    "a stream and too much": SUBSCRIBE + bytes(300_000),
    "server-sent events and more": SSE + GET,
    "half of an upgrade": UPGRADE[:50],
    "an upgrade": UPGRADE,
    "an upgrade and more": UPGRADE + GET,
    "an upgrade and a frame": UPGRADE + b"\x81\x85\0\0\0\0hello",
    "an upgrade that is refused": UPGRADE.replace(b"/v1/subscribe", b"/v1/sign"),
    "an upgrade that is none": UPGRADE.replace(b": 13", b": 12"),
    "an upgrade with half a body": UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n{"),
}
OPENED = {
    "half a frame": b"\x81\xff\0\0",
    "a ping": b"\x89\x85\0\0\0\0hello",
    "a frame that is none": b"\xff\xff\xff\xff",
    "a close": b"\x88\x80\0\0\0\0",
}
"""Sent once a websocket is open."""


async def closed(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def half_closed(stream: trio.SocketStream) -> None:
    await stream.send_eof()


async def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


def server_tls(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


ENDS: list[Callable[[trio.SocketStream], Awaitable[None]]] = [closed, half_closed, reset]


async def talk(door: Door, tls: ssl.SSLContext | None, name: str) -> trio.SocketStream:
    """Send something, and leave it at that."""
    stream = await door.connect()
    talking: trio.abc.Stream = stream
    try:
        if tls is not None:
            talking = trio.SSLStream(stream, tls, server_hostname="localhost")
            await talking.do_handshake()
        if name in OPENED:
            await talking.send_all(UPGRADE)
            assert b" 101 " in await talking.receive_some()
        await talking.send_all(OPENED[name] if name in OPENED else SENT[name])
    except trio.BrokenResourceError:
        pass  # it was ended before all was sent
    return stream


@pytest.mark.slow
@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("end", ENDS, ids=["closed", "half closed", "reset"])
async def test_every_end_frees_its_slot(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[trio.SocketStream], Awaitable[None]],
    with_tls: bool,
) -> None:
    files = make_certificate(tmp_path)
    client = ssl.create_default_context(cafile=files.certificate) if with_tls else None
    streams: list[trio.SocketStream] = []

    async def begin(name: str) -> None:
        streams.append(await talk(door, client, name))

    async with open_door(tmp_path, ssl_context=server_tls(files) if with_tls else None) as door:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for name in (*SENT, *OPENED):
                    nursery.start_soon(begin, name)
            for stream in streams:
                with suppress(trio.BrokenResourceError):
                    await end(stream)
            while door.server.connections:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert door.house.stream.statistics().subscribers == 0
        assert not [record for record in caplog.records if record.exc_info]
        for stream in streams:
            await stream.aclose()


async def test_a_client_that_only_ends_its_side_is_answered(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door, await door.connect() as stream:
        await stream.send_all(GET * 3)
        await stream.send_eof()
        with trio.fail_after(5):
            assert b"".join([chunk async for chunk in stream]).count(b'{"alive":true}') == 3


async def test_thousands_of_bad_ends_leave_the_port_open(tmp_path: Path) -> None:
    """As many slots as these took from Hypercorn, for good, in 0.03 s."""
    async with open_door(tmp_path, max_connections=5) as door:
        with trio.fail_after(20):
            for _ in range(50):
                stream = await door.connect()
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(GET * 2)
                await stream.aclose()
            while door.server.connections:  # noqa: ASYNC110
                await trio.sleep(0.001)
            async with await door.connect() as stream:
                await stream.send_all(GET)
                assert b"200" in await stream.receive_some()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", GET[:20], POST + b"Content-Length: 20\r\n\r\n{", GET])
async def test_clients_that_only_hold_connections_open_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(slots, "PATIENCE_S", 0.05)
    async with open_door(tmp_path, max_connections=10) as door:
        holding = [await door.connect() for _ in range(10)]
        for stream in holding:
            await stream.send_all(sent)
        await door.until_connected(10)
        await trio.sleep(0.1)
        with trio.fail_after(5):
            for _ in range(5):
                async with await door.connect() as stream:
                    await stream.send_all(GET)
                    assert b"200" in await stream.receive_some()
        for stream in holding:
            await stream.aclose()
