"""The server against clients that are slow, silent, greedy or hostile, and what it does when it stops."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from impervious.pb.grpc.health.v1 import HealthCheckRequest as Text
from impervious.rpc import CallInfo, ChannelLimits, Server, ServerLimits
from impervious.rpc.server import peer_address
from impervious.wire.grpc.framing import frame_message

from .pair import COUNT, CUSTOM, CUSTOM_UNARY, FAIL, SLEEP, UNARY, MemoryListener, Play, TextStream, connected, serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def request(path: str = UNARY, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"memory"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


class RawClient:
    """h2 on a stream, without manners. Frames that h2 would not send are written as they are."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
        )
        self.events: list[h2.events.Event] = []
        self.closed = False

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.flush()
        await self.hear()

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            await self.stream.send_all(data)

    async def send(self, *frames: Frame) -> None:
        await self.stream.send_all(b"".join(frame.serialize() for frame in frames))

    async def open(self, path: str = UNARY, message: Text | None = None, *more: tuple[bytes, bytes]) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, request(path, *more))
        if message is not None:
            self.h2.send_data(stream_id, frame_message(bytes(message)), end_stream=True)
        await self.flush()
        return stream_id

    async def hear(self, kind: type[h2.events.Event] | None = None) -> Sequence[h2.events.Event]:
        """Read until an event of that kind, or the end; without a kind, one read. Returns what came, keeps all."""
        fresh: list[h2.events.Event] = []
        while not self.closed:
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.closed = True
                break
            fresh += self.h2.receive_data(data)
            await self.flush()
            if kind is None or any(isinstance(event, kind) for event in fresh):
                break
        self.events += fresh
        return fresh

    def goaways(self) -> list[h2.events.ConnectionTerminated]:
        return [event for event in self.events if isinstance(event, h2.events.ConnectionTerminated)]


@asynccontextmanager
async def attacked(
    limits: ServerLimits | None = None, *, grace_s: float = 2.0
) -> AsyncIterator[tuple[RawClient, Play, Server, MemoryListener]]:
    """A server and a raw client that has begun."""
    play = Play()
    async with serving(play, limits=limits, grace_s=grace_s) as (server, listener, _):
        client = RawClient(await listener.connect())
        await client.begin()
        yield client, play, server, listener


async def still_serves(listener: MemoryListener) -> None:
    """Others are served as if nothing had happened."""
    with trio.fail_after(5):
        other = RawClient(await listener.connect())
        await other.begin()
        await other.open(UNARY, Text(service="x"))
        await other.hear(h2.events.StreamEnded)
        trailers = [
            dict(event.headers or []) for event in other.events if isinstance(event, h2.events.TrailersReceived)
        ]
        assert [headers[b"grpc-status"] for headers in trailers] == [b"0"]
        await other.stream.aclose()


# --- Messages ---------------------------------------------------------------------------------------------------------


async def test_a_message_over_the_limit_is_refused_at_its_prefix(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with attacked() as (client, _, server, listener):
            stream_id = await client.open(UNARY)
            client.h2.send_data(stream_id, b"\x00" + (200 << 20).to_bytes(4, "big"))
            await client.flush()
            await client.hear(h2.events.StreamReset)
            [answer] = [event for event in client.events if isinstance(event, h2.events.ResponseReceived)]
            assert dict(answer.headers or [])[b"grpc-status"] == b"8"
            assert b"over the limit of 4194304" in dict(answer.headers or [])[b"grpc-message"]
            await still_serves(listener)
            assert server._budget.used_bytes == 0


async def test_unfinished_requests_share_a_budget(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(unfinished_bytes=100_000)
    statuses: list[Status] = []

    async with connected(server_limits=limits) as pair:

        async def upload(size: int) -> None:
            """Sends all of a message but its last byte, then waits."""
            async with pair.channel.request(COUNT, Cardinality.STREAM_UNARY, Text, Text) as stream:
                await stream.send_request()
                call, host = stream._call, stream._host
                assert call is not None
                assert host is not None
                host.connection.send(call, frame_message(bytes(size))[:-1])
                host.flush()
                try:
                    await stream.recv_message()
                except GRPCError as error:
                    statuses.append(error.status)

        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(upload, 40_000)
        assert statuses == [Status.RESOURCE_EXHAUSTED] * 2
        await trio.testing.wait_all_tasks_blocked()
        assert pair.server._budget.used_bytes == 0
        assert await pair.unary() == "hello"


async def test_a_gzip_request(autojump_clock: trio.testing.MockClock) -> None:
    import gzip

    with trio.fail_after(5):
        async with attacked() as (client, _, _, _):
            stream_id = await client.open(UNARY, None, (b"grpc-encoding", b"gzip"))
            body = gzip.compress(bytes(Text(service="squeezed")))
            client.h2.send_data(stream_id, b"\x01" + len(body).to_bytes(4, "big") + body, end_stream=True)
            await client.flush()
            await client.hear(h2.events.StreamEnded)
            [data] = [event.data for event in client.events if isinstance(event, h2.events.DataReceived)]
            assert data is not None
            assert Text.FromString(data[5:]) == Text(service="squeezed")


async def test_a_request_that_is_no_message(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with attacked() as (client, _, _, listener):
            stream_id = await client.open(UNARY)
            client.h2.send_data(stream_id, frame_message(b"\x0a\x02\xff\xfe"), end_stream=True)
            await client.flush()
            await client.hear(h2.events.StreamEnded)
            [answer] = [event for event in client.events if isinstance(event, h2.events.ResponseReceived)]
            assert dict(answer.headers or [])[b"grpc-status"] == b"3"
            await still_serves(listener)


async def test_a_request_that_ends_within_a_message(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with attacked() as (client, _, _, _):
            stream_id = await client.open(COUNT)
            client.h2.send_data(stream_id, frame_message(b"abc")[:-1], end_stream=True)
            await client.flush()
            await client.hear(h2.events.StreamEnded)
            [answer] = [event for event in client.events if isinstance(event, h2.events.ResponseReceived)]
            assert dict(answer.headers or [])[b"grpc-message"] == b"the request ended in the middle of a message"


# --- Numbers ----------------------------------------------------------------------------------------------------------


async def test_streams_over_the_limit_are_refused_and_the_connection_lives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.fail_after(5):
        async with attacked(ServerLimits(calls=3)) as (client, play, server, _):
            assert client.h2.remote_settings.max_concurrent_streams == 3
            client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100  # it does not listen
            client.h2.remote_settings.acknowledge()
            for _ in range(5):
                await client.open(SLEEP, Text())
            await trio.testing.wait_all_tasks_blocked()
            assert play.running == server.statistics().calls == 3
            await client.hear(h2.events.StreamReset)
            resets = [event for event in client.events if isinstance(event, h2.events.StreamReset)]
            assert [event.error_code for event in resets] == [ErrorCodes.REFUSED_STREAM] * 2
            client.h2.reset_stream(1)
            await client.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert play.running == 2
            await client.open(SLEEP, Text())
            await trio.testing.wait_all_tasks_blocked()
            assert play.running == 3


async def test_connections_over_the_limit_are_closed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(5):
        async with attacked(ServerLimits(connections=2)) as (_, _, server, listener):
            second = RawClient(await listener.connect())
            await second.begin()
            third = await listener.connect()
            assert await third.receive_some() == b""
            assert server.statistics().connections == 2
            await second.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            await still_serves(listener)
    assert any("refused, 2 connections are open already" in record.getMessage() for record in caplog.records)


async def test_connections_that_wait_for_their_client_give_way(autojump_clock: trio.testing.MockClock) -> None:
    """Those without a call, and those whose calls wait for their requests; not one that works."""
    async with attacked(ServerLimits(connections=3)) as (idle, play, server, listener):
        works, owes = RawClient(await listener.connect()), RawClient(await listener.connect())
        await works.begin()
        await works.open(SLEEP, Text(service="100"))
        await owes.begin()
        await trio.sleep(5)
        await owes.open(UNARY)
        await trio.sleep(5)
        for slow in (idle, owes):
            newcomer = RawClient(await listener.connect())
            await newcomer.begin()
            await newcomer.open(SLEEP, Text(service="100"))
            await slow.hear(h2.events.ConnectionTerminated)
            await slow.hear()
            assert slow.closed
        assert await (await listener.connect()).receive_some() == b""  # all of them work
        await trio.testing.wait_all_tasks_blocked()
        assert (server.statistics().connections, play.running) == (3, 3)


async def test_a_request_that_does_not_come_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with attacked(ServerLimits(request_s=7.0)) as (client, _, server, _):
        began = trio.current_time()
        stream_id = await client.open(UNARY)
        client.h2.send_data(stream_id, frame_message(b"hello")[:7])
        await client.flush()
        await client.hear(h2.events.StreamEnded)
        [answer] = [event for event in client.events if isinstance(event, h2.events.ResponseReceived)]
        assert dict(answer.headers or [])[b"grpc-status"] == b"4"
        assert trio.current_time() == pytest.approx(began + 7, abs=0.1)
        assert server.statistics().calls == server._budget.used_bytes == 0


async def test_rapid_resets(autojump_clock: trio.testing.MockClock) -> None:
    """CVE-2023-44487: open and take back, as fast as the wire carries it."""
    with trio.fail_after(5):
        async with attacked(ServerLimits(resets=50, resets_per_s=10.0)) as (client, play, server, listener):
            for _ in range(60):
                stream_id = client.h2.get_next_available_stream_id()
                client.h2.send_headers(stream_id, request(SLEEP))
                client.h2.reset_stream(stream_id)
            await client.flush()
            await client.hear(h2.events.ConnectionTerminated)
            [goaway] = client.goaways()
            assert goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM
            assert goaway.additional_data == b"too many calls taken back"
            await client.hear()
            assert client.closed
            assert play.running == server.statistics().calls == 0
            await still_serves(listener)


FLOODS: list[Frame] = [
    SettingsFrame(0, settings={4: 100_000}),
    SettingsFrame(0, flags=["ACK"]),
    PingFrame(0, opaque_data=b"x" * 8),
    PingFrame(0, opaque_data=b"x" * 8, flags=["ACK"]),
    WindowUpdateFrame(0, window_increment=1),
    WindowUpdateFrame(1, window_increment=1),
    PriorityFrame(1, depends_on=3, stream_weight=9),
    DataFrame(1, data=b""),
    DataFrame(1, data=b"", flags=["PADDED"], pad_length=3),
    DataFrame(1, data=b"x"),
    ExtensionFrame(type=0x42, stream_id=0, body=b""),
]


@pytest.mark.parametrize("frame", FLOODS, ids=lambda frame: f"{type(frame).__name__} {list(frame.flags)}")
async def test_floods_of_frames_that_carry_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, frame: Frame
) -> None:
    """CVE-2019-9512 and its kin: what costs us work and the client nothing."""
    with trio.fail_after(5):
        async with attacked(ServerLimits(control_frames=100)) as (client, _, server, listener):
            await client.open(SLEEP)
            with suppress(trio.BrokenResourceError):
                await client.send(*[frame] * 400)
            await client.hear(h2.events.ConnectionTerminated)
            assert [goaway.error_code for goaway in client.goaways()] == [ErrorCodes.ENHANCE_YOUR_CALM]
            await client.hear()
            assert client.closed
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().connections == 0
            await still_serves(listener)
    assert [record.getMessage() for record in caplog.records if "disconnected: " in record.getMessage()]


def doomed(kind: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Make a call that fails at once: its headers and its message."""
    headers, message = request(), frame_message(bytes(Text(service="3:wrong")))
    match kind:
        case "an unknown method":
            headers = request("/nope/x")
        case "a wrong HTTP method":
            headers[0] = (b":method", b"PUT")
        case "a wrong content type":
            headers[-1] = (b"content-type", b"application/json")
        case "a bad timeout":
            headers = request(UNARY, (b"grpc-timeout", b"soon"))
        case "a timeout that cannot be met":
            headers = request(SLEEP, (b"grpc-timeout", b"1n"))
        case "an unknown encoding":
            headers = request(UNARY, (b"grpc-encoding", b"br"))
        case "a malformed message":
            message = frame_message(b"\x0a\x01\xff")
        case "a handler that refuses":
            headers = request(FAIL)
        case _:
            assert kind == "a call that is not allowed"
            headers = request(COUNT)
    return headers, message


async def refuse_counting(info: CallInfo) -> None:
    await trio.lowlevel.checkpoint()
    if info.path == COUNT:
        raise GRPCError(Status.UNAUTHENTICATED, "who are you?")


@pytest.mark.parametrize(
    "kind",
    [
        "an unknown method",
        "a wrong HTTP method",
        "a wrong content type",
        "a bad timeout",
        "a timeout that cannot be met",
        "an unknown encoding",
        "a malformed message",
        "a handler that refuses",
        "a call that is not allowed",
    ],
)
async def test_floods_of_calls_that_fail(autojump_clock: trio.testing.MockClock, kind: str) -> None:
    limits = ServerLimits(failures=50, failures_per_s=10.0)
    headers, message = doomed(kind)
    with trio.fail_after(5):
        async with serving(Play(), limits=limits, on_call=refuse_counting) as (server, listener, _):
            client = RawClient(await listener.connect())
            await client.begin()
            answered = 0
            while not client.goaways():
                answered += 1
                assert answered < 100
                stream_id = client.h2.get_next_available_stream_id()
                client.h2.send_headers(stream_id, headers)
                client.h2.send_data(stream_id, message, end_stream=True)
                with suppress(trio.BrokenResourceError):
                    await client.flush()
                await client.hear()
            [goaway] = client.goaways()
            assert answered >= 50
            assert goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM
            assert goaway.additional_data == b"too many calls that fail"
            while not client.closed:
                await client.hear()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().connections == 0
            await still_serves(listener)


async def test_calls_that_fail_now_and_then_or_by_no_fault_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ServerLimits(failures=50, failures_per_s=10.0, idle_s=10**6)
    async with attacked(limits) as (client, _, server, _):
        for _ in range(10):
            for _ in range(40):
                await client.open("/nope/x", Text())
            await client.hear(h2.events.StreamEnded)
            await trio.sleep(4.1)
        for _ in range(200):
            await client.open(FAIL, Text(service="14:LND is away"))
            await client.hear(h2.events.StreamEnded)
            await client.open(UNARY, Text(service="good"))
            await client.hear(h2.events.StreamEnded)
        assert server.statistics().connections == 1
        assert not client.goaways()


async def test_as_many_now_and_then_are_none_of_our_business(autojump_clock: trio.testing.MockClock) -> None:
    async with attacked(ServerLimits(control_frames=100, control_frames_per_s=10.0)) as (client, _, server, _):
        for _ in range(30):
            await client.send(*[PingFrame(0, opaque_data=b"x" * 8)] * 90)
            await client.hear(h2.events.PingAckReceived)
            await trio.sleep(9.1)
        assert server.statistics().connections == 1
        assert not client.goaways()


async def test_what_answers_our_frames_is_not_counted(autojump_clock: trio.testing.MockClock) -> None:
    """Some clients hand a window back for every message, for the stream and for the connection."""
    async with attacked(ServerLimits(control_frames=10, control_frames_per_s=1.0)) as (client, _, server, _):
        for _ in range(100):
            await client.open(COUNT, Text(service="5"))
            await client.hear(h2.events.StreamEnded)
            await client.send(*[WindowUpdateFrame(0, window_increment=5)] * 10)
        assert server.statistics().connections == 1
        assert not client.goaways()


async def test_a_client_that_cancels_now_and_then_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with attacked(ServerLimits(resets=50, resets_per_s=10.0, idle_s=10**6)) as (client, play, _, _):
        for _ in range(300):
            stream_id = await client.open(SLEEP, Text())
            await trio.sleep(0.11)
            client.h2.reset_stream(stream_id)
            await client.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert play.events.count("cancelled") == 300
        assert client.goaways() == []


async def test_header_lists_over_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with attacked() as (client, _, _, listener):
            await client.open(UNARY, None, (b"big", b"x" * 17_000))
            await client.hear(h2.events.ConnectionTerminated)
            [goaway] = client.goaways()
            assert goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM
            await still_serves(listener)


async def test_headers_that_never_end(autojump_clock: trio.testing.MockClock) -> None:
    async with attacked(ServerLimits(idle_s=100.0)) as (client, _, server, listener):
        await client.send(HeadersFrame(1, data=Encoder().encode(request())))
        for _ in range(20):
            await trio.sleep(1)
            await client.send(ContinuationFrame(1, data=b""))
        with trio.fail_after(400):
            while not client.closed:
                await client.hear()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0
        await still_serves(listener)


# --- Time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE, b"\x16\x03\x01"])
async def test_a_client_that_never_begins(said: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(Play()) as (server, listener, _):
        stream = await listener.connect()
        await stream.send_all(said)
        start = trio.current_time()
        with trio.fail_after(15):
            while await stream.receive_some():
                pass
        assert trio.current_time() - start <= 10.5
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0


async def test_an_idle_client_is_asked_to_leave(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        await pair.unary()
        await trio.sleep(250)
        assert await pair.unary() == "hello"
        await trio.sleep(250)
        assert pair.server.statistics().connections == 1
        await trio.sleep(400)
        assert pair.server.statistics().connections == 0
        assert await pair.unary() == "hello"
        assert pair.channel.statistics().connections_made == 2


async def test_a_call_keeps_a_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        with trio.move_on_after(2000):
            await pair.channel.unary_unary(SLEEP, Text(), Text)
        await trio.testing.wait_all_tasks_blocked()
        assert pair.play.events == ["asleep", "cancelled"]
        assert pair.channel.statistics().connections_made == 1


async def test_a_client_that_ignores_being_asked_is_shown_out(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(Play()) as (server, listener, _):
        stream = await listener.connect()
        await stream.send_all(PREFACE + SettingsFrame(0).serialize())

        async def chatter() -> None:
            while True:  # no calls, but never silent
                await trio.sleep(20)
                await stream.send_all(PingFrame(0, opaque_data=b"x" * 8).serialize())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(chatter)
            with trio.fail_after(700):
                while await stream.receive_some():
                    pass
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0


async def test_a_dead_client_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    async with attacked() as (client, play, server, _):
        await client.open(SLEEP, Text())
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(78)
        assert play.running == 1
        await trio.sleep(4)
        assert play.events == ["asleep", "cancelled"]
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0


# --- Slow readers -----------------------------------------------------------------------------------------------------


async def pour(stream: TextStream) -> None:
    """Sends as fast as it may."""
    while True:
        await stream.send_message(Text(service="x" * 10_000))


async def test_a_client_that_does_not_read_its_socket(autojump_clock: trio.testing.MockClock) -> None:
    play = Play(custom=pour)
    async with serving(play, make_pair=trio.testing.lockstep_stream_pair) as (server, listener, _):
        client = RawClient(await listener.connect())

        async def chatter() -> None:
            """Windows wide open, and never silent."""
            client.h2.initiate_connection()
            client.h2.increment_flow_control_window(2**30)
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
            await client.open(SLEEP)
            with suppress(trio.BrokenResourceError):
                while True:
                    await trio.sleep(20)
                    await client.send(PingFrame(0, opaque_data=b"x" * 8))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(chatter)
            await trio.sleep(55)
            assert server.statistics().calls == 1
            [link] = server._links
            assert link.connection.backlog_bytes < 300_000
            await trio.sleep(10)
            assert server.statistics().calls == 0
            assert server.statistics().connections == 0
            nursery.cancel_scope.cancel()


async def test_a_client_that_opens_no_window_costs_one_message(autojump_clock: trio.testing.MockClock) -> None:
    async with attacked() as (client, play, server, listener):
        play.custom = pour
        for _ in range(10):
            await client.open(CUSTOM)
        with trio.move_on_after(200):
            while True:
                await client.hear()  # reads and answers pings, but gives nothing back
        [link] = server._links
        assert link.calls_open == 10
        assert link.connection.backlog_bytes == 0
        received = sum(
            event.flow_controlled_length or 0 for event in client.events if isinstance(event, h2.events.DataReceived)
        )
        assert received == 65_535
        await still_serves(listener)


@pytest.mark.slow
async def test_a_flood_of_pings_that_nobody_reads_the_answers_of(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(control_frames=10**9)  # were it not for this, it would not get far
    async with serving(Play(), limits=limits, make_pair=trio.testing.lockstep_stream_pair) as (server, listener, _):
        stream = await listener.connect()
        flood = PingFrame(0, opaque_data=b"x" * 8).serialize() * 3000
        sent = 0
        with trio.move_on_after(50):
            await stream.send_all(PREFACE + SettingsFrame(0).serialize())
            while True:
                await stream.send_all(flood)
                sent += len(flood)
        assert 1_000_000 < sent < 2_000_000
        [link] = server._links
        assert link.connection.backlog_bytes < 1_200_000
        await trio.sleep(100)
        assert server.statistics().connections == 0


async def test_a_slow_handler_does_not_stop_the_reader(autojump_clock: trio.testing.MockClock) -> None:
    async def never_reads(stream: TextStream) -> None:
        await trio.sleep_forever()

    async with connected() as pair:
        pair.play.custom = never_reads

        async def upload() -> None:
            async with pair.channel.request(CUSTOM, Cardinality.STREAM_STREAM, Text, Text) as stream:
                while True:
                    await stream.send_message(Text(service="x" * 100_000))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(upload)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5):
                assert await pair.unary("y" * 1_000_000) == "y" * 1_000_000
            nursery.cancel_scope.cancel()


# --- Nonsense ---------------------------------------------------------------------------------------------------------


async def test_unknown_frames_are_ignored(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with attacked() as (client, _, _, _):
            await client.stream.send_all(b"\x00\x00\x06\xfa\xff\x00\x00\x00\x00grease")
            await client.open(UNARY, Text(service="x"))
            await client.hear(h2.events.StreamEnded)
            assert any(isinstance(event, h2.events.DataReceived) for event in client.events)


async def test_data_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(5):
        async with attacked() as (client, _, server, listener):
            stream_id = await client.open(SLEEP, Text())
            await trio.testing.wait_all_tasks_blocked()
            await client.send(DataFrame(stream_id, data=b"more"))
            await client.hear(h2.events.StreamReset)
            await client.send(DataFrame(stream_id, data=b"more"), RstStreamFrame(stream_id, error_code=8))
            await trio.testing.wait_all_tasks_blocked()
            await client.open(UNARY, Text(service="x"))
            await client.hear(h2.events.StreamEnded)
            await still_serves(listener)
            assert server.statistics().connections >= 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        HeadersFrame(2, data=b"", flags=["END_HEADERS"]).serialize(),
        HeadersFrame(1, data=b"\xff\xff\xff", flags=["END_HEADERS"]).serialize(),
        HeadersFrame(1, data=Encoder().encode([(b"UPPER", b"x")]), flags=["END_HEADERS"]).serialize(),
        HeadersFrame(1, data=Encoder().encode(request()), flags=["END_HEADERS"]).serialize() * 2,
        DataFrame(99, data=b"x").serialize(),
        SettingsFrame(0, settings={4: 2**32 - 1}).serialize(),
        ContinuationFrame(1, data=b"").serialize(),
    ],
)
async def test_nonsense_ends_its_connection_only(
    nonsense: bytes, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as (client, _, server, listener):
        await client.stream.send_all(nonsense)
        with trio.fail_after(15):
            while not client.closed:
                await client.hear()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0
        await still_serves(listener)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_bug_in_a_connection_stays_there(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with attacked() as (client, _, server, listener):
        [link] = server._links
        monkeypatch.setattr(link.connection, "take_opened", lambda: 1 / 0)
        await client.open(UNARY, Text())
        with trio.fail_after(5):
            while not client.closed:
                await client.hear()
        await still_serves(listener)
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None


# --- Stopping ---------------------------------------------------------------------------------------------------------


async def test_stopping_without_calls_takes_no_time(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    async with connected() as pair:
        await pair.unary()
    async with connected():
        pass
    assert trio.current_time() - start < 0.1


async def test_stopping_does_not_wait_for_clients_that_ignore_it(autojump_clock: trio.testing.MockClock) -> None:
    start = 0.0
    async with attacked(grace_s=3.0) as (client, _, _, _):
        await client.open(SLEEP, Text())
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert 3.0 <= trio.current_time() - start <= 4.0


async def test_stopping_does_not_wait_for_clients_that_read_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(Play(custom=pour), grace_s=3.0, make_pair=trio.testing.lockstep_stream_pair) as (
        _,
        listener,
        _s,
    ):
        client = RawClient(await listener.connect())
        client.h2.initiate_connection()
        await client.open(CUSTOM)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert 3.0 <= trio.current_time() - start <= 4.5


async def test_a_second_cancellation_stops_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """With a grace period of 0, calls are answered and nothing is waited for."""
    start = trio.current_time()
    async with connected(grace_s=0) as pair, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(GRPCError) as caught:
                await pair.channel.unary_unary(SLEEP, Text(), Text)
            assert (caught.value.status, caught.value.message) == (Status.UNAVAILABLE, "the server is stopping")

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        pair.server_scope.cancel()
    assert trio.current_time() - start < 0.1


async def test_a_handler_that_cleans_up_while_the_server_stops(autojump_clock: trio.testing.MockClock) -> None:
    cleaned: list[bool] = []

    async def handler(stream: TextStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(0.2, shield=True):
                await trio.sleep(0.1)
            cleaned.append(True)

    async with connected(grace_s=1) as pair, trio.open_nursery() as nursery:
        pair.play.custom = handler

        async def call() -> None:
            with pytest.raises(GRPCError, match="the server is stopping"):
                await pair.channel.unary_unary(CUSTOM_UNARY, Text(), Text)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        pair.server_scope.cancel()
    assert cleaned == [True]


@pytest.mark.parametrize("steps", range(8))
async def test_stopping_while_a_client_leaves(autojump_clock: trio.testing.MockClock, steps: int) -> None:
    async with attacked(grace_s=0) as (client, _, _, _):
        await trio.aclose_forcefully(client.stream)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()


async def test_the_address_of_a_client_that_is_gone_already() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
    accepted = await listeners[0].accept()
    address = peer_address(accepted)
    assert address is not None
    assert address[0] == "127.0.0.1"
    accepted.socket.close()
    assert peer_address(accepted) is None
    await client.aclose()
    await listeners[0].aclose()


def test_two_services_with_one_path() -> None:
    with pytest.raises(ValueError, match="two services answer to"):
        Server([Play(), Play()])


async def test_large_messages_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    big = "x" * 3_000_000
    with trio.fail_after(5):
        async with connected(
            channel_limits=ChannelLimits(stream_window_bytes=65_535, connection_window_bytes=70_000)
        ) as pair:
            assert await pair.unary(big) == big
            with pytest.raises(GRPCError, match="over the limit of 4194304") as caught:
                await pair.unary("x" * 5_000_000)
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
        async with connected(channel_limits=ChannelLimits(message_bytes=1000)) as pair:
            with pytest.raises(GRPCError, match="over the limit of 1000"):
                await pair.unary(big)
            assert await pair.unary() == "hello"
