"""What becomes of a message, whatever the Lightning node says to its payments."""

from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.outbound.bench import ALICE, FEE, Bench, open_bench
from tests.server.house import open_channel
from trio.testing import MockClock

from impervious.errors import (
    AlreadyPaying,
    NodeRefused,
    NodeUnavailable,
    PaymentFailure,
    StoreFull,
)
from impervious.model import KeysendSupport, MessageId, PartState, PaymentStatus
from impervious.outbound.signing import SIGN_AGAIN_MS
from impervious.store import answers, outbox
from impervious.units import Msat, Sat

SUCCEEDED = PaymentStatus.SUCCEEDED
AWAY = NodeUnavailable("LND is away")
ODD = NodeRefused("LND: something that nobody knows")


def covered(bench: Bench) -> list[tuple[int, int]]:
    """The ranges that were paid, in order."""
    paid = [each.envelope for each in bench.node.sent if each.payment_hash in bench.node.settled]
    return sorted((each.offset, len(each.payload)) for each in paid)


async def test_a_message_is_paid_and_the_budget_corrected(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        outcome = await bench.deliver(await bench.accept(b"x" * 1_000, amount=5_000))
        assert outcome == {"state": "delivered", "service": "message", "fee_msat": 40, "amount_sat": 5, "parts": 2}
        assert await bench.spent() == 5_000 + 2 * FEE
        assert [each.envelope.signed_header is not None for each in bench.node.sent] == [True, False]


# --- Whether a payment exists is not known ----------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [AWAY, AlreadyPaying("LND: payment is in transition")])
async def test_a_payment_of_unknown_fate_is_looked_for(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, unknown: Exception
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.answers.append(unknown)
        bench.node.fates.extend([AWAY, ODD, ODD, SUCCEEDED])
        outcome = await bench.deliver(await bench.accept())
        assert (outcome["state"], outcome["parts"]) == ("delivered", 1)
        assert len(bench.node.sent) == 1
        assert len(bench.node.tracked) == 4


async def test_what_was_looked_for_in_vain_is_sent_again_as_it_was(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.answers.extend([AWAY, AWAY])
        bench.node.fates.append(PaymentFailure.TIMEOUT)  # and then it is unknown there
        outcome = await bench.deliver(await bench.accept())
        assert (outcome["state"], outcome["parts"]) == ("delivered", 1)
        assert len(bench.node.sent) == 3
        assert len({each.payment_hash for each in bench.node.sent}) == 1


async def test_after_a_stop_every_part_is_looked_for_before_it_is_sent(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        message_id = await bench.accept(b"x" * 5_000)
        async with bench.delivering():
            await trio.sleep(0.2)  # all are under way
        begun = {each.payment_hash for each in bench.node.sent}
        assert len(begun) == 6
        bench.node.settled |= {each.payment_hash: each.amount for each in bench.node.sent[:4]}
        for each in bench.node.sent[4:]:
            del bench.node.ends[each.payment_hash]  # the question never came to the node
        bench.node.sent.clear()
        outcome = await bench.deliver(message_id)
        assert (outcome["state"], outcome["parts"], outcome["fee_msat"]) == ("delivered", 6, 6 * FEE)
        assert set(bench.node.tracked) == begun
        assert len(bench.node.sent) == 2


async def test_a_message_does_not_end_while_a_part_may_be_paid(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        message_id = await bench.accept(b"x" * 1_800)
        bench.node.answers.extend([AWAY, PaymentFailure.INCORRECT_PAYMENT_DETAILS])
        bench.node.fates.extend([AWAY] * 500 + [SUCCEEDED])
        begun = trio.current_time()
        outcome = await bench.deliver(message_id)
        assert trio.current_time() - begun > 400
        assert (outcome["state"], outcome["parts_settled"], outcome["amount_spent_sat"]) == ("failed", 1, 2)
        assert await bench.spent() == 1_000 + FEE


# --- Payments that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("support", "words", "retryable"),
    [
        (KeysendSupport.NO, "because it does not accept keysend", False),
        (KeysendSupport.YES, "although it announces", True),
        (KeysendSupport.UNKNOWN, "probably because", False),
    ],
)
async def test_a_recipient_that_refuses(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, support: KeysendSupport, words: str, retryable: bool
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.support = support
        bench.node.answers.append(PaymentFailure.INCORRECT_PAYMENT_DETAILS)
        outcome = await bench.deliver(await bench.accept())
        assert words in outcome["reason"]
        assert (outcome["state"], outcome["retryable"]) == ("failed", retryable)
        assert len(bench.node.sent) == 1
        assert await bench.spent() == 0


async def test_what_the_node_refuses_fails(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.answers.append(ODD)
        outcome = await bench.deliver(await bench.accept())
        assert outcome["reason"] == f"the Lightning node refused the payment: {ODD}"
        assert not outcome["retryable"]


@pytest.mark.parametrize("passing", [PaymentFailure.TIMEOUT, PaymentFailure.NO_ROUTE, PaymentFailure.ERROR])
async def test_what_may_pass_is_tried_until_time_is_up(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, passing: PaymentFailure
) -> None:
    async with open_bench(tmp_path, wall, ttl_ms=600_000) as bench:
        bench.node.answers.extend([passing] * 1_000)
        begun = trio.current_time()
        outcome = await bench.deliver(await bench.accept())
        assert 600 <= trio.current_time() - begun < 700
        assert outcome["reason"].startswith("given up after 600 s (message.ttl_s); last: ")
        assert (outcome["retryable"], outcome["amount_spent_sat"]) == (True, 0)
        assert 20 < len(bench.node.sent) < 120  # every few seconds at first, every 20 at the end
        assert await bench.spent() == 0


async def test_an_obligation_is_tried_for_days_and_signed_anew(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.settlement_s = 3_600
        bench.node.answers.extend([PaymentFailure.NO_ROUTE] * (13 * 24))
        outcome = await bench.deliver(await bench.accept(obligation=True))
        assert outcome["state"] == "delivered"
        headers = [each.envelope.signed_header for each in bench.node.sent]
        times = [signed.header.sent_at_ms for signed in headers if signed]
        assert len(times) == len(headers)
        assert len(set(times)) == 3
        assert max(times) - min(times) > 2 * SIGN_AGAIN_MS


async def test_without_a_signature_nothing_is_sent(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, ttl_ms=60_000) as bench:
        bench.node.signing.extend([NodeRefused("LND: wallet is odd")] * 100)
        message_id = await bench.accept()
        outcome = await bench.deliver(message_id)
        assert outcome["reason"] == "given up after 60 s (message.ttl_s); last: LND: wallet is odd"
        assert bench.node.sent == []
        assert await bench.spent() == 0
        bench.node.signing.clear()
        assert (await bench.deliver(await bench.accept()))["state"] == "delivered"


# --- Records that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hops", [2, 3, 5, 8, 12])
async def test_parts_are_cut_to_what_the_route_carries(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, hops: int
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.hops = hops
        outcome = await bench.deliver(await bench.accept(b"x" * 4_000, amount=9_000))
        assert outcome["state"] == "delivered"
        assert outcome["amount_sat"] * 1_000 == sum(bench.node.settled.values()) >= 9_000
        assert len(bench.node.sent) == outcome["parts"]  # the route was asked before anything was sent
        at = 0
        for offset, length in covered(bench):
            assert offset == at
            at += length
        assert at == 4_000


async def test_a_route_that_grows_longer_has_parts_cut_that_failed(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        message_id = await bench.accept(b"x" * 1_800)
        bench.node.answers.append(SUCCEEDED)
        async with bench.delivering():
            await trio.sleep(0.1)
            bench.node.hops = 10  # while both payments look for a way
            outcome = await bench.outcome(message_id)
        assert outcome["state"] == "delivered"
        first, second = bench.node.sent[:2]
        assert first.payment_hash not in bench.node.settled
        assert second.payment_hash not in bench.node.settled
        assert len({each.payment_hash for each in bench.node.sent}) == len(bench.node.sent)  # a preimage for each range
        assert sum(length for _, length in covered(bench)) == 1_800
        assert all(part.state is PartState.SETTLED for part in await bench.parts(message_id))


async def test_what_fits_no_route_says_so(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.hops = 20
        outcome = await bench.deliver(await bench.accept(b"x" * 900))
        assert outcome["reason"] == "a part of it is too large for any route to the recipient"
        assert not outcome["retryable"]


async def test_smaller_parts_are_within_the_budget_or_not_sent(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, daily_limit=Sat(2), part_fee_limit=Msat(500)) as bench:
        bench.node.hops = 10
        message_id = await bench.accept(b"x" * 900)
        outcome = await bench.deliver(message_id)
        assert outcome["reason"].startswith("smaller parts cost more: this may cost ")
        assert (outcome["retryable"], bench.node.sent) == (True, [])
        assert await bench.spent() == 0


async def test_smaller_parts_of_an_obligation_ask_no_budget(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, daily_limit=Sat(0)) as bench:
        bench.node.hops = 10
        outcome = await bench.deliver(await bench.accept(b"x" * 900, obligation=True))
        assert outcome["state"] == "delivered"
        assert await bench.spent() == outcome["parts"] * (1_000 + FEE)


@pytest.mark.parametrize(("amount", "received"), [(60_000, 61_000), (1_000, 9_000), (60_000, 500_000)])
async def test_smaller_parts_of_a_debt_cost_no_more_than_came_in_for_it(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, amount: int, received: int
) -> None:
    """A stranger at the end of a long route, whose own nodes take the fees, gets no more than was received."""
    async with open_bench(tmp_path, wall, daily_limit=Sat(0), part_fee_limit=Msat(1_000)) as bench:
        bench.node.hops = 10
        message_id = await bench.accept(b"x" * 900, amount=amount, obligation=True, received=received)
        outcome = await bench.deliver(message_id)
        assert outcome["state"] == "delivered"
        paid = [each for each in bench.node.sent if each.payment_hash in bench.node.settled]
        assert len(paid) > 1
        assert sum(each.amount + each.fee_limit for each in paid) <= received
        assert all(each.fee_limit <= 1_000 for each in paid)
        assert sum(each.amount for each in paid) >= amount
        assert await bench.spent() == 0


async def test_a_debt_that_what_came_does_not_pay_for_in_small_parts_fails(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, part_fee_limit=Msat(0)) as bench:
        bench.node.hops = 10
        message_id = await bench.accept(b"x" * 900, amount=1_000, obligation=True, received=1_999)
        outcome = await bench.deliver(message_id)
        assert (outcome["state"], outcome["parts_settled"]) == ("failed", 0)
        assert "only 1999 msat came in to pay for it" in outcome["reason"]


async def answer(bench: Bench) -> MessageId:
    """Accept an automatic answer whose request paid for one part."""
    message_id = await bench.accept(b"x" * 900, amount=1_000, received=2_000)
    await bench.store.write(lambda tx: answers.note_answer(tx, message_id, ALICE))
    return message_id


async def test_of_an_answer_counts_what_a_long_route_makes_it_cost_beyond_its_request(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    fee = Msat(1_000)
    async with open_bench(tmp_path, wall, part_fee_limit=fee, answers_limit=Sat(2)) as bench:
        bench.node.hops = 10
        message_id = await answer(bench)
        assert await bench.store.read(answers.answered_in_day) == 0
        outcome = await bench.deliver(message_id)
        assert (outcome["state"], outcome["parts"]) == ("delivered", 2)
        beyond = 2 * (1_000 + FEE) - 2_000
        assert await bench.spent() == beyond
        assert await bench.store.read(answers.answered_in_day) == beyond
        outcome = await bench.deliver(await answer(bench))  # may cost 2 sat beyond, like the first
        assert outcome["state"] == "failed"
        assert "limits.auto_answers_sat_per_day (2) is reached" in outcome["reason"]
        assert await bench.store.read(answers.answered_in_day) == beyond == await bench.spent()
        wall.offset_ms += 86_400_000
        assert (await bench.deliver(await answer(bench)))["state"] == "delivered"


@pytest.mark.parametrize("support", list(KeysendSupport))
async def test_a_node_that_nobody_can_reach(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, support: KeysendSupport
) -> None:
    async with open_bench(tmp_path, wall, ttl_ms=600_000) as bench:
        bench.node.reachable, bench.node.support, bench.node.hops = False, support, 27
        begun = trio.current_time()
        outcome = await bench.deliver(await bench.accept(b"x" * 900))
        known = support is not KeysendSupport.UNKNOWN
        assert ("given up after 600 s" if known else "does not know the recipient") in outcome["reason"]
        assert (trio.current_time() - begun > 599) == known


# --- Numbers of messages that never came ------------------------------------------------------------------------------


async def test_a_failure_is_told_with_the_next_message_until_that_is_settled(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        for _ in range(2):
            bench.node.answers.append(ODD)
            await bench.deliver(await bench.accept())
        bench.node.answers.append(PaymentFailure.TIMEOUT)
        for expected in ((1, 2), ()):
            bench.node.sent.clear()
            assert (await bench.deliver(await bench.accept()))["state"] == "delivered"
            for sent in bench.node.sent:
                assert sent.envelope.signed_header
                assert sent.envelope.signed_header.header.void_orders == expected
        assert await bench.store.read(lambda tx: outbox.voids(tx, ALICE, 64)) == ()


async def test_a_message_whose_header_never_settled_has_told_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.answers.append(ODD)
        await bench.deliver(await bench.accept())
        bench.node.answers.append(ODD)  # the part with the header; the other one settles
        outcome = await bench.deliver(await bench.accept(b"x" * 1_800))
        assert (outcome["state"], outcome["parts_settled"]) == ("failed", 1)
        assert outcome["reason"].endswith(str(ODD))
        await bench.deliver(await bench.accept())
        signed = bench.node.sent[-1].envelope.signed_header
        assert signed
        assert signed.header.void_orders == (1, 2)


# --- The database -----------------------------------------------------------------------------------------------------


async def test_what_was_paid_is_stored_when_the_disk_has_room_again(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        message_id = await bench.accept()
        write, full = bench.store.write, trio.Event()

        async def refuse(work: object) -> None:
            full.set()
            await trio.lowlevel.checkpoint()
            raise StoreFull("the disk is full")

        async with bench.delivering():
            await trio.sleep(0.1)  # it is signed, and under way
            monkeypatch.setattr(bench.store, "write", refuse)
            await full.wait()
            await trio.sleep(500)
            assert (await bench.parts(message_id))[0].state is PartState.PENDING
            monkeypatch.setattr(bench.store, "write", write)
            assert (await bench.outcome(message_id))["state"] == "delivered"
        assert len(bench.node.sent) == 1


async def test_a_stop_before_anything_was_stored_about_a_payment(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.settlement_s = 5
        message_id = await bench.accept()
        async with bench.delivering():
            await trio.sleep(1)
        [sent] = bench.node.sent
        bench.node.settled[sent.payment_hash] = sent.amount  # nobody was there to hear it
        outcome = await bench.deliver(message_id)
        assert (outcome["state"], len(bench.node.sent)) == ("delivered", 1)
        assert (await bench.parts(message_id))[0].state is PartState.SETTLED


# --- Outbound balance -------------------------------------------------------------------------------------------------


async def test_what_the_channels_cannot_carry_is_not_begun(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.channels = [open_channel(252_000)]
        outcome = await bench.deliver(await bench.accept(b"x" * 450_000))
        assert (outcome["state"], outcome["retryable"], outcome["amount_spent_sat"]) == ("failed", True, 0)
        assert "500 sat are to be sent" in outcome["reason"]
        assert "can send 252" in outcome["reason"]
        assert bench.node.sent == []
        assert await bench.spent() == 0


async def test_what_channels_of_peers_offline_would_carry_waits_for_them(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.channels = [open_channel(252_000), open_channel(300_000, active=False)]
        message_id = await bench.accept(b"x" * 450_000)
        async with bench.delivering():
            await trio.sleep(300)
            assert bench.node.sent == []
            [told] = await bench.progress(message_id)
            assert "offline" in told["reason"]
            bench.node.channels = [open_channel(552_000)]
            bench.node.activated.set()
            with trio.fail_after(60):
                assert (await bench.outcome(message_id))["state"] == "delivered"
        bench.node.channels = [open_channel(0, active=False), open_channel(10**9, active=False)]
        assert "offline" in (await bench.deliver(await bench.accept(b"x" * 1_000)))["reason"]


async def test_the_first_payment_without_balance_stops_the_others(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, in_flight_per_peer=1) as bench:
        message_id = await bench.accept(b"x" * 90_000)
        bench.node.answers.extend([SUCCEEDED, SUCCEEDED, PaymentFailure.INSUFFICIENT_BALANCE])
        async with bench.delivering():
            await trio.sleep(0.1)
            bench.node.channels = [open_channel(50_000)]  # others have used it meanwhile
            outcome = await bench.outcome(message_id)
        assert (outcome["state"], outcome["parts_settled"], len(bench.node.sent)) == ("failed", 2, 3)
        assert "98 sat are to be sent" in outcome["reason"]


async def test_a_debt_waits_for_balance(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        bench.node.channels = [open_channel(1_000)]
        message_id = await bench.accept(b"x" * 1_800, obligation=True)
        async with bench.delivering():
            await trio.sleep(10_000)
            bench.node.channels = [open_channel(10_000)]
            assert (await bench.outcome(message_id))["state"] == "delivered"
