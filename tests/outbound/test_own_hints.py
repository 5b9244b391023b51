"""A node that has only private channels, from end to end: its messages bring the way back to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.server.house import BOB, LoneNode
from tests.walks import Stage, stage, take
from trio.testing import MockClock

from impervious.errors import DeliveryFailed, NodeUnavailable
from impervious.model import HopHint, RouteHint
from impervious.outbound.own_hints import AGAIN_S, FRESH_S, OwnHints
from impervious.services.federate import FederateService
from impervious.services.lightning import LightningService
from impervious.sim import ChannelSpec, SimNetwork
from impervious.supervisor import Node
from impervious.units import Msat, Sat


@asynccontextmanager
async def alice_and_erin(folder: Path, wall: Wall) -> AsyncIterator[tuple[Stage, Node, Node]]:
    """alice - bob - erin, whose only channel is private."""
    hidden = ChannelSpec(first="bob", second="erin", capacity=Sat(1_000_000), private=True)
    network = SimNetwork(["alice", "bob", "erin"], ["alice-bob:1000000", hidden], seed=1, now=lambda: wall() / 1000)
    async with stage(folder, wall, network=network) as where:
        where.config = replace(where.config, federate=replace(where.config.federate, imp_id="alice"))
        async with where.node("alice") as alice:
            where.config = replace(where.config, federate=replace(where.config.federate, imp_id="erin"))
            async with where.node("erin") as erin:
                yield where, alice, erin


async def test_who_has_private_channels_only_can_be_answered(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with alice_and_erin(tmp_path, wall) as (_, alice, erin):
        me, you = (await alice.wait_ready()).pubkey, (await erin.wait_ready()).pubkey
        with pytest.raises(DeliveryFailed, match="private channels only"):
            await alice.messages.send(you, "who are you?", wait=True)
        await erin.messages.send(me, "hello", wait=True)
        await take(alice, 1, service="message")
        await alice.messages.send(you, "hello", wait=True)
        await alice.messages.send(you, b"x" * 4_000, wait=True)
        await alice.service(LightningService).keysend(you, Sat(5))
        assert [len(event.data) for event in await take(erin, 2, service="message")] == [5, 4_000]


async def test_federation_is_mutual_also_then(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_erin(tmp_path, wall) as (_, alice, erin):
        await erin.service(FederateService).request((await alice.wait_ready()).pubkey, wait=True)
        await take(erin, 1, service="federate")
        assert [peer.imp_id for peer in await erin.service(FederateService).peers()] == ["alice"]
        assert [peer.imp_id for peer in await alice.service(FederateService).peers()] == ["erin"]


async def test_its_invoices_can_be_paid(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with alice_and_erin(tmp_path, wall) as (_, alice, erin):
        made = await erin.service(LightningService).generate(Sat(10))
        await alice.service(LightningService).pay(made.payment_request)


class Asked(LoneNode):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False

    async def route_hints(self) -> Sequence[RouteHint]:
        self.asked += 1
        if self.away:
            raise NodeUnavailable("away")
        return await super().route_hints()


async def test_the_node_is_asked_seldom(autojump_clock: MockClock) -> None:
    node = Asked()
    node.ways = [(HopHint(pubkey=BOB, chan_id=1, base_fee=Msat(1), fee_ppm=1, cltv_delta=1),)]
    own = OwnHints(node)
    for _ in range(3):
        assert await own.get() == tuple(node.ways)
    assert node.asked == 1
    own.expire()
    await trio.sleep(AGAIN_S)
    node.away = True
    for _ in range(3):
        assert await own.get() == tuple(node.ways)  # better than none
    assert node.asked == 2
    await trio.sleep(AGAIN_S)
    node.away = False
    await own.get()
    await trio.sleep(FRESH_S - 1)
    await own.get()
    assert node.asked == 3
