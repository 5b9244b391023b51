from dataclasses import replace

import pytest
from tests.sim.engine.network import Lab

from impervious.errors import PaymentFailure
from impervious.sim.engine import payment_request
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.payments import Order, Stage
from impervious.sim.engine.route import HopHint
from impervious.sim.engine.topology import ChannelSpec, Policy
from impervious.units import Msat, Sat


def lab() -> Lab:
    """alice - bob - erin, whose only channel is private."""
    hidden = ChannelSpec(first="bob", second="erin", private=True)
    return Lab(["alice", "bob", "erin"], ["alice-bob", hidden])


def hint(lab: Lab, **change: int) -> tuple[HopHint]:
    channel = lab.engine.world.graph.channels_of("erin")[0]
    policy = channel.policies[0]
    made = HopHint(
        pubkey=lab.engine.world.pubkeys["bob"].raw,
        chan_id=channel.chan_id,
        base_fee=policy.base_fee,
        fee_ppm=policy.fee_ppm,
        cltv_delta=policy.cltv_delta,
    )
    return (replace(made, **change),)  # type: ignore[arg-type]  # a table of one argument each


def test_a_keysend_reaches_a_private_node_with_a_hint_only() -> None:
    world = lab()
    assert world.pay("alice", world.order("erin")).failure is PaymentFailure.NO_ROUTE
    paid = world.pay("alice", replace(world.order("erin", number=2), hints=(hint(world),)))
    assert (paid.stage, paid.fee, paid.attempts[0].path.names) == (Stage.SUCCEEDED, 1000, ("alice", "bob", "erin"))


def test_a_hint_that_asks_more_is_paid_more_and_one_that_asks_less_is_corrected() -> None:
    for base_fee, fee in ((3000, 3000), (0, 1000)):
        world = lab()
        order = replace(world.order("erin"), hints=(hint(world, base_fee=base_fee),))
        assert world.pay("alice", order).fee == fee


@pytest.mark.parametrize("change", [{"chan_id": 7}, {"pubkey": bytes(33)}])
def test_a_hint_that_leads_nowhere_is_none(change: dict[str, int]) -> None:
    world = lab()
    order = replace(world.order("erin"), hints=(hint(world, **change),))
    assert world.pay("alice", order).failure is PaymentFailure.NO_ROUTE


def test_a_private_node_pays_over_its_own_channel() -> None:
    world = lab()
    assert world.pay("erin", world.order("alice")).stage is Stage.SUCCEEDED


def invoice_order(world: Lab, *, private: bool, value: int = 5000) -> Order:
    invoice = world.engine.add_invoice("erin", Ask(value=Msat(value), private=private))
    text = Order(
        dest=b"", amount=Msat(0), payment_hash=b"", payment_request=invoice.payment_request, fee_limit=Msat(5000)
    )
    return payment_request.filled(text, now_s=world.clock.wall_s())


@pytest.mark.parametrize("private", [True, False])
def test_an_invoice_of_a_private_node_can_be_paid_if_it_names_its_channels(private: bool) -> None:
    world = lab()
    order = invoice_order(world, private=private)
    assert order.hints == ((hint(world),) if private else ())
    assert (world.pay("alice", order).stage is Stage.SUCCEEDED) is private


def test_only_a_private_channel_that_could_bring_the_amount_is_named() -> None:
    world = lab()
    channel = world.engine.world.graph.channels_of("erin")[0]
    assert invoice_order(world, private=True, value=int(channel.balances[0])).hints
    assert not invoice_order(world, private=True, value=int(channel.balances[0]) + 1).hints
    world.engine.connect("bob", "erin", connected=False)
    assert not invoice_order(world, private=True).hints


def test_at_most_twenty_channels_are_named_the_largest_first() -> None:
    channels = [
        ChannelSpec(first="bob", second="erin", first_balance=Sat(100_000 + number), private=True)
        for number in range(25)
    ]
    world = Lab(["alice", "bob", "erin"], ["alice-bob", *channels])
    hints = invoice_order(world, private=True).hints
    assert len(hints) == 20
    assert hints[0][0].chan_id == world.engine.world.graph.channels_of("erin")[24].chan_id


def test_a_longer_hint_is_followed_to_its_end() -> None:
    free = Policy(base_fee=Msat(0), fee_ppm=0)
    channels = [
        ChannelSpec(first="bob", second="dave", private=True, first_policy=free),
        ChannelSpec(first="dave", second="erin", private=True),
    ]
    world = Lab(["alice", "bob", "dave", "erin"], ["alice-bob", *channels])
    keys, (one, other) = world.engine.world.pubkeys, world.engine.world.graph.channels_of("dave")
    hints = tuple(
        HopHint(pubkey=keys[name].raw, chan_id=channel.chan_id, base_fee=Msat(0), fee_ppm=0, cltv_delta=0)
        for name, channel in (("bob", one), ("dave", other))
    )
    paid = world.pay("alice", replace(world.order("erin"), hints=(hints,)))
    assert paid.attempts[0].path.names == ("alice", "bob", "dave", "erin")
