"""What is paid and not shown: put aside with its bytes, an event and a line in the log; released when asked for."""

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import UUID

from impervious.containment import printable
from impervious.errors import Malformed
from impervious.inbound.arrival import Arrival, Foreign, PartArrived, RawArrived, Rejected
from impervious.inbound.boundary import run_contained
from impervious.model import Event, EventKind, NewEvent, RecordType, ServiceType, SettledInvoice
from impervious.store import Tx, inbox, quarantine
from impervious.store.inbox import Complete
from impervious.store.quarantine import Quarantined
from impervious.store.settled import PAYMENTS
from impervious.units import Msat
from impervious.wire import envelope

logger = logging.getLogger(__name__)

RELEASED_TOGETHER: Final = 16
"""Released in one transaction."""
LINES: Final = 10
"""Lines about payments put aside that the log gets in `PERIOD_S`; then their number."""
PERIOD_S: Final = 60.0


def put_aside(tx: Tx, invoice: SettledInvoice, what: Arrival, reason: str) -> None:
    """Mark an invoice as processed and put it into quarantine; if that fails, the node's log alone names it."""
    unmarked = run_contained(tx, partial(inbox.is_new_invoice, tx, invoice.payment_hash))
    error: BaseException | None = None
    for kept, event in ((what, True), (what, False), (Foreign(), False)):  # its bytes may be what cannot be stored
        error = run_contained(tx, partial(_keep, tx, invoice, kept, printable(reason), event=event))
        if error is None:
            break
    for each in (unmarked, error):
        if each is not None:
            logger.error("invoice %s: cannot be put into quarantine", invoice.payment_hash.hex(), exc_info=each)


def _keep(tx: Tx, invoice: SettledInvoice, what: Arrival, reason: str, *, event: bool) -> None:
    record_type: RecordType | None = None
    service_type: ServiceType | None = None
    value = b""
    if isinstance(what, PartArrived):
        record_type, service_type, value = what.record_type, what.service_type, invoice.records[what.record_type]
    elif isinstance(what, RawArrived):
        record_type, service_type, value = what.record_type, what.service_type, what.data
    elif isinstance(what, Rejected):
        record_type, service_type, value = what.record_type, what.service_type, what.value
    inbox.quarantine(
        tx,
        invoice.payment_hash,
        reason,
        record_type=record_type,
        value=value,
        amount=Msat(_stored(invoice.amount)),
        service_type=service_type,
        settled_ms=_stored(invoice.settled_s * 1000),
        event=event,
    )


def _stored(value: int) -> int:
    """Bring a number into the range of SQLite's integers."""
    return max(-(2**63), min(2**63 - 1, value))


# --- Release ----------------------------------------------------------------------------------------------------------


def release(tx: Tx, read_again: Callable[[Tx, Quarantined], object]) -> None:
    """Release what the operator wants released: once each, because the row goes with the event that comes.

    Args:
      tx: the transaction.
      read_again: does with a payment what the reader would do with it now, or raises.
    """
    for number in quarantine.wanted(tx, limit=RELEASED_TOGETHER):
        error = run_contained(tx, partial(_read_again, tx, number, read_again))
        error = error and run_contained(tx, partial(_show_raw, tx, number))
        if error is None:
            inbox.count(tx, "released")
        else:
            logger.error("payment %d in quarantine: cannot be released", number, exc_info=error)
            quarantine.unwant(tx, number)


def _read_again(tx: Tx, number: int, read_again: Callable[[Tx, Quarantined], object]) -> None:
    before = _ever_quarantined(tx)
    read_again(tx, quarantine.take(tx, number))
    if _ever_quarantined(tx) != before:
        raise Malformed("the reason is still there")


def _ever_quarantined(tx: Tx) -> int:
    return tx.number("SELECT value FROM counter WHERE name = 'quarantined'")


def message_of(found: Quarantined) -> Complete | None:
    """Make of a row the whole and verified message that it is; None: it is none."""
    if found.sender is None or found.message_id is None:
        return None
    return Complete(
        sender=found.sender,
        order=0,
        id=found.message_id,
        reply_to=None,
        service_type=found.service_type,
        data=found.value,
        amount=found.amount,
        sent_at_ms=found.sent_at_ms,
    )


def invoice_of(found: Quarantined) -> SettledInvoice:
    """Make of a row the settled invoice that it was, as far as the reader looks at it.

    Raises:
      Malformed: its record is not kept.
    """
    if found.record_type is None:
        raise Malformed("nothing is left of it but what it says")
    return SettledInvoice(
        payment_hash=found.payment_hash,
        amount=found.amount,
        records={found.record_type: found.value},
        is_keysend=True,
        add_index=0,
        settle_index=0,
        created_s=found.sent_at_ms // 1000,
        settled_s=found.sent_at_ms // 1000,
    )


def _show_raw(tx: Tx, number: int) -> None:
    """Show what a payment says as a message that nobody proved to have sent."""
    found = quarantine.take(tx, number)
    topic = found.service_type or PAYMENTS
    tx.emit(
        NewEvent(
            kind=EventKind.MESSAGE,
            id=found.message_id or UUID(bytes=found.payment_hash[:16].ljust(16, b"\0"), version=4),
            reply_to=None,
            sender=None,
            service_type=topic,
            topic=topic,
            data=_payload(found),
            amount=found.amount,
            sent_at_ms=found.sent_at_ms,
            verified=False,
        )
    )


def _payload(found: Quarantined) -> bytes:
    if found.record_type is not None and envelope.is_envelope(found.value):
        try:
            return envelope.decode(found.value).payload
        except Malformed:
            return found.value
    return found.value


# --- The log ----------------------------------------------------------------------------------------------------------


class Lines:
    """Writes a line for each payment that was put aside, but at most `LINES` in `PERIOD_S`, then how many more."""

    def __init__(self) -> None:
        self._began_s = -PERIOD_S
        self._lines = 0
        self._more = 0

    def write(self, event: Event, now_s: float) -> None:
        """Write a line about an event."""
        self.flush(now_s)
        self._lines += 1
        if self._lines > LINES:
            self._more += 1
            return
        shape = json.loads(event.data)
        number, reason = shape["number"], shape["reason"]
        logger.warning("payment %d is in quarantine (`impervious db quarantine show %d`): %s", number, number, reason)

    def flush(self, now_s: float) -> None:
        """Say how many were left out, once the period is over."""
        if now_s - self._began_s < PERIOD_S:
            return
        if self._more:
            logger.warning("%d more payments were put into quarantine", self._more)
        self._began_s, self._lines, self._more = now_s, 0, 0
