"""Whole messages become events in the order in which their sender sent them, inside one transaction each.

Settlements overlap, so messages come out of order. One that is early is held; its event row, and with it its `seq`, is
written when the gap before it closes, or when waiting any longer would help nobody: `order of seq = order shown`.
"""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Final, Protocol

from impervious.containment import reason_of
from impervious.inbound.boundary import run_contained
from impervious.model import EventKind, NewEvent, NodePubkey, ServiceType, Shown
from impervious.store import Tx, inbox
from impervious.store.inbox import Complete, Waiting

logger = logging.getLogger(__name__)

QUIET_MS: Final = 3000
"""A gap is given up when no part of an earlier message came for so long."""
MAX_HOLD_MS: Final = 60_000
"""A message is held no longer than this, whatever still comes."""
BROKEN_RETRY_MS: Final = 600_000
"""What can neither be shown nor put aside is tried again after this."""
MAX_ORDER: Final = 2**63 - 1
"""The largest order that a header can have, and an integer of SQLite."""


class Show(Protocol):
    """Decides how a message goes into the log."""

    def __call__(self, tx: Tx, service_type: ServiceType, message: Complete, /) -> Shown | None:
        """Say what streams show of it; None: nothing, and its service is not told either."""
        ...


def as_it_is(_tx: Tx, _service_type: ServiceType, message: Complete, /) -> Shown:
    """Show a message as it came."""
    return Shown(data=message.data)


def take_turn(tx: Tx, message: Complete, show: Show = as_it_is) -> None:
    """Show a message if it is its turn or past it, hold it otherwise; show whatever that lets follow."""
    shown = inbox.shown_order(tx, message.sender)
    if message.order <= shown:  # a sender that began anew, or one that came after we gave it up
        _show(tx, message, show)
    elif message.order == _next(tx, message.sender, shown):
        inbox.set_shown_order(tx, message.sender, message.order)
        _show(tx, message, show)
        follow(tx, message.sender, show)
    else:
        inbox.hold(tx, message)
        tx.wake("held")


def skip(tx: Tx, sender: NodePubkey, orders: Iterable[int], show: Show = as_it_is) -> None:
    """Note orders that will never come, and show what was only waiting for them."""
    shown = inbox.shown_order(tx, sender)
    for order in orders:
        if order > shown:
            inbox.add_void(tx, sender, order)
    follow(tx, sender, show)


def follow(tx: Tx, sender: NodePubkey, show: Show = as_it_is) -> None:
    """Show the held messages of a sender whose turn has come."""
    while True:
        turn = _next(tx, sender, inbox.shown_order(tx, sender))
        ready = inbox.take_held(tx, sender, through=turn)
        if not ready:
            return
        inbox.set_shown_order(tx, sender, turn)
        for message in ready:
            _show(tx, message, show)


def release(tx: Tx, now_ms: int, show: Show = as_it_is) -> int | None:
    """Show every held message that is due although the gap before it is open.

    Returns:
      When the next one is due, in milliseconds since 1970; None: nothing is held.
    """
    broken: set[NodePubkey] = set()
    while True:
        due = {first: due_ms(first) for first in inbox.waiting(tx) if first.sender not in broken}
        late = [first for first, at_ms in due.items() if at_ms <= now_ms]
        if not late:
            return min([*due.values(), *([now_ms + BROKEN_RETRY_MS] if broken else [])], default=None)
        for first in late:
            if not _release_contained(tx, first, show):
                broken.add(first.sender)


def _release_contained(tx: Tx, first: Waiting, show: Show) -> bool:
    """Give a held message its turn; put it into quarantine if that fails. False: that failed as well."""
    error = run_contained(tx, partial(_release, tx, first, show))
    if error is None:
        return True
    logger.error("held message %d of %s: put into quarantine", first.order, first.sender, exc_info=error)
    error = run_contained(tx, partial(inbox.quarantine_held, tx, first.sender, first.order, reason_of(error)))
    if error is not None:
        logger.error("held message %d of %s: cannot be put aside", first.order, first.sender, exc_info=error)
    return error is None


def _release(tx: Tx, first: Waiting, show: Show) -> None:
    for message in inbox.take_held(tx, first.sender, through=first.order):
        _show(tx, message, show)
    inbox.set_shown_order(tx, first.sender, first.order)
    follow(tx, first.sender, show)


def due_ms(first: Waiting) -> int:
    """Say when the first held message of a sender is shown, gap or no gap."""
    quiet_since_ms = max(first.held_at_ms, first.earlier_touched_at_ms)
    return min(quiet_since_ms + QUIET_MS, first.held_at_ms + MAX_HOLD_MS)


def _next(tx: Tx, sender: NodePubkey, shown: int) -> int:
    turn = min(shown + 1, MAX_ORDER)
    while turn < MAX_ORDER and inbox.is_void(tx, sender, turn):
        turn += 1
    return turn


def _show(tx: Tx, message: Complete, show: Show) -> None:
    if message.service_type is None:
        inbox.count(tx, "ignored_messages")
        return
    shown = show(tx, message.service_type, message)
    if shown is None:
        inbox.count(tx, "dropped_messages")
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
        )
    )
