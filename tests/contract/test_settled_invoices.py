import pytest
import trio
from tests.contract.stage import Stage
from tests.sim.reader import pay_invoice, preimage_of, until

from impervious.errors import NodeUnavailable
from impervious.model import InvoiceCursor, InvoiceNews, NodeState, SettledInvoice
from impervious.units import Msat
from impervious.wire.keysend import ACCOUNTABLE_RECORD, PREIMAGE_RECORD


async def next_invoice(news: trio.MemoryReceiveChannel[InvoiceNews]) -> tuple[SettledInvoice, InvoiceCursor]:
    """The next invoice and its cursor, whatever else is told before it."""
    with trio.fail_after(5):
        async for item in news:
            if item.invoice is not None:
                return item.invoice, item.cursor
    raise AssertionError("the channel has ended")


async def caught_up(news: trio.MemoryReceiveChannel[InvoiceNews]) -> tuple[list[int], InvoiceCursor]:
    """add_index of all that is told before everything has been told, and the cursor then."""
    told: list[int] = []
    with trio.fail_after(5):
        async for item in news:
            if item.invoice is None:
                return told, item.cursor
            told.append(item.invoice.add_index)
    raise AssertionError("the channel has ended")


async def test_a_keysend_arrives_with_its_records(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    async with carol.settled_invoices(InvoiceCursor()) as news:
        assert await caught_up(news) == ([], InvoiceCursor())
        await stage.subscribed("carol")
        await stage.pay(amount=7000, records={400000: b"\x00hello", 400001: b""})
        invoice, cursor = await next_invoice(news)
    assert (invoice.payment_hash, invoice.amount) == (preimage_of(1).payment_hash, 7000)
    assert invoice.records == {
        400000: b"\x00hello",
        400001: b"",
        PREIMAGE_RECORD: preimage_of(1).raw,
        ACCOUNTABLE_RECORD: b"\x00",
    }
    assert (invoice.is_keysend, invoice.memo, invoice.payment_request) == (True, "", "")
    assert (invoice.add_index, invoice.settle_index) == (1, 1)
    assert invoice.settled_s >= invoice.created_s > 1_700_000_000
    assert cursor.newest_s == invoice.created_s


async def test_what_came_while_nobody_read_is_told_first(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    for number in range(5):
        await stage.pay(number)
    async with carol.settled_invoices(InvoiceCursor()) as news:
        assert (await caught_up(news))[0] == [1, 2, 3, 4, 5]
        await stage.subscribed("carol")
        await stage.pay(9)
        assert (await next_invoice(news))[0].payment_hash == preimage_of(9).payment_hash


async def test_a_reader_goes_on_where_it_stopped(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    for number in range(5):
        await stage.pay(number)
    async with carol.settled_invoices(InvoiceCursor()) as news:
        stored = [(await next_invoice(news))[1] for _ in range(3)][-1]
    async with carol.settled_invoices(stored) as news:
        told, cursor = await caught_up(news)
    assert set(told) >= {4, 5}
    async with carol.settled_invoices(cursor) as news:
        await stage.subscribed("carol")
        await stage.pay(9)
        while (await next_invoice(news))[0].payment_hash != preimage_of(9).payment_hash:
            pass


async def test_a_paid_invoice_is_told_too(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    invoice = stage.lnd("carol").add_invoice(Msat(9000), memo="coffee")
    async with carol.settled_invoices(InvoiceCursor()) as news:
        await stage.subscribed("carol")
        await pay_invoice(stage.network, "alice", "carol", invoice)
        told, _ = await next_invoice(news)
    assert (told.payment_hash, told.amount, told.is_keysend, told.memo) == (invoice.payment_hash, 9000, False, "coffee")


async def test_of_several_htlcs_only_the_first_is_told(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    await stage.pay(amount=7000, records={400000: b"true"})
    true = preimage_of(1).payment_hash
    stage.lnd("bob").forge_htlc(stage.lnd("carol"), true, {400000: b"false"}, amount=Msat(8000))
    async with carol.settled_invoices(InvoiceCursor()) as news:
        invoice, _ = await next_invoice(news)
    assert (invoice.amount, invoice.records[400000]) == (7000, b"true")


async def test_records_can_be_replaced_on_the_way(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    stage.lnd("bob").override_records({400000: b"replaced"})
    await stage.pay(records={400000: b"written"})
    async with carol.settled_invoices(InvoiceCursor()) as news:
        assert (await next_invoice(news))[0].records[400000] == b"replaced"


async def test_a_full_onion_survives(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    value = bytes(range(256)) * 4 + bytes(130)
    await stage.pay(records={400000: value})
    async with carol.settled_invoices(InvoiceCursor()) as news:
        assert (await next_invoice(news))[0].records[400000] == value


@pytest.mark.parametrize("how", ["stop", "kill", "drop_connections"])
async def test_the_channel_ends_with_the_connection(how: str, stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    async with carol.settled_invoices(InvoiceCursor()) as news:
        await caught_up(news)
        await stage.subscribed("carol")
        getattr(stage.lnd("carol"), how)()
        with trio.fail_after(5), pytest.raises(trio.EndOfChannel):
            await news.receive()


async def test_a_node_that_is_away_cannot_be_read(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    stage.lnd("carol").stop()
    await until(lambda: carol.status.state is NodeState.AWAY)
    with pytest.raises(NodeUnavailable):
        async with carol.settled_invoices(InvoiceCursor()):
            pass


@pytest.mark.slow
async def test_a_migration_of_the_node_loses_nothing(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    for number in range(8):
        await stage.pay(number)
    async with carol.settled_invoices(InvoiceCursor()) as news:
        _, cursor = await caught_up(news)
    stage.lnd("carol").stop()
    await until(lambda: carol.status.state is NodeState.AWAY)
    await trio.sleep(1)  # a node that migrates is away for longer
    stage.lnd("carol").stop()
    await until(lambda: carol.status.state is NodeState.AWAY)
    stage.lnd("carol").renumber()
    stage.lnd("carol").start()
    with trio.fail_after(10):
        await carol.wait_ready()
    await stage.pay(100)
    async with carol.settled_invoices(cursor) as news:
        while (await next_invoice(news))[0].payment_hash != preimage_of(100).payment_hash:
            pass
        await stage.subscribed("carol")
        await stage.pay(101)
        while (await next_invoice(news))[0].payment_hash != preimage_of(101).payment_hash:
            pass


async def test_everything_can_be_read_again(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    await stage.alice.wait_ready()
    for number in range(3):
        await stage.pay(number)
    async with carol.settled_invoices(InvoiceCursor()) as news:
        _, cursor = await caught_up(news)
    async with carol.settled_invoices(cursor, rescan=True) as news:
        assert (await caught_up(news))[0] == [1, 2, 3]


async def test_what_the_reader_raises_comes_out_as_it_went_in(stage: Stage) -> None:
    carol = stage.node("carol")
    await carol.wait_ready()
    with pytest.raises(KeyError, match="reader"):
        async with carol.settled_invoices(InvoiceCursor()):
            raise KeyError("reader")
