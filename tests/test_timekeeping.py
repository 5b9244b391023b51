"""Nodes whose machine's clock jumps, on a network that knows the time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.walks import Stage, detail, everything, stage, take
from trio.testing import MockClock

from impervious.errors import FailedPrecondition, ResourceExhausted
from impervious.model import NodePubkey, NodeState, PaymentStatus
from impervious.services.lightning import LightningService
from impervious.sim import SimNetwork
from impervious.store import spending
from impervious.supervisor import TIDY_EVERY_S, Node
from impervious.timekeeping import COMPARE_EVERY_S
from impervious.units import Sat

DAY_MS = 86_400_000


@asynccontextmanager
async def town(folder: Path, wall: Wall) -> AsyncIterator[Stage]:
    """A network with a clock of its own; `wall` is that of the daemons' machine."""
    chain = Wall()
    network = SimNetwork(
        ["alice", "bob", "carol"], ["alice-bob:1000000", "bob-carol:1000000"], seed=1, now=lambda: chain() / 1000
    )
    async with stage(folder, wall, network=network) as where:
        yield where


def key_of(where: Stage, name: str) -> NodePubkey:
    return where.network.node(name).pubkey


async def paid(where: Stage, name: str = "alice") -> int:
    return len((await where.network.node(name).list_payments()).payments)


async def paid_for(where: Stage) -> list[PaymentStatus]:
    """What has cost alice something, or may yet."""
    payments = (await where.network.node("alice").list_payments()).payments
    return [each.status for each in payments if each.status is not PaymentStatus.FAILED]


async def spent(node: Node) -> int:
    return await node.messages.context.read(lambda tx: spending.spent(tx._tx))


async def keys(node: Node) -> int:
    rows = await node.messages.context.read(lambda tx: tx._tx.all("SELECT * FROM idempotency"))
    return len(rows)


@pytest.mark.parametrize("days", [9, 400, -9])
async def test_a_start_with_a_wrong_clock_forgets_no_key_and_no_budget(
    days: int, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with town(tmp_path, wall) as where:
        where.config = replace(where.config, lightning=replace(where.config.lightning, daily_limit_sat=Sat(60)))
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            first = await alice.messages.send(carol, b"once", amount=Sat(30), idempotency_key="k", wait=True)
            await alice.service(LightningService).keysend(carol, Sat(1), idempotency_key="p")
        right = wall.offset_ms
        wall.offset_ms += days * DAY_MS
        async with where.node("alice") as alice:
            await trio.sleep(10)
            assert alice.status.state is NodeState.PAYING_NOTHING
            assert f"{abs(days)} days {'ahead' if days > 0 else 'behind'}" in alice.status.reason
            assert await alice.messages.send(carol, b"once", amount=Sat(30), idempotency_key="k") == first
            with pytest.raises(FailedPrecondition, match="this machine's clock says"):
                await alice.messages.send(carol, b"more")
            with pytest.raises(FailedPrecondition, match="this machine's clock says"):
                await alice.service(LightningService).keysend(carol, Sat(1), idempotency_key="p")
            await trio.sleep(2 * TIDY_EVERY_S)
            assert (await keys(alice), await paid(where)) == (1, 2)
            wall.offset_ms = right
            await trio.sleep(10)
            assert alice.status.ready
            with pytest.raises(ResourceExhausted, match="of the 60 sat allowed in 24 hours"):
                await alice.messages.send(carol, b"more", amount=Sat(30))
            await alice.service(LightningService).keysend(carol, Sat(1), idempotency_key="p")
            assert (await keys(alice), await paid(where)) == (1, 2)


async def test_a_jump_ahead_and_back_leaves_the_budget_as_it_was(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with town(tmp_path, wall) as where, where.node("alice") as alice:
        carol = key_of(where, "carol")
        await alice.messages.send(carol, b"before", amount=Sat(10), wait=True)
        before = await spent(alice)
        wall.offset_ms += 9 * DAY_MS
        assert await spent(alice) == before
        with pytest.raises(FailedPrecondition, match="9 days ahead"):
            await alice.messages.send(carol, b"meanwhile")
        await trio.sleep(2 * TIDY_EVERY_S)
        assert await spent(alice) == before
        wall.offset_ms -= 9 * DAY_MS
        await alice.messages.send(carol, b"after", amount=Sat(10), wait=True)
        assert await spent(alice) == 2 * before
        await trio.sleep(86_400)
        assert await spent(alice) == 0


async def test_a_machine_that_slept_is_believed_at_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice") as alice:
        carol = key_of(where, "carol")
        await alice.messages.send(carol, b"before", wait=True)
        wall.offset_ms += 9 * DAY_MS  # the network's, too
        await alice.messages.send(carol, b"after", wait=True)
        assert alice.status.ready
        await trio.sleep(COMPARE_EVERY_S)
        assert await spent(alice) < 10_000


async def test_what_the_recipient_would_not_believe_waits_and_is_not_paid(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    machine = Wall()
    async with town(tmp_path, machine) as where:
        bob, carol = where.network.lnd("bob"), key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            bob.stop()
            await alice.messages.send(carol, b"letter")
        bob.start()
        machine.offset_ms -= 60 * DAY_MS
        async with where.node("alice") as alice:
            await trio.sleep(600)
            assert not await paid_for(where)
            with pytest.raises(FailedPrecondition, match="60 days behind; set it"):
                await alice.messages.send(carol, b"another")
            machine.offset_ms += 60 * DAY_MS
            await take(alice, 1, service="status", starting=b'{"state": "delivered"')
        async with where.node("carol") as receiver:
            [event] = await take(receiver, 1, service="message")
            assert event.data == b"letter"


async def test_what_waits_for_the_clock_until_its_time_is_over_says_why(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    machine = Wall()
    async with town(tmp_path, machine) as where:
        bob, carol = where.network.lnd("bob"), key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.wait_ready()
            bob.stop()
            await alice.messages.send(carol, b"letter")
        bob.start()
        machine.offset_ms += 60 * DAY_MS
        async with where.node("alice") as alice:
            await trio.sleep(600)
            told = [detail(each) for each in await everything(alice)]
            assert {each["state"] for each in told} == {"retrying"}  # by the chain its time is not over
            assert "60 days ahead; set it" in told[-1]["reason"]
            [outcome] = await take(alice, 1, service="status", seconds=4000, starting=b'{"state": "failed"')
            assert "60 days ahead; set it" in detail(outcome)["reason"]
            assert not await paid_for(where)


async def test_what_was_accepted_before_the_chain_was_asked_has_all_its_time(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        carol = key_of(where, "carol")
        async with where.node("alice") as alice:
            await alice.messages.send(carol, b"before", wait=True)
        where.network.lnd("alice").stop()
        wall.offset_ms += 2 * DAY_MS  # it was off for so long
        async with where.node("alice") as alice:
            await trio.sleep(10)
            identifier = await alice.messages.context.transaction(lambda tx: tx.send(carol, b"by itself"))
            await trio.sleep(10)
            where.network.lnd("alice").start()
            await alice.messages.context.wait(identifier)


async def test_money_spent_by_a_clock_that_was_ahead_counts_for_a_day_from_now(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice") as alice:
            await alice.messages.send(key_of(where, "carol"), b"x", wait=True)
            await alice.messages.context.transaction(
                lambda tx: tx._tx.run("UPDATE spending SET at_ms = at_ms + ?", 9 * DAY_MS)
            )
        async with where.node("alice") as alice:
            await trio.sleep(10)
            assert await spent(alice) > 0
            await trio.sleep(86_400)
            assert await spent(alice) == 0
