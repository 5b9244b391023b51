"""Whole messages become events in the order in which their sender sent them, inside one transaction each.

Settlements overlap, so messages come out of order. One that is early is held; its event row, and with it its `seq`, is
written when the gap before it closes, or when waiting any longer would help nobody: `order of seq = order shown`.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from impervious.containment import reason_of
from impervious.errors import Malformed, Unverified
from impervious.inbound.boundary import run_contained
from impervious.model import GAP, LATE, EventKind, NewEvent, NodePubkey, ServiceType, Shown
from impervious.store import Tx, inbox, order
from impervious.store.inbox import Complete
from impervious.store.order import Waiting

logger = logging.getLogger(__name__)

QUIET_MS: Final = 3000
"""A gap is given up when no part of an earlier message came for so long."""
MAX_HOLD_MS: Final = 60_000
"""A message is held no longer than this, whatever still comes."""
MAX_ORDER: Final = 2**63 - 1
"""The largest order that a header can have, and an integer of SQLite."""
BROKEN_RETRY_MS: Final = 600_000
"""What can neither be shown nor put aside is tried again after this."""
RELEASED_TOGETHER: Final = 64
"""Senders looked at in one transaction: everything that arrives waits for it."""


LATER: Final = Shown(data=b"", public=False)
"""Of a message that has been queued for its service: it goes into the log when that has decided."""


class Show(Protocol):
    """Decides how a message goes into the log."""

    def __call__(self, tx: Tx, service_type: ServiceType, message: Complete, /) -> Shown | None:
        """Say what streams show of it; None: nothing, and its service is not told either; LATER: it is queued."""
        ...


def as_it_is(_tx: Tx, _service_type: ServiceType, message: Complete, /) -> Shown:
    """Show a message as it came."""
    return Shown(data=message.data)


def take_turn(tx: Tx, message: Complete, show: Show = as_it_is) -> None:
    """Show a message if it is its turn or past it, hold it otherwise; show whatever that lets follow."""
    shown = order.void_through(tx, message.sender, order.shown_order(tx, message.sender))
    if message.order <= shown:  # a sender that began anew, or one that came after we gave it up
        _show(tx, replace(message, mark=LATE), show)
    elif message.order == shown + 1:
        order.set_shown_order(tx, message.sender, message.order)
        _show(tx, message, show)
        follow(tx, message.sender, show)
    else:
        order.hold(tx, message, due_ms=tx.now_ms + QUIET_MS)
        tx.wake("held")


def skip(tx: Tx, sender: NodePubkey, orders: Iterable[int], show: Show = as_it_is) -> None:
    """Note orders that will never come, and show what was only waiting for them."""
    shown = order.shown_order(tx, sender)
    ahead = [each for each in orders if each > shown]
    if ahead:
        order.add_voids(tx, sender, ahead)
        follow(tx, sender, show)


def follow(tx: Tx, sender: NodePubkey, show: Show = as_it_is) -> None:
    """Show the held messages of a sender whose turn has come: as many as may be held at most."""
    before = shown = order.shown_order(tx, sender)
    while True:
        shown = order.void_through(tx, sender, shown)
        ready = order.take_held(tx, sender, through=min(shown + 1, MAX_ORDER))
        if not ready:
            break
        shown = max(shown, ready[-1].order)
        for message in ready:
            _show(tx, message, show)
    if shown != before:
        order.set_shown_order(tx, sender, shown)


def release(tx: Tx, now_ms: int, show: Show = as_it_is) -> int | None:
    """Show held messages that are due although the gap before them is open, those of `RELEASED_TOGETHER` senders.

    Returns:
      When to call again, in milliseconds since 1970; None: nothing is held.
    """
    for sender in order.due_senders(tx, now_ms, limit=RELEASED_TOGETHER):
        error = run_contained(tx, partial(_release, tx, sender, now_ms, show))
        if error is not None:
            logger.error("a held message of %s: put into quarantine", sender.hex(), exc_info=error)
            error = run_contained(tx, partial(order.quarantine_first, tx, sender, reason_of(error)))
        if error is not None:
            logger.error("a held message of %s: cannot be put aside", sender.hex(), exc_info=error)
            order.set_due(tx, sender, now_ms + BROKEN_RETRY_MS)
    return order.next_due_ms(tx)


def _release(tx: Tx, raw_sender: bytes, now_ms: int, show: Show) -> None:
    """Show what is due of one sender, and note when the rest is."""
    sender = NodePubkey(raw_sender)
    while (first := order.first_held(tx, sender)) is not None:
        at_ms = due_ms(first)
        if at_ms > now_ms:
            order.set_due(tx, raw_sender, at_ms)
            return
        ready = order.take_held(tx, sender, through=first.order)
        order.set_shown_order(tx, sender, max(first.order, order.shown_order(tx, sender)))
        for message in ready:
            _show(tx, replace(message, mark=GAP), show)
        follow(tx, sender, show)


def due_ms(first: Waiting) -> int:
    """Say when the first held message of a sender is shown, gap or no gap."""
    if first.full:
        return 0
    quiet_since_ms = max(first.held_at_ms, first.earlier_touched_at_ms)
    return min(quiet_since_ms + QUIET_MS, first.held_at_ms + MAX_HOLD_MS)


def _show(tx: Tx, message: Complete, show: Show) -> None:
    """Show a message; one at which that fails goes into quarantine, and those that wait behind it do not."""
    error = run_contained(tx, partial(show_message, tx, message, show))
    if error is not None:
        if not isinstance(error, Malformed | Unverified):
            logger.error("message %s of %s: put into quarantine", message.id, message.sender, exc_info=error)
        inbox.quarantine_message(tx, message, reason_of(error))


def show_message(tx: Tx, message: Complete, show: Show) -> None:
    """Write a message into the log as its service shows it, or into quarantine if its service shows nothing of it."""
    if message.service_type is None:  # the reader has put it aside
        inbox.count(tx, "ignored_messages")
        return
    shown = show(tx, message.service_type, message)
    if shown is LATER:
        return
    if shown is None:
        inbox.count(tx, "dropped_messages")
        inbox.quarantine_message(tx, message, inbox.DROPPED)
        return
    tx.emit(
        NewEvent(
            kind=EventKind.MESSAGE,
            id=message.id,
            reply_to=message.reply_to,
            sender=message.sender,
            service_type=message.service_type,
            topic=message.service_type,
            data=shown.data,
            amount=message.amount,
            sent_at_ms=message.sent_at_ms,
            verified=True,
            public=shown.public,
            secret=shown.secret,
            order=message.mark,
        )
    )
