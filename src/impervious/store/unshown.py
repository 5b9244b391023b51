"""Messages that have had their turn and wait for their service to say what streams show of them.

They are a queue for each service, so that a service that takes long, or for ever, holds up no other. A message that
leaves its queue and what is shown of it are one transaction.
"""

from dataclasses import dataclass
from uuid import UUID

from impervious.model import EventKind, MessageId, NewEvent, NodePubkey, ServiceType, Shown
from impervious.store.inbox import DROPPED, Complete, quarantine_message
from impervious.store.transaction import Row, Tx
from impervious.units import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Unshown:
    """A message in a queue."""

    number: int
    service_type: ServiceType
    sender: NodePubkey
    id: MessageId
    reply_to: MessageId | None
    data: bytes
    amount: Msat
    sent_at_ms: int
    mark: str
    """`model.Event.order` of its event."""


def topic(service_type: ServiceType) -> str:
    """Name what is woken when a message joins a service's queue."""
    return f"unshown {service_type}"


def add(tx: Tx, service_type: ServiceType, message: Complete) -> None:
    """Queue a message for its service."""
    tx.run(
        "INSERT INTO unshown (service_type, sender, id, reply_to, data, amount_msat, sent_at_ms, order_mark)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        service_type,
        message.sender.raw,
        message.id.bytes,
        message.reply_to.bytes if message.reply_to else None,
        message.data,
        message.amount,
        message.sent_at_ms,
        message.mark,
    )
    tx.wake(topic(service_type))


def oldest(tx: Tx, service_type: ServiceType, limit: int) -> list[Unshown]:
    """Read the front of a service's queue."""
    rows = tx.all(
        "SELECT number, service_type, sender, id, reply_to, data, amount_msat, sent_at_ms, order_mark"
        " FROM unshown"
        " WHERE service_type = ? ORDER BY number LIMIT ?",
        service_type,
        limit,
    )
    return [_read(row) for row in rows]


def take(tx: Tx, message: Unshown, shown: Shown | None) -> None:
    """Take a message out of its queue and write what is shown of it into the log; None: nothing."""
    tx.run("DELETE FROM unshown WHERE number = ?", message.number)
    if shown is None:
        whole = Complete(
            sender=message.sender,
            order=0,
            id=message.id,
            reply_to=message.reply_to,
            service_type=message.service_type,
            data=message.data,
            amount=message.amount,
            sent_at_ms=message.sent_at_ms,
        )
        quarantine_message(tx, whole, DROPPED)
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


def _read(row: Row) -> Unshown:
    number, service_type, sender, identifier, reply_to, data, amount, sent_at_ms, mark = row
    return Unshown(
        number=number,
        service_type=ServiceType(service_type),
        sender=NodePubkey(sender),
        id=UUID(bytes=identifier),
        reply_to=UUID(bytes=reply_to) if reply_to is not None else None,
        data=data,
        amount=Msat(amount),
        sent_at_ms=sent_at_ms,
        mark=mark,
    )
