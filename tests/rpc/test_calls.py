"""What callers and handlers can do with each other: our client, our server, streams in memory, virtual time."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError
from grpclib.metadata import Deadline

from impervious.pb.grpc.health.v1 import HealthCheckRequest as Text
from impervious.rpc import CallInfo
from impervious.rpc.server_stream import Peer
from impervious.wire.grpc.headers import Metadata

from .pair import CHAT, COUNT, CUSTOM, CUSTOM_UNARY, FAIL, LIST, SLEEP, UNARY, TextStream, connected


async def test_unary(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            assert await pair.unary("hello") == "hello"
            assert await pair.unary("") == ""
            assert pair.channel.statistics().connections_made == 1


async def test_server_streaming(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            async with pair.channel.unary_stream(LIST, Text(service="100"), Text) as responses:
                received = [response.service async for response in responses]
            assert received == [str(number) for number in range(100)]


async def test_client_streaming(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            async with pair.channel.request(COUNT, Cardinality.STREAM_UNARY, Text, Text) as stream:
                for _ in range(100):
                    await stream.send_message(Text(service="abc"))
                await stream.end()
                response = await stream.recv_message()
            assert response == Text(service="100/300")


async def test_bidirectional_streaming(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            async with pair.channel.request(CHAT, Cardinality.STREAM_STREAM, Text, Text) as stream:
                await stream.send_request()
                for text in ("a", "b", "c"):
                    await stream.send_message(Text(service=text))
                    assert await stream.recv_message() == Text(service=text.upper())
                await stream.end()
                assert await stream.recv_message() is None


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
async def test_every_error_status(status: Status, autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            with pytest.raises(GRPCError) as caught:
                await pair.channel.unary_unary(FAIL, Text(service=f"{status.value}:nö\r\n%41 \U0001f4a9"), Text)
            error = caught.value
            assert (error.status, error.message, error.details) == (status, "nö\r\n%41 \U0001f4a9", b"details")
            assert await pair.unary() == "hello"


async def test_an_exception_in_a_handler_is_told_to_the_log_only(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            with pytest.raises(GRPCError) as caught:
                await pair.channel.unary_unary(FAIL, Text(service="macaroon"), Text)
            assert (caught.value.status, caught.value.message) == (Status.UNKNOWN, "Internal Server Error")
            assert await pair.unary() == "hello"
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError
    assert FAIL in record.getMessage()


async def test_a_failure_inside_a_nursery_of_the_handler(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: TextStream) -> None:
        async def clean_up_badly() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("cleanup failed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up_badly)
            await trio.sleep_forever()

    with trio.fail_after(60):
        async with connected() as pair:
            pair.play.custom = handler
            async with pair.channel.request(CUSTOM_UNARY, Cardinality.UNARY_UNARY, Text, Text, timeout=3) as stream:
                await stream.send_message(Text())
                with pytest.raises(GRPCError):
                    await stream.recv_message()
            assert await pair.unary() == "hello"
    assert any("handler failed" in record.getMessage() for record in caplog.records)


async def test_a_unary_handler_without_an_answer(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: TextStream) -> None:
        await stream.recv_message()

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            with pytest.raises(GRPCError, match="Internal Server Error"):
                await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text)
    assert any("without the message" in record.getMessage() for record in caplog.records)


async def test_no_such_method(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            with pytest.raises(GRPCError, match="no such method") as caught:
                await pair.channel.unary_unary("/test.Play/Nothing", Text(), Text)
            assert caught.value.status is Status.UNIMPLEMENTED


async def test_a_request_without_its_message(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            # The client believes that the method takes a stream; the server knows better.
            async with pair.channel.request(UNARY, Cardinality.STREAM_UNARY, Text, Text) as stream:
                await stream.send_request(end=True)
                with pytest.raises(GRPCError, match="without the one message") as caught:
                    await stream.recv_message()
            assert caught.value.status is Status.UNIMPLEMENTED


async def test_a_unary_answer_with_too_many_or_no_messages(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            for count in (0, 2):
                with pytest.raises(GRPCError, match="answered a unary call with") as caught:
                    await pair.channel.unary_unary(LIST, Text(service=str(count)), Text)
                assert caught.value.status is Status.UNIMPLEMENTED
            async with pair.channel.request(LIST, Cardinality.UNARY_UNARY, Text, Text) as stream:
                await stream.send_message(Text(service="0"))
                with pytest.raises(GRPCError, match="OK and no message"):
                    await stream.recv_message()


class Unreadable(Text):
    """A message that cannot be parsed."""

    @classmethod
    def FromString(cls, data: bytes) -> "Unreadable":
        raise KeyError("bad varint")


async def test_a_response_that_cannot_be_parsed(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            with pytest.raises(GRPCError, match="7 bytes are no Unreadable") as caught:
                await pair.channel.unary_unary(UNARY, Text(service="hello"), Unreadable)
            assert caught.value.status is Status.INTERNAL


# --- Metadata ---------------------------------------------------------------------------------------------------------


def pairs(metadata: Metadata | None) -> list[tuple[str, str | bytes]] | None:
    return None if metadata is None else list(metadata.items())


async def test_metadata_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[str, str | bytes]] = []

    async def handler(stream: TextStream) -> None:
        seen.extend(stream.metadata.items())
        seen.append(("agent", str(stream.user_agent)))
        await stream.send_initial_metadata(metadata=[("first", "1"), ("first-bin", b"\x00\xff")])
        await stream.send_message(Text(service="x"))
        await stream.send_trailing_metadata(metadata=[("last", "a"), ("last", "b"), ("last-bin", b"")])

    with trio.fail_after(5):
        async with connected(metadata={"macaroon": "0201"}) as pair:
            pair.play.custom = handler
            async with pair.channel.request(
                CUSTOM, Cardinality.STREAM_STREAM, Text, Text, metadata={"extra-bin": b"\x01"}
            ) as stream:
                assert pairs(stream.initial_metadata) is None
                await stream.send_request()
                await stream.recv_initial_metadata()
                assert pairs(stream.initial_metadata) == [("first", "1"), ("first-bin", b"\x00\xff")]
                assert await stream.recv_message() == Text(service="x")
                await stream.recv_trailing_metadata()
                assert pairs(stream.trailing_metadata) == [("last", "a"), ("last", "b"), ("last-bin", b"")]
    assert seen == [("macaroon", "0201"), ("extra-bin", b"\x01"), ("agent", "impervious-grpc")]


async def test_waiting_for_metadata_of_a_call_that_failed(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            for wait in ("recv_initial_metadata", "recv_trailing_metadata"):
                async with pair.channel.request(FAIL, Cardinality.UNARY_UNARY, Text, Text) as stream:
                    await stream.send_message(Text(service="7:no"))
                    with pytest.raises(GRPCError, match="no"):
                        await getattr(stream, wait)()
                    assert stream.trailing_metadata is not None
                    with pytest.raises(GRPCError):
                        await stream.recv_message()


async def test_bad_metadata_is_refused_before_anything_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            with pytest.raises(ValueError, match="metadata key"):
                pair.channel.request(UNARY, Cardinality.UNARY_UNARY, Text, Text, metadata={"Bad": "x"})
            assert pair.channel.statistics().connections_made == 0


async def test_metadata_never_reaches_the_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with trio.fail_after(5):
        async with connected(metadata={"macaroon": "0201secret"}) as pair:
            await pair.unary()
    assert "secret" not in caplog.text


# --- Deadlines --------------------------------------------------------------------------------------------------------


async def test_a_timeout_argument_becomes_deadline_exceeded(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    async with connected() as pair:
        async with pair.channel.request(SLEEP, Cardinality.UNARY_UNARY, Text, Text, timeout=7) as stream:
            await stream.send_message(Text())
            with pytest.raises(GRPCError) as caught:
                await stream.recv_message()
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - start == pytest.approx(7)
        await trio.testing.wait_all_tasks_blocked()
        assert pair.play.events == ["asleep", "cancelled"]
        assert await pair.unary() == "hello"


async def test_the_earlier_of_timeout_and_deadline_counts(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    async with connected() as pair:
        async with pair.channel.request(
            SLEEP, Cardinality.UNARY_UNARY, Text, Text, timeout=7, deadline=Deadline.from_timeout(3)
        ) as stream:
            await stream.send_message(Text())
            with pytest.raises(GRPCError):
                await stream.recv_message()
        assert trio.current_time() - start == pytest.approx(3, abs=0.5)


async def test_a_timeout_that_is_over_before_it_begins(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        await pair.unary()
        for timeout in (0, -1):
            async with pair.channel.request(UNARY, Cardinality.UNARY_UNARY, Text, Text, timeout=timeout) as stream:
                with pytest.raises(GRPCError) as caught:
                    await stream.send_message(Text())
            assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert pair.channel.statistics().calls_open == 0
        assert await pair.unary() == "hello"


async def test_the_callers_own_deadline_stays_a_cancellation(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(5):
                await pair.channel.unary_unary(SLEEP, Text(), Text)
        await trio.testing.wait_all_tasks_blocked()
        assert pair.play.events == ["asleep", "cancelled"]
        assert await pair.unary() == "hello"


async def test_the_handler_knows_the_callers_deadline(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[float] = []

    async def handler(stream: TextStream) -> None:
        assert stream.deadline is not None
        seen.extend([stream.deadline.time_remaining(), trio.current_effective_deadline() - trio.current_time()])
        await stream.send_message(Text())

    async with connected() as pair:
        pair.play.custom = handler
        with trio.fail_after(29.5):
            await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text)
    assert seen == pytest.approx([29.5, 29.5])


async def test_without_a_deadline_there_is_none(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(stream: TextStream) -> None:
        assert stream.deadline is None
        assert trio.current_effective_deadline() == float("inf")
        await stream.send_message(Text())

    async with connected() as pair:
        pair.play.custom = handler
        await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text)


async def test_a_handler_that_outlives_the_deadline_is_answered_for(autojump_clock: trio.testing.MockClock) -> None:
    """The server keeps the time as well, for clients that do not."""
    async with connected() as pair:
        stream = pair.channel.request(SLEEP, Cardinality.UNARY_UNARY, Text, Text, timeout=5)
        async with stream:
            await stream.send_message(Text())
            stream._expires = float("inf")  # a client that forgets its own deadline
            with pytest.raises(GRPCError, match="before the answer was ready") as caught:
                await stream.recv_message()
        assert caught.value.status is Status.DEADLINE_EXCEEDED


# --- Leaving early ----------------------------------------------------------------------------------------------------


async def test_leaving_a_stream_early_cancels_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []

    async def handler(stream: TextStream) -> None:
        try:
            while True:
                await stream.send_message(Text(service="x" * 1000))
        finally:
            ended.append("handler")

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            async with pair.channel.unary_stream(CUSTOM, Text(), Text) as responses:
                assert await responses.recv_message() is not None
            await trio.testing.wait_all_tasks_blocked()
            assert ended == ["handler"]
            assert pair.server.statistics().calls == 0
            assert await pair.unary() == "hello"


async def test_cancel_ends_a_call(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            async with pair.channel.request(SLEEP, Cardinality.UNARY_UNARY, Text, Text) as stream:
                await stream.send_message(Text())
                await trio.testing.wait_all_tasks_blocked()
                await stream.cancel()
                await stream.cancel()
                with pytest.raises(GRPCError) as caught:
                    await stream.recv_message()
                assert caught.value.status is Status.CANCELLED
            await trio.testing.wait_all_tasks_blocked()
            assert pair.play.events == ["asleep", "cancelled"]


async def test_a_handler_may_cancel_its_call(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(stream: TextStream) -> None:
        await stream.cancel()

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            with pytest.raises(GRPCError, match="CANCEL") as caught:
                await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text)
            assert caught.value.status is Status.CANCELLED


async def test_a_block_left_without_use_or_with_an_unfinished_upload(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            async with pair.channel.request(COUNT, Cardinality.STREAM_UNARY, Text, Text):
                pass
            with pytest.raises(ProtocolError, match="end the request"):
                async with pair.channel.request(COUNT, Cardinality.STREAM_UNARY, Text, Text) as stream:
                    await stream.send_message(Text())
            assert pair.channel.statistics().calls_open == 0


async def test_the_status_is_seen_also_when_the_response_is_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(stream: TextStream) -> None:
        await stream.send_message(Text(service="x"))
        raise GRPCError(Status.DATA_LOSS, "after all")

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            with pytest.raises(GRPCError, match="after all"):
                async with pair.channel.request(CUSTOM_UNARY, Cardinality.UNARY_UNARY, Text, Text) as stream:
                    await stream.send_message(Text())

            # Who leaves a stream has what they wanted; how it would have ended is no error of theirs.
            async with pair.channel.unary_stream(CUSTOM, Text(), Text) as stream:
                assert await stream.recv_message() is not None
                await trio.testing.wait_all_tasks_blocked()


async def test_an_early_answer_ends_the_upload(autojump_clock: trio.testing.MockClock) -> None:
    """An error is told to the sender at once; OK means that the rest is not needed."""

    async def refuse(stream: TextStream) -> None:
        await trio.lowlevel.checkpoint()
        raise GRPCError(Status.PERMISSION_DENIED, "not you")

    async def enough(stream: TextStream) -> None:
        await stream.send_message(Text(service="enough"))

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = refuse
            async with pair.channel.request(CUSTOM, Cardinality.STREAM_STREAM, Text, Text) as stream:
                await stream.send_message(Text())
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(GRPCError, match="not you"):
                    await stream.send_message(Text())
            pair.play.custom = enough
            async with pair.channel.request(CUSTOM, Cardinality.STREAM_UNARY, Text, Text) as stream:
                for _ in range(10):
                    await stream.send_message(Text())
                    await trio.testing.wait_all_tasks_blocked()
                await stream.end()
                assert await stream.recv_message() == Text(service="enough")


# --- Misuse -----------------------------------------------------------------------------------------------------------


async def test_the_caller_misuses_a_stream(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with connected() as pair:
            stream = pair.channel.request(UNARY, Cardinality.UNARY_UNARY, Text, Text)
            for method in (
                stream.recv_message,
                stream.recv_initial_metadata,
                stream.recv_trailing_metadata,
                stream.end,
            ):
                with pytest.raises(ProtocolError, match="send the request first"):
                    await method()
            with pytest.raises(ProtocolError, match="needs its message"):
                await stream.send_request(end=True)
            async with stream:
                await stream.send_request()
                with pytest.raises(ProtocolError, match="already"):
                    await stream.send_request()
                await stream.send_message(Text())
                with pytest.raises(ProtocolError, match="ended already"):
                    await stream.send_message(Text())
                assert await stream.recv_message() == Text()


async def test_two_tasks_at_one_end_of_a_stream(autojump_clock: trio.testing.MockClock) -> None:
    busy: list[str] = []

    async def receive_twice(stream: object) -> None:
        try:
            await stream.recv_message()  # type: ignore[attr-defined]  # either side's stream
        except trio.BusyResourceError:
            busy.append(type(stream).__name__)

    async def handler(stream: TextStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_twice, stream)
            nursery.start_soon(receive_twice, stream)

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            async with pair.channel.request(CUSTOM, Cardinality.STREAM_STREAM, Text, Text) as stream:
                await stream.send_request()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive_twice, stream)
                    nursery.start_soon(receive_twice, stream)
                    await trio.testing.wait_all_tasks_blocked()
                    await stream.end()
    assert sorted(busy) == ["ServerStream", "Stream"]


async def test_two_tasks_sending_on_one_stream(autojump_clock: trio.testing.MockClock) -> None:
    busy: list[str] = []
    large = Text(service="x" * 2_000_000)

    async def send_twice(stream: object) -> None:
        async def send() -> None:
            try:
                await stream.send_message(large)  # type: ignore[attr-defined]  # either side's stream
            except trio.BusyResourceError:
                busy.append(type(stream).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)

    async def handler(stream: TextStream) -> None:
        assert await stream.recv_message() == large
        await send_twice(stream)

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            async with pair.channel.request(CUSTOM, Cardinality.STREAM_STREAM, Text, Text) as stream:
                await send_twice(stream)
                assert await stream.recv_message() == large
                assert await stream.recv_message() is None
    assert busy == ["Stream", "ServerStream"]


async def test_an_answer_that_ends_within_a_message(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(stream: TextStream) -> None:
        await stream.send_initial_metadata()
        stream._connection.send(stream.call, b"\x00\x00\x00\x00\x09half")

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            async with pair.channel.unary_stream(CUSTOM, Text(), Text) as stream:
                with pytest.raises(GRPCError, match="within a message") as caught:
                    await stream.recv_message()
            assert caught.value.status is Status.INTERNAL


@pytest.mark.parametrize(
    ("details", "received"), [(None, None), (b"raw", b"raw"), (Text(service="x"), b"\n\x01x"), (["other"], None)]
)
async def test_details_of_an_error(
    details: object, received: bytes | None, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(stream: TextStream) -> None:
        await trio.lowlevel.checkpoint()
        raise GRPCError(Status.ABORTED, None, details)

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            with pytest.raises(GRPCError) as caught:
                await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text)
            assert (caught.value.message, caught.value.details) == (None, received)


async def test_the_handler_misuses_a_stream(autojump_clock: trio.testing.MockClock) -> None:
    complaints: list[str] = []

    async def handler(stream: TextStream) -> None:
        attempts: list[Callable[[], Awaitable[None]]] = [
            stream.send_trailing_metadata,
            stream.send_initial_metadata,
            stream.send_initial_metadata,
            partial(stream.send_message, Text(service="one")),
            partial(stream.send_message, Text(service="two")),
            partial(stream.send_trailing_metadata, metadata={"k": "v"}),
            partial(stream.send_message, Text(service="three")),
            stream.send_trailing_metadata,
        ]
        for attempt in attempts:
            try:
                await attempt()
                complaints.append("")
            except ProtocolError as error:
                complaints.append(str(error).partition(": ")[2])

    with trio.fail_after(5):
        async with connected() as pair:
            pair.play.custom = handler
            assert await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text) == Text(service="one")
    assert complaints == [
        "a unary answer with OK needs its message first",
        "",
        "initial metadata has been sent already",
        "",
        "a unary answer has one message",
        "",
        "the status has been sent already",
        "the status has been sent already",
    ]


# --- The hook ---------------------------------------------------------------------------------------------------------


async def test_on_call_sees_every_call_and_may_refuse_it(autojump_clock: trio.testing.MockClock) -> None:
    calls: list[CallInfo] = []

    def check(info: CallInfo) -> None:
        calls.append(info)
        if info.metadata.get("macaroon") != "0201":
            raise GRPCError(Status.UNAUTHENTICATED, "no macaroon")

    with trio.fail_after(5):
        async with connected(on_call=check) as pair:
            with pytest.raises(GRPCError, match="no macaroon") as caught:
                await pair.unary()
            assert caught.value.status is Status.UNAUTHENTICATED
            await pair.channel.unary_unary(UNARY, Text(), Text, metadata={"macaroon": "0201"})
    assert [info.path for info in calls] == [UNARY, UNARY]
    assert calls[0].peer == Peer(None)
    assert calls[0].peer.addr() is None
    assert calls[0].peer.cert() is None
    assert calls[0].user_agent == "impervious-grpc"
    assert calls[0].deadline is not None  # from the fail_after above


async def test_on_call_may_take_its_time_but_no_longer_than_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def check(info: CallInfo) -> None:
        await trio.sleep(10)

    async with connected(on_call=check) as pair:
        with trio.fail_after(11):
            assert await pair.unary() == "hello"
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(9):
                await pair.unary()


async def test_on_call_that_fails_lets_nobody_in(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def check(info: CallInfo) -> None:
        raise KeyError("bug")

    with trio.fail_after(5):
        async with connected(on_call=check) as pair:
            with pytest.raises(GRPCError, match="Internal Server Error"):
                await pair.unary()
