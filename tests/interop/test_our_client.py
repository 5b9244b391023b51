"""Our client calls grpcio's and grpclib's servers, in processes of their own, in real time; no clock is asserted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import betterproto2
import pytest
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from tests.rpc.certificates import Files

from impervious.rpc import Channel, client_context, open_channel

from .conftest import PATIENCE_S, Program, Start
from .service import NASTY, path

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@dataclass(eq=False, repr=False)
class Payload(betterproto2.Message):
    data: bytes = betterproto2.field(1, betterproto2.TYPE_BYTES)
    number: int = betterproto2.field(2, betterproto2.TYPE_INT32)
    text: str = betterproto2.field(3, betterproto2.TYPE_STRING)


@dataclass
class Far:
    """A server to call."""

    kind: str
    port: int
    root: Files | None = None

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        context = None if self.root is None else client_context(self.root.pem)
        with trio.fail_after(PATIENCE_S):
            async with open_channel("127.0.0.1", self.port, ssl_context=context) as channel:
                yield channel


KINDS = ["grpcio", "grpclib"]


@pytest.fixture(scope="module", params=[*KINDS, "grpcio over TLS"])
def far(request: pytest.FixtureRequest, start_for_all: Start, certificate: Files) -> Far:
    kind, _, tls = request.param.partition(" ")
    if tls:
        return Far(
            kind, int(start_for_all("serve", kind, certificate.certificate, certificate.key).line()), certificate
        )
    return Far(kind, int(start_for_all("serve", kind).line()))


async def unary(
    channel: Channel, method: str = "Unary", *, data: bytes = b"", number: int = 0, text: str = ""
) -> Payload:
    return await channel.unary_unary(path(method), Payload(data=data, number=number, text=text), Payload)


async def test_unary(far: Far) -> None:
    async with far.channel() as channel:
        response = await unary(channel, data=b"\x00\xff", number=-1, text="käse")
        assert (response.data, response.number, response.text) == (b"\x00\xff", -1, "käse")
        assert await unary(channel) == Payload()


async def test_server_streaming(far: Far) -> None:
    async with far.channel() as channel:
        request = Payload(number=1000, data=b"x" * 1000)
        async with channel.unary_stream(path("List"), request, Payload) as responses:
            received = [response async for response in responses]
        assert [response.number for response in received] == list(range(1000))


async def test_client_streaming(far: Far) -> None:
    async with far.channel() as channel:
        async with channel.request(path("Count"), Cardinality.STREAM_UNARY, Payload, Payload) as stream:
            for _ in range(1000):
                await stream.send_message(Payload(data=b"x" * 1000))
            await stream.end()
            assert await stream.recv_message() == Payload(number=1000, text="1000000")


async def test_bidirectional_streaming(far: Far) -> None:
    async with far.channel() as channel:
        async with channel.request(path("Chat"), Cardinality.STREAM_STREAM, Payload, Payload) as stream:
            for number in range(100):
                await stream.send_message(Payload(number=number, data=b"x" * number * 100))
                response = await stream.recv_message()
                assert response is not None
                assert response.number == number
            await stream.end()
            assert await stream.recv_message() is None


@pytest.mark.parametrize("size", [1_000_000, 16_000_000])
async def test_large_messages(far: Far, size: int) -> None:
    data = bytes(range(256)) * (size // 256)
    async with far.channel() as channel:
        assert (await unary(channel, data=data)).data == data


async def test_a_hundred_calls_at_once(far: Far) -> None:
    answers: dict[int, str] = {}

    async def call(channel: Channel, number: int) -> None:
        answers[number] = (await unary(channel, "Slow", number=50, text=str(number))).text

    async with far.channel() as channel, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(call, channel, number)
    assert answers == {number: str(number) for number in range(100)}
    assert channel.statistics().connections_made == 1


async def test_a_long_stream_beside_many_calls(far: Far) -> None:
    """What an LND client does all day: one subscription that is left unread for a while, and hundreds of streams."""

    async def pay(channel: Channel) -> None:
        async with channel.unary_stream(path("List"), Payload(number=3), Payload) as updates:
            assert len([update async for update in updates]) == 3

    async with far.channel() as channel:
        request = Payload(number=3000, data=b"x" * 1000)
        async with channel.unary_stream(path("List"), request, Payload) as subscription:
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(pay, channel)
            assert len([each async for each in subscription]) == 3000


async def test_cancellation_reaches_the_server(far: Far) -> None:
    async def cancelled_by_deadline() -> None:
        with trio.CancelScope() as scope:
            async with channel.unary_stream(path("Sleep"), Payload(), Payload) as responses:
                await responses.recv_message()
                scope.deadline = trio.current_time() + 0.05
                await responses.recv_message()
        assert scope.cancelled_caught

    async def left_early() -> None:
        async with channel.unary_stream(path("Sleep"), Payload(), Payload) as responses:
            assert await responses.recv_message() == Payload(text="asleep")

    async def cancelled_by_hand() -> None:
        async with channel.request(path("Sleep"), Cardinality.UNARY_STREAM, Payload, Payload) as stream:
            await stream.send_message(Payload())
            await stream.recv_message()
            await stream.cancel()

    async with far.channel() as channel:
        await unary(channel)  # so that no deadline passes while connecting
        before = (await unary(channel, "Cancelled")).number
        for way in (left_early, cancelled_by_hand, left_early):
            await way()
        await cancelled_by_deadline()
        for _ in range(100):
            after = (await unary(channel, "Cancelled")).number
            if after == before + 4:
                break
            await trio.sleep(0.05)
        assert after == before + 4


async def test_deadlines(far: Far) -> None:
    async with far.channel() as channel:
        request = channel.request(path("Slow"), Cardinality.UNARY_UNARY, Payload, Payload, timeout=0.2)
        async with request as stream:
            await stream.send_message(Payload(number=5000))
            with pytest.raises(GRPCError) as caught:
                await stream.recv_message()
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.2):
                await unary(channel, "Slow", number=5000)
        assert (await unary(channel, text="fine")).text == "fine"


async def test_statuses_with_nasty_messages(far: Far) -> None:
    async with far.channel() as channel:
        for status in list(Status)[1:]:
            with pytest.raises(GRPCError) as caught:
                await unary(channel, "Fail", number=status.value, text=NASTY)
            assert (caught.value.status, caught.value.message) == (status, NASTY)


async def test_metadata(far: Far) -> None:
    sent: list[tuple[str, str | bytes]] = [("echo", "one"), ("echo-bin", bytes(range(256))), ("echo", "two, three")]
    async with far.channel() as channel:
        request = channel.request(path("Metadata"), Cardinality.UNARY_UNARY, Payload, Payload, metadata=sent)
        async with request as stream:
            await stream.send_message(Payload())
            await stream.recv_message()
            await stream.recv_trailing_metadata()
        for metadata in (stream.initial_metadata, stream.trailing_metadata):
            assert metadata is not None
            assert metadata.getall("echo") == ["one", "two, three"]
            assert metadata.getall("echo-bin") == [bytes(range(256))]


async def test_a_method_that_is_not_there(far: Far) -> None:
    async with far.channel() as channel:
        with pytest.raises(GRPCError) as caught:
            await unary(channel, "Nothing")
        assert caught.value.status is Status.UNIMPLEMENTED


@asynccontextmanager
async def asleep(server: Program) -> AsyncIterator[tuple[Channel, list[GRPCError]]]:
    """Ten streams that wait for a server; how they ended is in the list when the block has ended."""
    ends: list[GRPCError] = []
    began = 0

    async def sleep(channel: Channel) -> None:
        nonlocal began
        async with channel.unary_stream(path("Sleep"), Payload(), Payload) as responses:
            await responses.recv_message()
            began += 1
            if began == 10:
                all_asleep.set()
            try:
                assert await responses.recv_message() is not None
            except GRPCError as error:
                ends.append(error)

    all_asleep = trio.Event()
    async with Far("", int(server.line())).channel() as channel, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(sleep, channel)
        await all_asleep.wait()
        yield channel, ends


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_killed_in_the_middle_of_streams(kind: str, start: Start) -> None:
    server = start("serve", kind)
    async with asleep(server) as (channel, ends):
        server.kill()
        await trio.to_thread.run_sync(server.wait)
    assert len(ends) == 10
    with pytest.raises(GRPCError, match="is closed") as caught:
        await unary(channel)
    assert caught.value.status is Status.UNAVAILABLE
    assert {error.status for error in ends} == {Status.UNAVAILABLE}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_stops_gracefully(kind: str, start: Start) -> None:
    server = start("serve", kind)
    finished: list[str] = []
    async with Far(kind, int(server.line())).channel() as channel:
        await unary(channel)

        async def slow() -> None:
            try:
                finished.append((await unary(channel, "Slow", number=1000, text="finished")).text)
            except GRPCError as error:
                finished.append(error.status.name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            await trio.sleep(0.3)
            server.terminate()
            await trio.sleep(0.3)
            if kind == "grpcio":
                with pytest.raises(GRPCError) as caught:
                    await unary(channel)
                assert caught.value.status is Status.UNAVAILABLE
    # grpclib cancels what is running and, from Python 3.12 on, keeps the connection.
    assert finished == ["finished"] if kind == "grpcio" else len(finished) == 1


async def test_a_server_that_comes_back(start: Start) -> None:
    """The next call connects again, to whatever listens there now."""
    first = start("serve", "grpcio")
    port = int(first.line())
    async with Far("grpcio", port).channel() as channel:
        assert (await unary(channel, text="a")).text == "a"
        first.kill()
        await trio.to_thread.run_sync(first.wait)
        second = Far("ours", int(start("serve", "ours").line()))

        async def dial() -> trio.abc.Stream:
            return await trio.open_tcp_stream("127.0.0.1", second.port)

        channel._dial = dial
        while True:
            try:
                assert (await unary(channel, text="b")).text == "b"
            except GRPCError as error:
                assert error.status is Status.UNAVAILABLE  # noqa: PT017 - the loss may be noticed by this call
                continue
            break
        assert channel.statistics().connections_made == 2
