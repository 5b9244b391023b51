"""Which addresses of the subnet buyers get.

The server has the first address; an IPv4 network's own and its broadcast address are nobody's (RFC 919), nor is an
IPv6 network's first, the routers' anycast address (RFC 4291, section 2.6.1). Nothing here ever lists a network: an
IPv6 one has more addresses than there is time.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from typing import Self

from impervious.errors import InvalidArgument, ResourceExhausted
from impervious.wireguard.peers import Host, Network


@dataclass(frozen=True, slots=True)
class Subnet:
    """The network that is sold from."""

    network: Network

    def __post_init__(self) -> None:
        network = self.network
        if network.is_multicast or network.is_loopback or network.is_link_local or int(network.network_address) == 0:
            raise InvalidArgument(f"{network} cannot be routed: use a private network such as 10.0.0.0/24")
        if self.capacity < 1:
            raise InvalidArgument(f"{network} has no room for a server and a buyer: use one such as 10.0.0.0/24")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `vpn.subnet`; bits after the prefix are dropped.

        Raises:
          InvalidArgument: buyers cannot have addresses of it.
        """
        try:
            return cls(ip_network(text, strict=False))
        except ValueError:
            raise InvalidArgument(f"{text!r} is not a network such as 10.0.0.0/24") from None

    @property
    def server(self) -> Host:
        """The interface's own address."""
        return self.network[1]

    @property
    def capacity(self) -> int:
        """How many buyers fit: 253 into a /24."""
        return self._last - int(self.network.network_address) - 1

    @property
    def server_interface(self) -> str:
        """What the interface is given: `10.0.0.1/24`."""
        return f"{self.server}/{self.network.prefixlen}"

    def holds(self, address: Host) -> bool:
        """Whether a buyer can have this address."""
        first = int(self.network.network_address) + 2
        return address.version == self.network.version and first <= int(address) <= self._last

    def allocate(
        self, *, used: AbstractSet[Host], cooling: AbstractSet[Host], foreign: Collection[Network] = ()
    ) -> Host:
        """Choose the lowest free address.

        Args:
          used: of contracts and quotes that are not over.
          cooling: given up so recently that somebody may still send to them.
          foreign: what peers that are not ours have (`reconcile.foreign_networks`). Networks as wide as the subnet or
            wider do not count: WireGuard sends to the narrowest.

        Raises:
          ResourceExhausted: there is none; the text says whether waiting helps.
        """
        blocked = sorted((int(each.network_address), int(each.broadcast_address)) for each in self._inner(foreign))
        candidate = int(self.network.network_address) + 2
        while candidate <= self._last:
            address = self.network[candidate - int(self.network.network_address)]
            if address in used or address in cooling:
                candidate += 1
                continue
            past = max((high for low, high in blocked if low <= candidate <= high), default=None)
            if past is None:
                return address
            candidate = past + 1
        raise ResourceExhausted(self._full(used, cooling))

    @property
    def _last(self) -> int:
        broadcast = int(self.network.broadcast_address)
        return broadcast - 1 if isinstance(self.network.network_address, IPv4Address) else broadcast

    def _inner(self, networks: Collection[Network]) -> Collection[Network]:
        return [each for each in networks if _lies_within(each, self.network) and each != self.network]

    def _full(self, used: AbstractSet[Host], cooling: AbstractSet[Host]) -> str:
        free_soon = sum(1 for address in cooling - used if self.holds(address))
        if free_soon:
            return f"{self.network} is full for now: {free_soon} addresses cool down after their last buyer"
        return f"{self.network} is full: all {self.capacity} addresses are in use"


def _lies_within(inner: Network, outer: Network) -> bool:
    if inner.version != outer.version or inner.prefixlen < outer.prefixlen:
        return False
    return inner.network_address in outer
