"""Acceptance: the one transaction after which a message will be delivered or its failure be told.

It draws the order, cuts the parts, makes and stores their preimages, and reserves the highest possible cost. Services
call it inside their own transactions, so that an effect and the message it sends are kept or lost together.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from impervious.errors import FailedPrecondition, InvalidArgument
from impervious.model import OutboundMessage, Part, Preimage, RecordType, ServiceType
from impervious.outbound import plan
from impervious.outbound.plan import Range
from impervious.store import Tx, outbox, spending
from impervious.units import Msat, Sat, sat_charged

PREIMAGE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SendPolicy:
    """What every message is sent by (config `message`, `lightning`, `service_list`)."""

    record_types: Mapping[ServiceType, RecordType]
    max_bytes: int
    part_bytes: int
    part_amount: Msat
    """What each part carries at least."""
    part_fee_limit: Msat
    in_flight_per_peer: int | None
    """None: as many as succeed."""
    payment_timeout_s: int
    ttl_ms: int
    daily_limit: Sat
    answers_limit: Sat = Sat(200)
    """Most that automatic answers may cost in 24 hours beyond what their requests brought."""

    def minimum_amount(self, payload_bytes: int) -> Msat:
        """Say what a payload of this size carries at least."""
        return plan.minimum_amount(payload_bytes, part_bytes=self.part_bytes, part_amount=self.part_amount)


def accept(
    tx: Tx,
    message: OutboundMessage,
    policy: SendPolicy,
    *,
    obligation: bool = False,
    fee_limit: Msat | None = None,
    received: Msat = Msat(0),
) -> None:
    """Store a message to be sent.

    Args:
      tx: the transaction.
      message: what to send.
      policy: the limits.
      obligation: it settles a debt: no budget stops it, and it is tried until it arrives.
      fee_limit: highest routing fee of a part; None: the policy's.
      received: what came in for it, in msat. To give it back, or to answer for it, is no spending: only what the
        message may cost beyond it is taken from the budget.

    Raises:
      InvalidArgument: the size or the amount cannot be sent.
      FailedPrecondition: its service has no record number.
      ResourceExhausted: the budget does not allow it.
    """
    record_type = policy.record_types.get(message.service_type)
    if record_type is None:
        raise FailedPrecondition(
            f"{message.service_type} has no record number, so it cannot send: give its entry in service_list a"
            " custom_record_number"
        )
    check(message, policy)
    ranges = plan.cut(
        offset=0,
        length=len(message.payload),
        amount=message.amount,
        part_bytes=policy.part_bytes,
        part_amount=policy.part_amount,
    )
    parts = [new_part(piece, policy.part_fee_limit if fee_limit is None else fee_limit) for piece in ranges]
    spending.reserve(
        tx,
        message.id,
        message.service_type,
        beyond(cost(parts), received),
        daily_limit=None if obligation else policy.daily_limit,
    )
    outbox.add(
        tx,
        message,
        parts,
        record_type=record_type,
        order=outbox.next_order(tx, message.recipient),
        deadline_ms=None if obligation else tx.now_ms + policy.ttl_ms,
        received=received,
    )


def check(message: OutboundMessage, policy: SendPolicy) -> None:
    """Refuse what can never be sent.

    Raises:
      InvalidArgument: names the limit.
    """
    size = len(message.payload)
    if size == 0:
        raise InvalidArgument("msg is empty: give at least one byte")
    if size > policy.max_bytes:
        raise InvalidArgument(f"msg has {size} bytes; at most {policy.max_bytes} are sent (message.max_bytes)")
    minimum = policy.minimum_amount(size)
    if message.amount < minimum:
        raise InvalidArgument(
            f"amount is below the minimum: {size} bytes need {sat_charged(minimum)} sat"
            f" (1 for each {policy.part_bytes} bytes); give that, or 0 for the minimum"
        )


def parts_of(payload_bytes: int, policy: SendPolicy) -> int:
    """Count the parts of a payload, before any is cut smaller."""
    return plan.part_count(payload_bytes, policy.part_bytes)


def new_part(piece: Range, fee_limit: Msat) -> Part:
    """Make the payment for a range: its preimage is random and belongs to it alone."""
    return Part(
        preimage=Preimage(secrets.token_bytes(PREIMAGE_BYTES)),
        offset=piece.offset,
        length=piece.length,
        amount=piece.amount,
        fee_limit=fee_limit,
    )


def beyond(cost: Msat, received: Msat) -> Msat:
    """Say what of a cost is ours to bear: what came in for it does not cover it."""
    return Msat(max(0, cost - received))


def cost(parts: Sequence[Part]) -> Msat:
    """Sum the highest possible cost."""
    return Msat(sum(part.amount + part.fee_limit for part in parts))
