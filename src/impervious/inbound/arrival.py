"""A settled invoice becomes what it means to us, before any database is asked: pure.

What a payment carries is not authentic by itself: a channel peer can replace records, anyone who saw the preimage can
add HTLCs. Only the signature counts, recovered from a digest computed here; LND's own verdict means something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from impervious.errors import Malformed, Unverified
from impervious.model import NodePubkey, RecordType, ServiceType, SettledInvoice
from impervious.units import Msat
from impervious.wire import envelope, lnd_signature
from impervious.wire.envelope import Envelope, SignedHeader

MAX_AGE_MS: Final = 7 * 86_400_000
"""Between the sender's clock and the settlement, either way; not counted to now, because we may be catching up."""

MIN_AMOUNT: Final = Msat(1000)
"""What every part brings: a satoshi is what it costs at least to have anything stored here as a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What a message must be addressed to."""

    pubkey: NodePubkey
    network: str
    services: Mapping[RecordType, ServiceType]
    """Every record number of ours, those of switched-off services too."""
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartArrived:
    """A part of a message; its header, if it carries one, is verified."""

    record_type: RecordType
    service_type: ServiceType
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class RawArrived:
    """An ordinary wallet sent bytes to one of our record numbers."""

    record_type: RecordType
    service_type: ServiceType
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """It claims to be ours and is not, or cannot be read."""

    record_type: RecordType | None
    service_type: ServiceType | None
    value: bytes
    reason: str
    error: BaseException | None = None
    """What was raised, if that was neither Malformed nor Unverified: a mistake of a parser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A payment that is none of our messages: an invoice, or somebody else's protocol."""


Arrival: TypeAlias = PartArrived | RawArrived | Rejected | Foreign


def read(invoice: SettledInvoice, local: Local) -> Arrival:
    """Say what a settled invoice is."""
    if invoice.unreadable:
        return Rejected(record_type=None, service_type=None, value=b"", reason=invoice.unreadable)
    if not invoice.is_keysend:
        return Foreign()
    ours = sorted(kind for kind in invoice.records if kind in local.services)
    if not ours:
        return Foreign()
    record_type = RecordType(next((kind for kind in ours if envelope.is_envelope(invoice.records[kind])), ours[0]))
    value = invoice.records[record_type]
    service_type = local.services[record_type]
    if invoice.amount < MIN_AMOUNT:
        reason = f"it brought {invoice.amount} msat; every part of a message brings at least {MIN_AMOUNT}"
        return Rejected(record_type=record_type, service_type=service_type, value=value, reason=reason)
    if not envelope.is_envelope(value):
        return RawArrived(record_type=record_type, service_type=service_type, data=value)
    try:
        part = envelope.decode(value)
        if part.signed_header:
            _verify(part, part.signed_header, invoice, record_type, local)
        elif part.offset + len(part.payload) > local.max_bytes:
            raise Malformed("the part ends beyond message.max_bytes")
    except (Malformed, Unverified) as error:
        return Rejected(record_type=record_type, service_type=service_type, value=value, reason=str(error))
    return PartArrived(record_type=record_type, service_type=service_type, envelope=part)


def _verify(
    part: Envelope, signed: SignedHeader, invoice: SettledInvoice, record_type: RecordType, local: Local
) -> None:
    header = signed.header
    if header.total_bytes > local.max_bytes:
        raise Malformed(f"the message has {header.total_bytes} bytes, more than message.max_bytes")
    if abs(invoice.settled_s * 1000 - header.sent_at_ms) > MAX_AGE_MS:
        raise Unverified("sent_at_ms is not within 7 days of the settlement")
    if header.sender == local.pubkey:
        raise Unverified("the sender claims to be this node itself")
    text = envelope.signed_text(
        signed.raw,
        network=local.network,
        record_type=record_type,
        recipient=local.pubkey,
        message_id=part.message_id,
    )
    if lnd_signature.recover(text, signed.signature) != header.sender:
        raise Unverified("the signature is not the sender's")
