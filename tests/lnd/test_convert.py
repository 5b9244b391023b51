import pytest
from tests.lnd.fake import ALICE, info

from impervious.errors import NodeUnavailable, PaymentFailure
from impervious.lnd import convert
from impervious.model import PaymentStatus, Preimage
from impervious.pb.lnrpc import (
    Hop,
    HtlcAttempt,
    Payment,
    PaymentFailureReason,
    PaymentPaymentStatus,
    Route,
    VerifyMessageResponse,
)

PREIMAGE = Preimage(b"\x07" * 32)


def payment(status: PaymentPaymentStatus, **changes: object) -> Payment:
    fields: dict[str, object] = {
        "payment_hash": PREIMAGE.payment_hash.hex(),
        "payment_preimage": "00" * 32,
        "value_sat": 1,
        "value_msat": 1234,
        "fee_msat": 56,
        "creation_time_ns": 1_795_371_688_596_634_246,
        "status": status,
    }
    return Payment(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_payment_that_succeeded() -> None:
    found = convert.payment(
        payment(PaymentPaymentStatus.SUCCEEDED, payment_preimage=PREIMAGE.raw.hex(), htlcs=[HtlcAttempt()])
    )
    assert found.status is PaymentStatus.SUCCEEDED
    assert (found.payment_hash, found.preimage) == (PREIMAGE.payment_hash, PREIMAGE)
    assert (found.amount, found.fee, found.attempts, found.failure) == (1234, 56, 1, None)
    assert found.created_s == 1_795_371_688


@pytest.mark.parametrize("reason", list(PaymentFailure))
def test_a_payment_that_failed_says_why(reason: PaymentFailure) -> None:
    number = PaymentFailureReason[f"FAILURE_REASON_{reason.name}"]
    attempts = [HtlcAttempt(), HtlcAttempt()]
    found = convert.payment(payment(PaymentPaymentStatus.FAILED, failure_reason=number, htlcs=attempts))
    assert (found.status, found.failure, found.attempts) == (PaymentStatus.FAILED, reason, 2)
    assert (found.fee, found.preimage) == (0, None)


@pytest.mark.parametrize("number", [0, 99])
def test_a_failure_without_a_known_reason_is_an_error(number: int) -> None:
    found = convert.payment(payment(PaymentPaymentStatus.FAILED, failure_reason=PaymentFailureReason(number)))
    assert found.failure is PaymentFailure.ERROR


@pytest.mark.parametrize("number", [0, 1, 4, 77])
def test_only_two_states_are_final(number: int) -> None:
    reason = PaymentFailureReason.FAILURE_REASON_NO_ROUTE  # told before the last HTLC has come back
    found = convert.payment(payment(PaymentPaymentStatus(number), failure_reason=reason))
    assert (found.status, found.failure, found.fee) == (PaymentStatus.IN_FLIGHT, None, 0)


@pytest.mark.parametrize("preimage", ["", "zz", "00" * 31])
def test_a_success_without_its_preimage_is_not_believed(preimage: str) -> None:
    with pytest.raises(NodeUnavailable, match="makes no sense"):
        convert.payment(payment(PaymentPaymentStatus.SUCCEEDED, payment_preimage=preimage))


def test_a_route() -> None:
    found = convert.route(Route(total_time_lock=800_000, hops=[Hop(), Hop()], total_fees_msat=5, total_amt_msat=1005))
    assert (found.hops, found.fee, found.total_amount, found.height) == (2, 5, 1005, 800_000)


def test_who_a_node_is() -> None:
    found = convert.info(info())
    assert (found.pubkey, found.network, found.features) == (ALICE, "regtest", frozenset({55}))


def test_verdicts() -> None:
    assert convert.verdict(VerifyMessageResponse(valid=True, pubkey=ALICE.hex)).pubkey == ALICE
    assert convert.verdict(VerifyMessageResponse()).pubkey is None
    with pytest.raises(NodeUnavailable, match="makes no sense"):
        convert.verdict(VerifyMessageResponse(valid=True, pubkey="05"))


def test_signatures() -> None:
    assert convert.signature("y" * 104) == bytes(65)
    with pytest.raises(NodeUnavailable, match="makes no sense"):
        convert.signature("Y" * 104)
