"""Federation on the simulated network: both sides' events, refreshing, leaving, expiry, policies, names, lies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from coincurve import PrivateKey
from tests.conftest import Wall
from tests.walks import Stage, detail, everything, stage, take
from trio.testing import MockClock

from impervious.config import Config
from impervious.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NodeUnavailable, NotFound
from impervious.model import Event, NodePubkey, Peer
from impervious.service import VerifiedMessage
from impervious.services.federate import FederateService
from impervious.services.message import MessageService
from impervious.supervisor import Node
from impervious.units import Msat
from impervious.wire.payloads import Federate

DAY_S = 86_400


def named(where: Stage, imp_id: str | None, **settings: Any) -> None:
    """What the next node that is opened is called."""
    where.config = replace(where.config, federate=replace(Config().federate, imp_id=imp_id, **settings))


@asynccontextmanager
async def alice_and_carol(
    folder: Path, wall: Wall, *, names: tuple[str | None, str | None] = ("Alice", "Carol"), **settings: Any
) -> AsyncIterator[tuple[Stage, Node, Node]]:
    async with stage(folder, wall) as where:
        named(where, names[0])
        async with where.node("alice") as alice:
            named(where, names[1], **settings)
            async with where.node("carol") as carol:
                yield where, alice, carol


def federation(node: Node) -> FederateService:
    return node.service(FederateService)


async def key(node: Node) -> NodePubkey:
    return (await node.wait_ready()).pubkey


async def federate(one: Node, other: Node) -> None:
    """Have `one` ask and wait until it has the answer."""
    identifier = await federation(one).request(await key(other))
    with trio.fail_after(60):
        async with one.events(since=0) as events:
            async for event in events:
                if event.reply_to == identifier:
                    break


async def peers(node: Node) -> list[tuple[str, NodePubkey]]:
    return [(peer.imp_id, peer.pubkey) for peer in await federation(node).peers()]


async def seen(node: Node, record: str) -> list[Event]:
    found = [event for event in await everything(node) if event.service_type == "federate"]
    return [event for event in found if detail(event)["recordId"] == record]


async def introduction(node: Node, *, answer: bool = True) -> bytes:
    await node.wait_ready()
    service = federation(node)
    return await service.context.read(lambda tx: service._introduction(tx, answer=answer))


async def counter(node: Node, name: str) -> int:
    row = await federation(node).context.read(lambda tx: tx.one("SELECT value FROM counter WHERE name = ?", name))
    return row[0] if row else 0


async def test_two_nodes_come_to_know_each_other(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, alice, carol):
        me, you = await key(alice), await key(carol)
        identifier = await federation(alice).request(you, wait=True)
        [request] = await take(carol, 1, service="federate")
        assert (request.id, request.sender, request.amount) == (identifier, me, Msat(2000))
        assert detail(request) == {
            "recordId": "FEDERATE",
            "impId": "Alice",
            "pubkey": me.hex,
            "ttl": 31_560_000,
            "services": ["federate", "vpn", "websocket", "message", "socket", "sign", "lightning"],
            "answer": False,
        }
        [answer] = await take(alice, 1, service="federate")
        assert (answer.reply_to, answer.sender, answer.amount) == (identifier, you, Msat(1000))
        assert (detail(answer)["impId"], detail(answer)["answer"]) == ("Carol", True)
        assert await peers(alice) == [("Carol", you)]
        assert await peers(carol) == [("Alice", me)]
        found = await federation(alice).peer(you)
        assert found.expires_ms - found.since_ms == 31_560_000_000
        assert found.services == tuple(detail(answer)["services"])
        await trio.sleep(60)
        assert len(await seen(alice, "FEDERATE")) == len(await seen(carol, "FEDERATE")) == 1


async def test_a_peer_is_addressed_by_its_name(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, alice, carol):
        await alice.wait_ready()
        with pytest.raises(NotFound, match="no peer goes by @Carol: federate"):
            await alice.messages.send("@Carol", b"hello")
        await federate(alice, carol)
        await alice.messages.send("@Carol", b"hello", wait=True)
        [event] = await take(carol, 1, service="message")
        assert event.data == b"hello"
        assert await alice.resolve("@Carol") == await key(carol)
        assert (await federation(alice).peer("@Carol")).imp_id == "Carol"
        with pytest.raises(NotFound, match="no peer goes by @carol"):
            await alice.messages.send("@carol", b"hello")
        await alice.messages.send((await key(carol)).hex, b"hello")


@pytest.mark.slow
async def test_a_name_belongs_to_the_peer_that_had_it_first(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall, names=("Alice", "Same")) as (where, alice, carol):
        async with where.node("bob") as bob:
            await federate(alice, carol)
            await federate(alice, bob)
            await federate(alice, bob)
            assert [name for name, _ in await peers(alice)] == ["Same", "Same"]
            assert await alice.resolve("@Same") == await key(carol)
            await alice.messages.send("@Same", b"hello", wait=True)
            assert [event.data for event in await take(carol, 1, service="message")] == [b"hello"]
            await federation(alice).leave(await key(carol))
            with pytest.raises(FailedPrecondition, match="@Same belonged to a peer whose time is over") as error:
                await alice.messages.send("@Same", b"hello")
            assert (await key(bob)).hex in str(error.value)
            await federate(alice, bob)
            assert await alice.resolve("@Same") == await key(bob)


async def test_a_pinned_name_means_the_node_that_the_operator_says(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("carol") as carol, where.node("bob") as bob:
            named(where, "Alice", names=(("Carol", (await key(carol)).hex),))
            async with where.node("alice") as alice:
                await claim(alice, await key(bob), "Carol")
                assert await alice.resolve("@Carol") == await key(carol)
                await alice.messages.send("@Carol", b"hello", wait=True)
                assert [event.data for event in await take(carol, 1, service="message")] == [b"hello"]


async def claim(node: Node, sender: NodePubkey, name: str, *, ttl_s: int = DAY_S, amount: int = 2000) -> bool:
    """Have a node deal with somebody's request to federate, as if it had just come; say whether that counted."""
    service = federation(node)
    data = Federate(imp_id=name, pubkey=sender, ttl_s=ttl_s, services=("message",), answer=False).encode()
    message = VerifiedMessage(
        seq=0, id=uuid4(), sender=sender, reply_to=None, data=data, amount=Msat(amount), sent_at_ms=0
    )
    await node.wait_ready()
    shown = await service.context.transaction(lambda tx: service.show(tx, message))
    effect = await service.handle(message) if shown else None
    if effect is not None:
        await service.context.transaction(effect)
    return shown is not None


def stranger(number: int) -> NodePubkey:
    return NodePubkey(PrivateKey.from_int(number).public_key.format())


async def test_strangers_cannot_take_a_name_nor_fill_the_table_nor_use_up_the_answers(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall, max_strangers=150) as (_where, alice, carol):
        await federate(alice, carol)
        counted = [await claim(carol, stranger(number), "Alice") for number in range(1, 201)]
        assert counted == [True] * 149 + [False] * 51
        assert await carol.resolve("@Alice") == await key(alice)
        assert len(await peers(carol)) == 150
        assert await counter(carol, "refused_strangers") == 51
        assert await counter(carol, "refused_answers") == 0
        assert await claim(carol, stranger(1), "Alice"), "a known one may refresh"
        assert await carol.resolve("@Alice") == await key(alice)
        await federation(carol).leave(stranger(1))
        assert await claim(carol, stranger(200), "Zoe"), "there is room again"
        await federate(carol, alice)
        assert await claim(carol, stranger(199), "Zoe"), "whom we asked is no stranger"
        assert await carol.resolve("@Zoe") == stranger(200)


async def test_a_name_is_free_when_its_owners_time_is_over(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, _alice, carol):
        await claim(carol, stranger(1), "Zoe", ttl_s=60)
        await claim(carol, stranger(2), "Zoe", ttl_s=100 * 365 * DAY_S)
        assert await carol.resolve("@Zoe") == stranger(1)
        found = await federation(carol).peer(stranger(2))
        assert found.expires_ms - found.since_ms == 366 * DAY_S * 1000, "nobody is remembered for a hundred years"
        wall.offset_ms += 61_000  # before anything noticed
        await claim(carol, stranger(3), "Zoe")
        assert await carol.resolve("@Zoe") == stranger(3)
        await claim(carol, stranger(1), "Zoe")
        await claim(carol, stranger(3), "Yve")
        with pytest.raises(FailedPrecondition):
            await carol.resolve("@Zoe")
        assert await carol.resolve("@Yve") == stranger(3)
        await claim(carol, stranger(2), "Zoe")
        assert await carol.resolve("@Zoe") == stranger(2)


async def test_so_many_requests_wait_and_no_more(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask", max_strangers=3) as (_where, _alice, carol):
        counted = []
        for number in (1, 2, 3, 4, 2):
            counted.append(await claim(carol, stranger(number), "Zoe"))
            wall.offset_ms += 1
        assert counted == [True, True, True, False, True]
        assert [each.pubkey for each in await federation(carol).requests()] == [stranger(1), stranger(3), stranger(2)]
        assert await counter(carol, "refused_strangers") == 1
        await federation(carol).accept(stranger(3))
        assert await claim(carol, stranger(4), "Zoe")
        wall.offset_ms += 7 * DAY_S * 1000 + 1
        await trio.sleep(130)  # until the chain has confirmed that time
        assert await claim(carol, stranger(5), "Zoe")


@pytest.mark.slow
async def test_federating_again_refreshes(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        named(where, "Alice")
        async with where.node("alice") as alice:
            named(where, "Carol", ttl_s=DAY_S)
            async with where.node("carol") as carol:
                await federate(alice, carol)
                before = await federation(alice).peer(await key(carol))
            await trio.sleep(DAY_S / 2)
            named(where, "Carola", ttl_s=DAY_S)
            async with where.node("carol") as carol:
                await federation(alice).request("@Carol", wait=True)
                await trio.sleep(60)
                after = await federation(alice).peer(await key(carol))
        assert (after.imp_id, after.since_ms) == ("Carola", before.since_ms)
        assert after.expires_ms - before.expires_ms > DAY_S * 500


async def test_leaving_is_told_and_done_on_both_sides(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, alice, carol):
        await federate(alice, carol)
        identifier = await federation(alice).leave("@Carol", wait=True)
        assert await peers(alice) == []
        await trio.sleep(5)
        assert await peers(carol) == []
        [event] = await seen(carol, "LEAVE")
        assert (event.id, event.sender) == (identifier, await key(alice))
        with pytest.raises(NotFound, match="is no peer"):
            await federation(alice).peer(await key(carol))
        # A second notice concerns nobody.
        await federation(alice).leave(await key(carol), wait=True)
        await trio.sleep(5)
        assert len(await seen(carol, "LEAVE")) == 1
        assert await counter(carol, "dropped_messages") == 1


async def test_an_answer_that_comes_after_leaving_does_not_count(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, alice, carol):
        await carol.wait_ready()
        await federation(alice).request(await key(carol))
        await federation(alice).leave(await key(carol))
        await trio.sleep(60)
        assert await peers(alice) == await peers(carol) == []
        assert await seen(alice, "FEDERATE") == []
        assert await counter(alice, "dropped_messages") == 1


@pytest.mark.slow
async def test_a_peers_time_ends_with_an_event_also_while_we_are_down(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall, ttl_s=DAY_S) as (_where, alice, carol):
        await federate(alice, carol)
        you = await key(carol)
        await trio.sleep(DAY_S - 100)
        assert await peers(alice) == [("Carol", you)]
        await trio.sleep(200)
        assert await peers(alice) == []
        with pytest.raises(NotFound):
            await alice.resolve("@Carol")
        [event] = await seen(alice, "EXPIRED")
        assert detail(event) == {"recordId": "EXPIRED", "impId": "Carol", "pubkey": you.hex}
        assert event.sender == await key(alice)
        assert len(await peers(carol)) == 1  # we let ourselves be remembered for a year
        await federation(carol).request(await key(alice), wait=True)
        await trio.sleep(60)
        assert await peers(alice) == [("Carol", you)]


@pytest.mark.slow
async def test_expiry_while_down_is_told_at_the_next_start(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        named(where, "Carol", ttl_s=DAY_S)
        async with where.node("carol") as carol:
            named(where, "Alice")
            async with where.node("alice") as alice:
                await federate(alice, carol)
            await trio.sleep(2 * DAY_S)
            async with where.node("alice") as alice:
                await trio.sleep(1)
                assert len(await seen(alice, "EXPIRED")) == 1
                assert await peers(alice) == []


# --- Policies ---------------------------------------------------------------------------------------------------------


async def test_ask_waits_for_a_word(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask") as (_where, alice, carol):
        me, you = await key(alice), await key(carol)
        with pytest.raises(NotFound, match="has not asked to federate"):
            await federation(carol).accept(me)
        identifier = await federation(alice).request(you, wait=True)
        [request] = await take(carol, 1, service="federate")
        assert request.id == identifier
        await trio.sleep(60)
        assert await peers(alice) == await peers(carol) == []
        [waits] = await federation(carol).requests()
        assert (waits.id, waits.pubkey, waits.imp_id) == (identifier, me, "Alice")
        assert (waits.ttl_s, waits.services) == (31_560_000, tuple(detail(request)["services"]))
        assert request.sent_at_ms < waits.asked_at_ms <= wall() - 60_000
        assert waits.expires_ms - waits.asked_at_ms == 7 * DAY_S * 1000
        await federation(carol).accept(me)
        assert await federation(carol).requests() == []
        [answer] = await take(alice, 1, service="federate")
        assert (answer.reply_to, detail(answer)["answer"]) == (identifier, True)
        assert (await peers(alice), await peers(carol)) == ([("Carol", you)], [("Alice", me)])
        with pytest.raises(NotFound, match="has not asked"):
            await federation(carol).accept(me)


async def test_who_asks_again_waits_once_and_the_longest_wait_comes_first(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask") as (where, alice, carol):
        named(where, "Bob")
        async with where.node("bob") as bob:
            for node in (alice, bob, alice):
                last = await federation(node).request(await key(carol), wait=True)
                await trio.sleep(10)
            waiting = await federation(carol).requests()
            assert [each.imp_id for each in waiting] == ["Bob", "Alice"]
            assert waiting[1].id == last


async def test_a_word_with_a_key_is_given_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask") as (_where, alice, carol):
        me, you = await key(alice), await key(carol)
        for word, there in ((federation(carol).reject, 0), (federation(carol).accept, 1)):
            await federation(alice).request(you, wait=True)
            await take(carol, 1, service="federate")
            given = [await word(me, idempotency_key=word.__name__) for _ in range(2)]
            assert given[0] == given[1]
            await trio.sleep(60)
            assert len(await peers(alice)) == len(await peers(carol)) == there
        with pytest.raises(AlreadyExists):
            await federation(carol).reject(me, idempotency_key="accept")


async def test_a_refusal_is_told(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask") as (_where, alice, carol):
        identifier = await federation(alice).request(await key(carol), wait=True)
        await take(carol, 1, service="federate")
        await federation(carol).reject(await key(alice))
        [answer] = await take(alice, 1, service="federate")
        assert (answer.reply_to, detail(answer)) == (identifier, {"recordId": "LEAVE"})
        assert await peers(alice) == await peers(carol) == []
        with pytest.raises(NotFound):
            await federation(carol).reject(await key(alice))


@pytest.mark.slow
async def test_what_was_asked_is_forgotten_after_a_week_or_on_leaving(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask") as (_where, alice, carol):
        for pause_s, leaves in ((8 * DAY_S, False), (60, True)):
            await federation(alice).request(await key(carol), wait=True)
            if leaves:
                await federation(alice).leave(await key(carol), wait=True)
            await trio.sleep(pause_s)
            assert await federation(carol).requests() == []
            with pytest.raises(NotFound):
                await federation(carol).accept(await key(alice))
        assert len(await seen(carol, "LEAVE")) == 1


async def test_none_remembers_nobody_who_was_not_asked(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall, accept="none") as (_where, alice, carol):
        await federation(alice).request(await key(carol), wait=True)
        await trio.sleep(60)
        assert await everything(carol) == []
        assert await counter(carol, "dropped_messages") == 1
        await federate(carol, alice)
        assert (await peers(carol), await peers(alice)) == (
            [("Alice", await key(alice))],
            [("Carol", await key(carol))],
        )


async def test_without_a_name_federation_is_off(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall, names=("Alice", None)) as (_where, alice, carol):
        await alice.wait_ready()
        with pytest.raises(FailedPrecondition, match=r"set federate\.imp_id"):
            await federation(carol).request(await key(alice))
        await federation(alice).request(await key(carol), wait=True)
        await trio.sleep(10)
        assert await peers(carol) == []
        assert await everything(carol) == []


@pytest.mark.slow
async def test_only_peers_are_heard_if_the_operator_says_so(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        named(where, "Alice")
        async with where.node("alice") as alice:
            named(where, "Carol")
            where.config = replace(where.config, message=replace(Config().message, accept_from="federated"))
            async with where.node("carol") as carol:
                you = await key(carol)
                await alice.messages.send(you, b"from a stranger", wait=True)
                await federation(alice).request(you)
                await alice.messages.send(you, b"from a peer", wait=True)
                await alice.messages.send(you, b"from a peer", wait=True)
                events = await take(carol, 2, service="message")
                assert {event.data for event in events} == {b"from a peer"}
                assert await counter(carol, "dropped_messages") == 1


# --- Bad input --------------------------------------------------------------------------------------------------------


async def test_bad_requests_say_what_to_do_and_do_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall) as (where, alice, carol):
        await key(carol)
        service = federation(alice)
        for call in (service.request, service.leave):
            with pytest.raises(InvalidArgument, match="this node's own"):
                await call(await key(alice))
            with pytest.raises(InvalidArgument, match="66 hex digits"):
                await call("02")
            with pytest.raises(InvalidArgument, match="missing"):
                await call("")
            with pytest.raises(NotFound, match="no peer goes by @"):
                await call("@")
        where.network.lnd("alice").lock()
        with pytest.raises(NodeUnavailable, match="lock"):
            await service.request(await key(carol))
        where.network.lnd("alice").unlock()
        await trio.sleep(60)
        assert await everything(alice) == await everything(carol) == []


STRANGER = b"02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5"
LIES = [
    b"no JSON",
    b'{"recordId":"QUOTE"}',
    b'{"recordId":"LEAVE"}',
    b'{"recordId":"FEDERATE","impId":"x\\n","pubkey":"%b","ttl":60}',
    b'{"recordId":"FEDERATE","impId":"x","pubkey":"%b","ttl":0}',
    b'{"recordId":"FEDERATE","impId":"x","pubkey":"%b","ttl":60,"answer":true}',
    b'{"recordId":"FEDERATE","impId":"x","pubkey":"' + STRANGER + b'","ttl":60}',
]


@pytest.mark.parametrize("payload", LIES)
async def test_what_is_not_true_or_not_asked_for_is_dropped_and_counted(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, payload: bytes
) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, alice, carol):
        mine = (await key(alice)).hex.encode()
        data = payload % mine if b"%b" in payload else payload
        await federation(alice).context.send(await key(carol), data)
        await alice.service(MessageService).send(await key(carol), b"goes on", wait=True)
        [event] = await take(carol, 1, seconds=5)
        assert event.data == b"goes on"
        assert await peers(carol) == []
        assert await counter(carol, "dropped_messages") == 1


async def test_an_answer_counts_once_and_from_the_node_that_was_asked(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_carol(tmp_path, wall, accept="ask") as (where, alice, carol):
        named(where, "Bob")
        async with where.node("bob") as bob:
            identifier = await federation(alice).request(await key(carol), wait=True)
            for liar in (bob, carol, carol):
                lie = await introduction(liar)
                await federation(liar).context.send(await key(alice), lie, reply_to=identifier)
            await trio.sleep(60)
            assert await peers(alice) == [("Carol", await key(carol))]
            assert len(await seen(alice, "FEDERATE")) == 1
            assert await counter(alice, "dropped_messages") == 2


@pytest.mark.slow
async def test_one_node_cannot_make_us_answer_for_ever(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_carol(tmp_path, wall) as (_where, alice, carol):
        you = await key(carol)
        await alice.wait_ready()
        for _ in range(25):
            await federation(alice).request(you)
        await take(carol, 25, service="federate")
        await trio.sleep(120)
        assert len(await seen(alice, "FEDERATE")) == 20
        assert await counter(carol, "refused_answers") == 5
        # One sat pays for no answer that may cost two.
        cheap = await introduction(alice, answer=False)
        await trio.sleep(3600)
        await federation(alice).context.send(you, cheap, amount=Msat(1000))
        await trio.sleep(60)
        assert len(await seen(alice, "FEDERATE")) == 20
        assert await counter(carol, "refused_answers") == 6


async def test_peers_survive_a_restart(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        named(where, "Same")
        async with where.node("carol") as carol:
            async with where.node("alice") as alice:
                await federate(alice, carol)
                before: list[Peer] = await federation(alice).peers()
            async with where.node("alice") as alice:
                assert await federation(alice).peers() == before != []
