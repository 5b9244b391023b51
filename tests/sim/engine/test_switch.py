from dataclasses import replace

import pytest
from tests.sim.engine.network import Lab, preimage_of

from impervious.model import HtlcState, InvoiceState
from impervious.sim.engine.answers import WalletState
from impervious.sim.engine.channel import MAX_HTLCS
from impervious.sim.engine.payments import FailureCode, Stage
from impervious.sim.engine.topology import NodeSpec
from impervious.sim.engine.world import ACCOUNTABLE
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD

HALF = 500_000_000


def line() -> Lab:
    return Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol"])


def settled_states(lab: Lab, name: str) -> list[InvoiceState]:
    return [invoice.state for owner, invoice in lab.invoices if owner == name]


def test_money_is_locked_on_the_way_and_arrives_at_once() -> None:
    lab = line()
    lab.engine.pay("alice", lab.order("carol", 10_000))
    assert (lab.balance("alice"), lab.balance("bob"), lab.balance("carol")) == (HALF - 11_000, 2 * HALF - 10_000, HALF)
    lab.pass_s(60)
    assert (lab.balance("alice"), lab.balance("bob"), lab.balance("carol")) == (
        HALF - 11_000,
        2 * HALF + 1000,
        HALF + 10_000,
    )


def test_a_keysend_makes_two_events_and_a_record_of_its_htlc() -> None:
    lab = line()
    order = lab.order("carol", 10_000, records={400000: b"hello"})
    lab.pay("alice", order)
    assert settled_states(lab, "carol") == [InvoiceState.OPEN, InvoiceState.SETTLED]
    opened, settled = (invoice for _, invoice in lab.invoices)
    assert (opened.htlcs, opened.settle_index, settled.settle_index) == ((), 0, 1)
    assert settled.preimage == preimage_of(1)
    (htlc,) = settled.htlcs
    assert (htlc.amount, htlc.state, htlc.index, htlc.accept_height) == (10_000, HtlcState.SETTLED, 0, 850_000)
    assert htlc.records == {**order.records, **ACCOUNTABLE}


def test_a_settlement_takes_the_time_of_every_hop_both_ways() -> None:
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol"], latency_s=(0.4, 0.4))
    lab.engine.pay("alice", lab.order("carol"))
    lab.pass_s(0.39)
    assert settled_states(lab, "carol") == []
    lab.pass_s(0.02)
    assert settled_states(lab, "carol") == [InvoiceState.OPEN, InvoiceState.SETTLED]
    assert lab.payment("alice", lab.order("carol")).stage is Stage.IN_FLIGHT
    lab.pass_s(0.38)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.IN_FLIGHT
    lab.pass_s(0.02)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.SUCCEEDED


@pytest.mark.parametrize(("sender", "reaches"), [("bob", True), ("alice", False)])
def test_records_of_the_wire_reach_a_direct_peer_only(sender: str, reaches: bool) -> None:
    lab = line()
    order = replace(lab.order("carol"), first_hop_records={70000: b"wire"})
    lab.pay(sender, order)
    assert (70000 in lab.invoice("carol", order).htlcs[0].records) is reaches


def test_the_last_forwarder_can_replace_records() -> None:
    lab = line()
    lab.engine.world.nodes["bob"].overriding = {400000: b"replaced"}
    order = lab.order("carol", records={400000: b"written"})
    lab.pay("alice", order)
    assert lab.invoice("carol", order).htlcs[0].records[400000] == b"replaced"


def test_a_full_channel_further_down_fails_there_and_only_there() -> None:
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol:1000000:10000"])
    before = (lab.balance("alice"), lab.balance("bob"), lab.balance("carol"))
    order = lab.order("carol", 5_000_000)
    payment = lab.pay("alice", order)
    assert (lab.balance("alice"), lab.balance("bob"), lab.balance("carol")) == before
    assert (payment.stage, payment.attempts) == (Stage.FAILED, ())
    failures = [a.failure for _, p in lab.payments for a in p.attempts if a.failure is not None]
    assert {(f.code, f.source_index) for f in failures} == {(FailureCode.TEMPORARY_CHANNEL_FAILURE, 1)}


def test_so_many_htlcs_fit_into_a_channel() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    for number in range(MAX_HTLCS + 1):
        lab.engine.pay("alice", lab.order("bob", number=number))
    lab.pass_s(60)
    stages = [lab.payment("alice", lab.order("bob", number=number)).stage for number in range(MAX_HTLCS + 1)]
    assert stages == [Stage.SUCCEEDED] * MAX_HTLCS + [Stage.FAILED]


def test_a_receiver_that_goes_away_keeps_an_htlc_in_flight_until_it_is_back() -> None:
    lab = line()
    lab.engine.pay("alice", lab.order("carol"))
    lab.engine.set_state("carol", WalletState.LOCKED)
    lab.pass_s(3600)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.IN_FLIGHT
    lab.engine.set_state("carol", WalletState.SERVER_ACTIVE)
    lab.pass_s(5)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.SUCCEEDED


def test_a_forwarder_that_goes_away_keeps_the_answer_back() -> None:
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", "bob-carol"], latency_s=(0.4, 0.4))
    lab.engine.pay("alice", lab.order("carol"))
    lab.pass_s(0.5)
    lab.engine.connect("alice", "bob", connected=False)
    lab.pass_s(3600)
    assert settled_states(lab, "carol") == [InvoiceState.OPEN, InvoiceState.SETTLED]
    assert lab.payment("alice", lab.order("carol")).stage is Stage.IN_FLIGHT
    lab.engine.connect("alice", "bob", connected=True)
    lab.pass_s(5)
    assert lab.payment("alice", lab.order("carol")).stage is Stage.SUCCEEDED


def test_a_restart_between_inserting_and_settling_loses_nothing() -> None:
    lab = line()
    lab.engine.world.nodes["carol"].settle_gap_s = 10
    lab.engine.pay("alice", lab.order("carol"))
    lab.pass_s(5)
    assert settled_states(lab, "carol") == [InvoiceState.OPEN]
    lab.engine.set_state("carol", WalletState.WAITING_TO_START)
    lab.pass_s(60)
    lab.engine.set_state("carol", WalletState.SERVER_ACTIVE)
    lab.pass_s(60)
    assert settled_states(lab, "carol") == [InvoiceState.OPEN, InvoiceState.SETTLED]
    assert lab.payment("alice", lab.order("carol")).stage is Stage.SUCCEEDED


def test_an_invoice_that_stays_open_is_cancelled_after_an_hour() -> None:
    lab = line()
    lab.engine.world.nodes["carol"].settle_gap_s = 4000
    payment = lab.pay("alice", lab.order("carol"), within_s=5000)
    assert settled_states(lab, "carol") == [InvoiceState.OPEN, InvoiceState.CANCELED]
    assert payment.stage is Stage.FAILED


def test_an_invoice_that_was_settled_in_time_does_not_expire() -> None:
    lab = line()
    lab.engine.world.nodes["carol"].settle_gap_s = 10
    lab.pay("alice", lab.order("carol"), within_s=5000)
    assert lab.invoice("carol", lab.order("carol")).state is InvoiceState.SETTLED


def held() -> Lab:
    lab = Lab(["alice", NodeSpec(name="bob", keysend_hold_s=30)], ["alice-bob"])
    lab.engine.pay("alice", lab.order("bob"))
    lab.pass_s(5)
    assert settled_states(lab, "bob") == [InvoiceState.OPEN, InvoiceState.ACCEPTED]
    return lab


def test_a_held_keysend_is_refused_when_nobody_takes_it() -> None:
    lab = held()
    lab.pass_s(60)
    assert settled_states(lab, "bob")[2:] == [InvoiceState.CANCELED]
    assert lab.payment("alice", lab.order("bob")).stage is Stage.FAILED
    assert lab.balance("alice") == HALF


def test_a_held_keysend_can_be_taken() -> None:
    lab = held()
    lab.engine.settle_invoice("bob", preimage_of(1))
    lab.pass_s(60)
    assert settled_states(lab, "bob")[2:] == [InvoiceState.SETTLED]
    assert lab.invoice("bob", lab.order("bob")).htlcs[0].state is HtlcState.SETTLED
    assert lab.payment("alice", lab.order("bob")).stage is Stage.SUCCEEDED


def test_a_held_keysend_can_be_refused() -> None:
    lab = held()
    lab.engine.cancel_invoice("bob", preimage_of(1).payment_hash)
    lab.pass_s(60)
    assert settled_states(lab, "bob")[2:] == [InvoiceState.CANCELED]
    assert lab.balance("alice") == HALF


def test_a_forged_htlc_is_appended_in_silence_and_paid_for() -> None:
    lab = line()
    order = lab.order("carol", 10_000, records={400000: b"true"})
    lab.pay("alice", order)
    events, bob, total = len(lab.invoices), lab.balance("bob"), lab.engine.world.graph.total()
    forged = {400000: b"false", PREIMAGE_RECORD: preimage_of(1).raw}
    lab.engine.forge("bob", "carol", order_hash := preimage_of(1).payment_hash, forged, Msat(10_000))
    lab.pass_s(60)
    assert len(lab.invoices) == events
    invoice = lab.engine.world.nodes["carol"].invoices.lookup(order_hash)
    assert [htlc.records[400000] for htlc in invoice.htlcs] == [b"true", b"false"]
    assert (invoice.amount_paid, lab.balance("bob"), lab.engine.world.graph.total()) == (20_000, bob - 10_000, total)


def test_only_a_peer_can_forge() -> None:
    lab = line()
    with pytest.raises(ValueError, match="no channel"):
        lab.engine.forge("alice", "carol", preimage_of(1).payment_hash, {}, Msat(1))
