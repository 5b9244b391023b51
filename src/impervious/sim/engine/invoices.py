"""A node's invoices with LND's two counters, and LND's peculiar ways to list them and to catch up.

add_index counts invoices, settle_index settlements; 0 in a subscription means "nothing old". LND has two back ends, and
they differ in what a reader gets: the old key-value one reads a backlog by settle_index and skips an entry when the
index it starts from is missing; native SQL reads it in the order invoices were added, and moving from the one to the
other restarts settle_index at 1 and closes the gaps in add_index.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import Final

from grpclib.const import Status

from impervious.model import HtlcState, InvoiceState, PaymentHash, Preimage, Records
from impervious.sim.engine.answers import HASH_TAKEN, LndError
from impervious.sim.engine.route import RouteHint
from impervious.units import Msat

KEYSEND_EXPIRY_S: Final = 3600
"""An inserted keysend invoice that is not settled is cancelled after an hour (zpay32's default expiry)."""

DEFAULT_PAGE: Final = 100
"""num_max_invoices 0."""

_CHANGES: Final = {
    InvoiceState.OPEN: {InvoiceState.ACCEPTED, InvoiceState.SETTLED, InvoiceState.CANCELED},
    InvoiceState.ACCEPTED: {InvoiceState.ACCEPTED, InvoiceState.SETTLED, InvoiceState.CANCELED},
    InvoiceState.SETTLED: {InvoiceState.SETTLED},  # only to append another HTLC
    InvoiceState.CANCELED: set[InvoiceState](),
}


class Backend(Enum):
    """Where LND keeps invoices."""

    KV = "kv"
    SQL = "sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedHtlc:
    """An HTLC that reached its invoice (lnrpc.InvoiceHTLC)."""

    chan_id: int
    index: int
    amount: Msat
    accept_height: int
    accepted_s: int
    resolved_s: int
    expiry_height: int
    state: HtlcState
    records: Records
    """The onion's merged with the wire message's; the wire wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """One row (lnrpc.Invoice)."""

    payment_hash: PaymentHash
    preimage: Preimage | None
    """None: of a hold invoice that is not settled yet."""
    value: Msat
    state: InvoiceState
    add_index: int
    created_s: int
    expiry_s: int
    is_keysend: bool
    settle_index: int = 0
    settled_s: int = 0
    memo: str = ""
    payment_request: str = ""
    description_hash: bytes = b""
    payment_addr: bytes = bytes(32)
    private: bool = False
    """Its payment request names private channels."""
    hints: tuple[RouteHint, ...] = ()
    cltv_expiry: int = 80
    """Blocks that an HTLC for it must have left."""
    fallback: str = ""
    """An address on the chain, for payers who find no way."""
    htlcs: tuple[ReceivedHtlc, ...] = ()

    @property
    def amount_paid(self) -> Msat:
        """amt_paid_msat: of all HTLCs that were not refused."""
        return Msat(sum(htlc.amount for htlc in self.htlcs if htlc.state is not HtlcState.CANCELED))


class Registry:
    """All invoices of one node."""

    def __init__(self, backend: Backend = Backend.KV) -> None:
        self.backend = backend
        self.added = 0
        """The last add_index given out."""
        self.settled = 0
        """The last settle_index given out."""
        self._rows: dict[PaymentHash, Invoice] = {}
        self._added: list[tuple[int, PaymentHash]] = []
        self._settled: list[tuple[int, PaymentHash]] = []

    def __iter__(self) -> Iterator[Invoice]:
        """All rows by add_index."""
        return (self._rows[payment_hash] for _, payment_hash in self._added)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, payment_hash: PaymentHash) -> Invoice | None:
        """The row of a hash, if there is one."""
        return self._rows.get(payment_hash)

    def lookup(self, payment_hash: bytes) -> Invoice:
        """LookupInvoice.

        Raises:
          LndError: no such invoice, or no such hash.
        """
        if len(payment_hash) not in (0, 32):
            raise LndError(f"payment hash must be exactly 32 bytes, is instead {len(payment_hash)}")
        invoice = self._rows.get(PaymentHash(payment_hash))
        if invoice is None:
            text = "unable to locate invoice" if self._rows else "there are no existing invoices"
            raise LndError(text, Status.NOT_FOUND)
        return invoice

    def with_address(self, payment_addr: bytes) -> Invoice:
        """LookupInvoiceV2 by payment_addr.

        Raises:
          LndError: there is none.
        """
        for invoice in self._rows.values():
            if invoice.payment_addr == payment_addr and any(payment_addr):
                return invoice
        raise LndError("unable to locate invoice", Status.NOT_FOUND)

    def add(
        self,
        *,
        payment_hash: PaymentHash,
        preimage: Preimage | None,
        value: Msat,
        created_s: int,
        is_keysend: bool,
        expiry_s: int = KEYSEND_EXPIRY_S,
        memo: str = "",
        payment_request: str = "",
        description_hash: bytes = b"",
        payment_addr: bytes = bytes(32),
        private: bool = False,
        hints: tuple[RouteHint, ...] = (),
        cltv_expiry: int = 80,
        fallback: str = "",
    ) -> Invoice:
        """Insert an open invoice.

        Raises:
          LndError: its hash is taken.
        """
        if payment_hash in self._rows:
            raise LndError(HASH_TAKEN)
        self.added += 1
        invoice = Invoice(
            payment_hash=payment_hash,
            preimage=preimage,
            value=value,
            state=InvoiceState.OPEN,
            add_index=self.added,
            created_s=created_s,
            expiry_s=expiry_s,
            is_keysend=is_keysend,
            memo=memo,
            payment_request=payment_request,
            description_hash=description_hash,
            payment_addr=payment_addr,
            private=private,
            hints=hints,
            cltv_expiry=cltv_expiry,
            fallback=fallback,
        )
        self._rows[payment_hash] = invoice
        self._added.append((invoice.add_index, payment_hash))
        return invoice

    def restore(self, invoices: Iterable[Invoice], *, added: int, settled: int) -> None:
        """Take over saved rows and counters."""
        for invoice in sorted(invoices, key=lambda row: row.add_index):
            self._rows[invoice.payment_hash] = invoice
            self._added.append((invoice.add_index, invoice.payment_hash))
        self._settled = sorted((row.settle_index, row.payment_hash) for row in self if row.settle_index)
        self.added, self.settled = added, settled

    def move(
        self,
        invoice: Invoice,
        state: InvoiceState,
        *,
        now_s: int,
        htlc: ReceivedHtlc | None = None,
        preimage: Preimage | None = None,
    ) -> Invoice:
        """Change an invoice's state, its HTLCs' with it, and perhaps append one and learn its preimage.

        Raises:
          ValueError: no invoice ever goes that way.
        """
        if state not in _CHANGES[invoice.state]:
            raise ValueError(f"an invoice cannot go from {invoice.state.value} to {state.value}")
        htlcs = invoice.htlcs if htlc is None else (*invoice.htlcs, htlc)
        resolved = {InvoiceState.SETTLED: HtlcState.SETTLED, InvoiceState.CANCELED: HtlcState.CANCELED}.get(state)
        if resolved is not None:
            htlcs = tuple(
                replace(h, state=resolved, resolved_s=now_s) if h.state is HtlcState.ACCEPTED else h for h in htlcs
            )
        known = invoice.preimage or preimage
        changed = replace(invoice, state=state, preimage=known, htlcs=tuple(sorted(htlcs, key=lambda h: h.index)))
        if state is InvoiceState.SETTLED and not invoice.settle_index:
            self.settled += 1
            changed = replace(changed, settle_index=self.settled, settled_s=now_s)
            insort(self._settled, (self.settled, invoice.payment_hash))  # after a migration numbers collide
        self._rows[invoice.payment_hash] = changed
        return changed

    def delete_canceled(self, payment_hash: PaymentHash) -> None:
        """DeleteCanceledInvoice: what leaves a gap in add_index.

        Raises:
          LndError: there is no such invoice, or it is not cancelled.
        """
        invoice = self.lookup(payment_hash)
        if invoice.state is not InvoiceState.CANCELED:
            raise LndError("invoice not canceled")
        del self._rows[payment_hash]
        self._added.remove((invoice.add_index, payment_hash))

    def skip(self, *, added: int = 0, settled: int = 0) -> None:
        """Leave gaps in the counters, as LND's sometimes have."""
        self.added += added
        self.settled += settled

    def renumber(self) -> None:
        """Migrate to native SQL: rows keep their settle_index, its counter begins anew; add_index is the row's number.

        From then on new settlements count from 1 and collide with history.
        """
        rows = [replace(invoice, add_index=number) for number, invoice in enumerate(self, start=1)]
        self._rows.clear()
        self._added.clear()
        self.restore(rows, added=len(rows), settled=0)
        self.backend = Backend.SQL

    def page(
        self,
        *,
        index_offset: int = 0,
        limit: int = 0,
        backwards: bool = False,
        pending_only: bool = False,
        created_from_s: int = 0,
        created_to_s: int = 0,
    ) -> tuple[Invoice, ...]:
        """ListInvoices: rows after (before, with `backwards`) an add_index, always ascending."""
        if backwards:
            end = bisect_left(self._added, (index_offset, b"")) if index_offset else len(self._added)
            positions = range(end - 1, -1, -1)
        else:
            positions = range(bisect_left(self._added, (index_offset + 1, b"")), len(self._added))
        rows = (self._rows[self._added[position][1]] for position in positions)
        wanted = (
            row
            for row in rows
            if created_from_s <= row.created_s <= (created_to_s or row.created_s)
            and (not pending_only or row.state in (InvoiceState.OPEN, InvoiceState.ACCEPTED))
        )
        found = tuple(islice(wanted, limit or DEFAULT_PAGE))
        return found[::-1] if backwards else found

    def backlog(self, *, add_index: int, settle_index: int) -> list[Invoice]:
        """What a subscription is sent before live events: current states, OPEN and SETTLED only."""
        invoices = []
        if add_index:
            invoices += [self._rows[payment_hash] for _, payment_hash in self._after(self._added, add_index)]
        if settle_index:
            rows = [self._rows[payment_hash] for _, payment_hash in self._after(self._settled, settle_index)]
            invoices += sorted(rows, key=lambda row: row.add_index) if self.backend is Backend.SQL else rows
        return [row for row in invoices if row.state in (InvoiceState.OPEN, InvoiceState.SETTLED)]

    def _after(self, keys: list[tuple[int, PaymentHash]], index: int) -> list[tuple[int, PaymentHash]]:
        if self.backend is Backend.SQL:
            return keys[bisect_right(keys, index, key=lambda key: key[0]) :]
        return keys[
            bisect_left(keys, index, key=lambda key: key[0]) + 1 :
        ]  # bbolt: Seek, then Next, whatever was found


class LiveFilter:
    """Which live events one subscription gets: those above its own two counters, which the backlog does not move."""

    def __init__(self, *, add_index: int, settle_index: int) -> None:
        self._add_index = add_index
        self._settle_index = settle_index

    def passes(self, invoice: Invoice) -> bool:
        """Whether this event is sent; if so, it counts."""
        if invoice.state is InvoiceState.OPEN and invoice.add_index > self._add_index:
            self._add_index = invoice.add_index
            return True
        if invoice.state is InvoiceState.SETTLED and invoice.settle_index > self._settle_index:
            self._settle_index = invoice.settle_index
            return True
        return False
