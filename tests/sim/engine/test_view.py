import pytest
from tests.sim.engine.network import Lab, preimage_of

from impervious.model import InvoiceState
from impervious.sim.engine.answers import LndError, WalletState
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.payments import Order, Stage
from impervious.sim.engine.topology import ChannelSpec
from impervious.sim.engine.view import View
from impervious.units import Msat


def lab() -> Lab:
    """alice - bob - carol, and erin whom only bob knows."""
    hidden = ChannelSpec(first="bob", second="erin", private=True)
    return Lab(["alice", "bob", "carol", "erin"], ["alice-bob:1000000", "bob-carol:2000000", hidden])


def view(world: Lab, name: str) -> View:
    return View(world.engine.world, world.engine.world.nodes[name])


@pytest.mark.parametrize(
    ("name", "unannounced", "nodes", "edges"),
    [
        ("alice", False, {"alice", "bob", "carol"}, 2),
        ("alice", True, {"alice", "bob", "carol"}, 2),
        ("bob", False, {"alice", "bob", "carol"}, 2),
        ("bob", True, {"alice", "bob", "carol", "erin"}, 3),
        ("erin", False, {"alice", "bob", "carol", "erin"}, 2),
    ],
)
def test_private_channels_are_in_the_graph_of_their_ends_only(
    name: str, unannounced: bool, nodes: set[str], edges: int
) -> None:
    seen = view(lab(), name)
    assert {node.name for node in seen.nodes(unannounced=unannounced)} == nodes
    assert len(seen.edges(unannounced=unannounced)) == edges


def test_the_nodes_of_a_channel_are_in_the_order_of_their_keys() -> None:
    world = lab()
    for edge in view(world, "bob").edges(unannounced=True):
        keys = [world.engine.world.pubkeys[name].raw for name in edge.names]
        assert keys == sorted(keys)


def test_a_channel_is_found_by_who_may_know_it() -> None:
    world = lab()
    hidden = world.engine.world.graph.channels_of("erin")[0].chan_id
    assert view(world, "bob").edge_of(hidden).channel.private
    for name, chan_id in (("alice", hidden), ("bob", 9)):
        with pytest.raises(LndError, match="edge not found"):
            view(world, name).edge_of(chan_id)


def test_peers_are_those_who_are_there() -> None:
    world = lab()
    assert {peer.node.name for peer in view(world, "bob").peers()} == {"alice", "carol", "erin"}
    world.engine.set_state("carol", WalletState.LOCKED)
    assert {peer.node.name for peer in view(world, "bob").peers()} == {"alice", "erin"}


def test_a_network_has_numbers() -> None:
    numbers = view(lab(), "alice").numbers()
    assert (numbers.diameter, numbers.max_degree, numbers.nodes) == (2, 2, 3)
    assert (numbers.capacities, numbers.median) == ((10**9, 2 * 10**9), 1_500_000_000)
    alone = view(Lab(["alice"], []), "alice").numbers()
    assert (alone.diameter, alone.max_degree, alone.nodes, alone.median) == (0, 0, 1, 0)


def test_who_forwards_has_it_in_writing_page_by_page() -> None:
    world = lab()
    for number in range(3):
        world.pay("alice", world.order("carol", 10_000 + number, number=number))
    world.pay("alice", world.order("bob", number=9))
    seen = view(world, "bob")

    def amounts(*, start_s: int = 0, offset: int = 0, limit: int = 0, into: frozenset[int] = frozenset()) -> list[int]:
        page = seen.forwards(start_s=start_s, end_s=0, offset=offset, limit=limit, into=into, out=frozenset())
        return [forward.amount_out for forward in page]

    assert amounts() == [10_000, 10_001, 10_002]
    assert amounts(offset=1, limit=1) == [10_001]
    assert amounts(start_s=10**10) == []
    assert amounts(into=frozenset({7})) == []
    assert (seen.earned(1), view(world, "alice").earned(1)) == (3000, 0)
    world.pass_s(86_401)
    assert (seen.earned(1), seen.earned(7)) == (0, 3000)


def held(world: Lab) -> Order:
    """A hold invoice of carol's that alice has paid."""
    invoice = world.engine.add_invoice("carol", Ask(value=Msat(5000), hold_hash=preimage_of(1).payment_hash))
    assert invoice.preimage is None
    order = Order(
        dest=world.engine.world.pubkeys["carol"].raw,
        amount=Msat(5000),
        payment_hash=invoice.payment_hash,
        payment_addr=invoice.payment_addr,
        fee_limit=Msat(5000),
    )
    world.engine.pay("alice", order)
    world.pass_s(100_000)
    assert world.invoice("carol", order).state is InvoiceState.ACCEPTED
    return order


def test_a_hold_invoice_waits_for_its_owner() -> None:
    world = lab()
    order = held(world)
    assert world.payment("alice", order).stage is Stage.IN_FLIGHT
    world.engine.settle_invoice("carol", preimage_of(1))
    world.pass_s(5)
    paid = world.payment("alice", order)
    assert (paid.stage, paid.preimage) == (Stage.SUCCEEDED, preimage_of(1))
    assert world.invoice("carol", order).preimage == preimage_of(1)


def test_a_hold_invoice_can_be_given_back() -> None:
    world = lab()
    order = held(world)
    world.engine.cancel_invoice("carol", preimage_of(1).payment_hash)
    world.pass_s(5)
    assert world.payment("alice", order).stage is Stage.FAILED
    with pytest.raises(LndError, match="already canceled"):
        world.engine.settle_invoice("carol", preimage_of(1))


def test_what_is_not_held_cannot_be_settled() -> None:
    world = lab()
    world.engine.add_invoice("carol", Ask(hold_hash=preimage_of(1).payment_hash))
    with pytest.raises(LndError, match="invoice still open"):
        world.engine.settle_invoice("carol", preimage_of(1))
    with pytest.raises(LndError, match="unable to locate"):
        world.engine.settle_invoice("carol", preimage_of(2))
