"""Which ports belong to whom: ten in a row for each node, its daemon's first and its LND's last."""

from dataclasses import dataclass
from typing import Final

from impervious.cli.exits import UsageError
from impervious.config import SocketConfig

DEFAULT_BASE: Final = 8881
"""Where a daemon's gRPC listens by default."""
STRIDE: Final = 10
"""Ports of one node."""
LAST_PORT: Final = 65535

_LND: Final = 9
_FIRST_RELAY: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """The ports of one node, all on loopback."""

    grpc: int
    http: int
    text: int
    lnd: int
    relay: tuple[tuple[int, int], ...]
    """Pairs of UDP ports for the socket service."""

    @classmethod
    def at(cls, base: int, position: int) -> "NodePorts":
        """Give the ports of the node at a position, from 0."""
        first = base + STRIDE * position
        return cls(
            grpc=first,
            http=first + 1,
            text=first + 2,
            lnd=first + _LND,
            relay=tuple((first + port, first + port + 1) for port in range(_FIRST_RELAY, _LND, 2)),
        )

    @classmethod
    def free(cls) -> "NodePorts":
        """Give ports of which the system chooses any that are free, wherever that can be asked for."""
        return cls(grpc=0, http=0, text=0, lnd=0, relay=SocketConfig().ports)


def check_room(base: int, nodes: int) -> None:
    """See that there are enough ports.

    Raises:
      UsageError: there are not; says what would do.
    """
    needed = STRIDE * nodes
    if base + needed - 1 <= LAST_PORT:
        return
    lowest = LAST_PORT + 1 - needed
    cure = f"use --port-base {lowest} or lower" if lowest >= 1 else "have fewer nodes"
    raise UsageError(f"{nodes} nodes need {needed} ports, and from {base} up there are {LAST_PORT + 1 - base}: {cure}")
