"""Who is connected to whom, as each node knows it.

A node's graph holds every public channel and its own private ones. It knows balances of its own channels only: of the
others it knows capacity and policy, so a payment can fail on the way and is then tried elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from impervious.sim.engine.channel import Channel
from impervious.sim.engine.topology import Policy
from impervious.units import Msat


@dataclass(slots=True)
class Graph:
    """All channels of the network, by id and by node."""

    channels: dict[int, Channel] = field(default_factory=dict)
    _of_node: dict[str, list[Channel]] = field(default_factory=lambda: defaultdict(list))

    def add(self, channel: Channel) -> None:
        """Announce a channel to its two nodes and, if it is public, to all."""
        self.channels[channel.chan_id] = channel
        for name in channel.nodes:
            self._of_node[name].append(channel)

    def channels_of(self, name: str) -> tuple[Channel, ...]:
        """A node's own channels."""
        return tuple(self._of_node[name])

    def ways_into(self, name: str, source: str) -> Iterator[tuple[Channel, str, Policy]]:
        """Channels that `source` knows to lead to a node: with the node at the other end and what that one asks."""
        for channel in self._of_node[name]:
            peer = channel.peer(name)
            if not channel.private or peer == source:
                yield channel, peer, channel.policies[channel.side(peer)]

    def knows(self, source: str, name: str) -> bool:
        """Whether a node is in the graph of `source`: itself, its peers, and whoever has a public channel."""
        return name == source or any(not c.private or source in c.nodes for c in self._of_node[name])

    def announced(self, name: str) -> bool:
        """Whether a node has a public channel: only then its features are known to all."""
        return any(not channel.private for channel in self._of_node[name])

    def total(self) -> Msat:
        """Every msat there is: in balances and in HTLCs."""
        return Msat(sum(sum(c.balances) + sum(c.htlcs.values()) for c in self.channels.values()))
