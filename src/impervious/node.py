"""The ports to a Lightning node: what the rooms above need of one, and nothing else.

`lnd.LndNode` and `sim.SimNode` both satisfy them; `tests/contract/` holds the one suite that says what each method must
do. Amounts are msat. No method takes a timeout: the caller's deadline (`trio.fail_after`) is passed on to the node.

Errors, for every method that asks the node something:
  NodeUnavailable: the node cannot be asked now; the text says why and what to do.
  NodeRefused: it answered with an error; nothing was done.

Cancellation: stops waiting, never what the node is doing. A payment goes on.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from impervious.model import (
    InvoiceCursor,
    InvoiceNews,
    KeysendSupport,
    NodeInfo,
    NodePubkey,
    NodeStatus,
    Payment,
    PaymentHash,
    Preimage,
    Records,
    Route,
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
        self, dest: NodePubkey, amount: Msat, preimage: Preimage, records: Records, *, fee_limit: Msat, timeout_s: int
    ) -> Payment:
        """Pay `dest` without an invoice and carry `records` in the last hop's onion, then wait for the end.

        Args:
          dest: the receiving node.
          amount: what the receiver gets, in msat; routing fees come on top.
          preimage: made and stored by the caller before the call. The same preimage is never paid twice.
          records: record type (>= 65536) -> value. The preimage's own record is added here.
          fee_limit: highest total routing fee in msat; 0 means routes without fees only.
          timeout_s: how long the node looks for ways; an HTLC in flight may take longer.

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

    async def find_route(self, dest: NodePubkey, amount: Msat, records: Records, *, fee_limit: Msat) -> Route:
        """Ask for the best route that can carry `records` (the preimage's own record is added here).

        Raises:
          NoRoute: there is none for that size, amount and fee.
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
