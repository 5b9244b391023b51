import pytest
from tests.sim.engine.network import Lab, preimage_of

from impervious.errors import PaymentFailure
from impervious.model import HtlcState
from impervious.sim.engine.answers import LndError, WalletState
from impervious.sim.engine.payments import FailureCode, Stage
from impervious.sim.engine.topology import ChannelSpec, NodeSpec, Policy
from impervious.sim.engine.world import PlannedFailure
from impervious.units import Msat, Sat


def line(latency_s: tuple[float, float] = (0.2, 0.5)) -> Lab:
    return Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol"], latency_s=latency_s)


def life(lab: Lab, name: str = "alice") -> list[tuple[Stage, PaymentFailure | None, list[HtlcState]]]:
    return [(p.stage, p.failure, [a.state for a in p.attempts]) for owner, p in lab.payments if owner == name]


def test_a_payment_is_told_from_its_beginning_to_its_end() -> None:
    lab = line()
    payment = lab.pay("alice", lab.order("carol", 10_000))
    assert life(lab) == [
        (Stage.INITIATED, None, []),
        (Stage.IN_FLIGHT, None, [HtlcState.ACCEPTED]),
        (Stage.SUCCEEDED, None, [HtlcState.SETTLED]),
    ]
    assert (payment.preimage, payment.fee, payment.index) == (preimage_of(1), 1000, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fee_limit": 999}, PaymentFailure.NO_ROUTE),
        ({"amount": 999}, PaymentFailure.NO_ROUTE),
        ({"records": {400000: bytes(1155)}}, PaymentFailure.NO_ROUTE),
        ({"amount": 490_000_001}, PaymentFailure.INSUFFICIENT_BALANCE),
    ],
)
def test_without_a_way_no_htlc_is_tried(change: dict[str, object], reason: PaymentFailure) -> None:
    lab = line()
    lab.pay("alice", lab.order("carol", **change))  # type: ignore[arg-type]  # a table of one argument each
    assert life(lab) == [(Stage.INITIATED, None, []), (Stage.FAILED, reason, [])]


def test_a_first_peer_that_is_away_looks_like_a_lack_of_money() -> None:
    lab = line()
    lab.engine.set_state("bob", WalletState.LOCKED)
    assert lab.pay("alice", lab.order("carol")).failure is PaymentFailure.INSUFFICIENT_BALANCE


def test_a_later_peer_that_is_away_is_found_out_by_trying() -> None:
    lab = line()
    lab.engine.set_state("carol", WalletState.LOCKED)
    lab.pay("alice", lab.order("carol"))
    assert life(lab) == [
        (Stage.INITIATED, None, []),
        (Stage.IN_FLIGHT, None, [HtlcState.ACCEPTED]),
        (Stage.IN_FLIGHT, None, [HtlcState.CANCELED]),
        (Stage.IN_FLIGHT, PaymentFailure.NO_ROUTE, [HtlcState.CANCELED]),
        (Stage.FAILED, PaymentFailure.NO_ROUTE, [HtlcState.CANCELED]),
    ]
    failure = lab.payments[-1][1].attempts[0].failure
    assert failure is not None
    assert (failure.code, failure.source_index) == (FailureCode.UNKNOWN_NEXT_PEER, 1)


def test_a_receiver_without_keysend_refuses_the_details() -> None:
    lab = Lab(["alice", "bob", NodeSpec(name="carol", accepts_keysend=False)], ["alice-bob", "bob-carol"])
    lab.pay("alice", lab.order("carol"))
    reason = PaymentFailure.INCORRECT_PAYMENT_DETAILS
    assert life(lab)[-2:] == [
        (Stage.IN_FLIGHT, reason, [HtlcState.CANCELED]),
        (Stage.FAILED, reason, [HtlcState.CANCELED]),
    ]
    failure = lab.payments[-1][1].attempts[0].failure
    assert failure is not None
    assert (failure.code, failure.source_index) == (FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, 2)


@pytest.mark.parametrize("keeps", [True, False])
def test_failed_attempts_are_forgotten_after_the_end(keeps: bool) -> None:
    lab = line()
    lab.engine.world.nodes["alice"].keeps_failed_attempts = keeps
    lab.engine.set_state("carol", WalletState.LOCKED)
    assert len(lab.pay("alice", lab.order("carol")).attempts) == int(keeps)


def test_another_way_is_tried_where_the_first_had_too_little() -> None:
    empty = ChannelSpec(first="bob", second="dave", first_balance=Sat(10_000))
    dear = ChannelSpec(first="carol", second="dave", first_policy=Policy(base_fee=Msat(2000)))
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "alice-carol", empty, dear])
    payment = lab.pay("alice", lab.order("dave", 1_000_000))
    assert payment.stage is Stage.SUCCEEDED
    assert [a.path.names[1] for a in payment.attempts] == ["carol"]
    tried = {a.id: a.path.names[1] for _, p in lab.payments for a in p.attempts}
    assert list(tried.values()) == ["bob", "carol"]


def test_time_bounds_new_attempts_only() -> None:
    empty = ChannelSpec(first="bob", second="dave", first_balance=Sat(10_000))
    dear = ChannelSpec(first="carol", second="dave", first_policy=Policy(base_fee=Msat(2000)))
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "alice-carol", empty, dear], latency_s=(3, 3))
    late = lab.pay("alice", lab.order("dave", 1_000_000, timeout_s=2))
    assert (late.stage, late.failure) == (Stage.FAILED, PaymentFailure.TIMEOUT)
    slow = lab.pay("alice", lab.order("bob", timeout_s=1, number=2))
    assert slow.stage is Stage.SUCCEEDED


@pytest.mark.parametrize("stage", [Stage.IN_FLIGHT, Stage.SUCCEEDED])
def test_a_hash_in_flight_or_paid_is_not_paid_again(stage: Stage) -> None:
    lab = line()
    lab.engine.pay("alice", lab.order("carol"))
    if stage is Stage.SUCCEEDED:
        lab.pass_s(60)
    before = lab.balance("alice")
    with pytest.raises(LndError):
        lab.engine.pay("alice", lab.order("carol"))
    lab.pass_s(60)
    assert lab.balance("alice") == before


@pytest.mark.parametrize("reason", PaymentFailure)
@pytest.mark.parametrize("after_attempt", [False, True])
def test_a_planned_failure_costs_nothing_and_strikes_once(reason: PaymentFailure, after_attempt: bool) -> None:
    lab = line()
    lab.engine.world.nodes["alice"].planned.append(PlannedFailure(reason=reason, after_attempt=after_attempt))
    before = lab.balance("alice")
    payment = lab.pay("alice", lab.order("carol"))
    assert (payment.stage, payment.failure, lab.balance("alice")) == (Stage.FAILED, reason, before)
    assert len(lab.payments[-1][1].attempts) == int(after_attempt)
    assert lab.pay("alice", lab.order("carol")).stage is Stage.SUCCEEDED


def test_a_restarted_sender_learns_how_its_htlc_ended() -> None:
    lab = line(latency_s=(0.4, 0.4))
    lab.engine.pay("alice", lab.order("carol"))
    lab.pass_s(0.5)
    lab.engine.set_state("alice", WalletState.WAITING_TO_START)
    lab.pass_s(60)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.IN_FLIGHT
    lab.engine.set_state("alice", WalletState.SERVER_ACTIVE)
    lab.pass_s(1)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.SUCCEEDED


def test_a_restarted_sender_tries_nothing_new() -> None:
    empty = ChannelSpec(first="bob", second="dave", first_balance=Sat(10_000))
    dear = ChannelSpec(first="carol", second="dave", first_policy=Policy(base_fee=Msat(2000)))
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "alice-carol", empty, dear])
    lab.engine.pay("alice", lab.order("dave", 1_000_000))
    lab.engine.set_state("alice", WalletState.WAITING_TO_START)
    lab.engine.set_state("alice", WalletState.SERVER_ACTIVE)
    lab.pass_s(60)
    payment = lab.payment("alice", lab.order("dave", 1_000_000))
    assert (payment.stage, payment.failure) == (Stage.FAILED, PaymentFailure.NO_ROUTE)
    assert lab.pay("alice", lab.order("dave", 1_000_000)).stage is Stage.SUCCEEDED


@pytest.mark.parametrize(("cancelable", "stage"), [(True, Stage.FAILED), (False, Stage.SUCCEEDED)])
def test_only_a_cancelable_payment_stops_trying_when_its_caller_leaves(cancelable: bool, stage: Stage) -> None:
    empty = ChannelSpec(first="bob", second="dave", first_balance=Sat(10_000))
    dear = ChannelSpec(first="carol", second="dave", first_policy=Policy(base_fee=Msat(2000)))
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "alice-carol", empty, dear])
    order = lab.order("dave", 1_000_000, cancelable=cancelable)
    lab.engine.pay("alice", order)
    lab.engine.payer.cancel(lab.engine.world.nodes["alice"], preimage_of(1).payment_hash)
    lab.pass_s(60)
    payment = lab.payment("alice", order)
    assert payment.stage is stage
    assert payment.failure is (PaymentFailure.CANCELED if cancelable else None)


def test_a_cancelled_payment_may_still_succeed() -> None:
    lab = line()
    order = lab.order("carol", cancelable=True)
    lab.engine.pay("alice", order)
    lab.engine.payer.cancel(lab.engine.world.nodes["alice"], preimage_of(1).payment_hash)
    lab.pass_s(60)
    assert lab.payment("alice", order).stage is Stage.SUCCEEDED
