from dataclasses import replace

import pytest
from tests.sim.engine.network import Lab

from impervious.errors import PaymentFailure
from impervious.sim.engine.answers import WalletState
from impervious.sim.engine.mission_control import PairResult
from impervious.sim.engine.payments import FailureCode, SimPayment, Stage
from impervious.sim.engine.topology import ChannelSpec, Policy
from impervious.units import Msat, Sat


def line() -> Lab:
    return Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol"])


def after_an_outage(lab: Lab) -> SimPayment:
    """carol is away while one payment is tried, and comes back."""
    lab.engine.set_state("carol", WalletState.LOCKED)
    payment = lab.pay("alice", lab.order("carol", number=1), within_s=10)
    lab.engine.set_state("carol", WalletState.SERVER_ACTIVE)
    return payment


def tries(lab: Lab, number: int) -> tuple[Stage, PaymentFailure | None, int]:
    """A payment's end, and how many attempts were made for it."""
    told = len(lab.payments)
    payment = lab.pay("alice", lab.order("carol", number=number), within_s=5)
    attempts = {attempt.id for _, update in lab.payments[told:] for attempt in update.attempts}
    return payment.stage, payment.failure, len(attempts)


def test_a_hop_that_failed_is_not_tried_until_its_penalty_has_faded() -> None:
    lab = line()
    assert after_an_outage(lab).failure is PaymentFailure.NO_ROUTE
    assert tries(lab, 2) == (Stage.FAILED, PaymentFailure.NO_ROUTE, 0)
    lab.pass_s(140)
    assert tries(lab, 3) == (Stage.FAILED, PaymentFailure.NO_ROUTE, 0)
    lab.pass_s(30)  # 0.95 * (0.6 + 0) / 2 recovers to 1 % in 186 s: lnd was seen to take 187 s
    assert tries(lab, 4) == (Stage.SUCCEEDED, None, 1)


def test_another_failure_begins_the_penalty_anew() -> None:
    lab = line()
    after_an_outage(lab)
    lab.pass_s(180)
    lab.engine.set_state("carol", WalletState.LOCKED)
    assert tries(lab, 2)[2] == 1
    lab.engine.set_state("carol", WalletState.SERVER_ACTIVE)
    lab.pass_s(100)
    assert tries(lab, 3)[2] == 0


def test_only_query_routes_may_ignore_it() -> None:
    lab = line()
    after_an_outage(lab)
    node, order = lab.engine.world.nodes["alice"], lab.order("carol", number=2)
    path = lab.engine.payer.find(node, order, mission_control=False)
    assert (path.names, path.probability) == (("alice", "bob", "carol"), 1)


def test_a_route_that_is_named_is_tried_and_its_success_heals_others() -> None:
    lab = line()
    after_an_outage(lab)
    order = replace(lab.order("carol", 2000, number=2), timeout_s=0)
    path = lab.engine.payer.find(lab.engine.world.nodes["alice"], order, mission_control=False)
    lab.engine.send_to_route("alice", order, path, total=Msat(0), goes_on=False)
    lab.pass_s(5)
    assert lab.payment("alice", order).stage is Stage.SUCCEEDED
    assert tries(lab, 3) == (Stage.SUCCEEDED, None, 1)
    assert lab.pay("alice", lab.order("carol", 2001, number=4), within_s=5).failure is PaymentFailure.NO_ROUTE


def test_a_reset_forgets_everything() -> None:
    lab = line()
    after_an_outage(lab)
    assert dict(lab.engine.world.nodes["alice"].mission_control)
    lab.engine.world.nodes["alice"].mission_control.reset()
    assert not dict(lab.engine.world.nodes["alice"].mission_control)
    assert tries(lab, 2) == (Stage.SUCCEEDED, None, 1)


def test_a_peer_of_its_own_is_never_penalised_for_being_away() -> None:
    lab = Lab(["alice", "carol"], ["alice-carol"])
    assert after_an_outage(lab).failure is PaymentFailure.INSUFFICIENT_BALANCE
    assert tries(lab, 2) == (Stage.SUCCEEDED, None, 1)


def test_too_little_on_a_channel_is_held_against_large_amounts_only() -> None:
    poor = ChannelSpec(first="bob", second="carol", first_balance=Sat(110_000))
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", poor])
    assert lab.pay("alice", lab.order("carol", 200_000_000)).failure is PaymentFailure.NO_ROUTE
    assert lab.pay("alice", lab.order("carol", 200_000_001, number=2)).index == 2
    assert tries(lab, 3) == (Stage.SUCCEEDED, None, 1)
    found = dict(lab.engine.world.nodes["alice"].mission_control)["bob", "carol"]
    assert (found.fail_amount, found.success_amount) == (200_000_000, 1000)


def test_a_receiver_that_refuses_has_been_reached() -> None:
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol"])
    lab.engine.world.nodes["carol"].accepts_keysend = False
    lab.pay("alice", lab.order("carol", 5000))
    found = dict(lab.engine.world.nodes["alice"].mission_control)
    assert {pair: result.fail_s for pair, result in found.items()} == {("alice", "bob"): None, ("bob", "carol"): None}


def test_a_policy_that_is_broken_is_forgiven_once() -> None:
    lab = line()
    node, order = lab.engine.world.nodes["alice"], lab.order("carol")
    path = lab.engine.payer.find(node, order)
    cheap = replace(path, total=Msat(path.total - 1))
    for number in (1, 2):
        lab.engine.send_to_route("alice", lab.order("carol", number=number), cheap, total=Msat(0), goes_on=False)
        lab.pass_s(5)
        failures = [a.failure.code for _, p in lab.payments for a in p.attempts if a.failure is not None]
        assert failures[-1] is FailureCode.FEE_INSUFFICIENT
        assert bool(dict(node.mission_control)) is (number == 2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"time_lock": 850_162}, FailureCode.INCORRECT_CLTV_EXPIRY),
        ({"total": Msat(1999)}, FailureCode.FEE_INSUFFICIENT),
    ],
)
def test_a_forwarding_node_takes_no_less_than_it_asks(change: dict[str, Msat], code: FailureCode) -> None:
    lab = line()
    order = lab.order("carol")
    path = replace(lab.engine.payer.find(lab.engine.world.nodes["alice"], order), **change)  # type: ignore[arg-type]
    lab.engine.send_to_route("alice", order, path, total=Msat(0), goes_on=False)
    lab.pass_s(5)
    assert [a.failure.code for _, p in lab.payments for a in p.attempts if a.failure is not None][-1] is code


def test_a_forwarding_node_takes_another_channel_with_the_same_peer() -> None:
    poor = ChannelSpec(first="bob", second="carol", first_balance=Sat(10_000), first_policy=Policy(base_fee=Msat(0)))
    rich = ChannelSpec(first="bob", second="carol", first_policy=Policy(base_fee=Msat(0)))
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", poor, rich])
    before = [list(channel.balances) for channel in lab.engine.world.graph.channels_of("carol")]
    assert lab.pay("alice", lab.order("carol", 100_000_000)).stage is Stage.SUCCEEDED
    after = [list(channel.balances) for channel in lab.engine.world.graph.channels_of("carol")]
    assert (after[0], after[1]) == (before[0], [before[1][0] - 100_000_000, before[1][1] + 100_000_000])


def test_a_larger_failure_soon_after_a_smaller_changes_nothing() -> None:
    result = PairResult().failed(Msat(1000), 0)
    assert result.failed(Msat(2000), 59) == result
    assert result.failed(Msat(2000), 60).fail_amount == 2000
    assert result.failed(Msat(500), 1).fail_amount == 500


def test_what_is_learnt_of_success_and_failure_never_overlaps() -> None:
    result = PairResult().succeeded(Msat(5000), 0).failed(Msat(3000), 1)
    assert (result.success_amount, result.fail_amount) == (2999, 3000)
    healed = result.succeeded(Msat(4000), 2)
    assert (healed.success_amount, healed.fail_amount) == (4000, 4001)
    assert result.failed(Msat(0), 100).success_amount == 0
