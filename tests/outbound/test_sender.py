"""Many messages at once: who waits for whom."""

from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.outbound.bench import ALICE, BOB, open_bench
from trio.testing import MockClock

from impervious.errors import DeliveryFailed, NodeRefused, NotFound, PaymentFailure
from impervious.outbound import sender
from impervious.outbound.sender import MAX_IN_FLIGHT


async def test_payments_to_one_recipient_overlap_up_to_a_limit(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=4) as bench:
        sent = [await bench.accept(b"x" * 2_000) for _ in range(5)]  # three parts each
        async with bench.delivering():
            for each in sent:
                await bench.outcome(each)
        assert bench.node.most_under_way == 4
        assert len(bench.node.settled) == 15


async def test_no_more_than_a_channel_holds_are_under_way(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=10 * MAX_IN_FLIGHT) as bench:
        sent = [await bench.accept(b"x" * 900 * 200, to=to) for to in (ALICE, BOB)]
        async with bench.delivering():
            for each in sent:
                await bench.outcome(each)
        assert bench.node.most_under_way == MAX_IN_FLIGHT


async def test_one_recipient_does_not_hold_up_another(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1) as bench:
        bench.node.settlement_s = 100
        first, second = await bench.accept(to=ALICE), await bench.accept(to=ALICE)
        other = await bench.accept(to=BOB)
        async with bench.delivering():
            await bench.outcome(other)
            assert trio.current_time() == pytest.approx(100, abs=1)
            await bench.outcome(first)
            await bench.outcome(second)
            assert trio.current_time() == pytest.approx(200, abs=1)


async def test_a_backlog_is_worked_off_in_the_order_of_acceptance(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "PAGE", 8)
    async with open_bench(tmp_path, wall, in_flight_per_peer=1) as bench:
        sent = [await bench.accept(f"{number}".encode()) for number in range(20)]
        async with bench.delivering():
            await bench.outcome(sent[-1])
            late = await bench.accept(b"late", to=BOB)  # when nothing was left to do
            await bench.outcome(late)
        assert [each.envelope.message_id for each in bench.node.sent] == [*sent, late]


async def test_waiting_for_the_end(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        good = await bench.accept()
        async with bench.delivering() as outbound:
            await outbound.wait(good)
            await outbound.wait(good)  # also when it is over
            bench.node.answers.append(NodeRefused("LND: no"))
            with pytest.raises(DeliveryFailed, match=r"LND: no \(0 parts settled, 0 sat spent\)") as failed:
                await outbound.wait(await bench.accept())
            assert not failed.value.retryable
            with pytest.raises(NotFound, match="no message has the id"):
                await outbound.wait(uuid4())


async def test_places_are_given_back_whatever_happens(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=2, ttl_ms=30_000) as bench:
        bench.node.answers.extend([PaymentFailure.TIMEOUT, NodeRefused("LND: no"), PaymentFailure.ERROR] * 20)
        for number in range(3):
            sent = [await bench.accept(b"x" * 2_500) for _ in range(4)]
            async with bench.delivering():
                for each in sent:
                    await bench.outcome(each)
            assert bench.node.under_way == 0, number
            assert bench.node.most_under_way == 2
        bench.node.answers.clear()
        assert (await bench.deliver(await bench.accept()))["state"] == "delivered"
