from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.engine.network import Lab

from impervious.sim.engine.payer import Payer
from impervious.sim.engine.payments import Order
from impervious.sim.engine.route import BalanceTooLowError, NoPathError, Path
from impervious.sim.engine.topology import ChannelSpec, Policy
from impervious.units import Msat, Sat
from impervious.wire import onion

DEAR = Policy(base_fee=Msat(900_000))


def find(lab: Lab, sender: str, order: Order, *, mission_control: bool = True) -> Path:
    payer: Payer = lab.engine.payer
    return payer.find(lab.engine.world.nodes[sender], order, mission_control=mission_control)


def line(hops: int) -> Lab:
    names = [f"n{number}" for number in range(hops + 1)]
    return Lab(names, [f"{a}-{b}" for a, b in pairwise(names)])


def test_a_direct_peer_costs_nothing() -> None:
    lab = line(1)
    path = find(lab, "n0", lab.order("n1", fee_limit=0))
    assert (path.fee, path.total, path.time_lock) == (0, 1000, 850_083)
    assert [(hop.name, hop.forwards, hop.fee, hop.expiry) for hop in path.hops] == [("n1", 1000, 0, 850_083)]


def test_every_forwarding_node_takes_its_fee_of_what_it_passes_on() -> None:
    lab = line(3)
    path = find(lab, "n0", lab.order("n3", 10_000_000))
    assert path.total == 10_002_020
    assert [(hop.name, hop.forwards, hop.fee, hop.expiry) for hop in path.hops] == [
        ("n1", 10_001_010, 1010, 850_163),
        ("n2", 10_000_000, 1010, 850_083),
        ("n3", 10_000_000, 0, 850_083),
    ]
    assert (path.time_lock, path.amounts) == (850_243, (10_002_020, 10_001_010, 10_000_000))
    assert path.expiry_heights == (850_243, 850_163, 850_083)


def test_the_fee_limit_is_exact_and_zero_means_free() -> None:
    lab = line(3)
    assert find(lab, "n0", lab.order("n3", fee_limit=2000)).fee == 2000
    for limit in (1999, 0):
        with pytest.raises(NoPathError):
            find(lab, "n0", lab.order("n3", fee_limit=limit))


def test_the_cheaper_of_two_equally_long_ways_is_taken() -> None:
    dear = ChannelSpec(first="bob", second="dave", first_policy=DEAR)
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "alice-carol", dear, "carol-dave"])
    assert find(lab, "alice", lab.order("dave")).names == ("alice", "carol", "dave")


def test_another_hop_costs_more_than_a_small_fee() -> None:
    lab = Lab(["a", "b", "c", "d"], ["a-b", "b-c", "c-d", "b-d"])
    assert find(lab, "a", lab.order("d")).names == ("a", "b", "d")


@pytest.mark.parametrize(
    ("hops", "largest"), [(1, 1206), (2, 1154), (3, 1102), (4, 1050), (5, 998), (6, 946), (7, 894), (8, 842), (10, 738)]
)
def test_a_record_fits_to_the_byte(hops: int, largest: int) -> None:
    lab = line(hops)
    last = f"n{hops}"
    fits = lab.order(last, records={400000: bytes(largest)}, fee_limit=10**6)
    assert len(find(lab, "n0", fits, mission_control=False).hops) == hops
    with pytest.raises(NoPathError):
        find(lab, "n0", lab.order(last, records={400000: bytes(largest + 1)}, fee_limit=10**6), mission_control=False)


@pytest.mark.parametrize(("hops", "found"), [(9, True), (10, False)])
def test_a_way_that_will_probably_fail_is_none(hops: int, found: bool) -> None:
    lab = line(hops)
    order = lab.order(f"n{hops}", fee_limit=10**6)
    assert len(find(lab, "n0", order, mission_control=False).hops) == hops
    if found:
        assert find(lab, "n0", order).probability == pytest.approx(0.95 * 0.6 ** (hops - 1))
    else:
        with pytest.raises(NoPathError):
            find(lab, "n0", order)


def test_the_balance_is_what_all_usable_channels_have_together() -> None:
    lab = Lab(["alice", "bob"], ["alice-bob:1000000", "alice-bob:1000000"])
    spendable = 490_000_000
    assert find(lab, "alice", lab.order("bob", spendable)).total == spendable
    with pytest.raises(NoPathError) as one_channel_is_too_small:
        find(lab, "alice", lab.order("bob", spendable + 1))
    assert not isinstance(one_channel_is_too_small.value, BalanceTooLowError)
    with pytest.raises(BalanceTooLowError):
        find(lab, "alice", lab.order("bob", 2 * spendable + 1))


def test_a_peer_that_is_away_leaves_no_balance() -> None:
    lab = line(2)
    lab.engine.connect("n0", "n1", connected=False)
    with pytest.raises(BalanceTooLowError):
        find(lab, "n0", lab.order("n2"))


def test_less_than_the_minimum_finds_no_way() -> None:
    lab = line(1)
    with pytest.raises(NoPathError):
        find(lab, "n0", lab.order("n1", 999))


def test_a_channel_is_no_way_for_more_than_it_could_hold() -> None:
    small = ChannelSpec(first="bob", second="carol", capacity=Sat(20_000))
    lab = Lab(["alice", "bob", "carol"], ["alice-bob", small])
    assert find(lab, "alice", lab.order("carol", 19_800_000)).total
    with pytest.raises(NoPathError):
        find(lab, "alice", lab.order("carol", 19_800_001))


def test_disabled_and_private_channels_of_others_are_not_used() -> None:
    hidden = ChannelSpec(first="bob", second="carol", private=True)
    disabled = ChannelSpec(first="bob", second="dave", first_policy=Policy(disabled=True))
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", hidden, disabled])
    for name in ("carol", "dave"):
        with pytest.raises(NoPathError):
            find(lab, "alice", lab.order(name))
        assert len(find(lab, "bob", lab.order(name)).hops) == 1


def test_first_channel_and_last_hop_can_be_prescribed() -> None:
    lab = Lab(["alice", "bob", "carol", "dave"], ["alice-bob", "alice-carol", "bob-dave", "carol-dave"])
    via = {c.peer("alice"): c.chan_id for c in lab.engine.world.graph.channels_of("alice")}
    for name in ("bob", "carol"):
        by_channel = Order(
            dest=lab.engine.world.pubkeys["dave"].raw,
            amount=Msat(1000),
            payment_hash=bytes(32),
            fee_limit=Msat(5000),
            outgoing=frozenset({via[name]}),
        )
        assert find(lab, "alice", by_channel).names[1] == name
        by_hop = Order(
            dest=lab.engine.world.pubkeys["dave"].raw,
            amount=Msat(1000),
            payment_hash=bytes(32),
            fee_limit=Msat(5000),
            last_hop=lab.engine.world.pubkeys[name].raw,
        )
        assert find(lab, "alice", by_hop).names[1] == name


def test_a_key_that_nobody_has_finds_no_way() -> None:
    lab = line(1)
    stranger = Order(dest=b"\x02" + bytes(32), amount=Msat(1000), payment_hash=bytes(32))
    with pytest.raises(NoPathError):
        find(lab, "n0", stranger)


@settings(max_examples=60)
@given(
    edges=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] < pair[1]), min_size=1),
    amount=st.integers(1000, 10**8),
    fee_limit=st.integers(0, 10_000),
    record_bytes=st.integers(0, 1300),
)
def test_whatever_is_found_keeps_every_limit(
    edges: set[tuple[int, int]], amount: int, fee_limit: int, record_bytes: int
) -> None:
    lab = Lab([f"n{n}" for n in range(6)], [f"n{a}-n{b}" for a, b in sorted(edges)])
    order = lab.order("n5", amount, fee_limit=fee_limit, records={400000: bytes(record_bytes)})
    try:
        path = find(lab, "n0", order)
    except NoPathError:
        return
    assert path.fee <= fee_limit
    assert path.total == amount + sum(hop.fee for hop in path.hops)
    size = onion.final_bytes(Msat(amount), path.hops[-1].expiry, order.records)
    size += sum(onion.forwarding_bytes(hop.forwards, hop.expiry) for hop in path.hops[:-1])
    assert size <= onion.MAX_BYTES
    assert len(set(path.names)) == len(path.names)
    for hop, (sender, receiver) in zip(path.hops, pairwise(path.names), strict=True):
        assert set(lab.engine.world.graph.channels[hop.chan_id].nodes) == {sender, receiver}
