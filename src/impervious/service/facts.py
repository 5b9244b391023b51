"""What a service may be shown: the rows of the log that concern it, as values.

A fact is shown once its row is committed, in order, and again after a crash until the service has dealt with it.
"""

import json
from dataclasses import dataclass
from typing import TypeAlias

from impervious.model import Event, EventKind, MessageId, MessageState, NodePubkey, SettledInvoice
from impervious.store import settled
from impervious.units import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedMessage:
    """Another node's message to this service, complete, in order, its sender proved."""

    seq: int
    """Its place in the log; 0 while `Service.show` decides whether it gets one."""
    id: MessageId
    sender: NodePubkey
    reply_to: MessageId | None
    data: bytes
    amount: Msat
    """Received with it."""
    sent_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a message that this service sent."""

    seq: int
    id: MessageId
    delivered: bool
    reason: str
    """Why not; empty when delivered."""


Fact: TypeAlias = VerifiedMessage | Outcome | SettledInvoice


def fact_of(event: Event) -> Fact | None:
    """Read the fact in a row of the log; None: it is none that a service acts on."""
    if event.kind is EventKind.MESSAGE and event.verified and event.sender is not None:
        return VerifiedMessage(
            seq=event.seq,
            id=event.id,
            sender=event.sender,
            reply_to=event.reply_to,
            data=event.data if event.secret is None else event.secret,
            amount=event.amount,
            sent_at_ms=event.sent_at_ms,
        )
    if event.kind is EventKind.OUTCOME:
        detail = json.loads(event.data)
        delivered = detail["state"] == MessageState.DELIVERED.value
        return Outcome(seq=event.seq, id=event.id, delivered=delivered, reason=detail.get("reason", ""))
    if event.kind is EventKind.PAYMENT:
        return settled.invoice_of(event.data)
    return None
