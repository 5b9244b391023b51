"""How far a message is: what the outbox says of it, and what its delivery knows."""

import json

from impervious.model import MessageId, MessageReport, MessageState
from impervious.outbound.delivery import Delivery
from impervious.outbound.progress import PENDING, RETRYING
from impervious.store import Tx, outbox


def report(tx: Tx, message_id: MessageId, delivery: Delivery | None) -> MessageReport | None:
    """Gather what is known of a message of ours.

    Args:
      tx: the transaction.
      message_id: its id.
      delivery: the work on it; None: nothing works on it at the moment.

    Returns:
      None: there is no such message.
    """
    stored = outbox.load_intent(tx, message_id)
    if stored is None:
        return None
    _, outcome = outbox.state(tx, message_id) or (stored.state, None)
    totals = outbox.totals(tx, message_id)
    told = json.loads(outcome or stored.progress or "{}")
    reason, state, next_try_ms, in_flight = told.get("reason", ""), stored.state.value, 0, 0
    if outcome is None and delivery is not None:
        in_flight = delivery.parts_in_flight
        reason = delivery.progress.reason or reason
        if delivery.progress.next_try_ms > tx.now_ms:
            state, next_try_ms = RETRYING, delivery.progress.next_try_ms
    if outcome is None and stored.state is MessageState.SENDING and told.get("state") == PENDING:
        state, reason = PENDING, told["reason"]
    return MessageReport(
        id=message_id,
        recipient=stored.message.recipient,
        service_type=stored.message.service_type,
        state=state,
        reason=reason,
        retryable=told.get("retryable", False),
        parts=outbox.ranges(tx, message_id),
        parts_settled=totals.settled_parts,
        parts_in_flight=in_flight,
        amount=totals.amount,
        fee=totals.fee,
        accepted_at_ms=stored.accepted_at_ms,
        deadline_ms=stored.deadline_ms,
        next_try_ms=next_try_ms,
    )
