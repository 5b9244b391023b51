"""What is said of a message at any moment of its life."""

from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.outbound.bench import ALICE, FEE, open_bench
from trio.testing import MockClock

from impervious.errors import NodeRefused, NotFound, PaymentFailure


async def test_a_message_from_acceptance_to_delivery(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1) as bench:
        bench.node.settlement_s = 5
        first, second = await bench.accept(b"x" * 1_000), await bench.accept()
        bench.node.answers.extend([PaymentFailure.TIMEOUT])
        async with bench.delivering() as outbound:
            await trio.sleep(1)
            found = await outbound.report(first)
            assert (found.state, found.parts, found.parts_in_flight, found.parts_settled) == ("sending", 2, 1, 0)
            assert found.recipient == ALICE
            assert found.deadline_ms == found.accepted_at_ms + bench.policy.ttl_ms
            assert (await outbound.report(second)).state == "accepted"
            await trio.sleep(4.1)
            found = await outbound.report(first)
            assert (found.state, found.reason) == ("retrying", "no route worked before the payment timed out")
            assert found.next_try_ms > wall()
            [told] = await bench.progress(first)
            assert (told["state"], told["reason"]) == ("retrying", found.reason)
            assert (told["next_try_ms"], told["until_ms"]) == (found.next_try_ms, found.deadline_ms)
            await bench.outcome(first)
            found = await outbound.report(first)
            assert (found.state, found.parts, found.parts_settled, found.reason) == ("delivered", 2, 2, "")
            assert (found.amount, found.fee, found.parts_in_flight) == (2_000, 2 * FEE, 0)


async def test_messages_that_wait_and_that_fail(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, ttl_ms=20_000) as bench:
        bench.node.settlement_s = 100
        held = await bench.accept()
        async with bench.delivering() as outbound:
            await trio.sleep(25)
            found = await outbound.report(held)
            assert (found.state, found.parts_in_flight) == ("pending", 1)
            assert "message.ttl_s" in found.reason
            bench.node.settlement_s = 0.1
            bench.node.answers.append(NodeRefused("LND: no"))
            await bench.outcome(failed := await bench.accept(b"x" * 1_000))
            found = await outbound.report(failed)
            assert (found.state, found.retryable, found.parts, found.parts_settled) == ("failed", False, 2, 1)
            assert found.reason.endswith("LND: no")
            with pytest.raises(NotFound, match="no message has the id"):
                await outbound.report(uuid4())
        assert (await outbound.report(held)).state == "pending"  # from what is stored


async def test_parts_that_were_cut_smaller_count_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.hops = 10
        async with bench.delivering() as outbound:
            outcome = await bench.outcome(sent := await bench.accept(b"x" * 1_800))
            found = await outbound.report(sent)
            assert outcome["parts"] == found.parts == found.parts_settled > 2


async def test_a_reason_is_told_once_and_reasons_that_take_turns_are_not_told_each_time(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, ttl_ms=600_000) as bench:
        bench.node.answers.extend([PaymentFailure.TIMEOUT] * 8)
        await bench.deliver(sent := await bench.accept())
        assert len(await bench.progress(sent)) == 1
        bench.node.answers.extend([PaymentFailure.TIMEOUT, PaymentFailure.ERROR] * 16)
        await bench.deliver(sent := await bench.accept(b"x" * 16 * 900))
        assert len(await bench.progress(sent)) <= 3
