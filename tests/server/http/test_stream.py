import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from tests.server.asgi import Line, opened, request
from tests.server.house import ALICE, BOB, Inside, config, new, open_app, without_service

from impervious.errors import StoreError
from impervious.events import FEED_SIZE
from impervious.server.http.stream import FAREWELL_S, IDLE_S, WRITE_BYTES, gathered
from impervious.store import Tx, log

URL = "/v1/subscribe"
PLAIN: dict[str, str] = {}
SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened_app:
        yield opened_app


def websocket(inside: Inside, query: str = "", *, text: bool = False) -> AbstractAsyncContextManager[Line]:
    return opened(inside.app, URL + query, websocket=True, server=inside.text if text else inside.http)


def stream(inside: Inside, query: str = "", headers: dict[str, str] | None = None) -> AbstractAsyncContextManager[Line]:
    return opened(inside.app, URL + query, headers=headers, server=inside.http)


async def frames(line: Line, number: int) -> list[Any]:
    return [(await line.frame())["result"] for _ in range(number)]


async def lines(line: Line, number: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < number:
        found += [json.loads(text)["result"] for text in (await line.body()).splitlines()]
    return found


def seqs(shown: list[Any]) -> list[int]:
    return [int(each["seq"]) for each in shown]


async def accepted(line: Line) -> None:
    await line.expect("websocket.accept")


# --- Websocket --------------------------------------------------------------------------------------------------------


async def test_live_events_are_one_frame_each(inside: Inside) -> None:
    await inside.house.emit(new("before"))
    async with websocket(inside) as line:
        await accepted(line)
        [event] = await inside.house.emit(new("hi", amount=2500))
        assert await line.frame() == {
            "result": {
                "id": str(event.id),
                "replyToId": "",
                "fromPubkey": ALICE.hex,
                "data": "aGk=",
                "serviceType": "message",
                "amount": "2",
                "seq": "2",
                "sentAtMs": "1760000000123",
                "verified": True,
            }
        }


async def test_what_comes_right_after_the_accept_is_shown(inside: Inside) -> None:
    async with websocket(inside) as line:
        await accepted(line)
        await inside.house.emit(*(new(str(number)) for number in range(500)))
        assert seqs(await frames(line, 500)) == list(range(1, 501))


async def test_replay_then_live(inside: Inside) -> None:
    await inside.house.emit(*(new(str(number)) for number in range(600)))
    async with websocket(inside, "?since=100") as line:
        await accepted(line)
        assert seqs(await frames(line, 500)) == list(range(101, 601))
        await inside.house.emit(new("live"))
        assert seqs(await frames(line, 1)) == [601]


async def test_what_the_client_sends_is_read_and_ignored(inside: Inside) -> None:
    async with websocket(inside) as line:
        await accepted(line)
        for number in range(500):
            await line.send_to_app({"type": "websocket.receive", "text": f"hello {number}", "bytes": None})
        await inside.house.emit(new("hi"))
        assert seqs(await frames(line, 1)) == [1]


async def test_silence_is_broken_by_a_ping(inside: Inside, autojump_clock: trio.testing.MockClock) -> None:
    async with websocket(inside) as line:
        await accepted(line)
        began = trio.current_time()
        assert await line.frame() == await line.frame() == "ping"
        assert trio.current_time() == began + 2 * IDLE_S
        await trio.sleep(IDLE_S - 1)
        await inside.house.emit(new("hi"))
        assert seqs(await frames(line, 1)) == [1]
        since = trio.current_time()
        assert await line.frame() == "ping"
        assert trio.current_time() == since + IDLE_S


async def test_a_stream_that_cannot_begin_is_opened_to_say_so(
    inside: Inside, autojump_clock: trio.testing.MockClock
) -> None:
    await inside.house.emit(new())
    for query, code in (("?since=9", 11), ("?since=x", 3), ("?service_type=nope", 3), ("?from=02", 3), ("?v=9", 3)):
        async with websocket(inside, query) as line:
            await accepted(line)
            error = (await line.frame())["error"]
            assert error["code"] == code
            assert error["details"] == []
            closed = await line.expect("websocket.close")
            assert closed["code"] == 1008
            assert error["message"].startswith(closed["reason"])
            await line.over.wait()
    assert inside.house.stream.statistics().subscribers == 0


async def test_too_many_subscribers_are_told_to_come_again(inside: Inside) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(1000):
            await stack.enter_async_context(inside.house.events())
        async with websocket(inside) as line:
            await accepted(line)
            error = (await line.frame())["error"]
            assert (error["code"], "limits.subscribers" in error["message"]) == (8, True)
            assert (await line.expect("websocket.close"))["code"] == 1013
        reply = await request(inside.app, "GET", URL, server=inside.http)
        assert (reply.status, reply.json["code"]) == (429, 8)


async def test_a_stream_that_breaks_ends_with_the_error(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    async with websocket(inside) as line:
        await accepted(line)
        await inside.house.emit(new("a"))
        assert seqs(await frames(line, 1)) == [1]

        async def broken(work: object) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreError("the database cannot be used: disk I/O error")

        monkeypatch.setattr(inside.house.store, "read", broken)
        await inside.house.emit(*(new("x" * 10) for _ in range(FEED_SIZE * 3)))  # it falls behind, and needs the log
        while "result" in (found := await line.frame()):
            pass
        assert found["error"]["code"] == 13
        assert found["error"]["message"] == "the database cannot be used: disk I/O error"
        assert (await line.expect("websocket.close"))["code"] == 1011


async def test_what_is_pruned_before_it_is_read_is_an_error_not_a_gap(
    inside: Inside, autojump_clock: trio.testing.MockClock
) -> None:
    async with websocket(inside) as line:
        await accepted(line)
        await inside.house.emit(new("a"))
        await frames(line, 1)

        def emit_and_prune(tx: Tx) -> None:
            for _ in range(FEED_SIZE * 2):
                tx.emit(new("x"))
            log.prune(tx, max_bytes=1000, readers=frozenset())

        await inside.house.store.write(emit_and_prune)
        found: Any = {"result": {}}
        while "result" in found:
            found = await line.frame()
        assert found["error"]["code"] == 11
        assert "the oldest kept is" in found["error"]["message"]


# --- Lines and server-sent events -------------------------------------------------------------------------------------


async def test_lines_of_json(inside: Inside) -> None:
    await inside.house.emit(new("a"), new("b"))
    async with stream(inside, "?since=0") as line:
        start = await line.expect("http.response.start")
        assert start["status"] == 200
        assert dict(start["headers"])[b"content-type"] == b"application/json"
        assert seqs(await lines(line, 2)) == [1, 2]
        await inside.house.emit(new("c"))
        body = await line.body()
        assert body.endswith(b"}}\n")
        assert json.loads(body)["result"]["data"] == "Yw=="


async def test_headers_come_at_once_and_silence_stays_silence(
    inside: Inside, autojump_clock: trio.testing.MockClock
) -> None:
    async with stream(inside) as line:
        assert (await line.expect("http.response.start"))["status"] == 200
        await trio.sleep(10 * IDLE_S)
        assert line.sent.statistics().current_buffer_used == 0


async def test_server_sent_events(inside: Inside, autojump_clock: trio.testing.MockClock) -> None:
    await inside.house.emit(new("a"), new("b"))
    async with stream(inside, "?since=1", SSE) as line:
        start = await line.expect("http.response.start")
        assert dict(start["headers"])[b"content-type"] == b"text/event-stream"
        assert await line.body() == b"retry: 2000\n\nid: 1\n\n"
        head, data, empty, end = (await line.body()).split(b"\n")
        assert (head, empty, end) == (b"id: 2", b"", b"")
        assert json.loads(data.removeprefix(b"data: "))["result"]["data"] == "Yg=="
        assert await line.body() == b":\n\n"
    async with stream(inside, "?since=0", {"last-event-id": "1", "accept": "Text/Event-Stream, */*"}) as line:
        await line.expect("http.response.start")
        await line.body()
        assert (await line.body()).startswith(b"id: 2\n")


async def test_a_live_stream_says_where_it_begins(inside: Inside) -> None:
    """Else a client whose connection breaks before its first event would not know what it has missed."""
    await inside.house.emit(new("a"), new("b"))
    position = (b"impervious-seq", b"2")
    async with websocket(inside) as line:
        assert position in (await line.expect("websocket.accept"))["headers"]
    async with stream(inside) as line:
        assert position in (await line.expect("http.response.start"))["headers"]
    async with stream(inside, headers=SSE) as line:
        assert position in (await line.expect("http.response.start"))["headers"]
        assert await line.body() == b"retry: 2000\n\nid: 2\n\n"
    async with websocket(inside, "?since=9") as line:
        assert (await line.expect("websocket.accept"))["headers"] == []


async def test_a_stream_that_cannot_begin_has_a_status(inside: Inside) -> None:
    for headers in (PLAIN, SSE):
        reply = await request(inside.app, "GET", URL + "?since=9", headers=headers, server=inside.http)
        assert (reply.status, reply.json["code"]) == (400, 11)
        assert "ask since=0" in reply.json["message"]
    reply = await request(inside.app, "GET", URL, headers={"last-event-id": "x"}, server=inside.http)
    assert (reply.status, reply.json["code"]) == (400, 3)


async def test_a_stream_that_breaks_ends_with_the_error_as_its_last_line(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(work: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("broken")

    for headers in (PLAIN, SSE):
        async with stream(inside, headers=headers) as line:
            await line.expect("http.response.start")
            if headers:
                await line.body()
            await trio.testing.wait_all_tasks_blocked()
            with monkeypatch.context() as patch:
                patch.setattr(inside.house.store, "read", broken)
                await inside.house.emit(*(new("x") for _ in range(FEED_SIZE * 3)))
                body = b""
                while b'"error"' not in body:
                    body = await line.body()
            last = body.strip().splitlines()[-1].removeprefix(b"data: ")
            assert json.loads(last) == {"error": {"code": 13, "message": "broken", "details": []}}
            assert not (await line.expect("http.response.body"))["more_body"]


async def test_head_subscribes_to_nothing(inside: Inside) -> None:
    async with opened(inside.app, URL, method="HEAD", server=inside.http) as line:
        assert (await line.expect("http.response.start"))["status"] == 200
        assert not (await line.expect("http.response.body"))["more_body"]
    assert inside.house.stream.statistics().subscribers == 0


# --- What is shown ----------------------------------------------------------------------------------------------------


async def test_filters(inside: Inside) -> None:
    await inside.house.emit(
        new("1"), new("2", service="vpn"), new("3", sender=BOB), new("4", service="vpn", sender=BOB)
    )
    query = f"?since=0&service_type=vpn,socket&from={BOB.hex}"
    async with websocket(inside, query) as line:
        await accepted(line)
        assert seqs(await frames(line, 1)) == [4]
        await inside.house.emit(new("5"), new("6", service="socket", sender=BOB))
        assert seqs(await frames(line, 1)) == [6]


async def test_the_text_listener_shows_what_was_published(inside: Inside) -> None:
    news = [new("a"), new("{}", service="status"), new("b", service="lightning"), new(b"\xff", sender=BOB)]
    await inside.house.emit(*news)
    async with websocket(inside, "?since=0", text=True) as line:
        await accepted(line)
        first, second = await frames(line, 2)
        assert list(first) == ["id", "replyToId", "fromPubkey", "data", "serviceType", "amount"]
        assert (first["data"], second["data"]) == ("a", "\ufffd")
    async with websocket(inside, "?since=0&v=2", text=True) as line:
        await accepted(line)
        assert [(each["seq"], each["data"]) for each in await frames(line, 4)] == [
            ("1", "a"),
            ("2", "{}"),
            ("3", "b"),
            ("4", "\ufffd"),
        ]
    async with websocket(inside, "?since=0&encoding=base64", text=True) as line:
        await accepted(line)
        assert [each["data"] for each in await frames(line, 4)] == ["YQ==", "e30=", "Yg==", "/w=="]
    async with websocket(inside, "?since=0&encoding=text") as line:
        await accepted(line)
        assert [each["data"] for each in await frames(line, 2)] == ["a", "\ufffd"]


async def test_unverified_messages_are_shown_on_request(inside: Inside) -> None:
    await inside.house.emit(new("raw", sender=None, verified=False), new("signed"))
    for query, shown in (("?since=0", [2]), ("?since=0&v=2", [1, 2])):
        async with websocket(inside, query) as line:
            await accepted(line)
            assert seqs(await frames(line, len(shown))) == shown
            assert line.sent.statistics().current_buffer_used == 0


async def test_a_stream_that_is_switched_off_says_so(tmp_path: Path) -> None:
    async with open_app(without_service(config(tmp_path), "websocket")) as inside:
        reply = await request(inside.app, "GET", URL, server=inside.http)
        assert (reply.status, reply.json["code"]) == (501, 12)
        assert "the websocket service is switched off" in reply.json["message"]


# --- Many, slow, ending -----------------------------------------------------------------------------------------------


async def test_a_hundred_subscribers_see_the_same(inside: Inside) -> None:
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(websocket(inside)) for _ in range(100)]
        for line in found:
            await accepted(line)
        for number in range(20):
            await inside.house.emit(new(f"message {number}"))
        for line in found:
            assert seqs(await frames(line, 20)) == list(range(1, 21))


async def test_a_subscriber_that_does_not_read_holds_up_nobody_and_misses_nothing(inside: Inside) -> None:
    number = FEED_SIZE * 3
    slow = Slow()
    async with opened(inside.app, URL, websocket=True, server=inside.http, line=slow) as slow_line:
        await accepted(slow_line)
        async with websocket(inside) as quick:
            await accepted(quick)
            slow.stop()
            for batch in range(number // 64):
                await inside.house.emit(*(new(f"{batch} {each}") for each in range(64)))
                await frames(quick, 64)
        slow.go_on()
        assert seqs(await frames(slow_line, number)) == list(range(1, number + 1))


class Slow(Line):
    """A client whose connection takes nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._may_go = trio.Event()
        self._may_go.set()

    def stop(self) -> None:
        self._may_go = trio.Event()

    def go_on(self) -> None:
        self._may_go.set()

    async def app_send(self, event: dict[str, Any]) -> None:
        await self._may_go.wait()
        await super().app_send(event)


async def test_streams_end_in_order_when_the_doors_close(
    inside: Inside, autojump_clock: trio.testing.MockClock
) -> None:
    async with websocket(inside) as line, stream(inside) as body, stream(inside, headers=SSE) as events:
        await accepted(line)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        inside.doors.streams.begin()
        closed = await line.expect("websocket.close")
        assert (closed["code"], closed["reason"]) == (1001, "the daemon is stopping")
        for each in (body, events):
            while (await each.next()).get("more_body", True):
                pass
            await each.over.wait()
        assert trio.current_time() == began
        await line.over.wait()
        assert trio.current_time() == began + FAREWELL_S
    async with websocket(inside) as late:
        await accepted(late)
        assert (await late.expect("websocket.close"))["code"] == 1001


async def test_a_client_that_answers_the_farewell_ends_it(
    inside: Inside, autojump_clock: trio.testing.MockClock
) -> None:
    async with websocket(inside) as line:
        await accepted(line)
        inside.doors.streams.begin()
        await line.expect("websocket.close")
        began = trio.current_time()
        await line.send_to_app({"type": "websocket.disconnect", "code": 1001})
        await line.over.wait()
        assert trio.current_time() == began


async def test_subscriptions_end_with_their_clients(inside: Inside) -> None:
    async with websocket(inside) as line, stream(inside) as body:
        await accepted(line)
        await body.expect("http.response.start")
        assert inside.house.stream.statistics().subscribers == 2
    assert inside.house.stream.statistics().subscribers == 0


def test_frames_are_joined_up_to_what_is_written_at_a_time() -> None:
    small, large = b"x" * 1000, b"y" * (WRITE_BYTES + 1)
    assert list(gathered([])) == []
    assert list(gathered([small, small])) == [small + small]
    assert list(gathered([large])) == [large]
    assert list(gathered([small, large, small])) == [small, large, small]
    pieces = list(gathered([small] * 200))
    assert b"".join(pieces) == small * 200
    assert [len(piece) <= WRITE_BYTES for piece in pieces] == [True] * 4


# --- Secrets ----------------------------------------------------------------------------------------------------------


async def test_secrets_are_shown_to_those_who_ask_and_to_nobody_else(inside: Inside) -> None:
    hidden = replace(new("redacted"), secret=b"private key")
    await inside.house.emit(hidden, new("open"))
    for query, expected in (
        ("?since=0&encoding=text", ["redacted", "open"]),
        ("?since=0&encoding=text&secrets=false", ["redacted", "open"]),
        ("?since=0&encoding=text&secrets=true", ["private key", "open"]),
        ("?since=0&encoding=text&v=2&secrets", ["private key", "open"]),
    ):
        async with websocket(inside, query) as line:
            await accepted(line)
            assert [each["data"] for each in await frames(line, 2)] == expected
    assert "private key" not in repr(await inside.house.emit(hidden))


async def test_live_secrets_too(inside: Inside) -> None:
    async with websocket(inside, "?secrets=true") as asking, websocket(inside) as other:
        await accepted(asking)
        await accepted(other)
        await inside.house.emit(replace(new("x"), secret=b"y"))
        assert [(await frames(line, 1))[0]["data"] for line in (asking, other)] == ["eQ==", "eA=="]


async def test_a_strange_wish_for_secrets_is_refused(inside: Inside) -> None:
    reply = await request(inside.app, "GET", URL + "?secrets=please", server=inside.http)
    assert (reply.status, reply.json["message"]) == (400, "?secrets= must be true or false")
