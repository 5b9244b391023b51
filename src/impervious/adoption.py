"""Brings what the Lightning node has paid for into a database that was restored from a backup.

The messages that were sent since the backup are read out of the records that carried them: ids, recipients, what they
cost, which message they answered. What was queued at the time of the backup and sent after it ends as delivered; what
nobody remembers but the node gets an outcome and counts in the budget. A message whose payments have not ended stays
open: the daemon follows them, and makes only those again that have failed for certain. Then a new epoch begins.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

from impervious.model import (
    MessageId,
    MessageState,
    NodePubkey,
    OutboundMessage,
    Part,
    PartState,
    Payment,
    PaymentStatus,
    Preimage,
    RecordType,
    ServiceType,
)
from impervious.node import InvoiceNode
from impervious.outbound import SendPolicy, plan
from impervious.outbound.accept import PREIMAGE_BYTES, beyond, new_part
from impervious.outbound.outcome import Failure, conclude, end_as_given
from impervious.payment_books import Backwards, Sent, sent_by
from impervious.store import Tx, history, log, outbox, spending
from impervious.store.history import Mark
from impervious.store.outbox import Stored
from impervious.units import Msat
from impervious.wire.envelope import SignedHeader
from impervious.wire.keysend import PREIMAGE_RECORD

LIGHTNING: Final = ServiceType("lightning")
"""Whose payments are those that are no message's, as far as they are this daemon's."""
_LOST: Final = (
    "the database was restored from a backup older than this message: of its {total} bytes {sent} had been sent,"
    " and the rest is lost"
)
_LOST_UNDER_WAY: Final = _LOST + "; payments of it that had not ended: {under_way}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The Lightning node's payments since the database's mark."""

    sent: Sequence[Sent]
    """Parts of this node's messages, known or not."""
    others: Sequence[Payment]
    """Payments that are none of a message's."""
    newest: Mark

    @property
    def unreadable(self) -> int:
        """Count the payments under way that no route carries yet: only their attempts say what they are for."""
        return len([each for each in self.others if each.status is PaymentStatus.IN_FLIGHT and each.dest is None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What was found, and what became of it."""

    payments: int
    """Parts of messages that the database did not know."""
    messages: int
    """Messages that the database did not know."""
    incomplete: int
    """Of these, those of which only some parts were sent: the rest is lost."""
    queued_delivered: int
    """Messages that were queued, and had been sent already."""
    queued_shortened: int
    """Messages that were queued, of which some parts had been sent already."""
    answers: int
    """Answers that were queued anew, and had been sent already."""
    under_way: int
    """Messages with payments that have not ended: they are open, and the daemon follows them."""
    spent_msat: Msat
    """Of what was not known, what counts in the budget of the last 24 hours."""
    other_payments: int
    """Payments since the backup that are none of a message's: of other programs, or of PayInvoice and SendKeysend."""
    other_msat: Msat
    others_counted: bool
    epoch: str
    next_seq: int


async def read_books(
    node: InvoiceNode, mark: Mark, *, own: NodePubkey, services: Mapping[RecordType, ServiceType]
) -> Books:
    """Read the node's payments, from the newest to a mark.

    Args:
      node: the Lightning node.
      mark: the newest payment that the database has seen.
      own: this node.
      services: our record numbers.

    Raises:
      NodeUnavailable: the node cannot be asked now.
      NodeRefused: it does not let us ask.
    """
    books, sent, others = Backwards(node, mark), list[Sent](), list[Payment]()
    while (payments := await books.page()) is not None:
        for payment in payments:
            part = sent_by(payment, own, services)
            if part is not None:
                sent.append(part)
            elif payment.status is not PaymentStatus.FAILED:
                others.append(replace(payment, records={}))
    return Books(sent=sent, others=others, newest=books.newest)


def adopt(tx: Tx, books: Books, policy: SendPolicy, *, own: NodePubkey, count_others: bool = False) -> Adoption:
    """Write what the node's books say into the database.

    Args:
      tx: the transaction.
      books: from `read_books`.
      policy: what messages are sent by.
      own: this node.
      count_others: whether payments that are no message's count in the budget, too.
    """
    if not history.is_set_back(tx):
        history.begin_epoch(tx, set_back=False)
    found = _Found()
    for message_id, parts in _by_message(books.sent).items():
        stored = outbox.load_intent(tx, message_id)
        if stored is not None:
            _take_up(tx, stored, parts, policy, own, found)
        elif any(each.part.signed_header for each in parts):
            _add_unknown(tx, message_id, parts, policy, own, found)
    _end_answers(tx, own, found)
    others = [each for each in books.others if each.created_s * 1000 > tx.now_ms - spending.WINDOW_MS]
    if count_others:
        for each in others:
            spending.note(tx, uuid4(), LIGHTNING, Msat(each.amount + each.fee), at_ms=each.created_s * 1000)
    history.set_mark(tx, books.newest)
    history.set_complete(tx)
    return Adoption(
        payments=found.payments,
        messages=found.messages,
        incomplete=found.incomplete,
        queued_delivered=found.queued_delivered,
        queued_shortened=found.queued_shortened,
        answers=found.answers,
        under_way=found.under_way,
        spent_msat=Msat(found.spent_msat),
        other_payments=len(others),
        other_msat=Msat(sum(each.amount + each.fee for each in others)),
        others_counted=count_others,
        epoch=history.epoch(tx),
        next_seq=log.newest(tx) + 1,
    )


@dataclass(slots=True)
class _Found:
    payments: int = 0
    messages: int = 0
    incomplete: int = 0
    queued_delivered: int = 0
    queued_shortened: int = 0
    answers: int = 0
    under_way: int = 0
    spent_msat: int = 0

    def count(self, tx: Tx, payment: Payment, part: Part) -> None:
        """Count a payment that the database did not know, as the part that it became."""
        self.payments += 1
        if payment.created_s * 1000 > tx.now_ms - spending.WINDOW_MS:
            self.spent_msat += _cost([part])


def _by_message(sent: Iterable[Sent]) -> dict[MessageId, list[Sent]]:
    """Group parts, those that began first before the others."""
    grouped: dict[MessageId, list[Sent]] = {}
    for each in sent:
        grouped.setdefault(each.part.message_id, []).append(each)
    return {message_id: parts[::-1] for message_id, parts in reversed(grouped.items())}


def _header(parts: Iterable[Sent]) -> SignedHeader | None:
    return next((each.part.signed_header for each in parts if each.part.signed_header), None)


def _part(sent: Sent, fee_limit: Msat) -> Part:
    """A payment as the outbox keeps it.

    Args:
      sent: the payment.
      fee_limit: highest routing fee of one that has not ended, if it fails and is made again.
    """
    raw = sent.payment.records.get(PREIMAGE_RECORD, b"")
    settled = sent.payment.status is PaymentStatus.SUCCEEDED
    return Part(
        preimage=Preimage(raw if len(raw) == PREIMAGE_BYTES else bytes(PREIMAGE_BYTES)),
        offset=sent.part.offset,
        length=len(sent.part.payload),
        amount=sent.payment.amount,
        fee_limit=sent.payment.fee if settled else fee_limit,
        fee=sent.payment.fee,
        state=PartState.SETTLED if settled else PartState.PENDING,
    )


def _cost(parts: Iterable[Part]) -> Msat:
    """Sum what parts have cost, and what those that have not ended may cost at most."""
    return Msat(sum(each.amount + (each.fee if _is_settled(each) else each.fee_limit) for each in parts))


def _is_settled(part: Part) -> bool:
    return part.state is PartState.SETTLED


# --- A message that the database does not know ----------------------------------------------------------------------


def _add_unknown(
    tx: Tx, message_id: MessageId, parts: Sequence[Sent], policy: SendPolicy, own: NodePubkey, found: _Found
) -> None:
    """Store a message that was accepted and sent after the backup: with its end, or open if that is not known yet."""
    first, signed = parts[0], _header(parts)
    assert signed is not None, "only a header says that a message is ours"
    header = signed.header
    rows = [_part(each, policy.part_fee_limit) for each in parts]
    payload = _payload(parts)
    whole = len(payload) == header.total_bytes and hashlib.sha256(payload).digest() == header.payload_sha256
    under_way = len([each for each in rows if not _is_settled(each)])
    message = OutboundMessage(
        id=message_id,
        recipient=first.recipient,
        service_type=first.service_type,
        payload=payload if whole and under_way else b"",
        amount=header.amount or Msat(sum(each.payment.amount for each in parts)),
        reply_to=header.reply_to,
    )
    deadline_ms = header.sent_at_ms + policy.ttl_ms
    outbox.add(tx, message, rows, record_type=first.record_type, order=header.order, deadline_ms=deadline_ms)
    outbox.set_signed(tx, message_id, header=signed.raw, signature=signed.signature)
    outbox.raise_order(tx, first.recipient, header.order)
    spending.note(tx, message_id, first.service_type, _cost(rows), at_ms=first.payment.created_s * 1000)
    if header.reply_to is not None:
        history.add_answered(
            tx,
            request=header.reply_to,
            recipient=first.recipient,
            service_type=first.service_type,
            answer=message_id,
        )
    found.messages += 1
    for each, row in zip(parts, rows, strict=True):
        found.count(tx, each.payment, row)
    if whole and under_way:
        found.under_way += 1
        return
    failure = None
    if not whole:
        found.incomplete += 1
        words = _LOST_UNDER_WAY if under_way else _LOST
        sent_bytes = _covered_bytes(filter(_is_settled, rows))
        reason = words.format(sent=sent_bytes, total=header.total_bytes, under_way=under_way)
        failure = Failure(reason=reason, retryable=True)
    stored = outbox.load_intent(tx, message_id)
    assert stored is not None, "it was just stored"
    conclude(tx, stored, own, failure)
    spending.settle(tx, message_id, _cost(rows))  # what is still in flight is not in the outcome, and may yet be spent


def _payload(parts: Iterable[Sent]) -> bytes:
    """Join what payments carry, from the beginning to the first gap."""
    joined = bytearray()
    for each in sorted(parts, key=lambda one: one.part.offset):
        if each.part.offset > len(joined):
            break
        joined += each.part.payload[len(joined) - each.part.offset :]
    return bytes(joined)


def _covered_bytes(parts: Iterable[Part]) -> int:
    covered, end = 0, 0
    for part in sorted(parts, key=lambda each: each.offset):
        covered += max(0, part.offset + part.length - max(end, part.offset))
        end = max(end, part.offset + part.length)
    return covered


# --- A message that was queued at the time of the backup -----------------------------------------------------------


def _take_up(tx: Tx, stored: Stored, parts: Sequence[Sent], policy: SendPolicy, own: NodePubkey, found: _Found) -> None:
    """Go on with a message where the lost part of the history had come to."""
    message_id = stored.message.id
    if stored.state not in (MessageState.ACCEPTED, MessageState.SENDING):
        _end_debt(tx, stored, parts, policy, own, found)
        return
    signed = _header(parts)
    if signed is not None:
        outbox.set_signed(tx, message_id, header=signed.raw, signature=signed.signature)
        outbox.raise_order(tx, stored.message.recipient, signed.header.order)
    elif stored.state is MessageState.ACCEPTED:
        outbox.set_sending(tx, message_id)  # its payments must be asked for before they are made
    _, known = outbox.load(tx, message_id)
    known_hashes = {each.payment_hash for each in known}
    # What was cut after the backup may cost no more than what it was cut from: a debt has limits of its own.
    fee_limit = min((each.fee_limit for each in known if not _is_settled(each)), default=policy.part_fee_limit)
    paid = [_part(each, fee_limit) for each in parts]
    for each, row in zip(parts, paid, strict=True):
        payment = each.payment
        if payment.payment_hash in known_hashes:
            if payment.status is PaymentStatus.SUCCEEDED:
                outbox.settle_part(tx, payment.payment_hash, payment.fee)
        elif payment.payment_hash in history.unknown(tx, [payment.payment_hash]):
            outbox.add_parts(tx, message_id, [row])
            found.count(tx, payment, row)
        else:  # the database took it for dead
            outbox.revive_part(tx, payment.payment_hash, row.state, payment.fee)
    for part in known:
        if part.state is PartState.PENDING and part.payment_hash not in {each.payment.payment_hash for each in parts}:
            _keep_rest(tx, message_id, part, paid, policy)
    if outbox.pending_parts(tx, message_id):
        found.under_way += not all(map(_is_settled, paid))
        found.queued_shortened += any(map(_is_settled, paid))
        missing = outbox.committed(tx, message_id) - stored.received - spending.reserved(tx, message_id)
        if missing > 0:
            spending.reserve_more(tx, message_id, Msat(missing), daily_limit=None)
    else:
        conclude(tx, stored, own, None)
        found.queued_delivered += 1


def _end_debt(
    tx: Tx, stored: Stored, parts: Sequence[Sent], policy: SendPolicy, own: NodePubkey, found: _Found
) -> None:
    """End a debt that waited to be tried again, and was: it is paid, or a part of it that cannot be sent twice."""
    message_id, signed = stored.message.id, _header(parts)
    new = [each for each in parts if history.unknown(tx, [each.payment.payment_hash])]
    if not new or not outbox.is_debt(tx, message_id):
        return
    fee_limit = policy.part_fee_limit
    if stored.received:
        left = stored.received - sum(each.payment.amount for each in new)
        fee_limit = Msat(max(0, min(fee_limit, left // len(new))))
    rows = [_part(each, fee_limit) for each in new]
    for each, row in zip(new, rows, strict=True):
        found.count(tx, each.payment, row)
    if signed is None or _covered_bytes(rows) < signed.header.total_bytes:
        outbox.add_parts(tx, message_id, rows)
        outbox.leave_debt(tx, message_id)
        found.queued_shortened += 1
    elif all(map(_is_settled, rows)):
        outbox.add_parts(tx, message_id, rows)
        conclude(tx, stored, own, None)
        found.queued_delivered += 1
    else:
        outbox.reopen(tx, message_id, rows, order=signed.header.order)
        outbox.set_signed(tx, message_id, header=signed.raw, signature=signed.signature)
        outbox.raise_order(tx, stored.message.recipient, signed.header.order)
        spending.reserve_more(tx, message_id, beyond(_cost(rows), stored.received), daily_limit=None)
        found.under_way += 1


def _keep_rest(tx: Tx, message_id: MessageId, part: Part, paid: Iterable[Part], policy: SendPolicy) -> None:
    """Leave of a part that was not paid only what no other payment carried."""
    gaps, position, end = list[tuple[int, int]](), part.offset, part.offset + part.length
    covered = 0
    for each in sorted(paid, key=lambda one: one.offset):
        if each.offset + each.length <= position or each.offset >= end:
            continue
        if each.offset > position:
            gaps.append((position, each.offset - position))
        position = max(position, each.offset + each.length)
        covered += each.amount
    if position == part.offset:
        return  # nothing of it was paid: it stays as it is
    if position < end:
        gaps.append((position, end - position))
    outbox.bury_part(tx, part.payment_hash)
    left = max(0, part.amount - covered)
    for offset, length in gaps:
        ranges = plan.cut(
            offset=offset,
            length=length,
            amount=Msat(left),
            part_bytes=policy.part_bytes,
            part_amount=policy.part_amount,
        )
        left = 0
        outbox.add_parts(tx, message_id, [new_part(each, part.fee_limit) for each in ranges])


def _end_answers(tx: Tx, own: NodePubkey, found: _Found) -> None:
    """End answers that services have given anew to requests that were answered: they were read again meanwhile."""
    for message_id in history.queued_again(tx):
        stored = outbox.load_intent(tx, message_id)
        assert stored is not None, "it was just listed"
        assert stored.message.reply_to is not None, "it is an answer"
        answer = history.take_answered(
            tx,
            request=stored.message.reply_to,
            recipient=stored.message.recipient,
            service_type=stored.message.service_type,
        )
        if answer is not None:
            end_as_given(tx, stored, answer, own)
            found.answers += 1
