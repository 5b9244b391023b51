"""The key-value store of another party, on two nodes of a simulated network in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from examples.key_value import KeyValueService, read
from tests.conftest import Wall
from tests.walks import Stage, everything, stage, take
from trio.testing import MockClock

from impervious.config import Config, ServiceConfig
from impervious.errors import ConfigError, DeliveryFailed, FailedPrecondition, InvalidArgument, Malformed
from impervious.model import NodePubkey
from impervious.supervisor import Node
from impervious.units import Msat, Sat

SOURCE = Path("examples/key_value.py")


def kv(node: Node) -> KeyValueService:
    return node.service(KeyValueService)


async def key_of(node: Node) -> NodePubkey:
    return (await node.wait_ready()).pubkey


async def purse(where: Stage, name: str) -> Msat:
    return (await where.network.node(name).balance()).local


@asynccontextmanager
async def shop(folder: Path, wall: Wall, data: object = None) -> AsyncIterator[tuple[Stage, Node, Node]]:
    """Alice, and Carol who keeps values; `data` is what both are told."""
    async with stage(folder, wall) as where:
        entry = ServiceConfig(service_type=KeyValueService.service_type, data=data)
        where.config = replace(where.config, services=(*Config().services, entry))
        async with where.node("alice", KeyValueService) as alice, where.node("carol", KeyValueService) as carol:
            yield where, alice, carol


def test_it_is_short() -> None:
    assert len(SOURCE.read_text().splitlines()) < 120


async def test_a_value_is_kept_and_returned_for_money(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    value = b"\x00\xff" * 250
    async with shop(tmp_path, wall, {"price_msat_per_byte": 100}) as (where, alice, carol):
        store = await key_of(carol)
        before = await purse(where, "carol")
        assert await kv(alice).put(store, "color", value) == {"stored": "500"}
        await trio.sleep(1)
        assert 50_000 <= await purse(where, "carol") - before <= 51_000  # its answers may cost what came for them
        assert await kv(alice).get(store, "color") == {"value": value}
        await trio.sleep(1)
        assert 100_000 <= await purse(where, "carol") - before <= 102_000
        assert await kv(alice).put(store, "color", b"") == {"stored": "0"}
        assert await kv(alice).get(store, "color") == {"value": b""}


async def test_too_little_buys_nothing_and_comes_back(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with shop(tmp_path, wall) as (where, alice, carol):
        store = await key_of(carol)
        assert await kv(alice).put(store, "k", b"x" * 100) == {"stored": "100"}
        await trio.sleep(1)
        before = await purse(where, "alice")
        with pytest.raises(FailedPrecondition, match=f"{store} says: that costs 6 sat"):
            await kv(alice).put(store, "k", b"y" * 400, Sat(5))
        await trio.sleep(1)
        assert before - await purse(where, "alice") <= 3_000  # the fee there, and the answer's way back
        with pytest.raises(FailedPrecondition, match="that costs 3 sat"):
            await kv(alice).get(store, "k", Sat(2))
        assert await kv(alice).get(store, "k", Sat(3)) == {"value": b"x" * 100}


async def test_everybody_has_keys_of_their_own(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with shop(tmp_path, wall) as (where, alice, carol), where.node("bob", KeyValueService) as bob:
        store = await key_of(carol)
        await kv(alice).put(store, "k", b"of alice")
        with pytest.raises(FailedPrecondition, match="there is no such key"):
            await kv(bob).get(store, "k")
        await kv(bob).put(store, "k", b"of bob")
        assert await kv(alice).get(store, "k") == {"value": b"of alice"}


async def test_values_outlive_the_store(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", KeyValueService) as alice:
        async with where.node("carol", KeyValueService) as carol:
            store = await key_of(carol)
            await kv(alice).put(store, "k", b"kept")
        async with where.node("carol", KeyValueService):
            assert await kv(alice).get(store, "k") == {"value": b"kept"}


async def test_who_does_not_answer_is_named(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", KeyValueService) as alice:
        async with where.node("carol", KeyValueService) as carol:
            store = await key_of(carol)
        begun = trio.current_time()
        # Its Lightning node takes the money; nobody deals with the request.
        with pytest.raises(FailedPrecondition, match="was paid and is silent; its answer will be an event"):
            await kv(alice).get(store, "k")
        assert 60 <= trio.current_time() - begun < 70
        async with where.node("carol", KeyValueService):
            [late] = await take(alice, 1, service="kv")
            assert late.data == b'{"error": "there is no such key"}'
        where.network.lnd("carol").kill()
        with pytest.raises(DeliveryFailed):
            await kv(alice).get(store, "k")


async def test_answers_that_nobody_asked_for_vanish(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with shop(tmp_path, wall) as (_, alice, carol):
        sent = await kv(alice).context.send(await key_of(carol), b'{"key": "unknown"}')
        await take(carol, 1, service="kv")
        await kv(carol).context.send(await key_of(alice), b'{"value": "aGk="}', reply_to=sent)
        await kv(carol).context.send(await key_of(alice), b"[1]", reply_to=sent)
        await trio.sleep(60)
        assert [event for event in await everything(alice) if event.service_type == "kv"] == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"null", b"[1]", b"3", b'{"key": 3}', b'{"key": "\\ud800"}', b'{"value": "?"}', b"[" * 100_000],
)
def test_what_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="no request and no answer"):
        read(data)


@pytest.mark.parametrize("data", ["x", [1], {"price_msat_per_byte": "10"}, {"price_msat_per_byte": -1}])
async def test_what_it_is_told_is_checked(tmp_path: Path, wall: Wall, data: object, autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigError, match="price_msat_per_byte must be a whole number from 0"):
        async with shop(tmp_path, wall, data):
            pass


async def test_a_node_does_not_ask_itself(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with shop(tmp_path, wall) as (_, alice, _carol):
        with pytest.raises(InvalidArgument, match="own"):
            await kv(alice).get(await key_of(alice), "k")
