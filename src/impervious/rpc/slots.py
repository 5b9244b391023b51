"""Who may be connected: so many in all, so many from one address, and who gives way when all slots are taken.

A connection that waits for its client, for a request or for the rest of one, gives way to a newcomer, the longest
waiting first; one that works never does. So clients that only hold connections open cannot keep others out. Programs on
this machine all come from one address, as do all clients of a proxy on it: loopback has no limit of its own.
"""

import ipaddress
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import trio

PATIENCE_S: Final = 1.0
"""How long a connection may wait for its client before it gives way: a burst of clients must not push itself out."""
_SHARE: Final = 4
_NETWORK_BITS: Final = 64
"""Of an IPv6 address: whoever has one address has them all."""


class Holder(Protocol):
    """A connection."""

    @property
    def waiting_since(self) -> float | None:
        """Since when it has been waiting for its client, in Trio time; None while it works."""
        ...

    def give_way(self) -> None:
        """End at once."""
        ...


@lru_cache(maxsize=4096)
def client_of(host: str) -> str | None:
    """Say who counts as one client: an IPv4 address, or an IPv6 network of 64 bits; None for this machine."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.ip_network((address, _NETWORK_BITS), strict=False)
            return None if address.is_loopback else str(network)
        address = address.ipv4_mapped
    return None if address.is_loopback else str(address)


def fair_share(of: int) -> int:
    """What one address may take of something: a quarter."""
    return max(1, of // _SHARE)


@dataclass(frozen=True, slots=True)
class Full:
    """Why there is no slot."""

    open: int
    """So many are open already."""
    of_client: bool = False
    """From one address."""

    def __str__(self) -> str:
        return "from its address (limits.connections_per_address)" if self.of_client else "in all"


class Slots:
    """Slots for connections.

    Args:
      most: in all.
      per_client: of one address; 0 for no limit.
    """

    def __init__(self, most: int, per_client: int) -> None:
        self._most = most
        self._per_client = per_client
        self._holders: dict[Holder, str | None] = {}
        self._clients: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._holders)

    def of(self, client: str) -> int:
        """How many a client has."""
        return self._clients[client]

    def take(self, holder: Holder, host: str | None) -> Full | None:
        """Take a slot.

        Returns:
          Why there is none; None: it is taken.
        """
        client = client_of(host) if host else None
        if client is not None and self._per_client and self._clients[client] >= self._per_client:
            same = [each for each, other in self._holders.items() if other == client]
            if not self._gave_way(same):
                return Full(self._per_client, of_client=True)
        if len(self._holders) >= self._most and not self._gave_way(list(self._holders)):
            return Full(self._most)
        self._holders[holder] = client
        if client is not None:
            self._clients[client] += 1
        return None

    def give_back(self, holder: Holder) -> None:
        """Free a slot; nothing happens if it is free."""
        client = self._holders.pop(holder, None)
        if client is not None:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def _gave_way(self, holders: list[Holder]) -> bool:
        waiting = [(since, each) for each in holders if (since := each.waiting_since) is not None]
        if not waiting:
            return False
        since, longest = min(waiting, key=lambda found: found[0])
        if trio.current_time() < since + PATIENCE_S:
            return False
        self.give_back(longest)
        longest.give_way()
        return True
