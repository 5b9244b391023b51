"""What the Lightning node has paid for this node's messages, read back from the newest payment to one that was seen.

A record under one of our numbers that begins with our magic bytes and carries a header of our own key is a message of
this node's for certain; no other program on the same Lightning node makes one. So a payment with such a record whose
hash the database does not know says that the database is older: it was restored from a backup.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

import trio

from impervious.clock import AGREES_MS
from impervious.errors import NodeRefused, NodeUnavailable, StoreFull
from impervious.model import NodePubkey, Payment, PaymentStatus, RecordType, ServiceType
from impervious.node import InvoiceNode, LightningNode
from impervious.store import Store, Tx, history
from impervious.store.history import Mark
from impervious.wire import envelope
from impervious.wire.envelope import Envelope

logger = logging.getLogger(__name__)

PAGE: Final = 100
"""Payments asked for at a time: about 300 KB with their hops."""
MARK_EVERY_S: Final = 60.0
CLOCK_SET_S: Final = 3600
"""By how much LND's clock may be set back without a payment being overlooked; less than messages are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A part of a message of this node's, as the Lightning node paid for it."""

    payment: Payment
    recipient: NodePubkey
    service_type: ServiceType
    record_type: RecordType
    part: Envelope


class Backwards:
    """The node's payments, the newest page first, down to a mark.

    Args:
      node: the Lightning node.
      mark: where to end.
    """

    def __init__(self, node: InvoiceNode, mark: Mark) -> None:
        self._node = node
        self._mark = mark
        self._offset = 0
        self._ended = False
        self.newest: Mark = mark
        """The newest payment there is; known after the first page."""

    async def page(self) -> Sequence[Payment] | None:
        """Read a page and return what of it is newer than the mark; None: everything newer has been returned.

        Raises:
          NodeUnavailable: the node cannot be asked now.
          NodeRefused: it does not let us ask.
        """
        if self._ended:
            return None
        page = await self._node.list_payments(index_offset=self._offset, limit=PAGE, backwards=True, records=True)
        if self._offset == 0 and page.payments:
            self.newest = Mark(index=page.last_index, created_s=page.payments[-1].created_s)
        newer = [each for each in page.payments if self._is_newer(each)]
        self._ended = len(page.payments) < PAGE or not newer
        self._offset = page.first_index
        return newer

    def _is_newer(self, payment: Payment) -> bool:
        """Compare with the mark by index, unless the node has numbered anew, and by time, unless its clock was set."""
        if payment.created_s > self._mark.created_s:
            return True
        return payment.index > self._mark.index and payment.created_s >= self._mark.created_s - CLOCK_SET_S


def sent_by(payment: Payment, own: NodePubkey, services: Mapping[RecordType, ServiceType]) -> Sent | None:
    """Read a payment as a part of a message; None: it is none, or nothing moves by it.

    Args:
      payment: with its records.
      own: this node.
      services: our record numbers.
    """
    if payment.status is PaymentStatus.FAILED or payment.dest is None:
        return None
    for record_type, service_type in services.items():
        value = payment.records.get(record_type, b"")
        if not envelope.is_envelope(value):
            continue
        try:
            part = envelope.decode(value)
        except Exception:
            logger.debug("payment %s: its record %d is no part of a message", payment.payment_hash.hex(), record_type)
            continue
        if part.signed_header is not None and part.signed_header.header.sender != own:
            continue
        return Sent(
            payment=payment,
            recipient=payment.dest,
            service_type=service_type,
            record_type=record_type,
            part=part,
        )
    return None


async def unknown_message(
    node: InvoiceNode, store: Store, mark: Mark, read: Callable[[Payment], Sent | None]
) -> tuple[Sent | None, Mark]:
    """Look for a message that the node has paid for and the database does not know.

    Args:
      node: the Lightning node.
      store: the database.
      mark: the newest payment that the database has seen.
      read: `sent_by`, bound to this node.

    Returns:
      One that was found, if there is one; and the newest payment there is.

    Raises:
      NodeUnavailable: the node cannot be asked now.
      NodeRefused: it does not let us ask.
    """
    books = Backwards(node, mark)
    while (payments := await books.page()) is not None:
        ours = [each for each in map(read, payments) if each is not None]
        lost = await store.read(partial(_lost, ours=ours))
        if lost is not None:
            return lost, books.newest
    return None, books.newest


def _lost(tx: Tx, ours: Sequence[Sent]) -> Sent | None:
    """Find the newest payment that the database should know of and does not."""
    for each in reversed(ours):
        is_ours = each.part.signed_header is not None
        if history.is_from_later(tx, each.payment.payment_hash, each.part.message_id, is_ours=is_ours):
            return each
    return None


async def newest_payment(node: InvoiceNode) -> Mark:
    """Ask for the newest payment there is.

    Raises:
      NodeUnavailable: the node cannot be asked now.
      NodeRefused: it does not let us ask.
    """
    page = await node.list_payments(limit=1, backwards=True)
    return Mark(index=page.last_index, created_s=page.payments[-1].created_s) if page.payments else Mark()


async def note_mark(node: InvoiceNode, store: Store) -> Mark:
    """Store and return the newest payment there is. Call it only while nothing is unknown.

    Raises:
      NodeUnavailable: the node cannot be asked now.
      NodeRefused: it does not let us ask.
      StoreFull: it cannot be stored now.
    """
    newest = await newest_payment(node)
    if newest != Mark():
        await store.write(partial(history.set_mark, newest=newest))
    return newest


async def keep_mark(node: LightningNode, store: Store) -> NoReturn:
    """Store every minute how far the node's payments are seen, so that a start has few of them to read.

    Run it only while nothing is unknown: every payment of ours has its intent in the database before it begins.

    Raises:
      StoreError: the database cannot be used.
    """
    seen: Mark | None = None
    wrong = False
    while True:
        await trio.sleep(MARK_EVERY_S)
        try:
            newest = await note_mark(node, store)
            if newest not in (seen, Mark()):
                if seen is not None and newest.index > seen.index:  # so it was begun in the last minute
                    wrong = _tell_wrong_clock(newest.created_s - store.now_ms() // 1000, told=wrong)
                seen = newest
        except (NodeUnavailable, NodeRefused, StoreFull) as error:
            logger.debug("the newest payment is not noted: %s", error)


def _tell_wrong_clock(ahead_s: int, *, told: bool) -> bool:
    """Say, once, that LND's machine has another time than this one; say whether that is so.

    Args:
      ahead_s: seconds, by a payment that has just been begun; negative: LND's clock is behind.
      told: whether that was said already.
    """
    wrong = abs(ahead_s) * 1000 > AGREES_MS
    if wrong and not told:
        logger.error(
            "LND's clock is %d hours %s: set the clock of its machine; messages to this node that settle by that clock"
            " more than 7 days from when they were sent are not believed",
            abs(ahead_s) // 3600,
            "ahead" if ahead_s > 0 else "behind",
        )
    return wrong
