"""Many messages at once: who waits for whom."""

from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.outbound.bench import ALICE, BOB, open_bench
from trio.testing import MockClock

from impervious.errors import DeliveryFailed, NodeRefused, NotFound, PaymentFailure
from impervious.outbound import Outbound, sender
from impervious.outbound.places import MAX_IN_FLIGHT, MAX_SLOW_PER_PEER, SLOW_S


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
            assert trio.current_time() == pytest.approx(SLOW_S + 100, abs=1)


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


# --- Payments that do not end -----------------------------------------------------------------------------------------


async def test_what_was_never_sent_fails_in_time_though_earlier_payments_are_held(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=4, ttl_ms=20_000) as bench:
        bench.node.settlement_s = 600
        held = [await bench.accept() for _ in range(4)]
        queued = [await bench.accept() for _ in range(6)]
        async with bench.delivering() as outbound:
            with trio.fail_after(21):
                for each in queued:
                    with pytest.raises(DeliveryFailed, match="4 earlier payments to the recipient have not ended"):
                        await outbound.wait(each)
            assert len(bench.node.sent) == 4
            await trio.sleep(10)
            assert [(each["state"], each["parts_in_flight"]) for each in await bench.progress(held[0])] == [
                ("pending", 1)
            ]
        async with bench.delivering():  # another start tells nothing again
            for each in held:
                assert (await bench.outcome(each))["state"] == "delivered"
            assert trio.current_time() == pytest.approx(600, abs=5)
            assert [each["state"] for each in await bench.progress(held[0])] == ["pending"]
            bench.node.settlement_s = 0.1
            await bench.outcome(await bench.accept())
        signed = bench.node.sent[-1].envelope.signed_header
        assert signed
        assert signed.header.void_orders == tuple(range(5, 11))  # nobody waits for what never went


async def test_a_message_of_which_a_part_was_never_sent_fails_when_the_others_have_ended(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1, ttl_ms=20_000) as bench:
        bench.node.settlement_s = 600
        outcome = await bench.deliver(message_id := await bench.accept(b"x" * 1_000))
        assert (outcome["state"], outcome["parts_settled"]) == ("failed", 1)
        assert [each["parts_in_flight"] for each in await bench.progress(message_id)] == [1]


async def test_slow_payments_make_room_for_others_up_to_a_limit(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=16) as bench:
        bench.node.settlement_s = 3_000
        for _ in range(100):
            await bench.accept()
        async with bench.delivering():
            await trio.sleep(29)
            assert len(bench.node.sent) == 16
            await trio.sleep(1_000)
            assert len(bench.node.sent) == 16 + MAX_SLOW_PER_PEER
            other = await bench.accept(to=BOB)
            bench.node.settlement_s = 0.1
            with trio.fail_after(10):
                await bench.outcome(other)


async def test_payments_that_never_end_stop_nothing_after_a_restart(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=4, ttl_ms=60_000) as bench:
        bench.node.settlement_s = 10**9  # a node that was killed forgets the HTLCs and not the payments
        stuck = [await bench.accept(b"x" * 3_000) for _ in range(3)]  # four parts each
        for _ in range(3):
            async with bench.delivering():
                await trio.sleep(5)
        assert len(bench.node.sent) == 12
        bench.node.settlement_s = 0.1
        async with bench.delivering():
            sent = [await bench.accept() for _ in range(30)]
            with trio.fail_after(20):
                for each in sent:
                    assert (await bench.outcome(each))["state"] == "delivered"
            await trio.sleep(200)
            assert [
                (each["state"], each["parts_in_flight"]) for message in stuck for each in await bench.progress(message)
            ] == [("pending", 4)] * 3


async def test_a_payment_that_fails_late_is_sent_again_or_given_up(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1, ttl_ms=300_000) as bench:
        bench.node.settlement_s = 200
        bench.node.answers.extend([PaymentFailure.TIMEOUT] * 3)
        late = await bench.deliver(await bench.accept())
        assert (late["state"], len(bench.node.sent)) == ("failed", 2)
        assert trio.current_time() == pytest.approx(400, abs=10)  # the second one was begun in time, and had to end


async def test_a_clock_that_is_set_gives_up_what_waits(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1, ttl_ms=3_600_000) as bench:
        bench.node.settlement_s = 10**9
        await bench.accept()
        waiting = await bench.accept(obligation=True), await bench.accept()
        async with bench.delivering():
            await trio.sleep(1)
            wall.offset_ms += 3_600_000
            with trio.fail_after(70):
                assert (await bench.outcome(waiting[1]))["state"] == "failed"


async def test_a_second_run_delivers_what_the_first_one_left(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    """Nothing of a run that has ended is left in the sender: no lane without tasks, no place that nobody gives back."""
    async with open_bench(tmp_path, wall, in_flight_per_peer=2) as bench:
        bench.node.settlement_s = 20
        sent = [await bench.accept(b"x" * 2_000) for _ in range(3)]
        outbound = Outbound(bench.node, bench.store, bench.hub, bench.policy, random=lambda: 0.5)
        for _ in range(3):
            with trio.move_on_after(1):
                await outbound.run()
            sent.append(await bench.accept())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbound.run)
            with trio.fail_after(600):
                for each in sent:
                    assert (await bench.outcome(each))["state"] == "delivered"
            nursery.cancel_scope.cancel()


# --- The end of trouble -----------------------------------------------------------------------------------------------


async def test_one_payment_is_tried_often_and_wakes_the_others_when_it_arrives(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.answers.extend([PaymentFailure.ERROR] * 10**6)
        sent = [await bench.accept() for _ in range(40)]
        async with bench.delivering():
            await trio.sleep(115)
            tried = len(bench.node.sent)
            assert tried < 300
            bench.node.answers.clear()  # two minutes
            with trio.fail_after(3 + 1 + 2):
                for each in sent:
                    assert (await bench.outcome(each))["state"] == "delivered"
            assert len(bench.node.sent) - tried == 40


async def test_a_channel_that_becomes_active_ends_every_pause(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.answers.extend([PaymentFailure.INSUFFICIENT_BALANCE] * 10**6)
        sent = [await bench.accept(to=to) for to in (ALICE, BOB, BOB)]
        async with bench.delivering():
            await trio.sleep(1_000)
            bench.node.answers.clear()
            bench.node.activated.set()
            with trio.fail_after(1):
                for each in sent:
                    assert (await bench.outcome(each))["state"] == "delivered"


async def test_another_payment_is_tried_for_all_when_the_first_is_given_up(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, ttl_ms=100_000) as bench:
        bench.node.answers.extend([PaymentFailure.ERROR] * 10**6)
        first = await bench.accept()
        async with bench.delivering():
            await trio.sleep(50)
            second = await bench.accept()
            await bench.outcome(first)
            await trio.sleep(20)
            bench.node.answers.clear()
            with trio.fail_after(5):
                await bench.outcome(second)


# --- How many at a time -----------------------------------------------------------------------------------------------


async def test_more_payments_are_under_way_while_they_succeed(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        sent = [await bench.accept(b"x" * 90_000) for _ in range(5)]
        async with bench.delivering():
            for each in sent:
                await bench.outcome(each)
        assert 64 <= bench.node.most_under_way <= MAX_IN_FLIGHT


async def test_fewer_are_when_the_route_holds_fewer(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.htlcs = 8
        sent = [await bench.accept(b"x" * 90_000) for _ in range(3)]
        async with bench.delivering():
            for each in sent:
                assert (await bench.outcome(each))["state"] == "delivered"
        assert len(bench.node.sent) < 2 * len(bench.node.settled)
