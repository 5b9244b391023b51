"""What goes into the relay and comes out of it: options, facts and counters. No behaviour beyond their own validity.

A session has two sides, 1 and 2, each with a port and, once known, an endpoint. Addresses of endpoints are numeric; an
IPv4 endpoint is shown as such also when it came in through a socket for both families.
"""

import ipaddress
import math
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from impervious.config.address import Address, is_address
from impervious.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Token:
    """What an endpoint proves to know in the safe mode. Secret, so it never prints itself."""

    raw: bytes = field(repr=False)
    """32 random bytes."""

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise InvalidArgument("a token is 32 bytes")

    @property
    def hex(self) -> str:
        """64 hex digits: how it is told to people and endpoints."""
        return self.raw.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How one session behaves."""

    ports: tuple[int, int]
    """UDP ports of side 1 and side 2; 0 lets the system choose."""
    bind: str = ""
    """A numeric address of this machine; empty: all of them, IPv6 too where there is any."""
    idle_timeout_s: float = 120.0
    """Both endpoints silent for this long ends the session."""
    packets_per_s: float = math.inf
    """Datagrams forwarded in both directions together; more are dropped."""
    bytes_per_s: float = math.inf
    """Payload bytes forwarded in both directions together; more are dropped."""
    require_token: bool = False
    """Endpoints must prove to know a token (docs/relay.md); otherwise the first sender is the endpoint."""
    replace_after_s: float = 30.0
    """Without tokens: silence of an endpoint after which another sender may take its place; infinite: never."""

    def __post_init__(self) -> None:
        if not all(0 <= port <= 65_535 for port in self.ports):
            raise InvalidArgument(f"ports go from 1 to 65535, not {self.ports}")
        if self.ports[0] == self.ports[1] != 0:
            raise InvalidArgument(f"both ports are {self.ports[0]}: each endpoint needs a port of its own")
        if self.bind and not is_address(self.bind):
            raise InvalidArgument(f"{self.bind!r} is not a numeric address, IPv4 or IPv6")
        for name in ("idle_timeout_s", "packets_per_s", "bytes_per_s", "replace_after_s"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(f"{name} must be more than 0")


class CloseReason(Enum):
    """Why a session ended."""

    IDLE = "idle"
    """Nothing was heard from its endpoints."""
    STOPPED = "stopped"
    """Somebody called `stop`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Datagrams that were not forwarded, by reason."""

    stranger: int = 0
    """Not from the endpoint."""
    unpaired: int = 0
    """The other endpoint was not known yet, and what can be kept for it was full."""
    rate: int = 0
    """Over `packets_per_s` or `bytes_per_s`."""
    too_large: int = 0
    """Longer than the path to the other endpoint takes."""
    congested: int = 0
    """The system's send buffer was full."""
    unreachable: int = 0
    """This machine has no way to the other endpoint, or a firewall forbids it."""
    overrun: int = 0
    """Came in faster than they were taken; known on Linux only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideStatistics:
    """One side: what its endpoint sent, and what became of it."""

    port: int
    endpoint: Address | None
    silent_s: float | None
    """Since its endpoint was last heard; None while it has none."""
    received_packets: int
    """From the endpoint, empty ones included."""
    received_bytes: int
    """Payload, without headers."""
    forwarded_packets: int
    """Handed to the system for the other endpoint. Empty datagrams and handshakes end here: they are no payload."""
    forwarded_bytes: int
    refusals: int
    """How often the endpoint's machine said that nobody listens there (ICMP port unreachable)."""
    dropped: Dropped

    @property
    def family(self) -> str | None:
        """ipv4 or ipv6, of the endpoint."""
        return None if self.endpoint is None else f"ipv{ipaddress.ip_address(self.endpoint.host).version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatistics:
    """A session at one moment."""

    session: str
    id: UUID
    age_s: float
    """Since it was opened."""
    sides: tuple[SideStatistics, SideStatistics]

    @property
    def paired(self) -> bool:
        """Whether both endpoints are known."""
        return all(side.endpoint is not None for side in self.sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session's ports are open."""

    session: str
    id: UUID
    """Of this session only; its name may be given again."""
    ports: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Both endpoints are known: what they send is forwarded from now on."""

    session: str
    id: UUID
    endpoints: tuple[Address, Address]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """An endpoint was replaced: it has another address now, or another program took its place."""

    session: str
    id: UUID
    side: int
    """1 or 2."""
    endpoint: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A session has ended and its ports are free."""

    session: str
    id: UUID
    reason: CloseReason
    statistics: SessionStatistics
    """The last ones."""


Fact = Opened | Paired | Moved | Closed
