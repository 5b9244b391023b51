from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError
from tests.rpc.pair import MemoryListener
from tests.server.house import ALICE, BOB, LOCKED, Inside, config, new, open_app, without_service

from impervious.errors import InvalidArgument, StoreError, Unauthenticated
from impervious.events import FEED_SIZE
from impervious.pb.grpc.health.v1 import HealthCheckRequest, HealthCheckResponseServingStatus, HealthStub
from impervious.pb.messaging import MessagingStub, SendMessageRequest
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse
from impervious.rpc import Channel, open_channel_over
from impervious.rpc.client_stream import ResponseStream
from impervious.server.doors import Doors
from impervious.server.grpc import SUBSCRIBE, Ready, texts
from impervious.server.guard import CallFacts, Principal
from impervious.wire.grpc.headers import decode_metadata

Responses = ResponseStream[SubscribeRequest, SubscribeResponse]


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened_app:
        yield opened_app


@asynccontextmanager
async def connected(doors: Doors) -> AsyncIterator[Channel]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(doors.grpc_server().serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            yield channel
        nursery.cancel_scope.cancel()


@pytest.fixture
async def channel(inside: Inside) -> AsyncIterator[Channel]:
    async with connected(inside.doors) as channel:
        yield channel


def subscribe(
    channel: Channel, metadata: dict[str, str] | None = None, **fields: Any
) -> AbstractAsyncContextManager[Responses]:
    return channel.unary_stream(SUBSCRIBE, SubscribeRequest(**fields), SubscribeResponse, metadata=metadata)


async def take(responses: Responses, number: int) -> list[SubscribeResponse]:
    found: list[SubscribeResponse] = []
    with trio.fail_after(10):
        while len(found) < number:
            found.append(await anext(responses))
    return found


async def test_replay_then_live(inside: Inside, channel: Channel) -> None:
    await inside.house.emit(*(new(str(number)) for number in range(300)))
    async with subscribe(channel, since=0) as responses:
        assert [each.seq for each in await take(responses, 300)] == list(range(1, 301))
        [event] = await inside.house.emit(new(b"\xff", amount=2999))
        assert await take(responses, 1) == [
            SubscribeResponse(
                id=str(event.id),
                from_pubkey=ALICE.hex,
                data=b"\xff",
                service_type="message",
                amount=2,
                seq=301,
                sent_at_ms=event.sent_at_ms,
                verified=True,
            )
        ]


async def test_live_only_without_since(inside: Inside, channel: Channel) -> None:
    await inside.house.emit(new("before"))
    async with subscribe(channel) as responses:
        await until_subscribed(inside, 1)
        await inside.house.emit(new("after"))
        assert [each.data for each in await take(responses, 1)] == [b"after"]


async def until_subscribed(inside: Inside, number: int) -> None:
    while inside.house.stream.statistics().subscribers != number:  # noqa: ASYNC110
        await trio.sleep(0.001)


async def test_filters_and_what_nobody_proved_to_have_sent(inside: Inside, channel: Channel) -> None:
    await inside.house.emit(
        new("1", service="vpn"), new("2", sender=None, verified=False), new("3", sender=BOB), new("4", service="status")
    )
    for fields, metadata, shown in (
        ({}, None, [1, 3, 4]),
        ({}, {"v": "2"}, [1, 2, 3, 4]),
        ({"service_type": ["vpn", "status"]}, None, [1, 4]),
        ({"from_pubkey": [BOB.hex]}, None, [3]),
    ):
        async with subscribe(channel, metadata, since=0, **fields) as responses:
            assert [each.seq for each in await take(responses, len(shown))] == shown


@pytest.mark.parametrize(
    ("fields", "metadata", "code", "words"),
    [
        ({"since": 9}, None, 11, "ask since=0"),
        ({"since": 2**64 - 1}, None, 11, "ahead of this log"),
        ({"service_type": ["x"]}, None, 3, "'x' is none of this node's"),
        ({"from_pubkey": ["02"]}, None, 3, "from_pubkey: pubkey has 2 characters"),
        ({}, {"v": "3"}, 3, "v in the metadata must be 1 or 2"),
    ],
)
async def test_streams_that_cannot_begin(
    channel: Channel, fields: dict[str, Any], metadata: dict[str, str] | None, code: int, words: str
) -> None:
    with pytest.raises(GRPCError, match=words) as caught:
        async with subscribe(channel, metadata, **fields) as responses:
            await anext(responses)
    assert caught.value.status.value == code


async def test_a_stream_that_breaks_says_why(inside: Inside, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(work: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the database cannot be used")

    async with subscribe(channel) as responses:
        await until_subscribed(inside, 1)
        await inside.house.emit(new())
        await take(responses, 1)
        monkeypatch.setattr(inside.house.store, "read", broken)
        await inside.house.emit(*(new() for _ in range(FEED_SIZE * 3)))
        with pytest.raises(GRPCError, match="the database cannot be used") as caught:
            await take(responses, FEED_SIZE * 3)
    assert caught.value.status.value == 13


async def test_a_client_that_leaves_is_no_subscriber_any_more(inside: Inside, channel: Channel) -> None:
    async with subscribe(channel):
        await until_subscribed(inside, 1)
    with trio.fail_after(10):
        await until_subscribed(inside, 0)


async def test_streams_end_with_words_when_the_doors_close(inside: Inside, channel: Channel) -> None:
    async with subscribe(channel) as responses:
        await until_subscribed(inside, 1)
        inside.doors.streams.begin()
        with pytest.raises(GRPCError, match="the daemon is stopping") as caught:
            await take(responses, 1)
    assert caught.value.status.value == 14


async def test_a_stream_that_is_switched_off_says_so(tmp_path: Path) -> None:
    async with open_app(without_service(config(tmp_path), "websocket")) as inside, connected(inside.doors) as channel:
        with pytest.raises(GRPCError, match="the websocket service is switched off") as caught:
            async with subscribe(channel) as responses:
                await anext(responses)
        assert caught.value.status.value == 12


async def test_paths_that_are_not_there(channel: Channel) -> None:
    request = channel.request("/chess.Chess/Move", Cardinality.UNARY_UNARY, SubscribeRequest, SubscribeResponse)
    async with request as call:
        await call.send_message(SubscribeRequest(), end=True)
        with pytest.raises(GRPCError) as caught:
            await call.recv_message()
    assert caught.value.status.value == 12


async def test_the_one_place_that_decides_who_may_call(inside: Inside) -> None:
    seen: list[CallFacts] = []

    async def authorize(facts: CallFacts) -> Principal:
        await trio.lowlevel.checkpoint()
        seen.append(facts)
        if facts.metadata.get("authorization") != "Bearer x":
            raise Unauthenticated("give a token")
        return Principal(name="app")

    doors = Doors(inside.house, inside.house.config, inside.listeners, authorizer=authorize)
    async with connected(doors) as channel:
        with pytest.raises(GRPCError, match="give a token") as caught:
            await MessagingStub(channel).send_message(SendMessageRequest())  # type: ignore[arg-type]
        assert caught.value.status.value == 16
        with pytest.raises(GRPCError, match="give a token"):
            await HealthStub(channel).check(HealthCheckRequest())  # type: ignore[arg-type]
        with pytest.raises(GRPCError, match="pubkey is missing"):
            await MessagingStub(channel).send_message(  # type: ignore[arg-type]
                SendMessageRequest(), metadata={"authorization": "Bearer x"}
            )
    assert [facts.path for facts in seen] == [
        "/messaging.Messaging/SendMessage",
        "/grpc.health.v1.Health/Check",
        "/messaging.Messaging/SendMessage",
    ]


async def test_health_says_what_readyz_says(inside: Inside, autojump_clock: trio.testing.MockClock) -> None:
    doors = inside.doors
    async with connected(doors) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(doors.follow_health)
        stub = HealthStub(channel)  # type: ignore[arg-type]

        async def serving(service: str) -> bool:
            await trio.sleep(2)
            answer = await stub.check(HealthCheckRequest(service=service))
            return answer.status is HealthCheckResponseServingStatus.SERVING

        assert await serving("messaging.Messaging")
        inside.house.lightning.status = LOCKED
        assert not await serving("messaging.Messaging")
        assert await serving("")
        inside.house.disk_problem = "full"
        with pytest.raises(GRPCError, match="no service 'x' here"):
            await serving("x")
        nursery.cancel_scope.cancel()


def test_metadata_that_is_text() -> None:
    found = decode_metadata([(b"a", b"1"), (b"a", b"2"), (b"b-bin", b"AAAA")])
    assert texts(found) == {"a": "1, 2"}
    for name in (b"authorization", b"idempotency-key", b"v"):
        with pytest.raises(InvalidArgument, match="given twice"):
            texts(decode_metadata([(name, b"1"), (name, b"1")]))


def test_ready_messages() -> None:
    assert Ready.FromString(b"x").SerializeToString() == b"x"
