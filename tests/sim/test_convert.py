import pytest
from grpclib.const import Status
from tests.sim.engine.network import Lab

from impervious.errors import AlreadyPaying, NodeRefused, NodeUnavailable, PaymentFailure, PaymentNotFound
from impervious.model import InvoiceState, PaymentStatus
from impervious.sim import convert
from impervious.sim.engine.answers import NOT_YET, LndError, WalletState
from impervious.sim.engine.asking import Ask
from impervious.units import Msat


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (LndError("invoice is already paid", Status.ALREADY_EXISTS), AlreadyPaying),
        (LndError("payment isn't initiated", Status.NOT_FOUND), PaymentNotFound),
        (LndError("connection reset by peer", Status.UNAVAILABLE), NodeUnavailable),
        (LndError(NOT_YET[WalletState.LOCKED]), NodeUnavailable),
        (LndError("amount must be specified"), NodeRefused),
    ],
)
def test_lnds_errors_have_a_meaning(error: LndError, ours: type[Exception]) -> None:
    with pytest.raises(ours, match=error.text):
        with convert.translated():
            raise error


def test_a_payment_and_its_invoice() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    order = lab.order("bob", 5000)
    sent = convert.payment(lab.pay("alice", order))
    assert (sent.status, sent.amount, sent.attempts, sent.payment_request) == (PaymentStatus.SUCCEEDED, 5000, 1, "")
    came = convert.invoice(lab.invoice("bob", order))
    assert (came.state, came.amount, came.amount_paid, came.expiry_s) == (InvoiceState.SETTLED, 5000, 5000, 0)
    assert came.is_keysend


def test_a_failure_says_why() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    failed = convert.payment(lab.pay("alice", lab.order("bob", 10**10)))
    assert (failed.status, failed.failure) == (PaymentStatus.FAILED, PaymentFailure.INSUFFICIENT_BALANCE)
    assert (failed.fee, failed.preimage) == (0, None)


def test_an_ordinary_invoice_says_what_it_asks_for() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    made = lab.engine.add_invoice("bob", Ask(value=Msat(7), memo="mine", description_hash=bytes(32), expiry_s=60))
    seen = convert.invoice(made)
    assert (seen.amount, seen.amount_paid, seen.memo, seen.expiry_s) == (7, 0, "mine", 60)
    assert (seen.description_hash, seen.payment_request) == (bytes(32), made.payment_request)
