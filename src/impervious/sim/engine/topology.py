"""A network as data: who is there and who has a payment channel with whom.

Channels are written `alice-bob:1000000` (satoshis, half on each side) or `alice-bob:1000000:700000` (alice's share).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from impervious.errors import InvalidArgument
from impervious.units import Msat, Sat

MIN_CAPACITY: Final = Sat(20_000)
"""lnd's smallest channel."""

DEFAULT_CAPACITY: Final = Sat(1_000_000)

_NAME: Final = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one end of a channel asks for forwarding over it (BOLT 7, channel_update). Defaults are lnd's."""

    base_fee: Msat = Msat(1000)
    fee_ppm: int = 1
    min_htlc: Msat = Msat(1000)
    """lnd's bitcoin.minhtlcout: less than a satoshi finds no route."""
    cltv_delta: int = 80
    disabled: bool = False

    def fee(self, amount: Msat) -> Msat:
        """What forwarding `amount` costs."""
        return Msat(self.base_fee + amount * self.fee_ppm // 1_000_000)


DEFAULT_POLICY: Final = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node to be."""

    name: str
    accepts_keysend: bool = True
    """--accept-keysend."""
    keysend_hold_s: float = 0
    """--keysend-hold-time: HTLCs are held, and refused after that, unless somebody settles."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidArgument(f"{self.name!r} is no node name: use up to 32 of a-z, 0-9 and _")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A payment channel to be."""

    first: str
    second: str
    capacity: Sat = DEFAULT_CAPACITY
    first_balance: Sat | None = None
    """None: half of it."""
    private: bool = False
    """Not announced: only its two ends route through it."""
    first_policy: Policy = DEFAULT_POLICY
    second_policy: Policy = DEFAULT_POLICY

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise InvalidArgument(f"{self.first} cannot have a channel with itself")
        if self.capacity < MIN_CAPACITY:
            raise InvalidArgument(f"a channel holds at least {MIN_CAPACITY} sat, not {self.capacity}")
        if not 0 <= self.balance <= self.capacity:
            raise InvalidArgument(f"{self.first} cannot have {self.balance} of {self.capacity} sat")

    @property
    def balance(self) -> Sat:
        """The first node's share."""
        return Sat(self.capacity // 2) if self.first_balance is None else self.first_balance

    @classmethod
    def parse(cls, text: str) -> "ChannelSpec":
        """Read `alice-bob:1000000` or `alice-bob:1000000:700000`.

        Raises:
          InvalidArgument: it is written otherwise.
        """
        match = re.fullmatch(r"([a-z0-9_]+)-([a-z0-9_]+)(?::(\d+))?(?::(\d+))?", text.strip())
        if match is None:
            raise InvalidArgument(f"{text!r} is no channel: write alice-bob:1000000 (satoshis)")
        first, second, capacity, share = match.groups()
        return cls(
            first=first,
            second=second,
            capacity=Sat(int(capacity)) if capacity else DEFAULT_CAPACITY,
            first_balance=Sat(int(share)) if share else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole network to be."""

    nodes: tuple[NodeSpec, ...]
    channels: tuple[ChannelSpec, ...]

    @classmethod
    def described(
        cls, nodes: Iterable[str | NodeSpec], channels: Iterable[str | ChannelSpec], *, there: Iterable[str] = ()
    ) -> "Topology":
        """Put names and channel texts together.

        Args:
          nodes: names, or specs.
          channels: texts, or specs.
          there: nodes that exist already, to which channels may lead too.

        Raises:
          InvalidArgument: a name or a channel makes no sense.
        """
        specs = tuple(NodeSpec(name=node) if isinstance(node, str) else node for node in nodes)
        names = [spec.name for spec in specs]
        known = dict.fromkeys((*there, *names))
        ends = tuple(ChannelSpec.parse(channel) if isinstance(channel, str) else channel for channel in channels)
        if len(set(names)) < len(names):
            raise InvalidArgument("two nodes have the same name")
        for name in (name for channel in ends for name in (channel.first, channel.second)):
            if name not in known:
                raise InvalidArgument(f"a channel needs the node {name}, which is not among {', '.join(known)}")
        return cls(nodes=specs, channels=ends)

    @classmethod
    def line(cls, names: Sequence[str], capacity: Sat) -> "Topology":
        """Nodes in a row, each with a channel to the next."""
        pairs = pairwise(names)
        return cls.described(names, [ChannelSpec(first=a, second=b, capacity=capacity) for a, b in pairs])
