"""An exchange over a real socket, with applications that are not ours."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from impervious.server.closing import Closing
from impervious.server.http import exchange
from impervious.server.http.connection import Connection

App = Callable[[Any, Any, Any], Awaitable[None]]
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
UNBOUNDED = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes, *, more: bool = False) -> Any:
    return {"type": "http.response.body", "body": data, "more_body": more}


@asynccontextmanager
async def served(app: App, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[trio.SocketStream, trio.Event]]:
    """A connection that `app` answers, and the event of its end."""
    over = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await Connection(app, stream, tls, Closing()).run()
        over.set()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
            yield stream, over
        nursery.cancel_scope.cancel()


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    await send(OK)
    await send(body(b"ok"))


async def all_of(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def test_head_and_body_leave_in_one_write() -> None:
    async with served(answer_ok) as (stream, _):
        await stream.send_all(GET)
        assert await stream.receive_some() == b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok"


async def test_a_head_request_gets_no_body() -> None:
    async with served(answer_ok) as (stream, _):
        await stream.send_all(GET.replace(b"GET", b"HEAD") + GET.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        assert (await all_of(stream)).count(b"ok") == 1


async def test_a_client_that_asks_first_is_told_to_go_on_when_its_body_is_wanted() -> None:
    async def read(scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        assert event["body"] == b"hello"
        await answer_ok(scope, receive, send)

    asking = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    async with served(read) as (stream, _):
        await stream.send_all(asking)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"hello")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
    async with served(answer_ok) as (stream, _):
        await stream.send_all(asking)
        answered = await stream.receive_some()  # without its body having been asked for
        assert answered.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answered.lower()


async def test_a_bug_in_the_application_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("from a nursery", [RuntimeError("a bug")])

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()

    for app in (broken, silent):
        async with served(app) as (stream, _):
            await stream.send_all(GET)
            answered = await all_of(stream)
            assert answered.startswith(b"HTTP/1.1 500")
            assert b"incident" in answered
    assert caplog.text.count("incident") == 2


async def test_a_bug_within_an_answer_cuts_it_off(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send(UNBOUNDED)
        await send(body(b"first", more=True))
        raise RuntimeError("a bug")

    async with served(broken) as (stream, _):
        await stream.send_all(GET)
        answered = await all_of(stream)
        assert answered.endswith(b"5\r\nfirst\r\n")  # and not the chunk that would say: this was all


async def test_an_application_that_never_receives_is_ended_when_its_peer_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "ABANDONED_S", 0.01)
    monkeypatch.setattr(exchange, "HALF_CLOSED_S", 0.01)

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async with served(deaf) as (stream, over):
        await stream.send_all(GET)
        await stream.aclose()
        await over.wait()


async def test_what_a_peer_sends_ahead_is_bounded() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async with served(slow) as (stream, over):
        await stream.send_all(GET + bytes(exchange.READ_AHEAD_BYTES + 1))
        assert b"400" in (await all_of(stream))[:20]
        await stream.aclose()
        await over.wait()


async def test_to_write_to_a_peer_that_is_gone_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send(UNBOUNDED)
        while (await receive())["type"] != "http.disconnect":
            pass
        for _ in range(3):
            await send(body(bytes(100_000), more=True))

    async with served(endless) as (stream, over):
        await stream.send_all(GET)
        await stream.receive_some()
        await stream.aclose()
        await over.wait()
    assert not caplog.records


async def test_a_connection_takes_any_number_of_requests() -> None:
    async with served(answer_ok) as (stream, over):
        for _ in range(1100):  # Hypercorn would close it after 1000
            await stream.send_all(GET)
            assert b"close" not in await stream.receive_some()
        await stream.send_eof()
        await over.wait()


async def test_a_bug_behind_an_answer_spoils_no_other_answer(caplog: pytest.LogCaptureFixture) -> None:
    first_answered, second_asked = trio.Event(), trio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        if first_answered.is_set():
            second_asked.set()
            await trio.testing.wait_all_tasks_blocked()
            await answer_ok(scope, receive, send)
            return
        await answer_ok(scope, receive, send)
        first_answered.set()
        await second_asked.wait()
        raise RuntimeError("a bug")

    async with served(late) as (stream, _):
        for _ in range(2):
            await stream.send_all(GET)
            assert (await stream.receive_some()).endswith(b"\r\n\r\nok")
    assert "incident" in caplog.text


async def test_a_client_of_http_1_0_gets_its_answer_and_the_end() -> None:
    async def unbounded(scope: Any, receive: Any, send: Any) -> None:
        await send(UNBOUNDED)
        await send(body(b"first", more=True))
        await send(body(b"last"))

    async with served(unbounded) as (stream, over):
        await stream.send_all(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await all_of(stream)).endswith(b"\r\n\r\nfirstlast")
        await over.wait()


async def test_a_body_that_no_application_takes_does_not_hold_its_connection() -> None:
    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await trio.testing.wait_all_tasks_blocked()
        await answer_ok(scope, receive, send)

    chunks = b"".join(b"1\r\n%c\r\n" % (97 + each % 26) for each in range(200))
    async with served(deaf) as (stream, over):
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        await stream.send_eof()
        assert b" 200 " in await all_of(stream)
        await over.wait()


@pytest.mark.parametrize("behind", [GET, b"garbage\r\n\r\n"])
async def test_what_comes_behind_the_last_request_is_ignored(behind: bytes) -> None:
    async with served(answer_ok) as (stream, over):
        await stream.send_all(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + behind)
        answered = await all_of(stream)
        assert answered.startswith(b"HTTP/1.1 200")
        assert answered.endswith(b"ok")
        await stream.aclose()
        await over.wait()
