"""The ports to a Lightning node: what the rooms above need of one, and nothing else.

`lnd.LndNode` and `sim.SimNode` both satisfy them; `tests/contract/` holds the one suite that says what each method must
do. Amounts are msat. No method takes a timeout: the caller's deadline (`trio.fail_after`) is passed on to the node.

Errors, for every method that asks the node something:
  NodeUnavailable: the node cannot be asked now; the text says why and what to do.
  NodeRefused: it answered with an error; nothing was done.

Cancellation: stops waiting, never what the node is doing. A payment goes on.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from impervious.model import (
    AddedInvoice,
    Balance,
    DecodedInvoice,
    InvoiceCursor,
    InvoiceNews,
    InvoicePage,
    InvoiceTerms,
    KeysendSupport,
    NodeInfo,
    NodeInvoice,
    NodePubkey,
    NodeStatus,
    Payment,
    PaymentChannel,
    PaymentHash,
    PaymentPage,
    Preimage,
    Records,
    Route,
    RouteHint,
    Verdict,
)
from impervious.units import Msat


class PaymentNode(Protocol):
    """What carrying messages needs: identity, signatures, keysends and what they bring."""

    @property
    def status(self) -> NodeStatus:
        """Whether it can serve now, and if not, why. Never blocks."""
        ...

    async def wait_ready(self) -> NodeInfo:
        """Wait until it can serve, then tell who it is.

        Raises:
          NodeMisconfigured: it is another node than the configuration names.
        """
        ...

    async def sign(self, text: bytes) -> bytes:
        """Sign with the identity key as lnd's SignMessage does.

        Returns:
          65 bytes: recovery header 31 to 34, r, s.
        """
        ...

    async def verify(self, text: bytes, signature: bytes) -> Verdict:
        """Ask the node who made a 65-byte signature and whether its graph knows that node."""
        ...

    async def send_keysend(
        self,
        dest: NodePubkey,
        amount: Msat,
        preimage: Preimage,
        records: Records,
        *,
        fee_limit: Msat,
        timeout_s: int,
        hints: Sequence[RouteHint] = (),
    ) -> Payment:
        """Pay `dest` without an invoice and carry `records` in the last hop's onion, then wait for the end.

        A node that knows a way and does not take it, because that failed a while ago, is made to try it once more.

        Args:
          dest: the receiving node.
          amount: what the receiver gets, in msat; routing fees come on top.
          preimage: made and stored by the caller before the call. The same preimage is never paid twice.
          records: record type (>= 65536) -> value. The preimage's own record is added here.
          fee_limit: highest total routing fee in msat; 0 means routes without fees only.
          timeout_s: how long the node looks for ways; an HTLC in flight may take longer.
          hints: ways to `dest` that the node's graph may not hold.

        Returns:
          The payment, SUCCEEDED or FAILED.

        Raises:
          AlreadyPaying: the node has this payment in flight or settled: `track` it.
          NodeUnavailable: the outcome is unknown: `track` it.
          NodeRefused: the arguments cannot be paid; nothing was sent.
        """
        ...

    async def track(self, payment_hash: PaymentHash) -> Payment:
        """Wait for the end of a payment that was sent earlier.

        Returns:
          The payment, SUCCEEDED or FAILED.

        Raises:
          PaymentNotFound: the node was never asked to pay it.
        """
        ...

    async def lookup_payment(self, payment_hash: PaymentHash) -> Payment:
        """Say what has become of a payment so far, by its hash: as quick with a million payments as with one.

        Returns:
          The payment, in any state.

        Raises:
          PaymentNotFound: the node was never asked to pay it.
        """
        ...

    async def find_route(
        self,
        dest: NodePubkey,
        amount: Msat,
        records: Records,
        *,
        fee_limit: Msat,
        hints: Sequence[RouteHint] = (),
    ) -> Route:
        """Ask for the best route that can carry `records` (the preimage's own record is added here), whatever failed.

        Raises:
          NoRoute: there is none for that size, amount and fee.
        """
        ...

    async def list_channels(self) -> Sequence[PaymentChannel]:
        """Read the node's open payment channels, active or not."""
        ...

    async def route_hints(self) -> Sequence[RouteHint]:
        """Say which ways lead to this node that others cannot see: over its private channels.

        Returns:
          Nothing if it has a public channel, or none.
        """
        ...

    def channel_news(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Tell each time from now on that a payment channel of the node's becomes active.

        Yields:
          What to iterate over; it ends when the node ends it. It may raise, too.
        """
        ...

    async def keysend_support(self, pubkey: NodePubkey) -> KeysendSupport:
        """Look a node's feature bit 55 up in the graph."""
        ...

    def settled_invoices(
        self, cursor: InvoiceCursor, *, rescan: bool = False
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[InvoiceNews]]:
        """Tell every invoice that has settled since `cursor`, each at least once, then the ones that settle.

        The reader must drop those it has processed, and store each step's cursor with what it makes of the step. A node
        that renumbers its indexes is found out here: the cursors then go back by themselves.

        Args:
          cursor: the last one stored, or `InvoiceCursor()` for everything.
          rescan: read by creation date, from a year before `cursor.newest_s` on, whatever the indexes say: for a reader
            that has its own reason to distrust its cursor.

        Yields:
          A channel. It ends when the node goes away or ends the stream: open it again.

        Raises:
          NodeUnavailable: before the channel is open.
        """
        ...


class InvoiceNode(Protocol):
    """What selling and buying by invoice needs: BOLT 11 both ways, and what the node has.

    Amounts are exact to the msat and nothing is rounded; what is counted in whole satoshis says so.
    """

    async def add_invoice(self, terms: InvoiceTerms) -> AddedInvoice:
        """Make an invoice that others can pay.

        Raises:
          AlreadyExists: the node has an invoice with that preimage; `lookup_invoice` finds it.
        """
        ...

    async def decode_invoice(self, payment_request: str) -> DecodedInvoice:
        """Read a payment request and check its signature. Says nothing of whether it can still be paid.

        Args:
          payment_request: BOLT 11, in either case, nothing around it.

        Raises:
          InvalidArgument: it is none, it is damaged, or it is for another network than the node's.
        """
        ...

    async def pay_invoice(
        self, invoice: DecodedInvoice, *, fee_limit: Msat, timeout_s: int, amount: Msat = Msat(0)
    ) -> Payment:
        """Pay an invoice, in several parts if need be, then wait for the end.

        Args:
          invoice: as `decode_invoice` gave it: who pays has seen the hash before, and can track it whatever happens.
          fee_limit: highest total routing fee in msat; 0 means routes without fees only.
          timeout_s: how long the node looks for ways; an HTLC in flight may take longer.
          amount: what to pay, in msat, if the invoice leaves that to the payer; 0 if it does not.

        Returns:
          The payment, SUCCEEDED or FAILED.

        Raises:
          AlreadyPaying: the node has a payment for this hash in flight or settled: `PaymentNode.lookup_payment`
            or `track` it.
          NodeUnavailable: the outcome is unknown: track it, and never send it again before that.
          NodeRefused: nothing was sent: it has expired, it is our own, or the amount is missing or superfluous.
        """
        ...

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice:
        """Say what has become of an invoice of the node's, by its hash: as quick with a million as with one.

        Raises:
          NotFound: it is not one of the node's.
        """
        ...

    async def list_invoices(self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False) -> InvoicePage:
        """Read a page of the node's invoices, keysends among them, in the order in which they were added.

        Args:
          index_offset: an add_index: the page begins after it, or with `backwards` ends before it. 0: at the oldest, or
            with `backwards` at the newest.
          limit: invoices at most, from 1.
          backwards: towards the oldest; the page itself is still ascending.
        """
        ...

    async def list_payments(
        self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False, records: bool = False
    ) -> PaymentPage:
        """Read a page of what the node has paid or tried to, keysends among them, in the order they were begun.

        Args:
          index_offset: a payment_index, as in `list_invoices`.
          limit: payments at most, from 1.
          backwards: towards the oldest; the page itself is still ascending.
          records: tell of each who was paid, and what it carried: some 3 KB more of each.
        """
        ...

    async def balance(self) -> Balance:
        """Say what the node has. The channels and the chain are asked one after the other."""
        ...


class LightningNode(PaymentNode, InvoiceNode, Protocol):
    """Both."""
