"""LND's three ways to look at invoices, as the invoice feed asks for them (`invoice_feed.InvoiceSource`)."""

from typing import Final

from grpclib.const import Status

from impervious.lnd import convert
from impervious.lnd.connection import Connection, LndStream, call
from impervious.lnd.faults import LndRefused
from impervious.lnd.rpcs import LIST_INVOICES, LOOKUP_INVOICE, SUBSCRIBE_INVOICES
from impervious.model import InvoicePage, NodeInvoice, PaymentHash
from impervious.pb.lnrpc import Invoice, InvoiceSubscription, ListInvoiceRequest
from impervious.pb.lnrpc import PaymentHash as PbPaymentHash

_NO_SUCH: Final = ("unable to locate invoice", "there are no existing invoices")
"""lnd before 0.14 says so without NOT_FOUND."""


class LndInvoices:
    """The invoices of the LND at the end of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._channel = connection.invoices
        self._noticing = connection.noticing
        self._host = connection.credentials.host

    async def list_invoices(
        self, *, index_offset: int, limit: int, backwards: bool = False, created_from_s: int = 0
    ) -> InvoicePage:
        """One page of ListInvoices."""
        request = ListInvoiceRequest(
            pending_only=False,  # what has settled is what we want
            index_offset=index_offset,  # an add_index, exclusive
            num_max_invoices=limit,  # unset is 100
            reversed=backwards,
            creation_date_start=created_from_s,  # not known to lnd before 0.16, which then lists them all
        )
        with self._noticing():
            answer = await call(self._channel, LIST_INVOICES, request, host=self._host)
        return InvoicePage(
            invoices=tuple(map(convert.invoice, answer.invoices)),
            first_index=answer.first_index_offset,
            last_index=answer.last_index_offset,  # also behind what a filter left out
        )

    def subscribe_invoices(self, *, settle_index: int) -> LndStream[Invoice, NodeInvoice]:
        """SubscribeInvoices from a settle_index on, without old OPEN events."""
        # In both fields 0 is "nothing old", not "from the beginning".
        request = InvoiceSubscription(add_index=0, settle_index=settle_index)
        return LndStream(
            self._channel, SUBSCRIBE_INVOICES, request, convert.invoice, host=self._host, noticing=self._noticing
        )

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """LookupInvoice."""
        try:
            with self._noticing():
                return convert.invoice(
                    await call(self._channel, LOOKUP_INVOICE, PbPaymentHash(r_hash=payment_hash), host=self._host)
                )
        except LndRefused as error:
            if error.status is Status.NOT_FOUND or error.words in _NO_SUCH:
                return None
            raise
