"""A simulated Lightning network, for tests, demonstrations and writing applications without bitcoind.

`SimNetwork` describes and runs it; `SimNode` is one of its nodes as the rooms above see nodes; `SimLnd` is the same
node as an operator sees it, with everything that can go wrong on command.
"""

from impervious.sim.engine.topology import ChannelSpec, NodeSpec, Policy
from impervious.sim.engine.world import DEFAULT_LATENCY_S
from impervious.sim.lnd import SimLnd
from impervious.sim.network import SimNetwork
from impervious.sim.node import SimNode
from impervious.sim.state import kept_names

__all__ = ["DEFAULT_LATENCY_S", "ChannelSpec", "NodeSpec", "Policy", "SimLnd", "SimNetwork", "SimNode", "kept_names"]
