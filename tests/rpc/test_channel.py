"""The channel's life: connecting, waiting for a turn, draining, losing the connection, cancellation anywhere."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hyperframe.frame import GoAwayFrame, SettingsFrame

from impervious.pb.grpc.health.v1 import HealthCheckRequest as Text
from impervious.rpc import Channel, ChannelClosed, ChannelLimits, ServerLimits, open_channel, open_channel_over
from impervious.wire.grpc.server import ServerConnection

from .pair import CHAT, COUNT, CUSTOM, LIST, SLEEP, UNARY, Pair, TextStream, connected


async def unavailable(call: Callable[[], Awaitable[object]]) -> str:
    """The message of the UNAVAILABLE that `call` must end with."""
    with pytest.raises(GRPCError) as caught:
        await call()
    assert caught.value.status is Status.UNAVAILABLE
    assert caught.value.message is not None
    return caught.value.message


def ask(channel: Channel) -> Callable[[], Awaitable[Text]]:
    """A unary call to be made."""
    return lambda: channel.unary_unary(UNARY, Text(service="x"), Text)


# --- Connecting -------------------------------------------------------------------------------------------------------


async def test_nothing_is_dialled_before_the_first_call(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        await trio.sleep(100)
        assert pair.listener.client_ends == []
        assert not pair.channel.statistics().connected
        await pair.unary()
        assert pair.channel.statistics().connected


async def test_calls_share_one_attempt_and_one_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(pair.unary)
    assert len(pair.listener.client_ends) == 1


async def test_calls_share_one_failure(autojump_clock: trio.testing.MockClock) -> None:
    dials = 0
    messages: list[str] = []

    async def dial() -> trio.abc.Stream:
        nonlocal dials
        dials += 1
        await trio.sleep(1)
        raise ConnectionRefusedError(111, "refused")

    async with open_channel_over(dial, authority="node:10009") as channel:

        async def call() -> None:
            messages.append(await unavailable(ask(channel)))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(call)
        assert dials == 1
        await call()
        assert dials == 2
    assert set(messages) == {"cannot connect to node:10009: Connection refused"}


async def test_the_attempt_survives_the_call_that_began_it(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        real = pair.channel._dial
        dials = 0

        async def slow() -> trio.abc.Stream:
            nonlocal dials
            dials += 1
            await trio.sleep(2)
            return await real()

        pair.channel._dial = slow
        with trio.move_on_after(1) as scope:
            await pair.unary()
        assert scope.cancelled_caught
        assert await pair.unary() == "hello"
        assert dials == 1


async def test_a_server_that_takes_too_long(autojump_clock: trio.testing.MockClock) -> None:
    ends = []

    async def dial() -> trio.abc.Stream:  # noqa: ASYNC124 - a Dial
        client, server = trio.testing.memory_stream_pair()
        ends.append(server)  # and never says a word
        return client

    start = trio.current_time()
    async with open_channel_over(dial, authority="node:1") as channel:
        assert await unavailable(ask(channel)) == "cannot connect to node:1: no answer within 20 s"
        assert trio.current_time() - start == pytest.approx(20)
        with trio.move_on_after(3) as scope:
            await ask(channel)()
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"", "the server closed the connection before it spoke HTTP/2"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "this is not HTTP/2 before it spoke HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "this is not HTTP/2 before"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "this is not HTTP/2 before"),  # a TLS alert
    ],
)
async def test_the_other_end_is_no_grpc_server(said: bytes, text: str, autojump_clock: trio.testing.MockClock) -> None:
    async def dial() -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        await server.send_all(said)
        await server.send_eof()
        return client

    async with open_channel_over(dial, authority="node:1") as channel:
        message = await unavailable(ask(channel))
    assert message.startswith("cannot connect to node:1: ")
    assert text in message
    assert "wrong port, or TLS on one side only" in message


async def test_a_server_that_sends_everybody_away_is_not_dialled_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dials = 0

    async def dial() -> trio.abc.Stream:
        nonlocal dials
        dials += 1
        client, server = trio.testing.memory_stream_pair()
        goaway = GoAwayFrame(0, last_stream_id=0, additional_data=b"full").serialize()
        await server.send_all(SettingsFrame(0).serialize() + goaway)
        return client

    async with open_channel_over(dial, authority="node:1") as channel:
        message = await unavailable(ask(channel))
    assert dials == 1
    assert "GOAWAY NO_ERROR (full)" in message


async def test_refused_and_unknown_host_are_told_with_host_port_and_cause() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with open_channel("127.0.0.1", port) as channel:
            assert await unavailable(ask(channel)) == f"cannot connect to 127.0.0.1:{port}: Connection refused"


async def test_dns_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    async def fail(*_: object, **__: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", fail)
    async with open_channel("no.such.host", 10009) as channel:
        message = await unavailable(ask(channel))
    assert message == "cannot connect to no.such.host:10009: Name or service not known"


async def test_an_ipv6_address_as_authority(autojump_clock: trio.testing.MockClock) -> None:
    async with open_channel("::1", 10009) as channel:
        headers = dict(channel.request_headers("/a/b", float("inf"), []))
        assert headers[b":authority"] == b"[::1]:10009"
        assert headers[b":scheme"] == b"http"


async def test_metadata_that_cannot_be_sent() -> None:
    async def use() -> None:
        async with open_channel("localhost", 1, metadata={"macaroon": "not\nprintable"}):
            pass

    with pytest.raises(ValueError, match="metadata key 'macaroon' must be printable"):
        await use()


async def test_a_host_that_no_name_can_be() -> None:
    async with open_channel("a" * 70 + ".example", 10009) as channel:
        message = await unavailable(ask(channel))
    assert message.startswith(f"cannot connect to {'a' * 70}.example:10009: ")


# --- Closing ----------------------------------------------------------------------------------------------------------


async def test_leaving_the_block_ends_everything(autojump_clock: trio.testing.MockClock) -> None:
    messages: list[str] = []

    async def sleep(channel: Channel) -> None:
        messages.append(await unavailable(lambda: channel.unary_unary(SLEEP, Text(), Text)))

    async with connected() as outer, trio.open_nursery() as nursery:
        async with open_channel_over(outer.listener.connect, authority="memory:2") as channel:
            nursery.start_soon(sleep, channel)  # noqa: ASYNC111 - that is the point
            await trio.testing.wait_all_tasks_blocked()
            assert outer.play.running == 1
        await trio.testing.wait_all_tasks_blocked()
        assert outer.play.running == 0
        assert "the channel to memory:2 is closed" in await unavailable(ask(channel))
    assert messages == ["the channel was closed"]


async def test_leaving_the_block_while_connecting(autojump_clock: trio.testing.MockClock) -> None:
    messages: list[str] = []

    async def dial() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError("not reached")

    async def call(channel: Channel) -> None:
        messages.append(await unavailable(ask(channel)))

    async with trio.open_nursery() as nursery:
        async with open_channel_over(dial, authority="memory:2") as channel:
            nursery.start_soon(call, channel)  # noqa: ASYNC111 - that is the point
            await trio.testing.wait_all_tasks_blocked()
    assert messages == ["the channel to memory:2 was closed"]


async def test_an_error_in_the_block_comes_out_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:

        async def use() -> None:
            async with open_channel_over(pair.listener.connect, authority="memory:2") as channel:
                await channel.unary_unary("/no/such", Text(), Text)

        with pytest.raises(GRPCError, match="no such method"):
            await use()


# --- Losing the connection --------------------------------------------------------------------------------------------


async def test_every_open_call_learns_that_the_connection_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    messages: list[str] = []

    async def sleep(pair: Pair) -> None:
        messages.append(await unavailable(lambda: pair.channel.unary_unary(SLEEP, Text(), Text)))

    async with connected() as pair:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(sleep, pair)
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(pair.listener.client_ends[0])
        assert len(messages) == 10
        assert len(set(messages)) == 1
        assert messages[0].startswith("the connection broke: ")
        await trio.testing.wait_all_tasks_blocked()
        assert pair.play.running == 0
        assert await pair.unary() == "hello"
        assert pair.channel.statistics().connections_made == 2


async def test_what_came_before_the_loss_can_still_be_read(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(stream: TextStream) -> None:
        for number in range(3):
            await stream.send_message(Text(service=str(number)))
        await trio.sleep_forever()

    async with connected() as pair:
        pair.play.custom = handler
        async with pair.channel.request(CUSTOM, Cardinality.STREAM_STREAM, Text, Text) as stream:
            await stream.send_request()
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(pair.listener.client_ends[0])
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3):
                assert await stream.recv_message() == Text(service=str(number))
            await unavailable(stream.recv_message)
            await unavailable(stream.recv_message)


async def test_a_server_that_stops_gracefully_lets_calls_finish(autojump_clock: trio.testing.MockClock) -> None:
    answers: list[str] = []

    async def handler(stream: TextStream) -> None:
        await trio.sleep(1)
        await stream.send_message(Text(service="finished"))

    async def call(pair: Pair) -> None:
        async with pair.channel.unary_stream(CUSTOM, Text(), Text) as responses:
            answers.extend([response.service async for response in responses])

    async with connected(grace_s=2) as pair:
        pair.play.custom = handler
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, pair)
            await trio.testing.wait_all_tasks_blocked()
            pair.server_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            # New calls go to a new connection, which nobody takes any more.
            assert "Connection refused" in await unavailable(ask(pair.channel))
        assert answers == ["finished"]
        assert not pair.channel.statistics().connected


async def test_calls_that_outlive_the_grace_period_are_unavailable(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    async with connected(grace_s=2) as pair:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                message = await unavailable(lambda: pair.channel.unary_unary(SLEEP, Text(), Text))
                assert message == "the server is stopping"

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            pair.server_scope.cancel()
        assert trio.current_time() - start == pytest.approx(2)
        assert pair.play.events == ["asleep", "cancelled"]


async def test_a_drained_connection_goes_on_beside_a_new_one(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LND behind a proxy does when the proxy is told to reload."""
    connections: list[ServerConnection] = []
    original = ServerConnection.__init__

    def note(self: ServerConnection, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        connections.append(self)

    monkeypatch.setattr(ServerConnection, "__init__", note)
    async with connected() as pair:
        async with pair.channel.request(CHAT, Cardinality.STREAM_STREAM, Text, Text) as old:
            await old.send_message(Text(service="a"))
            assert await old.recv_message() == Text(service="A")
            connections[0].drain()
            [link] = pair.server._links
            link._link.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert not pair.channel.statistics().connected
            assert await pair.unary() == "hello"
            assert len(pair.listener.client_ends) == 2
            assert pair.server.statistics().connections == 2
            await old.send_message(Text(service="b"))
            assert await old.recv_message() == Text(service="B")
            await old.end()
            assert await old.recv_message() is None
        await trio.testing.wait_all_tasks_blocked()
        assert pair.server.statistics().connections == 1
        assert await pair.unary() == "hello"
        assert len(pair.listener.client_ends) == 2


# --- The server's stream limit ----------------------------------------------------------------------------------------


async def test_calls_over_the_limit_wait_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    order: list[int] = []

    async def handler(stream: TextStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        order.append(int(request.service))
        await trio.sleep(1)
        await stream.send_message(request)

    async with connected(server_limits=ServerLimits(calls=3)) as pair:
        pair.play.custom = handler
        await pair.unary()  # so that the limit is known
        start = trio.current_time()

        async def call(number: int) -> None:
            await trio.sleep(number / 1000)
            async with pair.channel.unary_stream(CUSTOM, Text(service=str(number)), Text) as responses:
                assert await responses.recv_message() == Text(service=str(number))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(call, number)
            await trio.sleep(0.5)
            assert pair.channel.statistics().calls_open == 3
            assert pair.channel.statistics().calls_waiting == 7
        assert order == list(range(10))
        assert trio.current_time() - start == pytest.approx(4, abs=0.1)


async def test_a_first_burst_respects_the_limit_as_well(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(server_limits=ServerLimits(calls=2)) as pair, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(pair.unary)


async def test_waiting_for_a_turn_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(server_limits=ServerLimits(calls=1)) as pair, trio.open_nursery() as nursery:
        await pair.unary()
        nursery.start_soon(lambda: pair.channel.unary_unary(SLEEP, Text(), Text))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await pair.unary()
        assert scope.cancelled_caught
        async with pair.channel.request(UNARY, Cardinality.UNARY_UNARY, Text, Text, timeout=1) as stream:
            with pytest.raises(GRPCError) as caught:
                await stream.send_message(Text())
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert pair.channel.statistics().calls_waiting == 0
        nursery.cancel_scope.cancel()
    # and the slot came back


async def test_who_waits_when_the_connection_is_lost_goes_to_the_next(autojump_clock: trio.testing.MockClock) -> None:
    results: list[str] = []

    async def wait_for_turn(pair: Pair) -> None:
        results.append(await pair.unary())

    async with connected(server_limits=ServerLimits(calls=1)) as pair, trio.open_nursery() as nursery:
        await pair.unary()

        async def sleep() -> None:
            await unavailable(lambda: pair.channel.unary_unary(SLEEP, Text(), Text))

        nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait_for_turn, pair)
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(pair.listener.client_ends[0])
    assert results == ["hello"]


async def test_a_limit_of_nothing_lifted_later(autojump_clock: trio.testing.MockClock) -> None:
    """SETTINGS_MAX_CONCURRENT_STREAMS may be 0 for a while (RFC 9113, 6.5.2)."""
    far: list[trio.abc.Stream] = []

    async def dial() -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        await server.send_all(SettingsFrame(0, settings={3: 0}).serialize())
        far.append(server)
        return client

    async with open_channel_over(dial, authority="node:1") as channel, trio.open_nursery() as nursery:
        nursery.start_soon(unavailable, ask(channel))
        await trio.testing.wait_all_tasks_blocked()
        assert channel.statistics().calls_waiting == 1
        await far[0].send_all(SettingsFrame(0, settings={3: 1}).serialize())
        await trio.testing.wait_all_tasks_blocked()
        assert channel.statistics().calls_waiting == 0
        assert channel.statistics().calls_open == 1
        await far[0].aclose()


# --- Keepalive --------------------------------------------------------------------------------------------------------


async def test_a_silent_server_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def dial() -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        await server.send_all(SettingsFrame(0).serialize())
        ends.append(server)
        return client

    ends: list[trio.abc.Stream] = []
    start = trio.current_time()
    async with open_channel_over(dial, authority="node:1") as channel:
        message = await unavailable(ask(channel))
    assert message == "the connection broke: the peer did not answer a ping within 10 s"
    assert trio.current_time() - start == pytest.approx(40)


async def test_no_pings_without_calls_and_few_with(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings: list[float] = []
    original = ServerConnection._handle

    def note(self: ServerConnection, event: object) -> None:
        if type(event).__name__ == "PingReceived":
            pings.append(trio.current_time() - start)
        original(self, event)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(ServerConnection, "_handle", note)
    quiet = ServerLimits(keepalive_s=10**6, idle_s=10**6)
    async with connected(server_limits=quiet) as pair:
        start = trio.current_time()
        await pair.unary()
        await trio.sleep(1000)
        assert pings == []
        # After a long silence the first call is worth a ping at once: the server may be long gone.
        with trio.move_on_after(100):
            await pair.channel.unary_unary(SLEEP, Text(), Text)
    assert pings == pytest.approx([1000, 1030, 1060, 1090])


# --- Cancellation -----------------------------------------------------------------------------------------------------


async def use_unary(pair: Pair) -> None:
    await pair.unary("x" * 100_000)


async def use_server_stream(pair: Pair) -> None:
    async with pair.channel.unary_stream(LIST, Text(service="5"), Text) as responses:
        assert len([response async for response in responses]) == 5


async def use_client_stream(pair: Pair) -> None:
    async with pair.channel.request(COUNT, Cardinality.STREAM_UNARY, Text, Text) as stream:
        for _ in range(3):
            await stream.send_message(Text(service="x" * 150_000))
        await stream.end()
        assert await stream.recv_message() == Text(service="3/450000")


async def use_chat(pair: Pair) -> None:
    async with pair.channel.request(CHAT, Cardinality.STREAM_STREAM, Text, Text, timeout=60) as stream:
        await stream.send_request()
        for text in ("a", "b"):
            await stream.send_message(Text(service=text))
            assert await stream.recv_message() == Text(service=text.upper())
        await stream.end()
        await stream.recv_initial_metadata()
        await stream.recv_trailing_metadata()


class CancelAt(trio.abc.Instrument):
    """Cancels a scope just before its task runs for the n-th time."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, count: int) -> None:
        self.task, self.scope, self.left = task, scope, count

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@pytest.mark.parametrize("use", [use_unary, use_server_stream, use_client_stream, use_chat])
@pytest.mark.parametrize("warm", [True, False])
async def test_cancelled_anywhere_the_connection_stays_usable(
    use: Callable[[Pair], Awaitable[None]], warm: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Each await point of a call in turn is the one that is cancelled."""
    small = ServerLimits(stream_window_bytes=65_535, connection_window_bytes=70_000, resets=10**6)
    points = 0
    finished = False
    while not finished:
        points += 1
        async with connected(server_limits=small, channel_limits=ChannelLimits(backlog_bytes=20_000)) as pair:
            if warm:
                await pair.unary()
            with trio.CancelScope() as scope:
                instrument = CancelAt(trio.lowlevel.current_task(), scope, points)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await use(pair)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            finished = not scope.cancel_called
            with trio.fail_after(20):
                await use_unary(pair)
                await use_client_stream(pair)
                await trio.testing.wait_all_tasks_blocked()
            assert pair.channel.statistics().calls_open == 0
            assert pair.server.statistics().calls == 0
            assert pair.channel.statistics().connections_made == 1
        assert points < 200
    assert points > (1 if warm else 2)


async def test_a_call_after_the_end_finds_a_closed_channel(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as outer:
        async with open_channel_over(outer.listener.connect, authority="memory:2") as channel:
            await ask(channel)()
        with trio.fail_after(5):
            for _ in range(2):
                with pytest.raises(trio.ClosedResourceError, match="the channel to memory:2 is closed"):
                    await ask(channel)()
                with pytest.raises(trio.ClosedResourceError, match="the channel to memory:2 is closed"):
                    async with channel.unary_stream(LIST, Text(service="5"), Text):
                        pass
                stream = channel.request(UNARY, Cardinality.UNARY_UNARY, Text, Text)
                with pytest.raises(ChannelClosed) as caught:
                    async with stream:
                        await stream.send_message(Text(), end=True)
                assert caught.value.status is Status.UNAVAILABLE
        assert not channel.statistics().connected


async def test_cancelled_from_outside_the_block_can_still_call(autojump_clock: trio.testing.MockClock) -> None:
    answered = False
    async with connected() as outer:
        with trio.CancelScope() as scope:
            async with open_channel_over(outer.listener.connect, authority="memory:2") as channel:
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(5, shield=True):
                        await ask(channel)()
                        answered = True
    assert scope.cancelled_caught
    assert answered


@pytest.mark.parametrize("error", [ValueError("body"), ExceptionGroup("its own", [KeyError()]), SystemExit(3)])
async def test_what_the_block_raises_comes_out_as_it_went_in(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_channel("localhost", 1):
            raise error
    assert caught.value is error
