"""Invoices and payments between nodes of the simulated network, in virtual time."""

import hashlib
from pathlib import Path

import bolt11
import pytest
import trio
from tests.conftest import Wall
from tests.services.lightning.market import FEE, Market, left_open, open_market, spent
from tests.walks import detail, everything, take
from trio.testing import MockClock

from impervious.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NodeUnavailable,
    NotFound,
    PaymentFailed,
    PaymentFailure,
    ResourceExhausted,
)
from impervious.model import Payment, PaymentStatus, Preimage
from impervious.units import Sat

# --- From the invoice to the proof ------------------------------------------------------------------------------------


async def test_an_invoice_is_made_paid_and_checked_on_both_sides(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask(21, "coffee")
    read = bolt11.decode(text)
    assert (text[:7], read.amount_msat, read.description) == ("lnbcrt2", 21_000, "coffee")
    assert not await market.seller.check(text)
    with pytest.raises(NotFound, match="never tried to pay it: ask the node that made it"):
        await market.buyer.check(text)
    preimage = await market.buyer.pay(text)
    assert preimage.payment_hash == payment_hash
    assert await market.seller.check(text)
    assert await market.buyer.check(text)
    assert await market.got(payment_hash) == 21_000
    assert (await spent(market.alice), await spent(market.carol)) == (21_000 + FEE, 0)
    assert await left_open(market.alice) == 0


async def test_what_was_paid_is_not_paid_again(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask(expiry_s=60)
    preimage = await market.buyer.pay(text)
    await trio.sleep(100)  # and it has expired since
    for way in (text, f"  lightning:{text}\n", f"LIGHTNING:{text}".upper()):
        assert await market.buyer.pay(way) == preimage
    assert await market.got(payment_hash) == 5000
    assert await spent(market.alice) == 5000 + FEE


async def test_the_payer_names_the_amount_where_the_invoice_does_not(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask(0)
    with pytest.raises(InvalidArgument, match="leaves the amount to the payer: give amount"):
        await market.buyer.pay(text)
    await market.buyer.pay(text, amount=Sat(7))
    assert await market.got(payment_hash) == 7000
    assert await spent(market.alice) == 7000 + FEE


async def test_an_amount_that_the_invoice_says_itself_may_be_repeated_but_not_changed(
    market: Market, autojump_clock: MockClock
) -> None:
    text, payment_hash = await market.ask(5)
    with pytest.raises(InvalidArgument, match="asks for 5 sat, which amount cannot change: leave it out"):
        await market.buyer.pay(text, amount=Sat(6))
    with pytest.raises(NotFound):
        await market.buyer.check(text)
    await market.buyer.pay(text, amount=Sat(5))
    assert await market.got(payment_hash) == 5000


@pytest.mark.parametrize(("size", "hidden"), [(0, False), (639, False), (640, True), (1024, True)])
async def test_a_memo_may_be_as_long_as_lnd_keeps_it(
    size: int, hidden: bool, market: Market, autojump_clock: MockClock
) -> None:
    memo = "m" * size
    text, _ = await market.ask(1, memo)
    found = (await market.buyer.decode(text)).invoice
    digest = hashlib.sha256(memo.encode()).digest()
    assert (found.description, found.description_hash) == (("", digest) if hidden else (memo, b""))
    [kept] = (await market.seller.invoices()).invoices
    assert kept.memo == memo


async def test_terms_of_an_invoice(market: Market, autojump_clock: MockClock) -> None:
    digest = hashlib.sha256(b"a long story").digest()
    added = await market.seller.generate(Sat(3), "mine", description_hash=digest, expiry_s=77)
    found = await market.buyer.decode(added.payment_request)
    invoice = found.invoice
    assert (invoice.amount, invoice.expiry_s, invoice.description_hash) == (3000, 77, digest)
    assert (invoice.payee, found.own) == ((await market.carol.wait_ready()).pubkey, False)
    assert (await market.seller.decode(added.payment_request)).own
    plain = (await market.buyer.decode((await market.ask())[0])).invoice
    assert plain.expiry_s == 86_400


# --- Fees and budget --------------------------------------------------------------------------------------------------


async def test_the_fee_limit_is_the_larger_of_the_two_that_are_configured(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path, wall, max_fee_sat=0, max_fee_ppm=100_000) as market:
        small, small_hash = await market.ask(9)
        with pytest.raises(
            PaymentFailed, match="no route to the recipient with enough capacity within the fee"
        ) as told:
            await market.buyer.pay(small)
        assert (told.value.reason, told.value.retryable) == (PaymentFailure.NO_ROUTE, True)
        assert (await market.got(small_hash), await spent(market.alice), await left_open(market.alice)) == (0, 0, 0)
        large, _ = await market.ask(10)
        await market.buyer.pay(large)  # a tenth of it is what bob takes
        await market.buyer.pay(small, max_fee=Sat(1))
        assert await market.got(small_hash) == 9000


async def test_the_budget_is_shared_with_messages(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path, wall, daily_limit_sat=40, max_fee_sat=10) as market:
        you = (await market.carol.wait_ready()).pubkey
        await market.alice.messages.send(you, b"hello", amount=Sat(20), wait=True)
        assert await spent(market.alice) == 20_000 + FEE
        text, payment_hash = await market.ask(10)
        with pytest.raises(ResourceExhausted, match="may cost 20 sat, and 21 of the 40 sat allowed in 24 hours"):
            await market.buyer.pay(text)
        assert (await market.got(payment_hash), await left_open(market.alice)) == (0, 0)
        await market.buyer.pay(text, max_fee=Sat(9))
        assert await spent(market.alice) == 30_000 + 2 * FEE
        with pytest.raises(ResourceExhausted, match="32 of the 40 sat"):
            await market.alice.messages.send(you, b"hello", amount=Sat(8))
        with pytest.raises(ResourceExhausted, match="32 of the 40 sat"):
            await market.buyer.keysend(you, Sat(8))
        market.where.wall.offset_ms += 86_400_000
        await market.buyer.keysend(you, Sat(8))


# --- What goes wrong --------------------------------------------------------------------------------------------------


async def test_an_expired_invoice_is_refused(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask(expiry_s=10)
    await trio.sleep(12)
    with pytest.raises(FailedPrecondition, match=r"expired [12] s ago: ask the payee for a new one"):
        await market.buyer.pay(text)
    assert (await spent(market.alice), await left_open(market.alice)) == (0, 0)
    with pytest.raises(NotFound):
        await market.buyer.check(text)
    assert await market.got(payment_hash) == 0
    assert not await market.seller.check(text)


async def test_our_own_invoice_is_refused(market: Market, autojump_clock: MockClock) -> None:
    text, _ = await market.ask()
    with pytest.raises(InvalidArgument, match="this node's own"):
        await market.seller.pay(text)


async def test_a_failed_payment_says_why_and_can_be_made_again(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("alice").fail_next_payment(PaymentFailure.INSUFFICIENT_BALANCE)
    with pytest.raises(PaymentFailed, match="not paid: not enough outbound balance") as told:
        await market.buyer.pay(text)
    assert told.value.retryable
    assert (await spent(market.alice), await left_open(market.alice)) == (0, 0)
    assert not await market.buyer.check(text)
    await market.buyer.pay(text)
    assert await market.got(payment_hash) == 5000


async def test_what_the_payee_refuses_is_explained(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("carol").cancel_invoice(payment_hash)
    with pytest.raises(PaymentFailed, match="refused it: the invoice was cancelled") as told:
        await market.buyer.pay(text)
    assert not told.value.retryable
    assert not await market.seller.check(text)


async def test_while_the_node_is_away_nothing_is_begun(market: Market, autojump_clock: MockClock) -> None:
    text, _ = await market.ask()
    you = (await market.carol.wait_ready()).pubkey
    market.where.network.lnd("alice").lock()
    for call in (
        lambda: market.buyer.generate(Sat(1)),
        lambda: market.buyer.pay(text),
        lambda: market.buyer.check(text),
        lambda: market.buyer.decode(text),
        lambda: market.buyer.keysend(you, Sat(1)),
        market.buyer.invoices,
        market.buyer.payments,
        market.buyer.balance,
    ):
        with pytest.raises(NodeUnavailable, match="lock"):
            await call()
    assert await left_open(market.alice) == 0


async def test_another_invoice_with_a_hash_that_was_paid_is_neither_paid_nor_taken_for_it(
    market: Market, autojump_clock: MockClock
) -> None:
    text, payment_hash = await market.ask()
    await market.buyer.pay(text)
    forged = bolt11.decode(text)
    description = forged.tags.get(bolt11.TagChar.description)
    assert description is not None
    description.data = "mallory"
    other = bolt11.encode(forged, "e1" * 32)
    assert (await market.buyer.decode(other)).invoice.payment_hash == payment_hash
    assert not await market.buyer.check(other)
    with pytest.raises(FailedPrecondition, match="paid another invoice with the same payment hash"):
        await market.buyer.pay(other)


# --- Keysends ---------------------------------------------------------------------------------------------------------


async def test_a_keysend_brings_records(market: Market, autojump_clock: MockClock) -> None:
    you = (await market.carol.wait_ready()).pubkey
    paid = await market.buyer.keysend(you.hex, Sat(9), [(696969, b"tip"), (65536, b"")])
    assert (paid.status, paid.amount, paid.fee) == (PaymentStatus.SUCCEEDED, 9000, FEE)
    [invoice] = (await market.seller.invoices()).invoices
    assert (invoice.is_keysend, invoice.amount_paid, invoice.payment_hash) == (True, 9000, paid.payment_hash)
    records = invoice.htlcs[0].records
    assert (records[696969], records[65536]) == (b"tip", b"")
    assert (await spent(market.alice), await left_open(market.alice)) == (9000 + FEE, 0)
    again = await market.buyer.keysend(you, Sat(9))
    assert again.payment_hash != paid.payment_hash


async def test_a_keysend_whose_answer_is_lost_is_sent_once(market: Market, autojump_clock: MockClock) -> None:
    market.where.network.lnd("alice").lose_next_answer()
    await market.buyer.keysend((await market.carol.wait_ready()).pubkey, Sat(9))
    assert len((await market.seller.invoices()).invoices) == 1
    assert await spent(market.alice) == 9000 + FEE


async def test_a_keysend_that_fails_says_why(market: Market, autojump_clock: MockClock) -> None:
    you = (await market.carol.wait_ready()).pubkey
    with pytest.raises(PaymentFailed, match="or none that can carry 1200 bytes of records so far") as told:
        await market.buyer.keysend(you, Sat(9), [(65536, bytes(1200))])
    assert told.value.reason is PaymentFailure.NO_ROUTE
    market.where.network.lnd("alice").fail_next_payment(PaymentFailure.INCORRECT_PAYMENT_DETAILS)
    with pytest.raises(PaymentFailed, match="refused the payment, although it announces") as told:
        await market.buyer.keysend(you, Sat(9))
    assert not told.value.retryable
    with pytest.raises(PaymentFailed, match="no route to the recipient"):
        await market.buyer.keysend(you, Sat(10_000), max_fee=Sat(1))  # bob takes a little more for that
    assert await spent(market.alice) == 0


async def test_a_keysend_with_a_key_is_paid_once(market: Market, autojump_clock: MockClock) -> None:
    you = (await market.carol.wait_ready()).pubkey
    paid: list[Payment] = []

    async def pay() -> None:
        paid.append(await market.buyer.keysend(you, Sat(9), [(70_000, b"x")], idempotency_key="k"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pay)
    await pay()
    assert len({each.payment_hash for each in paid}) == 1
    assert len((await market.seller.invoices()).invoices) == 1
    assert await spent(market.alice) == 9000 + FEE
    for amount, records, fee in ((8, [(70_000, b"x")], 0), (9, [(70_000, b"y")], 0), (9, [(70_000, b"x")], 3)):
        with pytest.raises(AlreadyExists, match="used for another request: use a new one"):
            await market.buyer.keysend(you, Sat(amount), records, max_fee=Sat(fee), idempotency_key="k")
    await market.buyer.keysend(you, Sat(9), [(70_000, b"x")], idempotency_key="other")
    assert len((await market.seller.invoices()).invoices) == 2
    market.where.wall.offset_ms += 8 * 86_400_000  # limits.idempotency_days is 7
    await pay()
    assert len((await market.seller.invoices()).invoices) == 3
    for key in ("", "k" * 256):
        with pytest.raises(InvalidArgument, match="Idempotency-Key must have 1 to 255 bytes"):
            await market.buyer.keysend(you, Sat(9), idempotency_key=key)


async def test_an_invoice_with_a_key_is_paid_for_that_key_alone(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    other, _ = await market.ask(6)
    paid: list[Preimage] = []

    async def pay(key: str | None = "k") -> None:
        paid.append(await market.buyer.pay(text, idempotency_key=key))

    async with trio.open_nursery() as nursery:
        for key in (None, "k", "k", "late"):
            nursery.start_soon(pay, key)
    await pay("later")
    assert {each.payment_hash for each in paid} == {payment_hash}
    assert await spent(market.alice) == 5000 + FEE
    for key in ("k", "late", "later"):
        await pay(key)
        with pytest.raises(AlreadyExists, match="used for another request"):
            await market.buyer.pay(other, idempotency_key=key)
        with pytest.raises(AlreadyExists, match="used for another request"):
            await market.buyer.pay(text, max_fee=Sat(3), idempotency_key=key)
    assert await spent(market.alice) == 5000 + FEE


async def test_a_key_tells_the_failure_of_an_invoice_again(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("alice").fail_next_payment(PaymentFailure.TIMEOUT)
    for _ in range(2):
        with pytest.raises(PaymentFailed, match="no route worked before the payment timed out"):
            await market.buyer.pay(text, idempotency_key="k")
    assert (await market.buyer.pay(text, idempotency_key="new")).payment_hash == payment_hash
    assert (await market.buyer.pay(text, idempotency_key="k")).payment_hash == payment_hash


async def test_a_key_whose_payment_was_never_sent_is_no_obstacle(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    limit = market.alice.config.lightning.daily_limit_sat
    with pytest.raises(ResourceExhausted):
        await market.buyer.pay(text, max_fee=limit, idempotency_key="k")
    market.where.wall.offset_ms += 1000
    assert (await market.buyer.pay(text, idempotency_key="k")).payment_hash == payment_hash


async def test_a_key_tells_a_failure_again(market: Market, autojump_clock: MockClock) -> None:
    you = (await market.carol.wait_ready()).pubkey
    market.where.network.lnd("alice").fail_next_payment(PaymentFailure.TIMEOUT)
    for _ in range(2):
        with pytest.raises(PaymentFailed, match="no route worked before the payment timed out"):
            await market.buyer.keysend(you, Sat(9), idempotency_key="k")
    assert len((await market.buyer.payments()).payments) == 1


@pytest.mark.parametrize(
    ("amount", "records", "words"),
    [
        (0, [], "amount is missing: give at least 1 satoshi"),
        (-1, [], "amount is negative"),
        (1, [(65535, b"x")], "record type 65535 is not between 65536"),
        (1, [(2**64, b"x")], "is not between 65536"),
        (1, [(5482373484, bytes(32))], "has a meaning of its own in Lightning"),
        (1, [(106823, b"x")], "has a meaning of its own in Lightning"),
        (1, [(65536, b"x"), (65536, b"y")], "record type 65536 is there twice"),
        (1, [(65536, bytes(700)), (65537, bytes(501))], "the records have 1201 bytes; at most 1200 fit"),
    ],
)
async def test_a_keysend_that_cannot_be_sent(
    amount: int, records: list[tuple[int, bytes]], words: str, market: Market, autojump_clock: MockClock
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await market.buyer.keysend((await market.carol.wait_ready()).pubkey, Sat(amount), records)
    assert (await market.buyer.payments()).payments == ()


async def test_nobody_pays_oneself(market: Market, autojump_clock: MockClock) -> None:
    with pytest.raises(InvalidArgument, match="this node's own"):
        await market.buyer.keysend((await market.alice.wait_ready()).pubkey, Sat(1))
    with pytest.raises(NotFound):
        await market.buyer.keysend("@nobody", Sat(1))


# --- Lists and balance ------------------------------------------------------------------------------------------------


async def test_lists_are_read_in_pages(market: Market, autojump_clock: MockClock) -> None:
    for number in range(3):
        text, _ = await market.ask(number + 1, f"{number}")
        await market.buyer.pay(text)
    first = await market.seller.invoices(limit=2)
    assert [each.memo for each in first.invoices] == ["0", "1"]
    rest = await market.seller.invoices(index_offset=first.last_index)
    assert [each.memo for each in rest.invoices] == ["2"]
    newest = await market.buyer.payments(limit=1, backwards=True)
    assert [each.amount for each in newest.payments] == [3000]
    older = await market.buyer.payments(index_offset=newest.first_index, backwards=True)
    assert [each.amount for each in older.payments] == [1000, 2000]
    for wrong in ({"limit": -1}, {"limit": 1001}, {"index_offset": -1}):
        for read in (market.buyer.payments, market.buyer.invoices):
            with pytest.raises(InvalidArgument, match=r"limit is not between 1 and 1000|index_offset is negative"):
                await read(**wrong)  # type: ignore[arg-type]


async def test_the_balance_follows_what_is_paid(market: Market, autojump_clock: MockClock) -> None:
    before = await market.seller.balance()
    text, _ = await market.ask(100)
    await market.buyer.pay(text)
    after = await market.seller.balance()
    assert (after.local - before.local, after.remote - before.remote) == (100_000, -100_000)


# --- Events -----------------------------------------------------------------------------------------------------------


async def test_what_others_pay_is_told_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path, wall) as market:
        you = (await market.carol.wait_ready()).pubkey
        text, payment_hash = await market.ask(21, "coffee")
        await market.buyer.pay(text)
        await market.buyer.keysend(you, Sat(2), [(34349334, "höi".encode()), (7629169, b'{"podcast":"x"}')])
        await market.alice.messages.send(you, b"no payment of this kind")
        bill, tip = await take(market.carol, 2, service="lightning")
        shown = detail(bill)
        shown.pop("tlvRecords")
        assert shown == {
            "recordId": "INVOICE_PAID",
            "paymentHash": payment_hash.hex(),
            "amountMsat": 21_000,
            "settledAt": shown["settledAt"],
            "invoice": text,
            "memo": "coffee",
        }
        assert (bill.amount, bill.sender, bill.verified) == (21_000, you, True)
        told = detail(tip)
        assert (told["recordId"], told["chat"], told["podcast"]) == ("KEYSEND", "höi", {"podcast": "x"})
        assert {"type": 34349334, "value": "höi".encode().hex()} in told["tlvRecords"]
        assert tip.amount == 2000
        assert not [each for each in await everything(market.alice) if each.service_type == "lightning"]
