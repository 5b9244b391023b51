"""What a WireGuard interface holds, and the port through which it is read and changed.

`Wg` is the real implementation. A peer of ours has one address or, while it is suspended, none: what a buyer can ask
for cannot be said in these types. An address that another peer has is taken from it, silently: that is WireGuard's
rule, and `reconcile` is what keeps it from mattering.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Protocol, TypeAlias

from impervious.wireguard.keys import PresharedKey, PublicKey

Host: TypeAlias = IPv4Address | IPv6Address
"""An address; in this room always without an IPv6 scope."""

Network: TypeAlias = IPv4Network | IPv6Network
"""A block of addresses."""


def only(address: Host | None) -> frozenset[Network]:
    """Give the allowed IPs of a peer that has this address alone: a /32 or /128, or nothing."""
    return frozenset() if address is None else frozenset({ip_network(address)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer as the interface has it, ours or anybody's."""

    allowed: frozenset[Network]
    """Allowed IPs: whom it may speak as, and what is sent to it."""
    preshared_key: PresharedKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPeer:
    """A peer of ours as it should be."""

    key: PublicKey
    address: Host | None
    """None while it is suspended: it stays a peer, and nothing of its gets through."""
    preshared_key: PresharedKey | None = field(default=None)

    def is_met_by(self, peer: Peer | None) -> bool:
        """Whether a peer of the interface is just this."""
        return peer == Peer(allowed=only(self.address), preshared_key=self.preshared_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Bytes that a peer and the interface exchanged since the peer was added, or the interface made."""

    received_bytes: int
    """From the peer."""
    sent_bytes: int
    """To the peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What an interface is, apart from its peers."""

    public_key: PublicKey | None
    """None before it has been given a private key."""
    listen_port: int
    """UDP; 0 while it is down and has not been given one."""


class WireGuard(Protocol):
    """One interface, and the power to change its peers.

    Every change is seen to be there before the call returns. All calls raise `WireGuardError`; after any error, and
    after a cancellation in the middle of a change, part of the change may have been made.
    """

    async def interface(self) -> Interface:
        """Say what the interface is."""
        ...

    async def peers(self) -> Mapping[PublicKey, Peer]:
        """List all peers, also those that are not ours."""
        ...

    async def add(self, peers: Collection[WantedPeer], /) -> None:
        """Add peers, or make those that exist just so. Their sessions live on."""
        ...

    async def set_addresses(self, addresses: Mapping[PublicKey, Host | None], /) -> None:
        """Suspend peers (None) or let them through again, without a new handshake.

        Args:
          addresses: of peers that exist: one that does not would be added, without its preshared key.
        """
        ...

    async def remove(self, keys: Collection[PublicKey], /) -> None:
        """Remove peers; those that are not there are no error."""
        ...

    async def transfer(self) -> Mapping[PublicKey, Transfer]:
        """Count each peer's bytes."""
        ...

    async def handshakes(self) -> Mapping[PublicKey, int]:
        """Say when each peer's last handshake was, in seconds since 1970; peers that never made one are left out."""
        ...
