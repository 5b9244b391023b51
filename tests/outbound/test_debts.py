"""Debts that cannot be delivered: kept, told of, tried again, paid once."""

import logging
from pathlib import Path

import pytest
from tests.conftest import Wall
from tests.outbound.bench import ALICE, Bench, open_bench
from trio.testing import MockClock

from impervious.errors import PaymentFailure
from impervious.model import KeysendSupport, MessageId, PaymentStatus
from impervious.outbound import debts
from impervious.store import outbox, upkeep
from impervious.store.upkeep import Retention
from impervious.units import Msat, Sat

REFUSED = PaymentFailure.INCORRECT_PAYMENT_DETAILS
HOUR_MS = 3_600_000


async def take_up(bench: Bench) -> int:
    return await bench.store.write(lambda tx: debts.take_up(tx, bench.policy))


async def failed(bench: Bench, *, amount: int = 60_000, received: int = 63_000) -> MessageId:
    """Owe something to a node that takes no keysends, and try."""
    message_id = await bench.accept(b"refund", amount=amount, obligation=True, received=received)
    bench.node.support = KeysendSupport.NO
    bench.node.answers.append(REFUSED)
    assert (await bench.deliver(message_id))["state"] == "failed"
    return message_id


async def test_a_debt_that_cannot_be_delivered_is_told_of_and_tried_again_until_it_arrives(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with open_bench(tmp_path, wall, daily_limit=Sat(0)) as bench:
        message_id = await failed(bench)
        assert "message owes" in caplog.text
        assert ALICE.hex in caplog.text
        assert "60000 msat" in caplog.text
        assert await bench.store.read(outbox.count_debts) == 1
        assert (await bench.store.read(upkeep.summary)).counters["undelivered_debts"] == 1
        assert await take_up(bench) == 0, "an hour later"
        for wait_h in (1, 2, 4, 8, 16, 24, 24):
            wall.offset_ms += wait_h * HOUR_MS - 60_000
            assert await take_up(bench) == 0, wait_h
            wall.offset_ms += 60_000
            bench.node.answers.append(REFUSED)
            assert await take_up(bench) == 1
            outcome = await bench.deliver(message_id)
            assert outcome["state"] == "failed"
            assert outcome["next_try_ms"] > wall()
        await bench.store.write(outbox.hasten_debts)
        assert await take_up(bench) == 1
        assert (await bench.deliver(message_id))["state"] == "delivered"
        assert sum(bench.node.settled.values()) == 60_000
        assert len({each.payment_hash for each in bench.node.sent}) == 9, "each time with a new preimage"
        assert all(each.amount + each.fee_limit <= 63_000 for each in bench.node.sent)
        headers = [each.envelope.signed_header for each in bench.node.sent]
        assert len({each.header.order for each in headers if each}) == 9
        assert await bench.spent() == 0
        assert await bench.store.read(outbox.count_debts) == 0
        await bench.store.write(outbox.hasten_debts)
        assert await take_up(bench) == 0


async def test_a_debt_is_kept_however_old(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        message_id = await failed(bench)
        other = await bench.accept(b"a message")
        assert (await bench.deliver(other))["state"] == "delivered"
        wall.offset_ms += 30 * 24 * HOUR_MS
        await bench.store.write(lambda tx: upkeep.tidy(tx, Retention(events_days=1, events_mb=0, idempotency_days=7)))
        assert await bench.store.read(lambda tx: outbox.state(tx, other)) is None
        assert await take_up(bench) == 1
        assert (await bench.deliver(message_id))["state"] == "delivered"


async def test_many_debts_are_taken_up_some_at_a_time(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debts, "AT_A_TIME", 2)
    async with open_bench(tmp_path, wall) as bench:
        owed = [await failed(bench) for _ in range(3)]
        wall.offset_ms += HOUR_MS
        assert [await take_up(bench) for _ in range(3)] == [2, 1, 0]
        for message_id in owed:
            assert (await bench.deliver(message_id))["state"] == "delivered"
        assert sum(bench.node.settled.values()) == 3 * 60_000


async def test_of_a_debt_that_arrived_in_part_nothing_is_sent_twice(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1) as bench:
        message_id = await bench.accept(b"x" * 1_800, amount=60_000, obligation=True, received=100_000)
        bench.node.support = KeysendSupport.NO
        bench.node.answers.extend([PaymentStatus.SUCCEEDED, REFUSED])
        outcome = await bench.deliver(message_id)
        assert (outcome["state"], outcome["parts_settled"]) == ("failed", 1)
        assert "next_try_ms" not in outcome
        wall.offset_ms += 24 * HOUR_MS
        assert await take_up(bench) == 0


async def test_a_message_of_ours_that_failed_is_no_debt(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        message_id = await bench.accept(received=2_000)
        bench.node.support = KeysendSupport.NO
        bench.node.answers.append(REFUSED)
        outcome = await bench.deliver(message_id)
        assert outcome["state"] == "failed"
        assert "next_try_ms" not in outcome
        wall.offset_ms += 24 * HOUR_MS
        assert await take_up(bench) == 0


async def test_a_debt_that_nothing_pays_for_counts_when_it_is_tried_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, part_fee_limit=Msat(3_000)) as bench:
        await failed(bench, received=0)
        assert await bench.spent() == 0
        wall.offset_ms += HOUR_MS
        assert await take_up(bench) == 1
        assert await bench.spent() == 63_000


@pytest.mark.parametrize(
    ("received", "fees"), [(60_000, [0, 0]), (60_800, [400, 400]), (63_000, [1_500, 1_500]), (99_000, [3_000, 3_000])]
)
async def test_a_debt_that_is_tried_again_costs_no_more_than_came_in_for_it(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, received: int, fees: list[int]
) -> None:
    async with open_bench(tmp_path, wall, part_fee_limit=Msat(3_000)) as bench:
        message_id = await bench.accept(b"x" * 1_000, amount=60_000, obligation=True, received=received)
        bench.node.support = KeysendSupport.NO
        bench.node.answers.extend([REFUSED, REFUSED])
        assert (await bench.deliver(message_id))["state"] == "failed"
        wall.offset_ms += HOUR_MS
        assert await take_up(bench) == 1
        parts = await bench.parts(message_id)
        assert [part.fee_limit for part in parts] == fees
        assert sum(part.amount for part in parts) == 60_000
        assert await bench.spent() == 0
