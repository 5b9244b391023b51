"""Parts become whole messages, inside one transaction each.

A message of one part, which is nearly every message, never touches the tables of incomplete ones. Of the others, first
bytes for a range win. A message is whole when its ranges cover it and the hash is the header's.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from impervious.containment import reason_of
from impervious.errors import Malformed
from impervious.inbound import turns
from impervious.inbound.arrival import Local, PartArrived
from impervious.inbound.boundary import run_contained
from impervious.inbound.turns import Show, as_it_is
from impervious.model import STATUS, EventKind, NewEvent, NodePubkey, PaymentHash, SettledInvoice
from impervious.store import Tx, hints, inbox
from impervious.store.inbox import Assembly, Complete
from impervious.units import Msat, sat_credited
from impervious.wire.envelope import Header

logger = logging.getLogger(__name__)

INCOMPLETE_TTL_MS: Final = 24 * 3_600_000
"""How long a message may lack parts."""
MAX_KEPT_BYTES: Final = 65_536
"""Kept in quarantine of parts without a header."""
EXPIRED_TOGETHER: Final = 64
"""Messages given up in one transaction: everything that arrives waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A whole message that is not what its sender signed; only its turn counts."""

    sender: NodePubkey
    order: int
    reason: str
    data: bytes = b""
    amount: Msat = Msat(0)
    """What came with it, all parts together."""


def add_part(tx: Tx, invoice: SettledInvoice, arrived: PartArrived, *, active: bool) -> Complete | Refused | None:
    """Store a part; return the message if that completes it.

    Args:
      tx: the transaction.
      invoice: the payment that carried it.
      arrived: the part.
      active: whether the service is switched on.

    Raises:
      Malformed: the part contradicts others of its message.
    """
    part, signed = arrived.envelope, arrived.envelope.signed_header
    key = (arrived.record_type, part.message_id)
    if inbox.was_seen(tx, part.message_id, by=signed.header.sender if signed else None):
        inbox.count(tx, "duplicate_parts")
        inbox.quarantine(
            tx,
            invoice.payment_hash,
            "a part of a message that was dealt with before",
            record_type=None,
            value=part.payload,
            amount=invoice.amount,
            service_type=arrived.service_type,
        )
        return None
    known = inbox.assembly(tx, *key)
    if signed and known is None and len(part.payload) == signed.header.total_bytes:
        return _whole(arrived, signed.header, part.payload, invoice.amount, tx=tx, active=active)
    if signed and known and known.header and known.header.sender != signed.header.sender:
        raise Malformed("two senders use one message id")
    if signed and known and known.header and known.header.total_bytes != signed.header.total_bytes:
        raise Malformed("the sender gives one message two lengths")
    parts = inbox.add_fragment(tx, *key, offset=part.offset, payload=part.payload, amount=invoice.amount)
    if parts > inbox.MESSAGE_PARTS:
        raise Malformed(f"the message has more than {inbox.MESSAGE_PARTS} parts")
    if signed:
        inbox.set_header(tx, *key, signed)
    return _try_complete(tx, arrived, active=active)


def _try_complete(tx: Tx, arrived: PartArrived, *, active: bool) -> Complete | Refused | None:
    found = inbox.assembly(tx, arrived.record_type, arrived.envelope.message_id)
    if found is None or found.header is None or found.bytes < found.header.total_bytes:
        return None
    fragments = inbox.fragments(tx, found.record_type, found.id)
    data = joined(fragments, found.header.total_bytes)
    if data is None:  # bytes beyond the end, or twice the same by a former version: not to be read again at each part
        inbox.set_bytes(tx, found.record_type, found.id, covered(fragments, found.header.total_bytes))
        return None
    inbox.drop_assembly(tx, found.record_type, found.id)
    return _whole(arrived, found.header, data, found.amount, tx=tx, active=active)


def _whole(
    arrived: PartArrived, header: Header, data: bytes, amount: Msat, *, tx: Tx, active: bool
) -> Complete | Refused:
    inbox.mark_seen(tx, header.sender, arrived.envelope.message_id)
    if hashlib.sha256(data).digest() != header.payload_sha256:
        reason = "the payload is not the signed one"
        return Refused(sender=header.sender, order=header.order, reason=reason, data=data, amount=amount)
    if amount < header.amount:
        reason = f"{amount} msat came, {header.amount} were signed"
        return Refused(sender=header.sender, order=header.order, reason=reason, data=data, amount=amount)
    if header.hints:
        hints.remember(tx, header.sender, header.hints)
    return Complete(
        sender=header.sender,
        order=header.order,
        id=arrived.envelope.message_id,
        reply_to=header.reply_to,
        service_type=arrived.service_type if active else None,
        data=data,
        amount=amount,
        sent_at_ms=header.sent_at_ms,
    )


def joined(fragments: Sequence[tuple[int, bytes]], total_bytes: int) -> bytes | None:
    """Lay byte ranges over each other, the first one lowest in the pile winning; None while there are gaps.

    Args:
      fragments: offset and bytes, in the order in which they came.
      total_bytes: length of the whole. What reaches beyond it is cut off.
    """
    whole = bytearray(total_bytes)
    for offset, payload in reversed(fragments):  # earlier ones overwrite later ones
        end = min(offset + len(payload), total_bytes)
        if offset < end:
            whole[offset:end] = payload[: end - offset]
    return bytes(whole) if covered(fragments, total_bytes) == total_bytes else None


def covered(fragments: Iterable[tuple[int, bytes]], total_bytes: int) -> int:
    """Count the bytes of the whole that byte ranges bring, each once."""
    count, end = 0, 0
    for offset, payload in sorted((offset, len(payload)) for offset, payload in fragments):
        begin, end_here = max(offset, end), min(offset + payload, total_bytes)
        count += max(0, end_here - begin)
        end = max(end, end_here)
    return count


def enforce_limits(tx: Tx, local: Local, sender: NodePubkey | None, show: Show = as_it_is) -> None:
    """Drop the oldest incomplete messages of a sender, or of strangers, beyond what may be kept."""
    while (oldest := inbox.oldest_beyond_limits(tx, sender)) is not None:
        _give_up_contained(tx, local, oldest, show)


def expire(tx: Tx, local: Local, show: Show = as_it_is) -> bool:
    """Give up messages that have lacked parts for too long.

    Returns:
      Whether there may be more: `EXPIRED_TOGETHER` go in one transaction.
    """
    expired = inbox.assemblies_before(tx, tx.now_ms - INCOMPLETE_TTL_MS, limit=EXPIRED_TOGETHER)
    for found in expired:
        _give_up_contained(tx, local, found, show)
    return len(expired) == EXPIRED_TOGETHER


def _give_up_contained(tx: Tx, local: Local, found: Assembly, show: Show) -> None:
    """Give a message up; if that fails, forget it all the same, or it would be in the way of everything that comes."""
    error = run_contained(tx, partial(give_up, tx, local, found, show))
    if error is not None:
        logger.error("incomplete message %s: put into quarantine without its bytes", found.id, exc_info=error)
        inbox.drop_assembly(tx, found.record_type, found.id)
        kept = partial(inbox.quarantine, record_type=None, value=b"", amount=found.amount)
        run_contained(tx, partial(kept, tx, PaymentHash(found.id.bytes), reason_of(error)))


def give_up(tx: Tx, local: Local, found: Assembly, show: Show = as_it_is) -> None:
    """Forget an incomplete message; if its sender is known, say so on the stream and let later ones have their turn."""
    service_type = local.services.get(found.record_type)
    shown = found.header is not None and service_type is not None
    kept = b"" if shown else b"".join(inbox.fragments_within(tx, found.record_type, found.id, MAX_KEPT_BYTES))
    inbox.drop_assembly(tx, found.record_type, found.id)
    inbox.count(tx, "expired_messages")
    if found.header is None or service_type is None:
        inbox.quarantine(
            tx,
            PaymentHash(found.id.bytes),
            "parts of a message whose header did not come"
            if found.header is None
            else "parts of a message to a record that no service has any more",
            record_type=None,
            value=kept,
            amount=found.amount,
            service_type=service_type,
        )
        return
    inbox.mark_seen(tx, found.header.sender, found.id)  # what comes late must not begin it again
    detail = {
        "state": "expired",
        "service": service_type,
        "sender": found.header.sender.hex,
        "id": str(found.id),
        "amount_sat": sat_credited(found.amount),
        "bytes": found.bytes,
        "total_bytes": found.header.total_bytes,
    }
    tx.emit(
        NewEvent(
            kind=EventKind.NOTICE,
            id=found.id,
            reply_to=None,
            sender=local.pubkey,
            service_type=STATUS,
            topic=service_type,
            data=json.dumps(detail).encode(),
            amount=found.amount,
            sent_at_ms=tx.now_ms,
            verified=True,
        )
    )
    turns.skip(tx, found.header.sender, [found.header.order], show)
