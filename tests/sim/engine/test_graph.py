from tests.sim.engine.network import Lab

from impervious.sim.engine.graph import Graph
from impervious.sim.engine.topology import ChannelSpec


def graph() -> Graph:
    hidden = ChannelSpec(first="bob", second="dave", private=True)
    return Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "bob-carol", hidden]).engine.world.graph


def test_a_private_channel_is_known_to_its_ends_only() -> None:
    known = graph()
    assert [peer for _, peer, _ in known.ways_into("dave", "bob")] == ["bob"]
    assert [peer for _, peer, _ in known.ways_into("dave", "alice")] == []
    assert [peer for _, peer, _ in known.ways_into("bob", "alice")] == ["alice", "carol"]


def test_a_node_knows_itself_its_peers_and_the_public() -> None:
    known = graph()
    assert known.knows("alice", "carol")
    assert known.knows("bob", "dave")
    assert known.knows("dave", "dave")
    assert not known.knows("alice", "dave")
    assert not known.knows("alice", "nobody")


def test_only_who_has_a_public_channel_is_announced() -> None:
    known = graph()
    assert known.announced("bob")
    assert not known.announced("dave")


def test_all_money_is_counted_once() -> None:
    assert graph().total() == 3 * 1_000_000_000
