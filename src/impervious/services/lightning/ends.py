"""How a payment of the node's own ended: in words, as what its caller gets, and as an event where nobody got it.

The preimage proves the payment to anybody who sees it: streams show it only if they ask for secrets.
"""

from collections.abc import Mapping
from typing import Final

from impervious.errors import ImperviousError, NodeUnavailable, PaymentFailed, PaymentFailure
from impervious.model import MessageId, Payment, PaymentHash, PaymentStatus, Preimage
from impervious.outbound.outcome import FAILURE_WORDS
from impervious.service import ServiceTx
from impervious.services.lightning.keys import key_of
from impervious.wire.payloads import compact

INVOICE_WORDS: Final[Mapping[PaymentFailure, str]] = {
    **FAILURE_WORDS,
    PaymentFailure.INCORRECT_PAYMENT_DETAILS: (
        "the payee refused it: the invoice was cancelled, has expired there, or somebody else has paid it; ask the"
        " payee for a new one"
    ),
}


def proof(payment: Payment, words: Mapping[PaymentFailure, str]) -> Preimage:
    """Take the preimage of a payment that succeeded.

    Raises:
      PaymentFailed: it has not.
    """
    if payment.status is PaymentStatus.SUCCEEDED and payment.preimage is not None:
        return payment.preimage
    reason = payment.failure or PaymentFailure.ERROR
    retryable = reason is not PaymentFailure.INCORRECT_PAYMENT_DETAILS
    raise PaymentFailed(f"not paid: {words[reason]}", reason=reason, retryable=retryable)


def tell(
    tx: ServiceTx, payment_hash: PaymentHash, identifier: MessageId, payment: Payment | None, error: ImperviousError
) -> None:
    """Show as an event how a payment ended.

    Args:
      tx: the transaction in which it stops being open.
      payment_hash: its own.
      identifier: of the event; another one for each attempt to pay the same hash.
      payment: its end; None: nothing was ever sent.
      error: says why not.
    """
    shape: dict[str, object] = {"recordId": "PAYMENT", "state": "failed", "paymentHash": payment_hash.hex()}
    if payment is not None:
        shape["amountMsat"] = payment.amount
        if payment.payment_request:
            shape["invoice"] = payment.payment_request
    if (key := key_of(tx, payment_hash)) is not None:
        shape["idempotencyKey"] = key
    secret = None
    try:
        if payment is None:
            raise error
        preimage = proof(payment, INVOICE_WORDS if payment.payment_request else FAILURE_WORDS)
    except ImperviousError as failure:
        shape["reason"] = str(failure)
        shape["retryable"] = failure.retryable if isinstance(failure, PaymentFailed) else _passes(failure)
    else:
        shape |= {"state": "paid", "feeMsat": payment.fee}
        secret = compact({**shape, "preimage": preimage.raw.hex()})
    tx.emit(compact(shape), identifier=identifier, secret=secret)


def _passes(error: ImperviousError) -> bool:
    return isinstance(error, NodeUnavailable)
