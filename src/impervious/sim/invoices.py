"""A simulated LND's three ways to look at invoices, as the feed asks for them (`invoice_feed.InvoiceSource`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from impervious.errors import PaymentNotFound
from impervious.model import InvoicePage, NodeInvoice, PaymentHash
from impervious.sim import convert
from impervious.sim.convert import translated
from impervious.sim.engine.invoices import Invoice
from impervious.sim.rpcs import Rpcs
from impervious.sim.streams import LiveStream


class SimInvoices:
    """The invoices of one simulated LND."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    async def list_invoices(
        self, *, index_offset: int, limit: int, backwards: bool = False, created_from_s: int = 0
    ) -> InvoicePage:
        """One page of ListInvoices."""
        with translated():
            rows = await self._rpcs.list_invoices(
                index_offset=index_offset, limit=limit, backwards=backwards, created_from_s=created_from_s
            )
        return InvoicePage(
            invoices=tuple(map(convert.invoice, rows)),
            first_index=rows[0].add_index if rows else 0,
            last_index=rows[-1].add_index if rows else 0,
        )

    @asynccontextmanager
    async def subscribe_invoices(self, *, settle_index: int) -> AsyncIterator[trio.abc.ReceiveChannel[NodeInvoice]]:
        """SubscribeInvoices from a settle_index on, without old OPEN events."""
        with translated():
            async with self._rpcs.subscribe_invoices(add_index=0, settle_index=settle_index) as stream:
                yield _Invoices(stream)

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """LookupInvoice."""
        try:
            with translated():
                return convert.invoice(await self._rpcs.lookup_invoice(payment_hash))
        except PaymentNotFound:
            return None


class _Invoices(trio.abc.ReceiveChannel[NodeInvoice]):
    """A subscription's events as the domain sees them."""

    def __init__(self, stream: LiveStream[Invoice]) -> None:
        self._stream = stream

    async def receive(self) -> NodeInvoice:
        with translated():
            return convert.invoice(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()
