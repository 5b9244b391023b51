"""Every settled invoice at least once: the one reader of a Lightning node's invoices.

Neither of LND's two ways of asking is enough. The subscription is quick, but nothing in it says where old events end
and new ones begin, a start at 0 brings nothing old, and a start above the node's own counter (which begins again when
its database is migrated) silently suppresses new events. ListInvoices is exact, but must be asked. So the list is the
truth and the subscription a quick hint: only listing moves the cursor.

One pass lists from the watermark (the cursor's add_index) to the end, oldest first, and tells what is settled. The
watermark passes an invoice only when that one is final, so whatever is still open is read again, by the next pass or
after a crash. Passes run before subscribing, shortly after it (it registers at a moment nobody can know), every
`reconcile_s`, and early when a keysend that was added has not been told settled.

The cursor's settle_index covers what the watermark lets go of: invoices that stay open while hundreds of newer ones
come. It says that of the invoices below the watermark all those with a number up to it have been told. It follows the
live events, which come in the order of their numbers, and only they prove that nothing is missing. The first live event
is known by being OPEN: the backlog, whose order is another, has none, because no old ones are asked for.

An invoice created after everything known and yet settled under a known number can only mean that the node counts anew:
then everything is read again by date. Old invoices keep their high numbers then, so how the node counts is seen from
the newest invoice, never from the highest number. The reader above drops what it has already processed.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import trio

from impervious.background import background
from impervious.containment import is_containable, reason_of
from impervious.errors import NodeRefused, NodeUnavailable
from impervious.model import (
    HtlcState,
    InvoiceCursor,
    InvoiceNews,
    InvoicePage,
    InvoiceState,
    NodeInvoice,
    PaymentHash,
    SettledInvoice,
)

logger = logging.getLogger(__name__)

NEWS_BUFFER: Final = 64
"""News that may wait for the reader, so that it can store many at once; then the node's own queue waits."""

DATES_APART_S: Final = 86_400
"""An invoice settled so long before one that has been processed was told before it."""


class InvoiceSource(Protocol):
    """What the feed asks of a node: LND's three ways to look at invoices.

    All raise NodeUnavailable and NodeRefused.
    """

    async def list_invoices(
        self, *, index_offset: int, limit: int, backwards: bool = False, created_from_s: int = 0
    ) -> InvoicePage:
        """One page of ListInvoices.

        Args:
          index_offset: an add_index, exclusive; 0 starts at the oldest, or with `backwards` at the newest.
          limit: num_max_invoices.
          backwards: lnrpc `reversed`.
          created_from_s: creation_date_start, inclusive.
        """
        ...

    def subscribe_invoices(
        self, *, settle_index: int
    ) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[NodeInvoice]]:
        """SubscribeInvoices with an add_index of 0, which asks for no old OPEN events.

        Yields:
          A channel whose `receive` loses nothing when it is cancelled. It ends when the node ends the stream.
        """
        ...

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """LookupInvoice; None if there is no such invoice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPace:
    """How much and how often the feed asks."""

    page: int = 500
    """Invoices of one ListInvoices answer: with full onions about 3 KB each."""
    newest: int = 100
    """Invoices looked at first, to see whether the node still counts as the cursor says."""
    backlog: int = 10_000
    """Settlements asked of the subscription at most: LND settles nothing while it reads them. More are listed."""
    held_back: int = 1_000
    """Invoices that one still open may keep the watermark behind: they are listed again by every pass."""
    seam_s: float = 2
    """From subscribing to the second pass, and from a keysend's OPEN to an early one."""
    reconcile_s: float = 120
    """Between passes."""
    remembered: int = 20_000
    """Invoices whose telling is remembered, so that the reader gets few twice."""
    rescan_margin_s: int = 366 * 86_400
    """How far before the newest invoice a reading by date begins: no LND invoice can be paid when it is older."""


class _RenumberedError(Exception):
    """The node's indexes are not those of the cursor."""


@asynccontextmanager
async def settled_invoices(
    source: InvoiceSource, cursor: InvoiceCursor, *, rescan: bool = False, pace: FeedPace | None = None
) -> AsyncIterator[trio.MemoryReceiveChannel[InvoiceNews]]:
    """Tell what has settled since `cursor`, then what settles (`node.PaymentNode.settled_invoices`).

    Yields:
      A channel of at most `NEWS_BUFFER` waiting news. It ends when the node goes away, ends the stream or refuses.

    Raises:
      NodeUnavailable: the node could not be asked at all.
      NodeRefused: it does not let us read invoices.
    """
    pace = pace or FeedPace()
    newest = await source.list_invoices(index_offset=0, limit=pace.newest, backwards=True)
    news_in, news_out = trio.open_memory_channel[InvoiceNews](NEWS_BUFFER)
    feed = _Feed(source, news_in, cursor, pace)
    async with background(partial(feed.run, newest, rescan)):
        with news_out:
            yield news_out


def settled(invoice: NodeInvoice) -> SettledInvoice:
    """Take of a settled invoice what can be believed: a keysend's first accepted HTLC, and no later one.

    One at which that fails is `unreadable`: the reader puts it aside, and the feed goes on.
    """
    try:
        return _settled(invoice)
    except BaseException as error:  # noqa: ASYNC103 - synchronous
        if not is_containable(error):
            raise
        reason = reason_of(error)
    return SettledInvoice(
        payment_hash=invoice.payment_hash,
        amount=invoice.amount_paid,
        records={},
        is_keysend=invoice.is_keysend,
        add_index=invoice.add_index,
        settle_index=invoice.settle_index,
        created_s=invoice.created_s,
        settled_s=invoice.settled_s,
        unreadable=reason,
    )


def _settled(invoice: NodeInvoice) -> SettledInvoice:
    paid = [htlc for htlc in invoice.htlcs if htlc.state is HtlcState.SETTLED]
    first = min(paid, key=lambda htlc: (htlc.accepted_s, htlc.index), default=None)
    return SettledInvoice(
        payment_hash=invoice.payment_hash,
        amount=first.amount if first is not None and invoice.is_keysend else invoice.amount_paid,
        records={} if first is None else first.records,
        is_keysend=invoice.is_keysend,
        add_index=invoice.add_index,
        settle_index=invoice.settle_index,
        created_s=invoice.created_s,
        settled_s=invoice.settled_s,
        memo=invoice.memo,
        payment_request=invoice.payment_request,
        unreadable=invoice.unreadable,
    )


class _Feed:
    """One opening of the feed: what has been told, and what has to be read again."""

    def __init__(
        self, source: InvoiceSource, out: trio.MemorySendChannel[InvoiceNews], cursor: InvoiceCursor, pace: FeedPace
    ) -> None:
        self._source = source
        self._out = out
        self._opened = cursor
        self._pace = pace
        self._trusted = cursor  # what earlier openings told; nothing once the node counts anew
        self._cursor = cursor
        self._told: dict[PaymentHash, None] = {}  # in the order told; the oldest are forgotten
        self._unsettled: dict[PaymentHash, float] = {}  # keysends heard OPEN -> when to look, in Trio time
        self._stragglers: set[PaymentHash] = set()  # keysends still open below the watermark
        self._watermark = 0
        self._created_from_s = 0
        self._start = 0  # the subscription's settle_index
        self._known = (0, 0)  # a settle_index all told, and the creation of the newest invoice told by then
        self._newest = (0, 0)  # (add_index, settle_index) of the newest invoice settled: how the node counts now
        self._highest = 0  # settle_index seen; far above that of the newest after a migration
        self._backlog_over = False
        self._heard = 0  # settle_index of the last live event

    async def run(self, newest: InvoicePage, rescan: bool) -> None:
        """Feed the channel until the node ends it or goes away."""
        with self._out:
            while await self._renumbered(newest, rescan=rescan):
                logger.warning("invoices: the node has renumbered its indexes; reading them again by date")
                rescan = True

    async def _renumbered(self, newest: InvoicePage, *, rescan: bool) -> bool:
        """Follow the node to the end; tell whether that was because its indexes no longer mean what they did."""
        renumbered = False
        try:
            await self._follow(newest, rescan=rescan)
        except* _RenumberedError:  # a source may hold a nursery, which wraps what passes through it
            renumbered = True
        except* NodeUnavailable as group:
            logger.info("invoices: %s", group.exceptions[0])
        except* NodeRefused as group:
            logger.warning("invoices: the node refuses: %s", group.exceptions[0])
        except* trio.BrokenResourceError:
            pass  # the reader has left
        return renumbered

    async def _follow(self, newest: InvoicePage, *, rescan: bool) -> None:
        self._plan(newest, rescan=rescan)
        await self._pass()
        for invoice in newest.invoices:  # one of them may have a number that it cannot have
            await self._tell(invoice)
        if self._collides():
            self._start, self._backlog_over = 0, True
        self._known = (self._start, self._cursor.newest_s)
        async with self._source.subscribe_invoices(settle_index=self._start) as events:
            await self._listen(events)

    def _plan(self, newest: InvoicePage, *, rescan: bool) -> None:
        """Decide where the list is read from and where the subscription starts."""
        opened = self._opened
        counter = next((invoice.settle_index for invoice in reversed(newest.invoices) if invoice.settle_index), 0)
        self._known = (opened.settle_index, opened.newest_s)
        if rescan or newest.last_index < opened.add_index:
            self._trusted = self._cursor = InvoiceCursor(newest_s=opened.newest_s)
            self._known = (0, 0)
            self._created_from_s = max(0, opened.newest_s - self._pace.rescan_margin_s)
        elif opened.settle_index == 0 or counter - opened.settle_index > self._pace.backlog:
            # The list shows all that was settled by now; what it shows as open will have a higher number.
            newest_s = max((invoice.created_s for invoice in newest.invoices), default=0)
            self._cursor = InvoiceCursor(settle_index=counter, newest_s=max(newest_s, opened.newest_s))
        self._watermark, self._start = self._cursor.add_index, self._cursor.settle_index
        self._newest, self._highest, self._heard = (0, 0), 0, 0
        self._unsettled.clear()
        self._backlog_over = self._start == 0

    async def _listen(self, events: trio.abc.ReceiveChannel[NodeInvoice]) -> None:
        next_pass = trio.current_time() + self._pace.seam_s
        while True:
            event = None
            with trio.move_on_at(min(next_pass, next(iter(self._unsettled.values()), next_pass))):
                try:
                    event = await events.receive()
                except trio.EndOfChannel:
                    return
            if event is None:
                await self._pass()
                self._unsettled.clear()  # looked at once: one that stays open is the watermark's business
                next_pass = trio.current_time() + self._pace.reconcile_s
            elif event.state is InvoiceState.SETTLED:
                self._unsettled.pop(event.payment_hash, None)
                await self._tell(event)
                if self._backlog_over:
                    self._heard = event.settle_index
            elif event.state is InvoiceState.OPEN:
                self._backlog_over = True
                if event.is_keysend:
                    self._unsettled[event.payment_hash] = trio.current_time() + self._pace.seam_s

    async def _pass(self) -> None:
        """List from the watermark to the end, tell what is settled, move the cursor."""
        behind: deque[NodeInvoice] = deque()  # from the first open invoice on
        offset = self._watermark
        while page := await self._page(offset):
            for invoice in page.invoices:
                behind.append(invoice)
                while behind and (_final(behind[0]) or len(behind) > self._pace.held_back):
                    self._move_watermark(behind.popleft())
                self._note_index(invoice)
                if not self._told_before(invoice):
                    await self._tell(invoice)
            offset = page.last_index
        for payment_hash in tuple(self._stragglers):
            await self._look_up(payment_hash)
        settle_index = 0 if self._collides() else max(self._cursor.settle_index, self._heard)
        self._cursor = replace(self._cursor, settle_index=settle_index)
        await self._out.send(InvoiceNews(invoice=None, cursor=self._cursor))

    async def _page(self, offset: int) -> InvoicePage | None:
        page = await self._source.list_invoices(
            index_offset=offset, limit=self._pace.page, created_from_s=self._created_from_s
        )
        return page if page.invoices else None

    def _move_watermark(self, invoice: NodeInvoice) -> None:
        self._watermark = invoice.add_index
        if invoice.is_keysend and not _final(invoice):
            self._stragglers.add(invoice.payment_hash)
        self._cursor = replace(self._cursor, add_index=self._watermark)

    async def _look_up(self, payment_hash: PaymentHash) -> None:
        invoice = await self._source.lookup_invoice(payment_hash)
        if invoice is None or _final(invoice):
            self._stragglers.discard(payment_hash)
        if invoice is not None:
            await self._tell(invoice)

    def _told_before(self, invoice: NodeInvoice) -> bool:
        """Whether the cursor says that an earlier opening of the feed told it."""
        trusted = self._trusted
        if invoice.add_index > trusted.add_index or not invoice.settle_index:
            return False
        if trusted.settle_index:
            return invoice.settle_index <= trusted.settle_index
        return invoice.settled_s < trusted.newest_s - DATES_APART_S

    def _note_index(self, invoice: NodeInvoice) -> None:
        if invoice.settle_index:
            self._newest = max(self._newest, (invoice.add_index, invoice.settle_index))
            self._highest = max(self._highest, invoice.settle_index)

    def _collides(self) -> bool:
        """Whether old invoices have numbers so far above the node's present ones that a backlog would bring them all.

        Then the subscription asks for none, and the cursor has no number, so that the next opening lists everything.
        """
        return self._highest - self._newest[1] > self._pace.backlog

    async def _tell(self, invoice: NodeInvoice) -> None:
        if invoice.state is not InvoiceState.SETTLED or invoice.payment_hash in self._told:
            return
        if invoice.settle_index <= self._known[0] and invoice.created_s > self._known[1]:
            raise _RenumberedError
        self._note_index(invoice)
        self._cursor = replace(self._cursor, newest_s=max(self._cursor.newest_s, invoice.created_s))
        self._told[invoice.payment_hash] = None
        if len(self._told) > self._pace.remembered:
            del self._told[next(iter(self._told))]
        await self._out.send(InvoiceNews(invoice=settled(invoice), cursor=self._cursor))


def _final(invoice: NodeInvoice) -> bool:
    return invoice.state in (InvoiceState.SETTLED, InvoiceState.CANCELED)
