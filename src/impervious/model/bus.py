"""What the bus keeps: events of the log, peers, and messages on their way out."""

import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from impervious.errors import InvalidArgument
from impervious.model.names import MessageId, NodePubkey, PaymentHash, Preimage, ServiceType
from impervious.units import Msat

GAP: Final = "gap"
"""An earlier message of its sender has not come: it was waited for, and may still come, as `LATE`."""
LATE: Final = "late"
"""Its number is not above those shown before: it was sent earlier than they, or its sender counts anew."""


class EventKind(Enum):
    """Where a row of the log comes from; decides which fact a service is shown."""

    MESSAGE = "message"
    """A message from another node, complete and in order."""
    OUTCOME = "outcome"
    """The end of one of our own calls."""
    PROGRESS = "progress"
    """A call of ours that has not ended waits, and why: on streams that ask for version 2 only."""
    QUARANTINED = "quarantined"
    """A payment that could not be shown as what it claims to be: on streams that ask for version 2 only."""
    PAYMENT = "payment"
    """An invoice was paid, or a keysend of somebody else's protocol came."""
    NOTICE = "notice"
    """Something a service of ours has to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the durable log: what subscribers see."""

    seq: int
    """Position in the log, from 1, growing; gaps are normal."""
    kind: EventKind
    id: MessageId
    """Of the message or call it is about."""
    reply_to: MessageId | None
    sender: NodePubkey | None
    """Our own node for outcomes and notices; None when nobody proved to have sent it."""
    service_type: ServiceType
    """What the stream shows: the service, or `status` for outcomes."""
    topic: ServiceType
    """The service it concerns: differs from `service_type` for outcomes."""
    data: bytes
    amount: Msat
    """Received with it, all parts together."""
    sent_at_ms: int
    """When the sender signed it; for our own events when they were written."""
    verified: bool
    public: bool = True
    """False: only for the service it concerns, never on a stream."""
    secret: bytes | None = field(default=None, repr=False)
    """Shown instead of `data` to those who ask for secrets."""
    order: str = ""
    """Of a message that may be out of its sender's order: `GAP` or `LATE`. Empty: everything before it was shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event before the log gives it its `seq`."""

    kind: EventKind
    id: MessageId
    reply_to: MessageId | None
    sender: NodePubkey | None
    service_type: ServiceType
    topic: ServiceType
    data: bytes
    amount: Msat
    sent_at_ms: int
    verified: bool
    public: bool = True
    secret: bytes | None = field(default=None, repr=False)
    order: str = ""

    def at(self, seq: int) -> Event:
        """Give it its place in the log."""
        return Event(
            seq=seq,
            kind=self.kind,
            id=self.id,
            reply_to=self.reply_to,
            sender=self.sender,
            service_type=self.service_type,
            topic=self.topic,
            data=self.data,
            amount=self.amount,
            sent_at_ms=self.sent_at_ms,
            verified=self.verified,
            public=self.public,
            secret=self.secret,
            order=self.order,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How a message from another node goes into the log."""

    data: bytes
    """What every stream shows of it."""
    secret: bytes | None = field(default=None, repr=False)
    """What streams that ask for secrets show instead; the service itself is always shown this. None: nothing is kept
    from anybody."""
    public: bool = True
    """False: it is a fact for its service, and on no stream."""


# --- Peers ------------------------------------------------------------------------------------------------------------


MAX_IMP_ID_BYTES: Final = 64


def check_imp_id(text: str) -> None:
    """Refuse a name that could not be shown or typed.

    Raises:
      InvalidArgument: says why.
    """
    if not text or text.isspace():
        raise InvalidArgument("an imp id has at least one character that can be seen")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text):
        raise InvalidArgument("an imp id holds no control characters, invisible ones included")
    if len(text.encode()) > MAX_IMP_ID_BYTES:
        raise InvalidArgument(f"an imp id has at most {MAX_IMP_ID_BYTES} bytes of UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node that we have federated with."""

    pubkey: NodePubkey
    imp_id: str
    """The name it goes by; others may go by it too, and it means the one that had it first."""
    since_ms: int
    expires_ms: int
    """Until then it is remembered."""
    services: tuple[str, ...]
    """What it says it offers."""


# --- Outbound ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """What a service wants another node to get."""

    id: MessageId
    recipient: NodePubkey
    service_type: ServiceType
    payload: bytes
    amount: Msat
    """What the recipient gets in all; at least the minimum for the size."""
    reply_to: MessageId | None = None


class MessageState(Enum):
    """Life of an outbound message: accepted -> sending -> delivered | failed."""

    ACCEPTED = "accepted"
    SENDING = "sending"
    """Signed; payments may be under way."""
    DELIVERED = "delivered"
    """Every part is settled by the recipient's Lightning node."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReport:
    """How far a message of ours is."""

    id: MessageId
    recipient: NodePubkey
    service_type: ServiceType
    state: str
    """A `MessageState`, or `retrying` or `pending` of one that has not ended."""
    reason: str
    """Why it failed, or why the last attempt did."""
    retryable: bool
    parts: int
    parts_settled: int
    parts_in_flight: int
    """As far as is known."""
    amount: Msat
    """What the recipient has got so far."""
    fee: Msat
    accepted_at_ms: int
    deadline_ms: int | None
    """When it is given up; None: never."""
    next_try_ms: int
    """When the next attempt begins; 0: none is planned."""


class PartState(Enum):
    """Life of one keysend of a message."""

    PENDING = "pending"
    """May be in flight: ask the Lightning node before the first send after a start."""
    SETTLED = "settled"
    DEAD = "dead"
    """Failed for good, or replaced by smaller parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A byte range of a message and the payment that carries it."""

    preimage: Preimage
    offset: int
    length: int
    amount: Msat
    fee_limit: Msat
    state: PartState = PartState.PENDING
    fee: Msat = Msat(0)

    @property
    def payment_hash(self) -> PaymentHash:
        """SHA-256 of its preimage: its name at the Lightning node."""
        return self.preimage.payment_hash
