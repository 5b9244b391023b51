"""A payment channel's ledger: two balances and the HTLCs between them.

Every msat of the capacity is at every moment on one side or in one HTLC. Offering takes it from the sender's balance,
settling gives it to the other side, failing gives it back: nothing else moves money.
"""

from dataclasses import dataclass, field
from typing import Final, NewType

from impervious.sim.engine.topology import Policy
from impervious.units import Msat

Side = NewType("Side", int)
"""0 for the node that is named first, 1 for the other."""

MAX_HTLCS: Final = 483
"""In flight from one side (BOLT 2, max_accepted_htlcs)."""

RESERVE_DIVISOR: Final = 100
"""Each side keeps 1 % of the capacity, untouchable (BOLT 2, channel_reserve_satoshis)."""


@dataclass(slots=True, kw_only=True)
class Channel:
    """The ledger of one channel."""

    chan_id: int
    """short_channel_id as a number: height, transaction, output."""
    nodes: tuple[str, str]
    capacity: Msat
    balances: list[Msat]
    policies: tuple[Policy, Policy]
    pushed: Msat = Msat(0)
    """What its second node had at the beginning: here the first one funds everything."""
    private: bool = False
    connected: bool = True
    """Whether the two peers have a connection, as long as both run."""
    htlcs: dict[tuple[Side, int], Msat] = field(default_factory=dict)
    """(who offered it, its htlc_index) -> amount."""
    offered: list[int] = field(default_factory=lambda: [0, 0])
    """Next htlc_index of each side."""
    sent: list[Msat] = field(default_factory=lambda: [Msat(0), Msat(0)])
    """Settled from each side so far."""
    pending: list[int] = field(init=False)
    """HTLCs of each side that are not resolved."""

    def __post_init__(self) -> None:
        offerers = [side for side, _ in self.htlcs]
        self.pending = [offerers.count(Side(0)), offerers.count(Side(1))]

    def side(self, name: str) -> Side:
        """Which side a node is on."""
        return Side(self.nodes.index(name))

    def peer(self, name: str) -> str:
        """The node on the other side."""
        return self.nodes[1 - self.nodes.index(name)]

    @property
    def reserve(self) -> Msat:
        """What each side must keep."""
        return Msat(self.capacity // RESERVE_DIVISOR)

    def spendable(self, side: Side) -> Msat:
        """The largest HTLC this side can offer now; 0 with all slots taken."""
        if self.pending[side] >= MAX_HTLCS:
            return Msat(0)
        return Msat(max(0, self.balances[side] - self.reserve))

    def offer(self, side: Side, amount: Msat) -> int:
        """Put `amount` into an HTLC.

        Returns:
          Its htlc_index.

        Raises:
          ValueError: the side does not have that much to spend, or no slot.
        """
        if not 0 < amount <= self.spendable(side):
            raise ValueError(f"channel {self.chan_id}: side {side} cannot offer {amount} msat")
        index = self.offered[side]
        self.offered[side] += 1
        self.pending[side] += 1
        self.balances[side] = Msat(self.balances[side] - amount)
        self.htlcs[side, index] = amount
        return index

    def settle(self, side: Side, index: int) -> None:
        """Give an HTLC's money to the other side."""
        amount = self._resolved(side, index)
        self.balances[1 - side] = Msat(self.balances[1 - side] + amount)
        self.sent[side] = Msat(self.sent[side] + amount)

    def fail(self, side: Side, index: int) -> None:
        """Give an HTLC's money back."""
        amount = self._resolved(side, index)
        self.balances[side] = Msat(self.balances[side] + amount)

    def _resolved(self, side: Side, index: int) -> Msat:
        self.pending[side] -= 1
        return self.htlcs.pop((side, index))
