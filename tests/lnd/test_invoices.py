from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from grpclib.const import Status
from tests.lnd.fake import CREDENTIALS, FakeLnd, opened, refuses, says

from impervious.errors import NodeRefused, NodeUnavailable
from impervious.invoice_feed import InvoiceSource
from impervious.lnd import LndNode, rpcs
from impervious.lnd.invoices import LndInvoices
from impervious.model import HtlcState, InvoiceCursor, InvoiceHtlc, InvoiceState, NodeInvoice, PaymentHash
from impervious.pb.lnrpc import (
    Invoice,
    InvoiceHtlcState,
    InvoiceInvoiceState,
    InvoiceSubscription,
    ListInvoiceRequest,
    ListInvoiceResponse,
)
from impervious.pb.lnrpc import (
    InvoiceHtlc as PbHtlc,
)
from impervious.pb.lnrpc import PaymentHash as PbPaymentHash

HASH = PaymentHash(b"\x05" * 32)
SETTLED = Invoice(
    r_hash=HASH,
    memo="coffee",
    payment_request="lnbc1",
    add_index=7,
    settle_index=3,
    creation_date=1_700_000_000,
    settle_date=1_700_000_001,
    amt_paid_msat=9000,
    is_keysend=True,
    state=InvoiceInvoiceState.SETTLED,
    htlcs=[
        PbHtlc(
            amt_msat=1000,
            accept_time=1_700_000_001,
            htlc_index=4,
            state=InvoiceHtlcState.SETTLED,
            custom_records={400_000: b"hello", 2**63 + 1: b""},
        )
    ],
)
OPEN = Invoice(r_hash=b"\x06" * 32, add_index=8, is_keysend=True)


@asynccontextmanager
async def invoices(fake: FakeLnd) -> AsyncIterator[LndInvoices]:
    async with fake.serve(), fake.connect(CREDENTIALS) as connection:
        yield LndInvoices(connection)


async def test_an_invoice_is_taken_over_whole(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.LOOKUP_INVOICE] = says(SETTLED)
    async with invoices(fake) as source:
        port: InvoiceSource = source
        found = await port.lookup_invoice(HASH)
    assert found is not None
    assert found == NodeInvoice(
        payment_hash=HASH,
        state=InvoiceState.SETTLED,
        add_index=7,
        settle_index=3,
        created_s=1_700_000_000,
        settled_s=1_700_000_001,
        is_keysend=True,
        amount_paid=found.amount_paid,
        htlcs=(
            InvoiceHtlc(
                state=HtlcState.SETTLED,
                amount=found.htlcs[0].amount,
                accepted_s=1_700_000_001,
                index=4,
                records={400_000: b"hello", 2**63 + 1: b""},
            ),
        ),
        memo="coffee",
        payment_request="lnbc1",
    )
    assert (found.amount_paid, found.htlcs[0].amount) == (9000, 1000)
    assert fake.asked(PbPaymentHash) == [PbPaymentHash(r_hash=HASH)]


async def test_states_of_the_future_are_not_settled(autojump_clock: object) -> None:
    fake = FakeLnd()
    strange = Invoice(state=InvoiceInvoiceState(9), htlcs=[PbHtlc(state=InvoiceHtlcState(9))])
    fake.answers[rpcs.LOOKUP_INVOICE] = says(strange)
    async with invoices(fake) as source:
        found = await source.lookup_invoice(HASH)
    assert found is not None
    assert (found.state, found.htlcs[0].state) == (InvoiceState.ACCEPTED, HtlcState.ACCEPTED)


@pytest.mark.parametrize(
    "answer",
    [
        refuses("unable to locate invoice", Status.NOT_FOUND),
        refuses("unable to locate invoice"),
        refuses("there are no existing invoices"),
    ],
)
async def test_an_invoice_that_there_is_not(autojump_clock: object, answer: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.LOOKUP_INVOICE] = answer  # type: ignore[assignment]
    async with invoices(fake) as source:
        assert await source.lookup_invoice(HASH) is None


async def test_other_errors_of_looking_up_are_errors(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.LOOKUP_INVOICE] = refuses("payment hash must be exactly 32 bytes, is instead 3")
    async with invoices(fake) as source:
        with pytest.raises(NodeRefused):
            await source.lookup_invoice(HASH)


async def test_a_page_is_asked_for_in_full(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.LIST_INVOICES] = says(ListInvoiceResponse(invoices=[SETTLED, OPEN], last_index_offset=8))
    async with invoices(fake) as source:
        page = await source.list_invoices(index_offset=6, limit=500, backwards=True, created_from_s=99)
    assert ([invoice.add_index for invoice in page.invoices], page.last_index) == ([7, 8], 8)
    assert [invoice.state for invoice in page.invoices] == [InvoiceState.SETTLED, InvoiceState.OPEN]
    assert fake.asked(ListInvoiceRequest) == [
        ListInvoiceRequest(index_offset=6, num_max_invoices=500, reversed=True, creation_date_start=99)
    ]


async def test_a_subscription_asks_for_no_old_open_ones_and_ends_with_lnd(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SUBSCRIBE_INVOICES] = says(OPEN, SETTLED)
    async with invoices(fake) as source:
        async with source.subscribe_invoices(settle_index=2) as events:
            assert [invoice.add_index async for invoice in events] == [8, 7]
    assert fake.asked(InvoiceSubscription) == [InvoiceSubscription(settle_index=2)]


async def test_an_event_is_not_lost_to_a_cancelled_receive(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SUBSCRIBE_INVOICES] = says(SETTLED, then_hang=True)
    async with invoices(fake) as source:
        async with source.subscribe_invoices(settle_index=2) as events:
            with trio.CancelScope() as scope:
                scope.cancel()
                await events.receive()
            assert (await events.receive()).add_index == 7


# --- Through the feed -------------------------------------------------------------------------------------------------


async def read(node: LndNode) -> list[int]:
    """What is told until everything has been, by add_index."""
    told: list[int] = []
    async with node.settled_invoices(InvoiceCursor()) as news:
        async for item in news:
            if item.invoice is None:
                return told
            told.append(item.invoice.add_index)
    raise AssertionError("the feed ended")


async def test_the_feed_reads_on_a_connection_of_its_own(autojump_clock: object) -> None:
    fake = FakeLnd()
    page = ListInvoiceResponse(invoices=[SETTLED], last_index_offset=7)

    async def pages(request: object) -> AsyncIterator[ListInvoiceResponse]:
        assert isinstance(request, ListInvoiceRequest)
        await trio.lowlevel.checkpoint()
        yield ListInvoiceResponse() if request.index_offset >= 7 else page

    fake.answers[rpcs.LIST_INVOICES] = pages  # type: ignore[assignment]
    async with opened(fake) as node:
        await node.wait_ready()
        connections = len(fake.listener.client_ends)
        assert await read(node) == [7]
        assert len(fake.listener.client_ends) == connections + 1


async def test_the_feed_is_refused_while_lnd_is_away(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.up = False
    async with opened(fake) as node:
        await node.status_after(node.status)
        with pytest.raises(NodeUnavailable, match="start LND"):
            await read(node)
