"""Payments that are followed to their end, whoever leaves and whatever breaks."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.services.lightning.market import FEE, Market, left_open, spent, told
from tests.walks import detail, everything, stage
from trio.testing import MockClock

from impervious.errors import (
    AlreadyExists,
    AlreadyPaying,
    FailedPrecondition,
    NodeRefused,
    NodeUnavailable,
    PaymentFailed,
    StoreFull,
)
from impervious.model import Payment, PaymentHash, Preimage
from impervious.service import ServiceTx
from impervious.services.lightning import LightningService, asking
from impervious.services.lightning.keys import Key
from impervious.services.lightning.paying import Order, Payer, intend, open_payer
from impervious.units import Msat, Sat


async def test_what_is_under_way_counts_at_its_highest_price(market: Market, autojump_clock: MockClock) -> None:
    text, _ = await market.ask(100)
    market.where.network.lnd("carol").delay_arrivals(3600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.buyer.pay, text)
        await trio.sleep(10)
        assert (await spent(market.alice), await left_open(market.alice)) == (100_000 + 10_000, 1)
        assert not await market.buyer.check(text)
    assert (await spent(market.alice), await left_open(market.alice)) == (100_000 + FEE, 0)


async def test_two_who_pay_the_same_invoice_wait_for_one_payment(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    proofs: list[Preimage] = []

    async def pay() -> None:
        proofs.append(await market.buyer.pay(text))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(pay)
    assert {proof.payment_hash for proof in proofs} == {payment_hash}
    assert (len(proofs), await market.got(payment_hash)) == (5, 5000)
    assert await spent(market.alice) == 5000 + FEE
    assert (await left_open(market.alice), await told(market.alice)) == (0, [])


async def test_a_payment_by_another_program_is_waited_for(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("carol").delay_arrivals(60)
    lncli = market.where.network.node("alice")
    invoice = await lncli.decode_invoice(text)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(lncli.pay_invoice, invoice, fee_limit=Msat(5000), timeout_s=60))
        await trio.sleep(1)
        assert (await market.buyer.pay(text)).payment_hash == payment_hash
    assert await market.got(payment_hash) == 5000
    assert await spent(market.alice) == 0  # it was not we who spent it


async def test_a_caller_who_leaves_stops_waiting_only(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("carol").delay_arrivals(60)
    with trio.move_on_after(1) as scope:
        await market.buyer.pay(text)
    assert scope.cancelled_caught
    assert await left_open(market.alice) == 1
    await trio.sleep(100)
    assert (await market.got(payment_hash), await left_open(market.alice)) == (5000, 0)
    assert await spent(market.alice) == 5000 + FEE
    assert (await market.buyer.pay(text)).payment_hash == payment_hash


async def test_the_end_of_a_payment_whose_caller_has_left_is_an_event(
    market: Market, autojump_clock: MockClock
) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("carol").delay_arrivals(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.buyer.pay, text)  # who stays has the answer
        with trio.move_on_after(1):
            await market.buyer.pay(text)
        await trio.sleep(10)
        assert await told(market.alice) == []
    assert await left_open(market.alice) == 0
    [event] = [each for each in await everything(market.alice) if each.service_type == "lightning"]
    preimage = await market.buyer.pay(text)
    public = {
        "recordId": "PAYMENT",
        "state": "paid",
        "paymentHash": payment_hash.hex(),
        "amountMsat": 5000,
        "invoice": text,
        "feeMsat": FEE,
    }
    assert (detail(event), event.sender, event.amount) == (public, (await market.alice.wait_ready()).pubkey, 0)
    assert json.loads(event.secret or b"") == {**public, "preimage": preimage.raw.hex()}


async def test_a_failure_that_nobody_waits_for_is_an_event_with_a_reason(
    market: Market, autojump_clock: MockClock
) -> None:
    text, payment_hash = await market.ask()
    you, carol = (await market.carol.wait_ready()).pubkey, market.where.network.lnd("carol")
    carol.cancel_invoice(payment_hash)
    carol.set_accepts_keysend(False)
    carol.delay_arrivals(60)
    with trio.move_on_after(1):
        await market.buyer.pay(text)
    with trio.move_on_after(1):
        await market.buyer.keysend(you, Sat(9), idempotency_key="k")
    await trio.sleep(100)
    invoice, keysend = await told(market.alice)
    assert (invoice["state"], invoice["paymentHash"], invoice["retryable"]) == ("failed", payment_hash.hex(), False)
    assert "the payee refused it" in invoice["reason"]
    assert (keysend["state"], keysend["amountMsat"], keysend["idempotencyKey"]) == ("failed", 9000, "k")
    assert "preimage" not in str(await everything(market.alice))
    assert await spent(market.alice) == 0


async def test_a_lost_answer_is_asked_for_and_nothing_is_sent_again(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("alice").lose_next_answer()
    assert (await market.buyer.pay(text)).payment_hash == payment_hash
    assert await market.got(payment_hash) == 5000
    assert (await market.paid(payment_hash)).attempts == 1
    assert await spent(market.alice) == 5000 + FEE


async def test_a_node_that_dies_while_it_pays_is_waited_for(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("carol").delay_arrivals(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.buyer.pay, text)
        await trio.sleep(1)
        market.where.network.lnd("alice").kill()
        await trio.sleep(600)
        assert (len(nursery.child_tasks), await left_open(market.alice)) == (1, 1)
        market.where.network.lnd("alice").start()
    assert await market.got(payment_hash) == 5000
    assert (await market.paid(payment_hash)).attempts == 1
    assert (await spent(market.alice), await left_open(market.alice)) == (5000 + FEE, 0)


async def test_after_a_restart_the_end_is_found_and_the_reservation_corrected(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("carol") as carol:
        text = (await carol.service(LightningService).generate(Sat(100))).payment_request
        async with where.node("alice") as alice:
            await alice.wait_ready()
            where.network.lnd("carol").delay_arrivals(60)
            with trio.move_on_after(1):
                await alice.service(LightningService).pay(text)
            assert (await spent(alice), await left_open(alice)) == (110_000, 1)
        async with where.node("alice") as alice:  # it was stopped in the middle
            await alice.wait_ready()
            assert await spent(alice) == 110_000
            first = await alice.service(LightningService).pay(text)
            assert (await spent(alice), await left_open(alice)) == (101_000, 0)
            [event] = await told(alice)  # whoever asked first was told nothing
            assert (event["state"], event["paymentHash"]) == ("paid", first.payment_hash.hex())
        async with where.node("alice") as alice:
            await alice.wait_ready()
            assert await alice.service(LightningService).pay(text) == first
            assert len(await told(alice)) == 1
            assert (await where.network.node("alice").lookup_payment(first.payment_hash)).attempts == 1


async def test_an_intent_that_never_reached_the_node_is_dropped_after_a_restart(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with stage(tmp_path, wall) as where, where.node("carol") as carol:
        text = (await carol.service(LightningService).generate(Sat(100))).payment_request
        async with where.node("alice") as alice:
            await alice.wait_ready()
            invoice = (await alice.service(LightningService).decode(text)).invoice

            def crash(tx: ServiceTx) -> None:  # as if it had died between this transaction and the call
                order = Order(payment_hash=invoice.payment_hash, amount=Msat(1), fee_limit=Msat(0), send=never)
                intend(tx, order)

            await alice.service(LightningService).context.transaction(crash)
        async with where.node("alice") as alice:
            await alice.wait_ready()
            await trio.sleep(1)
            assert (await spent(alice), await left_open(alice)) == (0, 0)
            [event] = await told(alice)
            assert (event["state"], event["paymentHash"]) == ("failed", invoice.payment_hash.hex())
            assert "before it was asked to pay: nothing was paid" in event["reason"]
            assert event["retryable"]
            await alice.service(LightningService).pay(text)


async def never() -> Payment:
    await trio.lowlevel.checkpoint()
    raise AssertionError("an intent of an earlier run is never sent")


# --- What a simulated node cannot be made to do -----------------------------------------------------------------------


@pytest.fixture
async def payer(market: Market) -> AsyncIterator[Payer]:
    async with open_payer(market.buyer.context, random=lambda: 0.5) as payer:
        yield payer


def order(error: Exception) -> Order:
    async def send() -> Payment:
        await trio.lowlevel.checkpoint()
        raise error

    return Order(payment_hash=PaymentHash(bytes(32)), amount=Msat(5000), fee_limit=Msat(1000), send=send)


@pytest.mark.parametrize(
    ("error", "told", "words"),
    [
        (NodeRefused("the node does not like it"), NodeRefused, "does not like it"),
        (NodeUnavailable("cut off"), NodeUnavailable, "went away before it was asked to pay: nothing was paid"),
        (AlreadyPaying("it has"), NodeUnavailable, "nothing was paid; call again"),
    ],
)
async def test_what_was_never_begun_costs_nothing(
    error: Exception,
    told: type[Exception],
    words: str,
    payer: Payer,
    market: Market,
    autojump_clock: MockClock,
) -> None:
    for _ in range(2):
        with pytest.raises(told, match=words):
            await payer.pay(order(error))
        assert (await spent(market.alice), await left_open(market.alice)) == (0, 0)


async def test_a_key_whose_payment_never_reached_the_node_says_so(market: Market, autojump_clock: MockClock) -> None:
    you = (await market.carol.wait_ready()).pubkey
    limit = asking.fee_limit(Msat(9000), Sat(0), market.alice.config.lightning)
    digest = asking.keysend_sha256(you, Msat(9000), {}, limit)
    key = Key(text="k", request_sha256=digest, kept_ms=1000)
    lost = replace(order(NodeUnavailable("cut off")), key=key)
    await market.buyer.context.transaction(lambda tx: intend(tx, lost))  # and then the daemon was killed
    with pytest.raises(FailedPrecondition, match="never reached the Lightning node: nothing was paid; use a new key"):
        await market.buyer.keysend(you, Sat(9), idempotency_key="k")


async def test_a_full_disk_delays_the_end_and_loses_nothing(
    market: Market, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    context, calls = market.buyer.context, 0
    transaction = context.transaction

    async def full(effect: Callable[[ServiceTx], object]) -> object:
        nonlocal calls
        calls += 1
        if calls in (2, 3, 5):
            raise StoreFull("the disk is full")
        return await transaction(effect)

    monkeypatch.setattr(context, "transaction", full)
    text, _ = await market.ask()
    await market.buyer.pay(text)
    assert await spent(market.alice) == 5000 + FEE
    await trio.sleep(5)
    assert (calls, await left_open(market.alice), await told(market.alice)) == (6, 0, [])


async def test_what_is_begun_anew_stays_open_whatever_is_still_to_be_stored_of_the_payment_before(
    market: Market, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The caller has its failure before that is stored, and may pay again at once: the two share a hash."""
    context, calls, carol = market.buyer.context, 0, market.where.network.lnd("carol")
    transaction = context.transaction

    async def full(effect: Callable[[ServiceTx], object]) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:  # of the first payment: its intent, its cost, its end
            raise StoreFull("the disk is full")
        return await transaction(effect)

    text, payment_hash = await market.ask()
    carol.cancel_invoice(payment_hash)
    monkeypatch.setattr(context, "transaction", full)
    with pytest.raises(PaymentFailed):
        await market.buyer.pay(text)
    assert await left_open(market.alice) == 1
    carol.delay_arrivals(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_failure, market, text)
        await trio.sleep(10)
        assert calls == 5, "the first one's end is stored, and the second one's intent"
        assert await left_open(market.alice) == 1, "which is under way"
        assert await spent(market.alice) > 0
    assert (await left_open(market.alice), await spent(market.alice)) == (0, 0)


async def expect_failure(market: Market, text: str) -> None:
    with pytest.raises(PaymentFailed):
        await market.buyer.pay(text)


async def test_an_end_closes_one_payment_and_one_reservation(market: Market, autojump_clock: MockClock) -> None:
    carol = market.where.network.lnd("carol")
    slow, _ = await market.ask(7)
    quick, _ = await market.ask(9)
    carol.delay_arrivals(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.buyer.pay, slow)
        await trio.sleep(1)
        carol.delay_arrivals(0)
        await market.buyer.pay(quick)
        assert await left_open(market.alice) == 1
        assert await spent(market.alice) == 9_000 + FEE + 7_000 + 10_000
    assert await left_open(market.alice) == 0
    assert await spent(market.alice) == 16_000 + 2 * FEE


async def test_a_disk_that_is_full_before_pays_nothing(
    market: Market, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def full(_effect: Callable[[ServiceTx], object]) -> object:
        await trio.lowlevel.checkpoint()
        raise StoreFull("the disk is full")

    text, payment_hash = await market.ask()
    with monkeypatch.context() as patch:
        patch.setattr(market.buyer.context, "transaction", full)
        with pytest.raises(StoreFull):
            await market.buyer.pay(text)
    assert await market.got(payment_hash) == 0
    await market.buyer.pay(text)


async def test_who_waits_when_the_daemon_stops_is_told(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def pay(service: LightningService, text: str) -> None:
        with pytest.raises(NodeUnavailable) as caught:
            await service.pay(text)
        told.append(str(caught.value))

    async with stage(tmp_path, wall) as where, where.node("carol") as carol, trio.open_nursery() as nursery:
        text = (await carol.service(LightningService).generate(Sat(100))).payment_request
        where.network.lnd("carol").delay_arrivals(60)
        async with where.node("alice") as alice:
            await alice.wait_ready()
            nursery.start_soon(pay, alice.service(LightningService), text)  # noqa: ASYNC111 - told when its node ends
            await trio.sleep(1)
    assert "the daemon is stopping" in told[0]


# --- A payment whose task breaks --------------------------------------------------------------------------------------


class Breaking:
    """Makes calls of a node raise what nobody foresaw."""

    def __init__(self, market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
        self._node = market.where.network.node("alice")
        self._monkeypatch = monkeypatch

    def next_call(self, name: str, *, times: int = 1, done: bool = False) -> None:
        """Break the next calls of one name; `done`: they do what they are asked for first."""
        real, left = getattr(self._node, name), times

        async def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            if left <= 0:
                return await real(*args, **kwargs)
            left -= 1
            if done:
                await real(*args, **kwargs)
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError("nobody foresaw this")

        self._monkeypatch.setattr(self._node, name, call)


@pytest.fixture
def breaking(market: Market, monkeypatch: pytest.MonkeyPatch) -> Breaking:
    return Breaking(market, monkeypatch)


async def test_a_payment_that_breaks_poisons_nothing(
    market: Market, breaking: Breaking, autojump_clock: MockClock
) -> None:
    text, payment_hash = await market.ask()
    breaking.next_call("pay_invoice")
    with trio.fail_after(600):
        with pytest.raises(NodeUnavailable, match="restarting after an error"):
            await market.buyer.pay(text)
        for _ in range(2):
            with pytest.raises(NodeUnavailable, match="the lightning service is restarting: call again"):
                await market.buyer.pay(text)
            with pytest.raises(NodeUnavailable, match="the lightning service is restarting: call again"):
                await market.buyer.keysend(market.where.network.node("carol").pubkey, Sat(1))
        await trio.sleep(5)
        [event] = await told(market.alice)
        assert (event["state"], event["paymentHash"], event["retryable"]) == ("failed", payment_hash.hex(), True)
        assert (await market.buyer.pay(text)).payment_hash == payment_hash
    assert await market.got(payment_hash) == 5000
    assert (await spent(market.alice), await left_open(market.alice)) == (5000 + FEE, 0)
    broken = [detail(each) for each in await everything(market.alice) if b"BROKEN" in each.data]
    assert broken == [{"recordId": "BROKEN", "error": "ZeroDivisionError"}]


async def test_a_payment_that_breaks_under_way_is_found_and_not_made_again(
    market: Market, breaking: Breaking, autojump_clock: MockClock
) -> None:
    text, payment_hash = await market.ask()
    breaking.next_call("pay_invoice", done=True)
    with trio.fail_after(600):
        with pytest.raises(NodeUnavailable, match="restarting after an error"):
            await market.buyer.pay(text)
        await trio.sleep(5)
        assert (await market.buyer.pay(text)).payment_hash == payment_hash
    [event] = await told(market.alice)
    assert (event["state"], event["paymentHash"]) == ("paid", payment_hash.hex())
    assert (await market.got(payment_hash), (await market.paid(payment_hash)).attempts) == (5000, 1)
    assert (await spent(market.alice), await left_open(market.alice)) == (5000 + FEE, 0)


async def test_payments_beside_one_that_breaks_go_on(
    market: Market, breaking: Breaking, autojump_clock: MockClock
) -> None:
    slow, slow_hash = await market.ask(7)
    market.where.network.lnd("carol").delay_arrivals(60)
    texts = [(await market.ask())[0] for _ in range(2)]

    async def pay(text: str) -> None:
        with trio.fail_after(30), pytest.raises(NodeUnavailable, match="restarting after an error"):
            await market.buyer.pay(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pay, slow)
        await trio.sleep(1)
        breaking.next_call("pay_invoice")
        for text in texts:
            nursery.start_soon(pay, text)
    with trio.fail_after(600):
        await trio.sleep(5)
        assert (await market.buyer.pay(slow)).payment_hash == slow_hash
        for text in texts:
            await market.buyer.pay(text)
    assert (await market.got(slow_hash), (await market.paid(slow_hash)).attempts) == (7000, 1)
    assert await left_open(market.alice) == 0


async def test_a_payment_whose_end_cannot_be_read_keeps_no_other_from_being_made(
    market: Market, breaking: Breaking, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    text, payment_hash = await market.ask()
    market.where.network.lnd("alice").lose_next_answer()
    breaking.next_call("track", times=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.buyer.pay, text)
        await trio.sleep(0.5)
        await market.buyer.pay((await market.ask())[0])
    assert (await market.buyer.pay(text)).payment_hash == payment_hash
    assert (await market.paid(payment_hash)).attempts == 1
    assert caplog.text.count("its end cannot be read") == 3
    assert (await left_open(market.alice), await told(market.alice)) == (0, [])


async def test_a_node_that_may_pay_nothing_pays_nothing(market: Market, autojump_clock: MockClock) -> None:
    text, payment_hash = await market.ask()
    gate = market.buyer.context._gate
    gate.close("test", "its database was set back: adopt it")
    you = (await market.carol.wait_ready()).pubkey
    for call in (lambda: market.buyer.pay(text), lambda: market.buyer.keysend(you, Sat(9))):
        with pytest.raises(FailedPrecondition, match="set back"):
            await call()
    assert (await market.got(payment_hash), await spent(market.alice), await left_open(market.alice)) == (0, 0, 0)
    gate.open("test")
    assert (await market.buyer.pay(text)).payment_hash == payment_hash


async def test_a_key_that_joins_a_payment_under_way_is_used_for_it(market: Market, autojump_clock: MockClock) -> None:
    text, _ = await market.ask()
    other, other_hash = await market.ask(6)
    market.where.network.lnd("carol").delay_arrivals(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.buyer.pay, text)
        await trio.sleep(1)
        nursery.start_soon(partial(market.buyer.pay, text, idempotency_key="k"))
    with pytest.raises(AlreadyExists):
        await market.buyer.pay(other, idempotency_key="k")
    assert await market.got(other_hash) == 0
