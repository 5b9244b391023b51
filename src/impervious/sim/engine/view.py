"""What one node knows of the network, and what it has earned: DescribeGraph, ListPeers, FeeReport and their like."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final

from grpclib.const import Status

from impervious.sim.engine.answers import LndError
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.topology import Policy
from impervious.sim.engine.world import Forward, Node, World
from impervious.units import Msat
from impervious.wire import keysend

FEATURES: Final = frozenset({0, 5, 7, 8, 11, 12, 14, 17, 19, 23, 27, 31, 45, 47, 51})
"""What lnd 0.21 announces; 55 comes with --accept-keysend."""
DEFAULT_FORWARDS: Final = 100
"""num_max_events 0."""
DAY_S: Final = 86_400


def features_of(node: Node) -> frozenset[int]:
    """Feature bits that a node announces."""
    return FEATURES | {keysend.FEATURE_BIT} if node.accepts_keysend else FEATURES


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A channel as the graph has it: its nodes in the order of their keys (BOLT 7)."""

    channel: Channel
    names: tuple[str, str]
    policies: tuple[Policy, Policy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node that this one is connected to."""

    node: Node
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """lnrpc.NetworkInfo."""

    diameter: int
    max_degree: int
    nodes: int
    capacities: tuple[Msat, ...]
    """Of every channel, ascending."""

    @property
    def median(self) -> Msat:
        """The capacity in the middle."""
        return Msat(int(median(self.capacities))) if self.capacities else Msat(0)


class View:
    """The network as one node sees it."""

    def __init__(self, world: World, node: Node) -> None:
        self._world = world
        self._node = node

    def nodes(self, *, unannounced: bool = False) -> list[Node]:
        """Who is in its graph; nodes with private channels only if asked for, and if they are its peers."""
        graph = self._world.graph
        return [
            node
            for name, node in self._world.nodes.items()
            if name == self._node.name or graph.announced(name) or (unannounced and graph.knows(self._node.name, name))
        ]

    def announced(self, node: Node) -> bool:
        """Whether a node's own announcement is known."""
        return node is self._node or self._world.graph.announced(node.name)

    def edges(self, *, unannounced: bool = False) -> list[Edge]:
        """The channels of its graph; its own private ones only if asked for."""
        return [self.edge(c) for c in self._world.graph.channels.values() if self._sees(c, unannounced=unannounced)]

    def edge(self, channel: Channel) -> Edge:
        """A channel with its nodes in the order of their keys."""
        first, second = sorted(channel.nodes, key=lambda name: self._world.pubkeys[name].raw)
        policies = channel.policies[channel.side(first)], channel.policies[channel.side(second)]
        return Edge(channel=channel, names=(first, second), policies=policies)

    def edge_of(self, chan_id: int) -> Edge:
        """GetChanInfo.

        Raises:
          LndError: its graph has no such channel.
        """
        channel = self._world.graph.channels.get(chan_id)
        if channel is None or not self._sees(channel, unannounced=True):
            raise LndError("edge not found", Status.NOT_FOUND)
        return self.edge(channel)

    def pubkey(self, name: str) -> bytes:
        """The key of a node."""
        return self._world.pubkeys[name].raw

    def peers(self) -> list[Peer]:
        """Who it is connected to: those with whom a channel of it works."""
        own: dict[str, list[Channel]] = {}
        for channel in self._world.graph.channels_of(self._node.name):
            if self._world.live(channel):
                own.setdefault(channel.peer(self._node.name), []).append(channel)
        return [Peer(node=self._world.nodes[name], channels=tuple(channels)) for name, channels in own.items()]

    def numbers(self) -> Numbers:
        """Statistics of its graph."""
        names, edges = {node.name for node in self.nodes()}, self.edges()
        degrees = dict.fromkeys(names, 0)
        for edge in edges:
            for name in edge.names:
                degrees[name] += 1
        return Numbers(
            diameter=max((self._farthest(name, edges) for name in names), default=0),
            max_degree=max(degrees.values(), default=0),
            nodes=len(names),
            capacities=tuple(sorted(edge.channel.capacity for edge in edges)),
        )

    def own_policies(self) -> Iterator[tuple[Channel, Policy]]:
        """Its channels with what it asks for forwarding over them."""
        for channel in self._world.graph.channels_of(self._node.name):
            yield channel, channel.policies[channel.side(self._node.name)]

    def earned(self, days: int) -> Msat:
        """Fees of the last days."""
        since_s = self._world.time.wall_s() - days * DAY_S
        return Msat(sum(forward.fee for forward in self._node.forwards if forward.at_s >= since_s))

    def forwards(
        self, *, start_s: int, end_s: int, offset: int, limit: int, into: frozenset[int], out: frozenset[int]
    ) -> list[Forward]:
        """A page of what it has passed on, oldest first (ForwardingHistory).

        Args:
          start_s: seconds since 1970.
          end_s: 0: now.
          offset: how many of that time to leave out.
          limit: 0: `DEFAULT_FORWARDS`.
          into: channels over which it came; empty: any.
          out: channels over which it went.
        """
        end_s = end_s or int(self._world.time.wall_s()) + 1
        found = [
            forward
            for forward in self._node.forwards
            if start_s <= forward.at_s <= end_s
            and (not into or forward.chan_in in into)
            and (not out or forward.chan_out in out)
        ]
        return found[offset : offset + (limit or DEFAULT_FORWARDS)]

    def alias_beyond(self, chan_id: int) -> str:
        """The name of the peer at the other end of one of its channels."""
        return self._world.graph.channels[chan_id].peer(self._node.name)

    def _sees(self, channel: Channel, *, unannounced: bool) -> bool:
        return not channel.private or (unannounced and self._node.name in channel.nodes)

    def _farthest(self, start: str, edges: list[Edge]) -> int:
        distance, frontier, hops = {start}, {start}, 0
        while True:
            reached = {name for edge in edges if frontier & set(edge.names) for name in edge.names} - distance
            if not reached:
                return hops
            distance |= reached
            frontier, hops = reached, hops + 1
