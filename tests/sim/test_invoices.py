import pytest
import trio
import trio.testing

from impervious.errors import NodeUnavailable
from impervious.invoice_feed import InvoiceSource
from impervious.model import InvoiceState, PaymentHash
from impervious.sim import SimNetwork
from impervious.sim.invoices import SimInvoices
from impervious.units import Msat


async def test_the_three_ways_to_look_at_invoices(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        lnd = network.lnd("alice")
        source: InvoiceSource = SimInvoices(lnd.rpcs)
        async with source.subscribe_invoices(settle_index=0) as news:
            made = [lnd.add_invoice(Msat(1000 + number)) for number in range(3)]
            assert [(await news.receive()).amount for _ in made] == [1000, 1001, 1002]
        page = await source.list_invoices(index_offset=1, limit=9)
        assert [invoice.payment_hash for invoice in page.invoices] == [invoice.payment_hash for invoice in made[1:]]
        assert (page.first_index, page.last_index) == (2, 3)
        empty = await source.list_invoices(index_offset=3, limit=9)
        assert (empty.invoices, empty.first_index, empty.last_index) == ((), 0, 0)
        found = await source.lookup_invoice(made[0].payment_hash)
        assert found is not None
        assert (found.state, found.add_index) == (InvoiceState.OPEN, 1)
        assert await source.lookup_invoice(PaymentHash(bytes(32))) is None


async def test_a_node_that_is_away_is_not_an_unknown_invoice(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice").open() as network:
        network.lnd("alice").stop()
        with pytest.raises(NodeUnavailable):
            await SimInvoices(network.lnd("alice").rpcs).lookup_invoice(PaymentHash(bytes(32)))
