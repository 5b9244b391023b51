import pytest

from impervious.errors import InvalidArgument
from impervious.sim.engine.topology import ChannelSpec, NodeSpec, Policy, Topology
from impervious.units import Msat, Sat


@pytest.mark.parametrize(
    ("text", "capacity", "share"),
    [
        ("alice-bob", 1_000_000, 500_000),
        ("alice-bob:2000001", 2_000_001, 1_000_000),
        ("alice-bob:50000:0", 50_000, 0),
        (" alice-bob:50000:50000 ", 50_000, 50_000),
    ],
)
def test_a_channel_is_read_from_text(text: str, capacity: int, share: int) -> None:
    channel = ChannelSpec.parse(text)
    assert (channel.first, channel.second, channel.capacity, channel.balance) == ("alice", "bob", capacity, share)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alice", "is no channel"),
        ("alice-bob:", "is no channel"),
        ("alice-bob:1e6", "is no channel"),
        ("Alice-bob", "is no channel"),
        ("alice-bob:-5", "is no channel"),
        ("alice-alice", "channel with itself"),
        ("alice-bob:19999", "at least 20000"),
        ("alice-bob:20000:20001", "cannot have 20001"),
    ],
)
def test_a_channel_that_makes_no_sense_says_why(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        ChannelSpec.parse(text)


def test_a_line_joins_neighbours() -> None:
    topology = Topology.line(("alice", "bob", "carol"), Sat(50_000))
    assert [(c.first, c.second) for c in topology.channels] == [("alice", "bob"), ("bob", "carol")]


@pytest.mark.parametrize(
    ("nodes", "channels", "says"),
    [
        (["alice", "alice"], [], "same name"),
        (["alice"], ["alice-bob"], "needs the node bob"),
        (["Alice!"], [], "no node name"),
        ([NodeSpec(name="alice"), "alice"], [], "same name"),
    ],
)
def test_a_network_that_makes_no_sense_says_why(nodes: list[str], channels: list[str], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        Topology.described(nodes, channels)


@pytest.mark.parametrize(("amount", "fee"), [(0, 1000), (999_999, 1000), (1_000_000, 1001), (10**9, 2000)])
def test_a_fee_is_a_base_and_a_share_rounded_down(amount: int, fee: int) -> None:
    assert Policy(base_fee=Msat(1000), fee_ppm=1).fee(Msat(amount)) == fee
