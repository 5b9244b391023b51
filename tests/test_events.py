from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import trio
from tests.conftest import Wall, inline

from impervious import events as events_module
from impervious.errors import OutOfRange, ResourceExhausted
from impervious.events import Events, Filter, Subscription
from impervious.hub import Hub
from impervious.model import EventKind, NewEvent, NodePubkey, ServiceType
from impervious.store import Store, Tx, log, open_store
from impervious.units import Msat

ALICE = NodePubkey(bytes.fromhex("02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5"))


def new(text: str, *, service: str = "message", sender: NodePubkey | None = ALICE, public: bool = True) -> NewEvent:
    return NewEvent(
        kind=EventKind.MESSAGE,
        id=UUID(int=1),
        reply_to=None,
        sender=sender,
        service_type=ServiceType(service),
        topic=ServiceType(service),
        data=text.encode(),
        amount=Msat(1000),
        sent_at_ms=5,
        verified=True,
        public=public,
    )


@asynccontextmanager
async def opened(tmp_path: Path, wall: Wall, subscribers: int = 10) -> AsyncIterator[tuple[Store, Events]]:
    hub = Hub()
    async with open_store(tmp_path / "imp.db", on_commit=hub.publish, now_ms=wall, run_sync=inline) as store:
        yield store, Events(store, hub, max_subscribers=subscribers)


async def emit(store: Store, *texts: str) -> None:
    await store.write(lambda tx: [tx.emit(new(text)) for text in texts])


async def take(subscription: Subscription, number: int) -> list[str]:
    return [(await subscription.receive()).data.decode() for _ in range(number)]


async def test_live_only_without_since(tmp_path: Path, wall: Wall) -> None:
    async with opened(tmp_path, wall) as (store, events):
        await emit(store, "old")
        async with events.subscribe() as subscription:
            await emit(store, "new")
            assert await take(subscription, 1) == ["new"]


async def test_replay_flows_into_live(tmp_path: Path, wall: Wall) -> None:
    async with opened(tmp_path, wall) as (store, events):
        await emit(store, *"abc")
        async with events.subscribe(since=1) as subscription:
            assert await take(subscription, 2) == ["b", "c"]
            await emit(store, "d")
            assert await take(subscription, 1) == ["d"]


@pytest.mark.parametrize("number", [1, 255, 256, 257, 600])
async def test_pages_are_joined_without_gap_or_repeat(tmp_path: Path, wall: Wall, number: int) -> None:
    async with opened(tmp_path, wall) as (store, events):
        await emit(store, *map(str, range(number)))
        async with events.subscribe(since=0) as subscription:
            assert await take(subscription, number) == list(map(str, range(number)))
            await emit(store, "live")
            assert await take(subscription, 1) == ["live"]


async def test_a_subscriber_that_lags_reads_on_from_the_log(tmp_path: Path, wall: Wall) -> None:
    number = events_module.FEED_SIZE * 3
    async with opened(tmp_path, wall) as (store, events):
        async with events.subscribe(since=0) as slow, events.subscribe(since=0) as quick:
            await emit(store, "first")
            assert await take(slow, 1) == await take(quick, 1) == ["first"]
            for text in map(str, range(number)):
                await emit(store, text)
                assert await take(quick, 1) == [text]
            assert await take(slow, number) == list(map(str, range(number)))


async def test_cancelling_a_wait_loses_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, wall) as (store, events), events.subscribe() as subscription:
        for text in map(str, range(20)):
            with trio.move_on_after(1):
                await subscription.receive()
                raise AssertionError("there is nothing yet")
            await emit(store, text)
            assert await take(subscription, 1) == [text]


async def test_receive_ready_takes_what_is_there(tmp_path: Path, wall: Wall) -> None:
    async with opened(tmp_path, wall) as (store, events), events.subscribe(since=0) as subscription:
        await emit(store, "a")
        assert await take(subscription, 1) == ["a"]
        await emit(store, *"bcdef")
        assert [event.data for event in subscription.receive_ready(3)] == [b"b", b"c", b"d"]
        assert await take(subscription, 2) == ["e", "f"]
        assert subscription.receive_ready(3) == []


async def test_filters(tmp_path: Path, wall: Wall) -> None:
    wanted = Filter(service_types=frozenset({"vpn"}), senders=frozenset({ALICE}))
    rows = [
        new("1", service="vpn"),
        new("2"),
        new("3", service="vpn", sender=None),
        new("4", service="vpn", public=False),
        new("5", service="vpn"),
    ]
    async with opened(tmp_path, wall) as (store, events):
        await store.write(lambda tx: [tx.emit(row) for row in rows])
        async with events.subscribe(since=0, wanted=wanted) as subscription:
            assert await take(subscription, 2) == ["1", "5"]
            await store.write(lambda tx: [tx.emit(row) for row in rows])
            assert await take(subscription, 2) == ["1", "5"]


async def test_what_is_pruned_cannot_be_asked_for(tmp_path: Path, wall: Wall) -> None:
    async with opened(tmp_path, wall) as (store, events):
        await emit(store, *"abc")
        wall.offset_ms += 1000
        await emit(store, *"de")

        def prune(tx: Tx) -> int:
            return log.prune(tx, before_ms=tx.now_ms - 500)

        assert await store.write(prune) == 3
        with pytest.raises(OutOfRange, match="oldest kept is 4"):
            async with events.subscribe(since=2):
                pass
        with pytest.raises(OutOfRange, match="newest event is 5"):
            async with events.subscribe(since=6):
                pass
        for since in (0, 3):
            async with events.subscribe(since=since) as subscription:
                assert await take(subscription, 2) == ["d", "e"]
        wall.offset_ms += 1000
        assert await store.write(prune) == 2
        async with events.subscribe(since=5) as subscription:
            await emit(store, "f")
            assert await take(subscription, 1) == ["f"]


async def test_pruning_by_size_keeps_the_newest_and_what_services_have_to_read(tmp_path: Path, wall: Wall) -> None:
    async with opened(tmp_path, wall) as (store, _):
        await emit(store, *("x" * 800 for _ in range(10)))
        await store.write(lambda tx: log.advance_reader(tx, "vpn", 4))
        await store.write(lambda tx: log.advance_reader(tx, "switched off", 1))
        assert await store.write(lambda tx: log.prune(tx, max_bytes=3000)) == 1
        assert await store.write(lambda tx: log.prune(tx, max_bytes=3000, readers={"vpn", "new"})) == 3
        await store.write(lambda tx: log.advance_reader(tx, "vpn", 10))
        assert await store.write(lambda tx: log.prune(tx, max_bytes=3000, readers={"vpn"})) == 3
        extent = await store.read(log.extent)
        assert (extent.newest, extent.pruned_through, extent.events, extent.data_bytes) == (10, 7, 3, 2400)


async def test_subscribers_are_counted_and_limited(tmp_path: Path, wall: Wall) -> None:
    async with opened(tmp_path, wall, subscribers=2) as (_, events):
        async with events.subscribe(), events.subscribe():
            assert events.statistics().subscribers == 2
            with pytest.raises(ResourceExhausted, match=r"limits\.subscribers"):
                async with events.subscribe():
                    pass
        assert events.statistics().subscribers == 0
