"""What a node shows on its own stream about its tunnels; secrets are never in it."""

from dataclasses import dataclass, field
from enum import Enum

from impervious.model import MessageId, NodePubkey


class Role(Enum):
    """Which end of the tunnel this node is."""

    SELLER = "seller"
    BUYER = "buyer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event."""

    record: str
    """QUOTE, CONTRACT, REFRESH, REFUSED, UNANSWERED, EXPIRING or EXPIRED."""
    role: Role
    peer: NodePubkey
    """The other end."""
    nonce: str
    about: MessageId | None = None
    """The request that it is about."""
    reason: str = ""
    facts: dict[str, int | str] = field(default_factory=dict)
    """Numbers and addresses, with units in their names."""
