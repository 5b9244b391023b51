"""Where a tunnel leads, in values: read from the seller's configuration, or from what a seller sent.

What comes from a seller ends in a file that `wg-quick` reads as root and whose `PostUp` lines it executes. So nothing
of it is ever passed on as text: every part becomes an address, a network, a key or a host name first.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Self, TypeVar

from impervious.config import NO_RESOLVER, Address, VpnConfig, is_loopback
from impervious.errors import ConfigError, InvalidArgument
from impervious.wireguard.addresses import Subnet
from impervious.wireguard.keys import PublicKey
from impervious.wireguard.peers import Host, Network

T = TypeVar("T")

MAX_LISTED: Final = 64
"""Networks or resolvers in one list; a QR code holds some 2900 characters."""

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1035, section 2.3.4)."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A setting that works and is probably not meant."""

    setting: str
    """Below `vpn`."""
    better: str
    """What it could be."""
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every buyer of this seller gets, price and key aside."""

    server_key: PublicKey
    endpoint: Address
    """Where buyers send their datagrams."""
    subnet: Subnet
    allowed: tuple[Network, ...]
    """What buyers reach through the tunnel."""
    dns: tuple[Host, ...]
    """Resolvers they are given; may be empty."""

    @classmethod
    def of(cls, config: VpnConfig) -> Self:
        """Read the seller's configuration.

        Raises:
          ConfigError: it names the setting that cannot be and what it could be.
        """
        terms = cls(
            server_key=_setting("server_pub_key", PublicKey.parse, config.server_pub_key or ""),
            endpoint=_setting("server_ip", _parse_server, Address(host=config.server_ip, port=config.server_port)),
            subnet=_setting("subnet", Subnet.parse, config.subnet),
            allowed=_setting("allowed_ips", parse_networks, config.allowed_ips),
            dns=_setting("dns", parse_hosts, "" if config.dns == NO_RESOLVER else config.dns),
        )
        version = terms.subnet.network.version
        if all(network.version != version for network in terms.allowed):
            raise ConfigError(
                f"vpn.allowed_ips: none of it is IPv{version}, which is what vpn.subnet {terms.subnet.network} is: "
                "buyers would reach nothing"
            )
        return terms

    def doubts(self) -> Iterator["Doubt"]:
        """Tell what works and is probably not meant."""
        if is_loopback(self.endpoint.host):
            yield Doubt("server_ip", "PUBLIC_ADDRESS", f"buyers elsewhere cannot reach {self.endpoint.host}")
        if not self.subnet.network.is_private:
            yield Doubt("subnet", "10.0.0.0/24", f"{self.subnet.network} belongs to somebody on the internet")
        for host in self.dns:
            if not any(host in network for network in self.allowed):
                says = f"{host} is not in vpn.allowed_ips: buyers' queries go around the tunnel"
                yield Doubt("dns", str(self.subnet.server), says)
        for this, other, everything in ((4, 6, "::/0"), (6, 4, "0.0.0.0/0")):
            if self._takes_all(this) and not self._takes_all(other):
                better = ", ".join((*map(str, self.allowed), everything))
                yield Doubt("allowed_ips", better, f"a buyer's IPv{other} goes around the tunnel")

    def _takes_all(self, version: int) -> bool:
        return any(network.version == version and network.prefixlen == 0 for network in self.allowed)


def parse_host(text: str) -> Host:
    """Read one address.

    Raises:
      InvalidArgument: it is none, or not one that a single machine can have.
    """
    address = _address(text)
    if address is None or address.is_multicast or address.is_unspecified or address.is_loopback:
        raise InvalidArgument(f"{text[:64]!r} is not the address of a machine")
    return address


def parse_hosts(text: str) -> tuple[Host, ...]:
    """Read addresses separated by commas; nothing at all is an empty list."""
    return _listed(text, parse_host) if text.strip() else ()


def parse_network(text: str) -> Network:
    """Read one network; bits after the prefix are dropped.

    Raises:
      InvalidArgument: it is none.
    """
    try:
        if "%" in text:
            raise ValueError
        return ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"{text[:64]!r} is not a network such as 0.0.0.0/0") from None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read networks separated by commas.

    Raises:
      InvalidArgument: one of them is none, or there are none.
    """
    return _listed(text, parse_network)


def parse_endpoint(text: str) -> Address:
    """Read `host:port`, an IPv6 host in brackets.

    Raises:
      InvalidArgument: nothing can be sent there.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or bracketed != (":" in host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise InvalidArgument(f"{text[:64]!r} is not an endpoint such as 203.0.113.1:51820 or [2001:db8::1]:51820")
    return _parse_server(Address(host=host, port=int(port)))


def _parse_server(address: Address) -> Address:
    """See that datagrams can be sent to an endpoint. Loopback is fine: two nodes may share a machine."""
    host = _address(address.host)
    if host is not None and (host.is_unspecified or host.is_multicast):
        raise InvalidArgument(f"{host} is not the address of a machine: put the public one")
    if host is None and (len(address.host) > _LONGEST_NAME or not _HOST_NAME.fullmatch(address.host)):
        raise InvalidArgument(f"{address.host[:64]!r} is neither an address nor a host name")
    return address


def _address(text: str) -> Host | None:
    try:
        # Python takes any text as the scope of an IPv6 address, line breaks included.
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def _listed(text: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    parts = text.split(",")
    if len(parts) > MAX_LISTED:
        raise InvalidArgument(f"{len(parts)} are too many: at most {MAX_LISTED}")
    return tuple(dict.fromkeys(parse(part.strip()) for part in parts))


V = TypeVar("V")


def _setting(key: str, parse: Callable[[V], T], value: V) -> T:
    try:
        return parse(value)
    except InvalidArgument as error:
        raise ConfigError(f"vpn.{key}: {error}") from None
