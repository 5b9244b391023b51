"""A simulated network that runs: nodes, channels, time.

Describe it, open it, ask its nodes:

    async with SimNetwork.line("alice", "bob", "carol", latency_s=(0, 0)).open() as network:
        await network.node("alice").send_keysend(network.node("carol").pubkey, …)

Time is Trio's, so everything works under an autojump clock; randomness comes from one seed.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from impervious.background import background
from impervious.errors import NotFound
from impervious.sim.driver import Driver, TrioTime
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.engine import Engine
from impervious.sim.engine.topology import DEFAULT_CAPACITY, ChannelSpec, NodeSpec, Topology
from impervious.sim.engine.world import DEFAULT_LATENCY_S, World
from impervious.sim.lnd import SimLnd
from impervious.sim.node import SimNode
from impervious.sim.state import StateFolder
from impervious.units import Msat, Sat


class SimNetwork:
    """A simulated Lightning network.

    Args:
      nodes: names, or specs where a node is special.
      channels: `alice-bob:1000000` (satoshis, half on each side), or specs.
      seed: of all randomness: keys, latencies. None: a different network every time.
      now: reads the wall clock, seconds since 1970. None: it starts at the present and goes with Trio's clock.
      latency_s: what a settlement takes between direct peers, at least and at most; every further hop as much again.
      accountable: whether its nodes add record 106823, as lnd from 0.21 on does.
      folder: where its state is kept. What is there already goes on; nodes and channels that are missing are added.

    Raises:
      InvalidArgument: nodes or channels make no sense.
      StoreLocked: another network runs in the folder.
      StoreError: what is in the folder cannot be read.
    """

    def __init__(
        self,
        nodes: Iterable[str | NodeSpec],
        channels: Iterable[str | ChannelSpec],
        *,
        seed: int | None = None,
        now: Callable[[], float] | None = None,
        latency_s: tuple[float, float] = DEFAULT_LATENCY_S,
        accountable: bool = True,
        folder: Path | None = None,
    ) -> None:
        world = World(time=TrioTime(now), chance=random.Random(seed))
        self._folder = None if folder is None else StateFolder(folder)
        try:
            if self._folder is not None:
                self._folder.load(world)
            topology = Topology.described(nodes, channels, there=world.nodes)
        except BaseException:
            self.close()
            raise
        world.latency_s = latency_s
        world.accountable = world.accountable if accountable else {}
        engine = Engine(world)
        engine.build(topology)
        self._driver = Driver(engine, self._folder)
        self._lnds = {name: SimLnd(self._driver, node) for name, node in world.nodes.items()}
        self._nodes = {name: SimNode(lnd) for name, lnd in self._lnds.items()}

    @classmethod
    def line(
        cls,
        *names: str,
        capacity: Sat = DEFAULT_CAPACITY,
        seed: int | None = None,
        latency_s: tuple[float, float] = DEFAULT_LATENCY_S,
    ) -> Self:
        """Nodes in a row, each with a channel to the next."""
        topology = Topology.line(names, capacity)
        return cls(topology.nodes, topology.channels, seed=seed, latency_s=latency_s)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Let it run, once; its folder is let go of at the end."""
        try:
            self._driver.engine.resume()
            self._driver.step()
            async with background(self._driver.run):
                yield self
        finally:
            self.close()

    def close(self) -> None:
        """Let go of its folder, if it was never opened."""
        if self._folder is not None:
            self._folder.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Its nodes."""
        return tuple(self._lnds)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Its payment channels, oldest first. They change as payments settle; look, and leave them as they are."""
        return tuple(self._driver.engine.world.graph.channels.values())

    def lnd(self, name: str) -> SimLnd:
        """A node as its operator sees it.

        Raises:
          NotFound: there is none of that name.
        """
        if name not in self._lnds:
            raise NotFound(f"the simulated network has no node {name}; it has {', '.join(self._lnds)}")
        return self._lnds[name]

    def node(self, name: str) -> SimNode:
        """A node as the rooms above see it.

        Raises:
          NotFound: there is none of that name.
        """
        self.lnd(name)
        return self._nodes[name]

    def total(self) -> Msat:
        """Every msat there is, which never changes."""
        return self._driver.engine.world.graph.total()
