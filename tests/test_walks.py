"""The main job, whole: a message sent on one node is an event on another, whatever happens on the way."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.walks import detail, everything, stage, take, two_nodes
from trio.testing import MockClock

from impervious.errors import (
    AlreadyExists,
    DeliveryFailed,
    InvalidArgument,
    NodeMisconfigured,
    NodeUnavailable,
    PaymentFailure,
    ResourceExhausted,
)
from impervious.model import NodePubkey
from impervious.units import Sat


async def test_a_message_crosses(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (_where, alice, carol):
        me, you = (await alice.wait_ready()).pubkey, (await carol.wait_ready()).pubkey
        reply_to = uuid4()
        message_id = await alice.messages.send(you, b"hello", amount=Sat(7), reply_to=reply_to)
        [event] = await take(carol, 1)
        assert (event.id, event.reply_to, event.sender) == (message_id, reply_to, me)
        assert (event.data, event.amount, event.service_type, event.verified) == (b"hello", 7000, "message", True)
        [outcome] = await take(alice, 1)
        assert (outcome.id, outcome.sender, outcome.service_type) == (message_id, me, "status")
        assert detail(outcome)["state"] == "delivered"
        assert detail(outcome)["parts"] == 1
        assert detail(outcome)["amount_sat"] == 7
        assert detail(outcome)["fee_msat"] > 0


@pytest.mark.parametrize("size", [1, 900, 901, 5000, 100_000])
async def test_any_size_arrives_whole(tmp_path: Path, wall: Wall, autojump_clock: MockClock, size: int) -> None:
    data = bytes(index * 7 % 256 for index in range(size))
    async with two_nodes(tmp_path, wall) as (_where, alice, carol):
        await alice.messages.send((await carol.wait_ready()).pubkey, data, wait=True)
        [event] = await take(carol, 1)
        assert event.data == data
        [outcome] = await take(alice, 1)
        assert detail(outcome)["amount_sat"] * 1000 == event.amount


async def test_many_messages_arrive_once_and_in_order(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    number = 100
    async with two_nodes(tmp_path, wall) as (_where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        begun = trio.current_time()
        for index in range(number):
            await alice.messages.send(you, f"message {index}")
        events = await take(carol, number)
        assert [event.data.decode() for event in events] == [f"message {index}" for index in range(number)]
        assert trio.current_time() - begun < number * 0.2  # they overlap: one by one it would take twice as long
        outcomes = await take(alice, number)
        assert {detail(event)["state"] for event in outcomes} == {"delivered"}
        assert len(await everything(carol)) == number


async def test_both_ways_at_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (_where, alice, carol):
        me, you = (await alice.wait_ready()).pubkey, (await carol.wait_ready()).pubkey
        for index in range(20):
            await alice.messages.send(you, f"a{index}")
            await carol.messages.send(me, f"c{index}")
        for node, prefix in ((carol, "a"), (alice, "c")):
            events = await take(node, 20, service="message")
            assert [event.data.decode() for event in events] == [f"{prefix}{index}" for index in range(20)]


# --- What can go wrong with the Lightning node ----------------------------------------------------------------------


async def test_a_failure_that_passes_is_tried_again(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        for reason in (PaymentFailure.TIMEOUT, PaymentFailure.INSUFFICIENT_BALANCE, PaymentFailure.ERROR):
            where.network.lnd("alice").fail_next_payment(reason)
        await alice.messages.send(you, b"hello", wait=True)
        assert [event.data for event in await take(carol, 1)] == [b"hello"]


async def test_an_answer_that_is_lost_is_looked_for_and_nothing_paid_twice(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        where.network.lnd("alice").lose_next_answer()
        await alice.messages.send(you, b"hello", wait=True)
        assert [event.data for event in await take(carol, 1)] == [b"hello"]
        retrying, outcome = await take(alice, 2)
        assert (detail(retrying)["state"], detail(outcome)["state"]) == ("retrying", "delivered")
        assert detail(outcome)["parts"] == 1


async def test_a_recipient_without_keysend_is_named(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        where.network.lnd("carol").set_accepts_keysend(False)
        with pytest.raises(DeliveryFailed, match="does not accept keysend"):
            await alice.messages.send(you, b"hello", wait=True)
        [outcome] = await take(alice, 1)
        assert (detail(outcome)["state"], detail(outcome)["parts_settled"]) == ("failed", 0)
        assert await everything(carol) == []


async def test_a_stranger_to_the_graph_fails_at_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    stranger = NodePubkey.parse("02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5")
    async with two_nodes(tmp_path, wall) as (_where, alice, _carol):
        await alice.wait_ready()
        begun = trio.current_time()
        with pytest.raises(DeliveryFailed, match="does not know the recipient"):
            await alice.messages.send(stranger, b"hello", wait=True)
        assert trio.current_time() - begun < 10


async def test_an_offline_recipient_is_tried_until_time_is_up(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        where.network.lnd("carol").go_offline()
        message_id = await alice.messages.send(you, b"first")
        begun = trio.current_time()
        with pytest.raises(DeliveryFailed, match="given up after 3600 s"):
            await alice.messages.context.wait(message_id)
        assert 3500 < trio.current_time() - begun < 3800
        where.network.lnd("carol").go_online()
        await alice.messages.send(you, b"second", wait=True)
        [event] = await take(carol, 1, seconds=1)  # the gap was declared void: no wait for it
        assert event.data == b"second"


async def test_the_node_may_be_away_locked_or_syncing(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        await alice.wait_ready()
        lnd = where.network.lnd("alice")
        await alice.messages.send(you, b"accepted before")
        lnd.stop()
        await trio.sleep(1)
        with pytest.raises(NodeUnavailable):
            await alice.messages.send(you, b"refused")
        lnd.start()
        lnd.lock()
        await trio.sleep(1)
        with pytest.raises(NodeUnavailable, match="lock"):
            await alice.messages.send(you, b"refused")
        lnd.unlock()
        await trio.sleep(60)
        await alice.messages.send(you, b"accepted after")
        events = await take(carol, 2)
        assert [event.data for event in events] == [b"accepted before", b"accepted after"]


async def test_restarts_of_both_lightning_nodes_lose_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        sent = 0
        for name in ("alice", "carol", "alice", "carol"):
            for _ in range(5):
                await alice.messages.send(you, str(sent))
                sent += 1
            where.network.lnd(name).kill()
            await trio.sleep(0.1)
            where.network.lnd(name).start()
            await alice.wait_ready()
            await trio.sleep(5)
            await alice.wait_ready()
        events = await take(carol, sent)
        assert sorted(int(event.data) for event in events) == list(range(sent))
        await trio.sleep(120)
        assert len(await everything(carol)) == sent


# --- Stops and starts of ours ---------------------------------------------------------------------------------------


async def test_what_comes_while_we_are_down_is_there_once_after_a_start(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice") as alice:
        async with where.node("carol") as carol:
            you = (await carol.wait_ready()).pubkey
            await alice.messages.send(you, b"0", wait=True)
            await take(carol, 1)
        for index in (1, 2, 3):
            await alice.messages.send(you, str(index), wait=True)
        async with where.node("carol") as carol:
            events = await take(carol, 4)
            assert [event.data for event in events] == [b"0", b"1", b"2", b"3"]
            await trio.sleep(600)
            assert len(await everything(carol)) == 4


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.6, 1, 1.5, 2, 3, 5])
async def test_a_sender_that_stops_in_the_middle_goes_on_and_pays_each_part_once(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, after_s: float
) -> None:
    data = bytes(range(256)) * 100
    async with stage(tmp_path, wall) as where, where.node("carol") as carol:
        you = (await carol.wait_ready()).pubkey
        before = where.network.total()
        async with where.node("alice") as alice:
            await alice.wait_ready()
            message_id = await alice.messages.send(you, data)
            await trio.sleep(after_s)
        await trio.sleep(10)
        async with where.node("alice") as alice:
            [outcome] = await take(alice, 1)
            assert (outcome.id, detail(outcome)["state"]) == (message_id, "delivered")
            [event] = await take(carol, 1)
            assert event.data == data
            assert event.amount == detail(outcome)["amount_sat"] * 1000 == detail(outcome)["parts"] * 1000
        await trio.sleep(300)
        assert len(await everything(carol)) == 1
        assert where.network.total() == before


# --- Requests that are refused, without effect ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "amount", "error", "says"),
    [
        (b"", 0, InvalidArgument, "empty"),
        (b"x" * 480_001, 0, InvalidArgument, "480000"),
        (b"x" * 901, 1, InvalidArgument, "need 2 sat"),
        (b"x", -1, InvalidArgument, "negative"),
        (b"x", 100_000, ResourceExhausted, "daily_limit_sat"),
        (b"x", 10**18, InvalidArgument, "21 million bitcoin"),
    ],
)
async def test_bad_requests_say_what_to_do(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, data: bytes, amount: int, error: type[Exception], says: str
) -> None:
    async with two_nodes(tmp_path, wall) as (_where, alice, carol):
        await alice.wait_ready()
        with pytest.raises(error, match=says):
            await alice.messages.send((await carol.wait_ready()).pubkey, data, amount=Sat(amount))
        await trio.sleep(10)
        assert await everything(alice) == await everything(carol) == []


async def test_our_own_pubkey_is_refused(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (_where, alice, _carol):
        with pytest.raises(InvalidArgument, match="own"):
            await alice.messages.send((await alice.wait_ready()).pubkey, b"hello")


async def test_a_key_sends_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, carol):
        you = (await carol.wait_ready()).pubkey
        await alice.wait_ready()
        ids: list[UUID] = []

        async def send() -> None:
            ids.append(await alice.messages.send(you, b"hello", idempotency_key="k"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
        await send()
        assert len(set(ids)) == 1
        with pytest.raises(AlreadyExists):
            await alice.messages.send(you, b"other", idempotency_key="k")
        with pytest.raises(InvalidArgument):
            await alice.messages.send(you, b"hello", idempotency_key="")
        await trio.sleep(60)
        assert len(await everything(carol)) == 1
        where.network.lnd("alice").stop()
        await trio.sleep(1)
        assert await alice.messages.send(you, b"hello", idempotency_key="k") == ids[0]


async def test_a_database_of_another_node_is_refused(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.wait_ready()
            await trio.sleep(1)
        (tmp_path / "alice.db").rename(tmp_path / "carol.db")
        with pytest.raises(NodeMisconfigured, match="belongs to node"):
            async with where.node("carol"):
                await trio.sleep(1)


async def test_unsigned_bytes_are_shown_only_when_asked_for(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    from impervious.events import Filter
    from impervious.model import Preimage
    from impervious.units import Msat

    async with stage(tmp_path, wall) as where:
        for number, accept in enumerate((False, True)):
            where.config = replace(where.config, message=replace(where.config.message, accept_unsigned=accept))
            async with where.node("carol") as carol:
                you = (await carol.wait_ready()).pubkey
                await where.network.node("alice").send_keysend(
                    you,
                    Msat(5000),
                    Preimage(bytes([number]) * 32),
                    {400_000: b"from a wallet"},
                    fee_limit=Msat(10_000),
                    timeout_s=60,
                )
                await trio.sleep(5)
                events = await everything(carol)
                async with carol.events(since=0, wanted=Filter(quarantined=True)) as subscription:
                    aside = await anext(subscription)  # of the first payment, which the second start still has
                assert (aside.service_type, detail(aside)["recordId"]) == ("lightning", "QUARANTINED")
                assert "message.accept_unsigned is off" in detail(aside)["reason"]
                assert [(event.data, event.sender, event.verified) for event in events] == (
                    [(b"from a wallet", None, False)] if accept else []
                )
