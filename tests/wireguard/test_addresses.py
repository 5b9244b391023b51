from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import InvalidArgument, ResourceExhausted
from impervious.wireguard import Host, Network, Subnet

NOBODY: frozenset[Host] = frozenset()


@pytest.mark.parametrize(
    ("text", "server", "first", "capacity"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.2", 253),
        ("10.0.0.77/24", "10.0.0.1", "10.0.0.2", 253),
        ("10.8.0.0/30", "10.8.0.1", "10.8.0.2", 1),
        ("10.0.0.0/8", "10.0.0.1", "10.0.0.2", 2**24 - 3),
        ("fd00::/64", "fd00::1", "fd00::2", 2**64 - 2),
        ("fd00::/126", "fd00::1", "fd00::2", 2),
        ("2001:db8::/32", "2001:db8::1", "2001:db8::2", 2**96 - 2),
    ],
)
def test_the_server_comes_first(text: str, server: str, first: str, capacity: int) -> None:
    subnet = Subnet.parse(text)
    assert subnet.server == ip_address(server)
    assert subnet.capacity == capacity
    assert subnet.server_interface == f"{server}/{subnet.network.prefixlen}"
    assert subnet.allocate(used=NOBODY, cooling=NOBODY) == ip_address(first)


@pytest.mark.parametrize("text", ["10.0.0.0/31", "10.0.0.0/32", "10.0.0.1", "fd00::/127", "fd00::1/128"])
def test_a_subnet_has_room_for_a_buyer(text: str) -> None:
    with pytest.raises(InvalidArgument, match="no room"):
        Subnet.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16", "fe80::/64", "ff00::/8", "0.0.0.0/0"])
def test_a_subnet_can_be_routed(text: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be routed"):
        Subnet.parse(text)


@pytest.mark.parametrize("text", ["", "ten", "10.0.0.0/33", "10.0.0/24", "10.0.0.0/24, 10.0.1.0/24"])
def test_a_subnet_is_one_network(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not a network"):
        Subnet.parse(text)


def test_a_full_subnet_says_whether_waiting_helps() -> None:
    subnet = Subnet.parse("10.0.0.0/29")
    buyers = frozenset[Host](IPv4Address(f"10.0.0.{last}") for last in range(2, 7))
    assert len(buyers) == subnet.capacity
    with pytest.raises(ResourceExhausted, match="all 5 addresses are in use"):
        subnet.allocate(used=buyers, cooling=NOBODY)
    with pytest.raises(ResourceExhausted, match="full for now: 2 addresses cool down"):
        subnet.allocate(used=frozenset(sorted(buyers)[2:]), cooling=frozenset(sorted(buyers)[:2]))


def test_what_others_have_is_not_sold() -> None:
    subnet = Subnet.parse("10.0.0.0/24")
    theirs: list[Network] = [IPv4Network("10.0.0.0/28"), IPv4Network("10.0.0.16/32"), IPv6Network("fd00::/64")]
    assert subnet.allocate(used=NOBODY, cooling=NOBODY, foreign=theirs) == IPv4Address("10.0.0.17")
    # A peer that others reach everything through, or this whole network: a buyer's /32 goes before it.
    for wide in ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24"):
        assert subnet.allocate(used=NOBODY, cooling=NOBODY, foreign=[ip_network(wide)]) == IPv4Address("10.0.0.2")


def test_an_ipv6_network_is_not_listed() -> None:
    subnet = Subnet.parse("fd00::/48")
    half = ip_network("fd00::/49")
    used = frozenset({ip_address("fd00:0:0:8000::")})
    assert subnet.allocate(used=used, cooling=NOBODY, foreign=[half]) == ip_address("fd00:0:0:8000::1")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Subnet, frozenset[Host], frozenset[Host], list[Network]]:
    network = draw(st.sampled_from(["10.0.0.0/28", "10.0.0.16/29", "192.168.7.128/27", "fd00::10/124"]))
    subnet = Subnet.parse(network)
    near = st.integers(0, min(31, subnet.network.num_addresses - 1)).map(lambda offset: subnet.network[offset])
    addresses = st.frozensets(near, max_size=31)
    networks = st.tuples(near, st.integers(subnet.network.prefixlen - 2, subnet.network.max_prefixlen)).map(
        lambda pair: ip_network(f"{pair[0]}/{pair[1]}", strict=False)
    )
    return subnet, draw(addresses), draw(addresses), draw(st.lists(networks, max_size=3))


@given(worlds())
def test_an_allocated_address_is_the_lowest_that_is_free(
    world: tuple[Subnet, frozenset[Host], frozenset[Host], list[Network]],
) -> None:
    subnet, used, cooling, foreign = world
    narrow = [each for each in foreign if each.prefixlen > subnet.network.prefixlen]

    def free(address: Host) -> bool:
        return address not in used | cooling and not any(address in each for each in narrow)

    buyers = [address for address in subnet.network if subnet.holds(address)]
    assert len(buyers) == subnet.capacity
    assert subnet.server not in buyers
    expected = next(filter(free, buyers), None)
    if expected is None:
        with pytest.raises(ResourceExhausted):
            subnet.allocate(used=used, cooling=cooling, foreign=foreign)
    else:
        assert subnet.allocate(used=used, cooling=cooling, foreign=foreign) == expected


@pytest.mark.parametrize("text", ["10.0.0.0/28", "10.0.0.0/29", "fd00::/125"])
def test_one_address_for_each_buyer_until_it_is_full(text: str) -> None:
    subnet = Subnet.parse(text)
    sold: set[Host] = set()
    for _ in range(subnet.capacity):
        sold.add(subnet.allocate(used=sold, cooling=NOBODY))
    assert len(sold) == subnet.capacity
    assert all(subnet.holds(address) for address in sold)
    with pytest.raises(ResourceExhausted):
        subnet.allocate(used=sold, cooling=NOBODY)
