"""How a message ended: the words, the event, and what a waiting caller gets."""

import json
import logging
from dataclasses import dataclass, replace

from impervious.errors import DeliveryFailed, PaymentFailure
from impervious.model import (
    STATUS,
    EventKind,
    KeysendSupport,
    MessageId,
    MessageState,
    NewEvent,
    NodePubkey,
    OutboundMessage,
    ServiceType,
)
from impervious.outbound.accept import beyond
from impervious.outbound.debts import next_try_ms
from impervious.store import Tx, answers, history, inbox, outbox, spending
from impervious.store.outbox import Stored
from impervious.units import Msat, sat_charged

logger = logging.getLogger(__name__)

FAILURE_WORDS = {
    PaymentFailure.TIMEOUT: "no route worked before the payment timed out",
    PaymentFailure.NO_ROUTE: "no route to the recipient with enough capacity within the fee limit",
    PaymentFailure.ERROR: "a node on the way failed",
    PaymentFailure.INCORRECT_PAYMENT_DETAILS: "the recipient's node refused the payment",
    PaymentFailure.INSUFFICIENT_BALANCE: "not enough outbound balance, or our channel peer is offline",
    PaymentFailure.CANCELED: "the payment was cancelled",
}

KEYSEND_WORDS = {
    KeysendSupport.YES: "although it announces that it accepts keysend; if it holds keysends (LND's"
    " keysend-hold-time), this one was not settled in time",
    KeysendSupport.NO: "because it does not accept keysend: its operator must run LND with accept-keysend=true",
    KeysendSupport.UNKNOWN: "probably because it does not accept keysend (LND's accept-keysend=true)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a message cannot be delivered."""

    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a message, as its `status` event tells it."""

    state: MessageState
    service_type: ServiceType
    parts: int
    """Paid and settled."""
    amount: Msat
    """What the recipient got."""
    fee: Msat
    failure: Failure | None = None
    next_try_ms: int | None = None
    """When a debt that failed is tried again, in milliseconds since 1970; None: it is no debt, or is not."""

    def to_json(self) -> str:
        """Write the event's data."""
        if self.failure is None:
            return json.dumps(
                {
                    "state": self.state.value,
                    "service": self.service_type,
                    "fee_msat": self.fee,
                    "amount_sat": sat_charged(self.amount),
                    "parts": self.parts,
                }
            )
        shape = {
            "state": self.state.value,
            "service": self.service_type,
            "reason": self.failure.reason,
            "retryable": self.failure.retryable,
            "parts_settled": self.parts,
            "amount_spent_sat": sat_charged(Msat(self.amount + self.fee)),
        }
        return json.dumps(shape if self.next_try_ms is None else {**shape, "next_try_ms": self.next_try_ms})


def given_up(ttl_s: int, last: str) -> str:
    """Say why a message was given up at its deadline."""
    return f"given up after {ttl_s} s (message.ttl_s); last: {last}"


def raise_for(outcome_json: str) -> None:
    """Raise if a stored outcome is a failure.

    Raises:
      DeliveryFailed: with the reason.
    """
    outcome = json.loads(outcome_json)
    if outcome["state"] == MessageState.FAILED.value:
        raise DeliveryFailed(
            f"not delivered: {outcome['reason']} ({outcome['parts_settled']} parts settled,"
            f" {outcome['amount_spent_sat']} sat spent)",
            retryable=outcome["retryable"],
        )


def conclude(tx: Tx, stored: Stored, local: NodePubkey | None, failure: Failure | None) -> None:
    """Store the end of a message, correct the budget and tell the stream, all in the caller's transaction.

    Args:
      tx: the transaction.
      stored: the message.
      local: our own node, if it is known.
      failure: None: every part is settled.
    """
    message = stored.message
    totals = outbox.totals(tx, message.id)
    state = MessageState.FAILED if failure else MessageState.DELIVERED
    is_debt = failure is not None and stored.deadline_ms is None
    outcome = Outcome(
        state=state,
        service_type=message.service_type,
        parts=totals.settled_parts,
        amount=totals.amount,
        fee=totals.fee,
        failure=failure,
        next_try_ms=next_try_ms(tx, outbox.tries(tx, message.id)) if is_debt and not totals.settled_parts else None,
    )
    if outcome.next_try_ms is None:
        outbox.finish(tx, message.id, state, outcome.to_json())
    else:
        outbox.keep_debt(tx, message.id, outcome.to_json(), retry_ms=outcome.next_try_ms)
    if failure is not None and is_debt:
        _tell_of_debt(tx, stored, failure, outcome.next_try_ms)
    spent = beyond(Msat(totals.amount + totals.fee), stored.received)
    spending.settle(tx, message.id, spent)
    answers.settle(tx, message.id, spent)
    if failure:
        outbox.add_void(tx, message.recipient, stored.order)
    tx.emit(
        NewEvent(
            kind=EventKind.OUTCOME,
            id=message.id,
            reply_to=None,
            sender=local,
            service_type=STATUS,
            topic=message.service_type,
            data=outcome.to_json().encode(),
            amount=Msat(0),
            sent_at_ms=tx.now_ms,
            verified=True,
        )
    )
    tx.wake(f"outcome {message.id}")


def _tell_of_debt(tx: Tx, stored: Stored, failure: Failure, next_try_ms: int | None) -> None:
    """Have the operator know of money that is another's and cannot be sent."""
    again = "its rest is not sent" if next_try_ms is None else "it is tried again, at every start and in between"
    logger.error(
        "%s owes %s a message of %d msat (id %s) that cannot be delivered: %s; %s",
        stored.message.service_type,
        stored.message.recipient,
        stored.message.amount,
        stored.message.id,
        failure.reason,
        again,
    )
    inbox.count(tx, "undelivered_debts")


def end_if_answered(tx: Tx, message: OutboundMessage) -> None:
    """End a service's own answer at once if its request was answered before the database was restored.

    The request has been read again, and the answer was paid for in the part of the history that is lost.
    """
    if message.reply_to is None:
        return
    answer = history.take_answered(
        tx, request=message.reply_to, recipient=message.recipient, service_type=message.service_type
    )
    if answer is not None:
        stored = outbox.load_intent(tx, message.id)
        assert stored is not None, "it was just stored"
        end_as_given(tx, stored, answer, outbox.identity(tx))


def end_as_given(tx: Tx, stored: Stored, answer: MessageId, local: NodePubkey | None) -> None:
    """End an answer that is not sent because another message has given it.

    Args:
      tx: the transaction.
      stored: the answer that is not sent.
      answer: the message that was; this one ends as delivered only if that one has.
      local: our own node, if it is known.
    """
    ended = outbox.state(tx, answer)
    failure = None
    if ended is not None and ended[0] is not MessageState.DELIVERED:
        reason = f"message {answer} gave this answer before the database was restored from a backup: see its outcome"
        failure = Failure(reason=reason, retryable=False)
    # With a deadline it is no debt: the other message is what pays it, and it is not tried again.
    conclude(tx, replace(stored, deadline_ms=stored.deadline_ms or tx.now_ms), local, failure)
    outbox.add_void(tx, stored.message.recipient, stored.order)
