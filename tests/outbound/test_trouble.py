"""From one daemon's call to another's event while LND or the route misbehaves, on the simulated network."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.walks import everything, stage, take
from trio.testing import MockClock

from impervious.errors import DeliveryFailed
from impervious.model import MessageId, Preimage
from impervious.store import outbox
from impervious.supervisor import Node


async def delivered(node: Node, sent: list[MessageId]) -> None:
    for each in sent:
        await node.messages.context.wait(each)


async def first_delivered(node: Node, sent: list[MessageId]) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(message_id: MessageId) -> None:
            await node.messages.context.wait(message_id)
            nursery.cancel_scope.cancel()

        for each in sent:
            nursery.start_soon(wait, each)


async def preimage(node: Node, message_id: MessageId) -> Preimage:
    """Of a message of one part."""
    _, [part] = await node.messages.context.read(lambda tx: outbox.load(tx._tx, message_id))
    return part.preimage


async def states(node: Node) -> Counter[str]:
    """What the stream said of this node's own messages."""
    return Counter(
        json.loads(event.data)["state"] for event in await everything(node) if event.service_type == "status"
    )


async def test_a_recipient_that_holds_payments_stops_nothing_for_longer_than_its_time(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        where.config = replace(where.config, message=replace(where.config.message, ttl_s=20))
        where.network.lnd("carol").hold_keysends(600)
        async with where.node("alice") as alice:
            to = where.network.node("carol").pubkey
            held = [await alice.messages.send(to, f"{number}") for number in range(16)]
            queued = [await alice.messages.send(to, f"{number}") for number in range(2)]
            with trio.fail_after(25):
                with pytest.raises(DeliveryFailed, match="16 earlier payments to the recipient have not ended"):
                    await alice.messages.send(to, "and me?", wait=True)
                for each in queued:
                    assert (await alice.messages.get(each)).state == "failed"
            await trio.sleep(10)
            assert await states(alice) == {"failed": 3, "pending": 16}
            assert {(await alice.messages.get(each)).state for each in held} == {"pending"}
            for each in held[:8]:
                where.network.lnd("carol").settle_invoice(await preimage(alice, each))
            with trio.fail_after(600):
                await delivered(alice, held[:8])
                for each in held[8:]:  # lnd gives them back in the end
                    with pytest.raises(DeliveryFailed, match="keysend-hold-time"):
                        await alice.messages.context.wait(each)
            assert await states(alice) == {"failed": 3 + 8, "pending": 16, "delivered": 8}


async def test_payments_that_a_killed_node_forgot_stop_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        lnd = where.network.lnd("alice")
        async with where.node("alice") as alice, where.node("carol") as carol:
            to = where.network.node("carol").pubkey
            where.network.lnd("carol").delay_arrivals(5)
            await alice.messages.send(to, b"x" * 90_000)
            await trio.sleep(3)
            lnd.kill(strands=True)
            where.network.lnd("carol").delay_arrivals(0)
            lnd.start()
            with trio.fail_after(60):
                for number in range(40):
                    await alice.messages.send(to, f"{number}", wait=True)
            assert len(await take(carol, 40, service="message")) == 40
            assert (await states(alice))["delivered"] == 40


@pytest.mark.parametrize("away_s", [15, 120])
async def test_after_an_outage_the_first_message_goes_at_once_and_the_others_with_it(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, away_s: int
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice, where.node("carol"):
            to = where.network.node("carol").pubkey
            await alice.messages.send(to, "before", wait=True)
            where.network.lnd("carol").go_offline(away_s)  # bob's channel with it is nothing that alice hears of
            sent = [await alice.messages.send(to, f"{number}") for number in range(20)]
            await trio.sleep(away_s)
            with trio.fail_after(5):
                await first_delivered(alice, sent)
            with trio.fail_after(3):
                await delivered(alice, sent)
            assert (await states(alice))["retrying"] >= 20


async def test_after_an_outage_of_its_own_peer_messages_go_when_the_channel_is_active(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice, where.node("carol"):
            to = where.network.node("carol").pubkey
            where.network.lnd("bob").go_offline(1_000)
            sent = [await alice.messages.send(to, f"{number}") for number in range(20)]
            await trio.sleep(1_000)
            with trio.fail_after(3):
                await delivered(alice, sent)


async def test_after_its_own_wallet_was_locked_messages_go_when_it_is_open(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice, where.node("carol"):
            to = where.network.node("carol").pubkey
            sent = [await alice.messages.send(to, f"{number}") for number in range(20)]
            where.network.lnd("alice").lock(15)
            await trio.sleep(15)
            with trio.fail_after(5):
                await delivered(alice, sent)
