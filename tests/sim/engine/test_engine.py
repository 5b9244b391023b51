from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.sim.engine.network import Lab, preimage_of

from impervious.errors import PaymentFailure
from impervious.model import InvoiceState
from impervious.sim.engine.answers import LndError, WalletState
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.payments import Stage
from impervious.sim.engine.topology import ChannelSpec, NodeSpec
from impervious.sim.engine.world import PlannedFailure
from impervious.units import Msat, Sat

NAMES = ["alice", "bob", "carol", "dave"]


def test_one_seed_gives_one_network() -> None:
    one, same, other = (Lab(NAMES, ["alice-bob"], seed=seed).engine.world.pubkeys for seed in (1, 1, 2))
    assert one == same
    assert set(one.values()).isdisjoint(other.values())


def test_one_seed_gives_one_history() -> None:
    def history() -> list[tuple[str, object]]:
        lab = Lab(NAMES, ["alice-bob", "bob-carol"], seed=3)
        for number in range(5):
            lab.engine.pay("alice", lab.order("carol", 1000 + number, number=number))
        lab.pass_s(60)
        return [*lab.payments, *lab.invoices]

    assert history() == history()


def test_an_ordinary_invoice_is_paid_with_its_address() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    invoice = lab.engine.add_invoice("bob", Ask(value=Msat(5000), preimage=preimage_of(9), memo="coffee"))
    order = replace(lab.order("bob", 5000, number=9), records={}, payment_addr=invoice.payment_addr)
    assert lab.pay("alice", order).stage is Stage.SUCCEEDED
    assert [(i.state, i.memo, i.is_keysend) for _, i in lab.invoices] == [
        (InvoiceState.OPEN, "coffee", False),
        (InvoiceState.SETTLED, "coffee", False),
    ]


def test_an_invoice_that_nobody_pays_expires() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    lab.engine.add_invoice("bob", Ask(value=Msat(5000), preimage=preimage_of(9), expiry_s=600))
    lab.pass_s(599)
    assert [i.state for _, i in lab.invoices] == [InvoiceState.OPEN]
    lab.pass_s(1)
    assert [i.state for _, i in lab.invoices] == [InvoiceState.OPEN, InvoiceState.CANCELED]


def test_a_settled_invoice_cannot_be_cancelled() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    lab.pay("alice", lab.order("bob"))
    with pytest.raises(LndError, match="already settled"):
        lab.engine.cancel_invoice("bob", preimage_of(1).payment_hash)


def test_what_changed_is_named_once_for_saving() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob"])
    assert {(t.kind, t.name) for t in lab.engine.take_touched()} == {
        ("node", "alice"),
        ("node", "bob"),
        ("channel", ""),
    }
    lab.pay("alice", lab.order("bob"))
    touched = lab.engine.take_touched()
    assert len(touched) == len(set(touched))
    assert {t.kind for t in touched} == {"node", "channel", "flight", "invoice", "payment"}
    assert lab.engine.take_touched() == []


class AnyHistory(RuleBasedStateMachine):
    """Whatever is done to a network, no msat is made or lost, and none leaves a reserve."""

    def __init__(self) -> None:
        super().__init__()
        uneven = ChannelSpec(first="carol", second="dave", capacity=Sat(30_000), first_balance=Sat(29_000))
        held = NodeSpec(name="dave", keysend_hold_s=5)
        self.lab = Lab(
            ["alice", "bob", "carol", held], ["alice-bob:50000", "bob-carol:40000", uneven, "alice-carol:20000"]
        )
        self.world = self.lab.engine.world
        self.total = self.world.graph.total()
        self.numbers = 0

    @rule(
        sender=st.sampled_from(NAMES),
        dest=st.sampled_from(NAMES),
        amount=st.integers(1, 30_000_000),
        fee_limit=st.sampled_from([0, 1000, 5000]),
        again=st.integers(0, 3),
    )
    def pay(self, sender: str, dest: str, amount: int, fee_limit: int, again: int) -> None:
        self.numbers += 1
        order = self.lab.order(dest, amount, number=max(1, self.numbers - again), fee_limit=fee_limit)
        with suppress(LndError):
            self.lab.engine.pay(sender, order)

    @rule(seconds=st.sampled_from([0.1, 0.3, 1, 10, 4000]))
    def wait(self, seconds: float) -> None:
        self.lab.pass_s(seconds)

    @rule(name=st.sampled_from(NAMES), state=st.sampled_from([WalletState.LOCKED, WalletState.SERVER_ACTIVE]))
    def restart(self, name: str, state: WalletState) -> None:
        self.lab.engine.set_state(name, state)

    @rule(pair=st.permutations(NAMES), connected=st.booleans())
    def connect(self, pair: list[str], connected: bool) -> None:
        self.lab.engine.connect(pair[0], pair[1], connected=connected)

    @rule(name=st.sampled_from(NAMES), reason=st.sampled_from(PaymentFailure), after=st.booleans())
    def plan_failure(self, name: str, reason: PaymentFailure, after: bool) -> None:
        self.world.nodes[name].planned.append(PlannedFailure(reason=reason, after_attempt=after))

    @rule(number=st.integers(1, 20), take=st.booleans())
    def decide_held(self, number: int, take: bool) -> None:
        if take:
            with suppress(LndError):
                self.lab.engine.settle_invoice("dave", preimage_of(number))
        else:
            self.lab.engine.switch.refuse_held("dave", preimage_of(number).payment_hash)

    @rule(number=st.integers(1, 20), amount=st.integers(1, 10**7))
    def forge(self, number: int, amount: int) -> None:
        self.lab.engine.forge("bob", "carol", preimage_of(number).payment_hash, {}, Msat(amount))

    @rule(name=st.sampled_from(NAMES))
    def renumber(self, name: str) -> None:
        self.lab.engine.renumber(name)

    @invariant()
    def money_is_conserved(self) -> None:
        assert self.world.graph.total() == self.total
        for channel in self.world.graph.channels.values():
            assert min(channel.balances) >= channel.reserve
            assert sum(channel.balances) + sum(channel.htlcs.values()) == channel.capacity

    @invariant()
    def every_locked_msat_belongs_to_a_flight(self) -> None:
        locked = sum(len(channel.htlcs) for channel in self.world.graph.channels.values())
        assert locked == sum(len(flight.offers) for flight in self.world.flights.values())

    @invariant()
    def a_payment_in_flight_has_a_flight(self) -> None:
        out = {flight.attempt_id for flight in self.world.flights.values()}
        for node in self.world.nodes.values():
            for payment in node.payments:
                assert payment.terminal or any(attempt.id in out for attempt in payment.attempts)

    def teardown(self) -> None:
        """Left alone with everybody there, everything ends and everybody agrees on how."""
        for name in NAMES:
            self.lab.engine.set_state(name, WalletState.SERVER_ACTIVE)
            for other in NAMES:
                self.lab.engine.connect(name, other, connected=True)
        self.lab.pass_s(10_000)
        assert not self.world.flights
        for node in self.world.nodes.values():
            for payment in node.payments:
                assert payment.terminal
                if payment.stage is Stage.SUCCEEDED:
                    receiver = self.world.named(payment.order.dest)
                    invoice = self.world.nodes[receiver].invoices.lookup(payment.payment_hash)
                    assert invoice.state is InvoiceState.SETTLED


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
