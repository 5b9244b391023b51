"""`node.InvoiceNode`: what holds of every node, and after that what takes an operator to bring about."""

import hashlib
import os
import secrets
from dataclasses import replace

import pytest
import trio
from bolt11 import Bolt11, MilliSatoshi, TagChar, Tags
from bolt11 import encode as bolt11_encode
from tests.contract.nodes import Nodes, pay
from tests.contract.stage import Stage
from tests.sim.reader import until

from impervious.errors import (
    AlreadyExists,
    AlreadyPaying,
    InvalidArgument,
    NodeRefused,
    NodeUnavailable,
    NotFound,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.model import (
    MAX_INVOICE,
    AddedInvoice,
    Balance,
    DecodedInvoice,
    InvoiceCursor,
    InvoiceState,
    InvoiceTerms,
    NodePubkey,
    Payment,
    PaymentHash,
    PaymentStatus,
    Preimage,
)
from impervious.node import LightningNode
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD

UNKNOWN = PaymentHash(hashlib.sha256(b"nobody's").digest())
STRANGER = "e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734"
"""A private key that no node of any network has."""


def strangers_invoice(*, currency: str = "bcrt", amount: int = 2000, created_s: int = 1_900_000_000) -> str:
    """A payment request by another program, of a node nobody knows."""
    tags = Tags()
    tags.add(TagChar.payment_hash, UNKNOWN.hex())
    tags.add(TagChar.payment_secret, bytes(32).hex())
    tags.add(TagChar.description, "a stranger's")
    tags.add(TagChar.min_final_cltv_expiry, 40)
    request = Bolt11(currency=currency, date=created_s, tags=tags, amount_msat=MilliSatoshi(amount))
    return bolt11_encode(request, STRANGER)


# --- what an invoice says ---


async def test_an_invoice_says_what_was_asked_for(nodes: Nodes) -> None:
    terms = InvoiceTerms(amount=Msat(12_345), memo="Grüße, ¹ ₿", expiry_s=600)
    added = await nodes.carol.add_invoice(terms)
    assert added.payment_request.startswith("lnbcrt123450p1")
    read = await nodes.alice.decode_invoice(added.payment_request)
    assert read == DecodedInvoice(
        payment_request=added.payment_request,
        payee=(await nodes.carol.wait_ready()).pubkey,
        payment_hash=added.payment_hash,
        amount=Msat(12_345),
        created_s=read.created_s,
        expiry_s=600,
        description="Grüße, ¹ ₿",
        payment_secret=read.payment_secret,
        min_final_cltv=read.min_final_cltv,
        features=read.features,
    )
    assert read.created_s > 1_700_000_000
    assert read.min_final_cltv >= 18
    assert len(read.payment_secret) == 32
    assert {8, 14} <= read.features
    kept = await nodes.carol.lookup_invoice(added.payment_hash)
    assert (kept.state, kept.amount, kept.memo) == (InvoiceState.OPEN, 12_345, terms.memo)
    assert (kept.payment_request, kept.add_index) == (added.payment_request, added.add_index)
    assert (kept.expiry_s, kept.created_s, kept.settled_s) == (600, read.created_s, 0)
    assert (kept.is_keysend, kept.amount_paid, kept.htlcs) == (False, 0, ())


async def test_a_description_can_be_a_hash_and_the_memo_stays_at_home(nodes: Nodes) -> None:
    digest = hashlib.sha256(b"a long contract").digest()
    added = await nodes.carol.add_invoice(InvoiceTerms(amount=Msat(1000), memo="mine", description_hash=digest))
    read = await nodes.alice.decode_invoice(added.payment_request)
    assert (read.description, read.description_hash) == ("", digest)
    kept = await nodes.carol.lookup_invoice(added.payment_hash)
    assert (kept.memo, kept.description_hash) == ("mine", digest)


@pytest.mark.parametrize(
    "terms",
    [
        InvoiceTerms(amount=Msat(0), memo="x" * 639, expiry_s=1),
        InvoiceTerms(amount=Msat(1), memo="x" * 1024, description_hash=bytes(32)),
        InvoiceTerms(amount=MAX_INVOICE, expiry_s=365 * 86_400),
    ],
    ids=["longest", "longest kept", "largest"],
)
async def test_the_limits_can_be_reached(terms: InvoiceTerms, nodes: Nodes) -> None:
    added = await nodes.carol.add_invoice(terms)
    read = await nodes.alice.decode_invoice(added.payment_request)
    assert (read.amount, read.expiry_s) == (terms.amount, terms.expiry_s)
    assert (await nodes.carol.lookup_invoice(added.payment_hash)).memo == terms.memo


async def test_each_invoice_is_another(nodes: Nodes) -> None:
    (one, first), (two, second) = await nodes.ask(1000), await nodes.ask(1000)
    assert two.add_index > one.add_index
    assert one.payment_hash != two.payment_hash
    assert first.payment_secret != second.payment_secret


async def test_a_preimage_makes_one_invoice(nodes: Nodes) -> None:
    terms = InvoiceTerms(amount=Msat(1000), memo="once", preimage=Preimage(secrets.token_bytes(32)))
    assert terms.preimage
    added = await nodes.carol.add_invoice(terms)
    assert added.payment_hash == terms.preimage.payment_hash
    for again in (terms, replace(terms, amount=Msat(2000))):
        with pytest.raises(AlreadyExists, match="an invoice with that preimage"):
            await nodes.carol.add_invoice(again)
    kept = await nodes.carol.lookup_invoice(added.payment_hash)
    assert (kept.payment_request, kept.amount) == (added.payment_request, 1000)


async def test_another_programs_invoice_is_read(nodes: Nodes) -> None:
    text = strangers_invoice(amount=20_001)
    read = await nodes.alice.decode_invoice(text)
    assert (read.payment_hash, read.amount, read.description) == (UNKNOWN, 20_001, "a stranger's")
    assert (read.created_s, read.expiry_s, read.expires_s) == (1_900_000_000, 3600, 1_900_003_600)
    assert read.min_final_cltv == 40
    assert read.payee == NodePubkey.parse("03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad")
    shouted = await nodes.alice.decode_invoice(text.upper())
    assert (shouted.payment_hash, shouted.payee) == (read.payment_hash, read.payee)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lnbcrt",
        "hello",
        "lightning invoice ⚡",
        "lnbcrt1\ud800",
        "lnbcrt1" + "q" * 5000,
        strangers_invoice(currency="bc"),
        strangers_invoice(currency="tb"),
        strangers_invoice()[:-1],
        strangers_invoice()[:-1] + "b",
        strangers_invoice()[:20] + strangers_invoice()[20:].upper(),
        strangers_invoice() + strangers_invoice(),
        strangers_invoice().replace("lnbcrt20n1", "lnbcrt20m1"),
    ],
)
async def test_what_is_no_invoice_for_this_network_is_the_callers_mistake(text: str, nodes: Nodes) -> None:
    with pytest.raises(InvalidArgument, match="cannot read this invoice"):
        await nodes.alice.decode_invoice(text)


# --- paying ---


async def test_an_invoice_is_paid(nodes: Nodes) -> None:
    added, invoice = await nodes.ask(5001, memo="coffee")
    payment = await nodes.pay(invoice)
    assert replace(payment, dest=None, records={}) == Payment(  # these two are for `list_payments`
        payment_hash=added.payment_hash,
        status=PaymentStatus.SUCCEEDED,
        amount=Msat(5001),
        fee=Msat(1000),
        attempts=1,
        preimage=payment.preimage,
        created_s=payment.created_s,
        payment_request=added.payment_request,
    )
    assert payment.preimage is not None
    assert payment.preimage.payment_hash == added.payment_hash
    paid = await nodes.carol.lookup_invoice(added.payment_hash)
    assert (paid.state, paid.amount, paid.amount_paid) == (InvoiceState.SETTLED, 5001, 5001)
    assert paid.settled_s >= paid.created_s
    assert paid.settle_index > 0
    assert [htlc.amount for htlc in paid.htlcs] == [5001]


async def test_what_was_paid_is_told_to_the_reader_of_settled_invoices(nodes: Nodes) -> None:
    added, invoice = await nodes.ask(5000, memo="coffee")
    await nodes.pay(invoice)
    async with nodes.carol.settled_invoices(InvoiceCursor()) as news:
        with trio.fail_after(30):
            async for item in news:
                if item.invoice is not None and item.invoice.payment_hash == added.payment_hash:
                    break
    assert item.invoice is not None
    assert (item.invoice.amount, item.invoice.memo, item.invoice.is_keysend) == (5000, "coffee", False)
    assert item.invoice.payment_request == added.payment_request


async def test_the_payer_chooses_where_the_invoice_leaves_it_open(nodes: Nodes) -> None:
    added, invoice = await nodes.ask(0)
    assert invoice.amount == 0
    assert added.payment_request.startswith("lnbcrt1")
    with pytest.raises(NodeRefused, match="amount must be specified"):
        await nodes.pay(invoice)
    with pytest.raises(PaymentNotFound):
        await nodes.alice.lookup_payment(added.payment_hash)
    assert (await nodes.pay(invoice, amount=7001)).amount == 7001
    paid = await nodes.carol.lookup_invoice(added.payment_hash)
    assert (paid.state, paid.amount, paid.amount_paid) == (InvoiceState.SETTLED, 0, 7001)


@pytest.mark.parametrize("amount", [1, 5000, -1])
async def test_the_payer_cannot_choose_where_the_invoice_says_it(amount: int, nodes: Nodes) -> None:
    added, invoice = await nodes.ask(5000)
    with pytest.raises(NodeRefused, match="amount"):
        await nodes.pay(invoice, amount=amount)
    with pytest.raises(PaymentNotFound):
        await nodes.alice.lookup_payment(added.payment_hash)


async def test_an_invoice_is_paid_once_by_us_and_once_by_anybody(nodes: Nodes) -> None:
    added, invoice = await nodes.ask(5000)
    first = await nodes.pay(invoice)
    with pytest.raises(AlreadyPaying):
        await nodes.pay(invoice)
    again = await nodes.alice.lookup_payment(added.payment_hash)
    assert (again.status, again.preimage) == (PaymentStatus.SUCCEEDED, first.preimage)
    with trio.fail_after(30):
        late = await pay(nodes.bob, invoice)
    assert (late.status, late.failure) == (PaymentStatus.FAILED, PaymentFailure.INCORRECT_PAYMENT_DETAILS)
    assert (await nodes.carol.lookup_invoice(added.payment_hash)).amount_paid == 5000


@pytest.mark.slow
async def test_an_expired_invoice_is_refused_unless_it_was_paid_before(nodes: Nodes) -> None:
    paid_hash, paid = await nodes.ask(5000, expiry_s=2)
    _, unpaid = await nodes.ask(5000, expiry_s=1)
    assert (await nodes.pay(paid)).status is PaymentStatus.SUCCEEDED
    await trio.sleep(3.1)
    with pytest.raises(NodeRefused, match="expired"):
        await nodes.pay(unpaid)
    with pytest.raises(PaymentNotFound):
        await nodes.alice.lookup_payment(unpaid.payment_hash)
    with pytest.raises(AlreadyPaying):
        await nodes.pay(paid)
    assert (await nodes.alice.lookup_payment(paid_hash.payment_hash)).status is PaymentStatus.SUCCEEDED
    assert await nodes.alice.decode_invoice(unpaid.payment_request) == unpaid
    with trio.fail_after(30):
        while (await nodes.carol.lookup_invoice(unpaid.payment_hash)).state is not InvoiceState.CANCELED:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def test_our_own_invoice_cannot_be_paid(nodes: Nodes) -> None:
    added = await nodes.alice.add_invoice(InvoiceTerms(amount=Msat(5000)))
    invoice = await nodes.alice.decode_invoice(added.payment_request)
    with pytest.raises(NodeRefused, match="self-payments not allowed"):
        await nodes.pay(invoice)
    with pytest.raises(PaymentNotFound):
        await nodes.alice.lookup_payment(added.payment_hash)
    assert (await nodes.alice.lookup_invoice(added.payment_hash)).state is InvoiceState.OPEN


@pytest.mark.parametrize("fee_limit", [0, 999])
async def test_a_fee_limit_is_kept_and_can_be_raised(fee_limit: int, nodes: Nodes) -> None:
    _, invoice = await nodes.ask(5000)
    payment = await nodes.pay(invoice, fee_limit=fee_limit)
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, PaymentFailure.NO_ROUTE)
    assert (payment.attempts, payment.fee, payment.preimage) == (0, 0, None)
    assert (await nodes.alice.lookup_payment(invoice.payment_hash)).status is PaymentStatus.FAILED
    assert (await nodes.carol.lookup_invoice(invoice.payment_hash)).state is InvoiceState.OPEN
    paid = await nodes.pay(invoice, fee_limit=1000)
    assert (paid.status, paid.fee) == (PaymentStatus.SUCCEEDED, 1000)


async def test_to_a_stranger_there_is_no_route(nodes: Nodes) -> None:
    invoice = await nodes.alice.decode_invoice(strangers_invoice())
    payment = await nodes.pay(invoice)
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, PaymentFailure.NO_ROUTE)


async def test_more_than_there_is_cannot_be_paid(nodes: Nodes) -> None:
    _, invoice = await nodes.ask(10**12)
    payment = await nodes.pay(invoice, fee_limit=10**9)
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, PaymentFailure.INSUFFICIENT_BALANCE)


# --- looking things up ---


async def test_what_is_not_there_is_not_found(nodes: Nodes) -> None:
    unknown = PaymentHash(hashlib.sha256(b"never seen").digest())
    with pytest.raises(NotFound, match=unknown.hex()):
        await nodes.alice.lookup_invoice(unknown)
    with pytest.raises(PaymentNotFound):
        await nodes.alice.lookup_payment(unknown)


async def test_a_foreign_invoice_is_among_our_payments_only(nodes: Nodes) -> None:
    added, invoice = await nodes.ask(5000)
    with pytest.raises(PaymentNotFound):
        await nodes.alice.lookup_payment(added.payment_hash)
    await nodes.pay(invoice)
    assert (await nodes.alice.lookup_payment(added.payment_hash)).status is PaymentStatus.SUCCEEDED
    with pytest.raises(NotFound):
        await nodes.alice.lookup_invoice(added.payment_hash)
    with pytest.raises(PaymentNotFound):
        await nodes.carol.lookup_payment(added.payment_hash)


async def test_invoices_are_paged_in_both_directions(nodes: Nodes) -> None:
    before = (await nodes.carol.list_invoices(limit=1, backwards=True)).last_index
    added = [(await nodes.ask(1000 + number))[0] for number in range(5)]
    indexes = [invoice.add_index for invoice in added]
    first = await nodes.carol.list_invoices(index_offset=before, limit=2)
    assert [invoice.add_index for invoice in first.invoices] == indexes[:2]
    assert (first.first_index, first.last_index) == (indexes[0], indexes[1])
    second = await nodes.carol.list_invoices(index_offset=first.last_index, limit=100)
    assert [invoice.payment_hash for invoice in second.invoices] == [invoice.payment_hash for invoice in added[2:]]
    last = await nodes.carol.list_invoices(limit=2, backwards=True)
    assert [invoice.add_index for invoice in last.invoices] == indexes[3:]
    earlier = await nodes.carol.list_invoices(index_offset=last.first_index, limit=3, backwards=True)
    assert [invoice.amount for invoice in earlier.invoices] == [1000, 1001, 1002]
    empty = await nodes.carol.list_invoices(index_offset=indexes[-1])
    assert (empty.invoices, empty.first_index, empty.last_index) == ((), 0, 0)


async def test_payments_are_paged_in_both_directions_and_failed_ones_count(nodes: Nodes) -> None:
    before = (await nodes.alice.list_payments(limit=1, backwards=True)).last_index
    hashes = []
    for number in range(5):
        added, invoice = await nodes.ask(1000 + number)
        await nodes.pay(invoice, fee_limit=0 if number == 1 else 5000)
        hashes.append(added.payment_hash)
    first = await nodes.alice.list_payments(index_offset=before, limit=2)
    assert [payment.payment_hash for payment in first.payments] == hashes[:2]
    assert [payment.status for payment in first.payments] == [PaymentStatus.SUCCEEDED, PaymentStatus.FAILED]
    assert [payment.failure for payment in first.payments] == [None, PaymentFailure.NO_ROUTE]
    second = await nodes.alice.list_payments(index_offset=first.last_index, limit=100)
    assert [payment.payment_hash for payment in second.payments] == hashes[2:]
    last = await nodes.alice.list_payments(limit=2, backwards=True)
    assert [payment.payment_hash for payment in last.payments] == hashes[3:]
    earlier = await nodes.alice.list_payments(index_offset=last.first_index, limit=3, backwards=True)
    assert [payment.amount for payment in earlier.payments] == [1000, 1001, 1002]
    assert [payment.fee for payment in earlier.payments] == [1000, 0, 1000]
    empty = await nodes.alice.list_payments(index_offset=second.last_index)
    assert (empty.payments, empty.first_index, empty.last_index) == ((), 0, 0)


async def test_keysends_are_listed_at_both_ends(nodes: Nodes) -> None:
    preimage = Preimage(os.urandom(32))
    bob = (await nodes.bob.wait_ready()).pubkey
    with trio.fail_after(30):
        await nodes.alice.send_keysend(bob, Msat(2000), preimage, {}, fee_limit=Msat(0), timeout_s=30)
    sent = (await nodes.alice.list_payments(limit=1, backwards=True)).payments[0]
    assert (sent.payment_hash, sent.payment_request, sent.amount) == (preimage.payment_hash, "", 2000)
    received = (await nodes.bob.list_invoices(limit=1, backwards=True)).invoices[0]
    assert (received.payment_hash, received.is_keysend, received.payment_request) == (preimage.payment_hash, True, "")
    assert (received.amount, received.expiry_s, received.description_hash) == (2000, 0, b"")


async def test_a_list_of_payments_tells_what_keysends_carried_if_it_is_asked_for(nodes: Nodes) -> None:
    bob, carol = (await nodes.bob.wait_ready()).pubkey, (await nodes.carol.wait_ready()).pubkey
    for dest in (bob, carol):
        preimage = Preimage(os.urandom(32))
        records = {400_000: b"I\x01" + bytes(800), 65_537: b"x"}
        with trio.fail_after(30):
            await nodes.alice.send_keysend(dest, Msat(2000), preimage, records, fee_limit=Msat(9000), timeout_s=30)
        [sent] = (await nodes.alice.list_payments(limit=1, backwards=True, records=True)).payments
        assert (sent.payment_hash, sent.dest) == (preimage.payment_hash, dest)
        assert {kind: sent.records[kind] for kind in records} == records
        assert sent.records[PREIMAGE_RECORD] == preimage.raw


async def test_a_balance_moves_by_what_is_paid_to_the_millisatoshi(nodes: Nodes) -> None:
    before, receiver = await nodes.alice.balance(), await nodes.carol.balance()
    _, invoice = await nodes.ask(5_001)
    await nodes.pay(invoice)
    await becomes(nodes.alice, replace(before, local=Msat(before.local - 6_001), remote=Msat(before.remote + 6_001)))
    await becomes(
        nodes.carol, replace(receiver, local=Msat(receiver.local + 5_001), remote=Msat(receiver.remote - 5_001))
    )


async def becomes(node: LightningNode, balance: Balance) -> None:
    """Wait until a node's commitments are made anew."""
    with trio.fail_after(30):
        while await node.balance() != balance:  # noqa: ASYNC110 - nothing tells it
            await trio.sleep(0.05)


# --- what goes wrong ---


async def asked(stage: Stage, amount: int = 5000) -> DecodedInvoice:
    """An invoice of carol's as alice reads it."""
    await stage.alice.wait_ready()
    await stage.node("carol").wait_ready()
    added: AddedInvoice = await stage.node("carol").add_invoice(InvoiceTerms(amount=Msat(amount)))
    return await stage.alice.decode_invoice(added.payment_request)


async def test_an_answer_that_is_lost_is_found_and_nothing_is_paid_twice(stage: Stage) -> None:
    invoice = await asked(stage)
    stage.lnd("alice").lose_next_answer()
    with pytest.raises(NodeUnavailable):
        await pay(stage.alice, invoice)
    with trio.fail_after(10):
        await stage.alice.wait_ready()
    assert (await stage.alice.track(invoice.payment_hash)).status is PaymentStatus.SUCCEEDED
    assert (await stage.alice.lookup_payment(invoice.payment_hash)).amount == 5000
    with pytest.raises(AlreadyPaying):
        await pay(stage.alice, invoice)
    assert (await stage.node("carol").lookup_invoice(invoice.payment_hash)).amount_paid == 5000


async def test_what_is_in_flight_is_told_at_once_and_not_sent_again(stage: Stage) -> None:
    invoice = await asked(stage)
    stage.lnd("carol").delay_arrivals(3600)
    with trio.move_on_after(0.2) as scope:
        await pay(stage.alice, invoice)
    assert scope.cancelled_caught
    with trio.fail_after(5):
        found = await stage.alice.lookup_payment(invoice.payment_hash)
        assert (found.status, found.preimage, found.failure) == (PaymentStatus.IN_FLIGHT, None, None)
        with pytest.raises(AlreadyPaying):
            await pay(stage.alice, invoice)
        page = await stage.alice.list_payments()
        assert [payment.status for payment in page.payments] == [PaymentStatus.IN_FLIGHT]
        held = await stage.alice.balance()
        assert (held.local, held.unsettled_local, held.unsettled_remote) == (499_994_000, 0, 6000)


@pytest.mark.parametrize("reason", PaymentFailure)
async def test_a_failed_payment_says_why_and_can_be_sent_again(reason: PaymentFailure, stage: Stage) -> None:
    invoice = await asked(stage)
    stage.lnd("alice").fail_next_payment(reason, after_attempt=True)
    assert (await pay(stage.alice, invoice)).failure is reason
    assert (await pay(stage.alice, invoice)).status is PaymentStatus.SUCCEEDED


async def test_a_cancelled_invoice_is_not_paid(stage: Stage) -> None:
    invoice = await asked(stage)
    stage.lnd("carol").cancel_invoice(invoice.payment_hash)
    assert (await pay(stage.alice, invoice)).failure is PaymentFailure.INCORRECT_PAYMENT_DETAILS
    assert (await stage.node("carol").lookup_invoice(invoice.payment_hash)).state is InvoiceState.CANCELED


async def test_no_question_is_answered_by_a_node_that_is_away(stage: Stage) -> None:
    invoice = await asked(stage)
    stage.lnd("alice").stop()
    await until(lambda: not stage.alice.status.ready)
    for ask in (
        lambda: stage.alice.add_invoice(InvoiceTerms(amount=Msat(1))),
        lambda: stage.alice.decode_invoice(invoice.payment_request),
        lambda: pay(stage.alice, invoice),
        lambda: stage.alice.lookup_payment(invoice.payment_hash),
        lambda: stage.alice.lookup_invoice(invoice.payment_hash),
        stage.alice.list_invoices,
        stage.alice.list_payments,
        stage.alice.balance,
    ):
        with pytest.raises(NodeUnavailable):
            await ask()


async def test_a_new_node_has_what_its_channels_say(stage: Stage) -> None:
    await stage.alice.wait_ready()
    nothing = Msat(0)
    assert await stage.alice.balance() == Balance(
        local=Msat(500_000_000),
        remote=Msat(500_000_000),
        unsettled_local=nothing,
        unsettled_remote=nothing,
        opening_local=nothing,
        confirmed=nothing,
        unconfirmed=nothing,
    )
