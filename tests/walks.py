"""Two nodes on one simulated network, in virtual time: what the tests of both walks stand on."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
from tests.conftest import Wall, inline

from impervious.config import Config, StoreConfig
from impervious.model import Event
from impervious.service import Service
from impervious.sim import SimNetwork
from impervious.supervisor import Node, Surroundings, open_node


class Stage:
    """A simulated network and the nodes that run on it; nodes can be stopped and started."""

    def __init__(self, network: SimNetwork, folder: Path, wall: Wall) -> None:
        self.network = network
        self.folder = folder
        self.wall = wall
        self.config = Config()

    def config_of(self, name: str) -> Config:
        return replace(self.config, store=StoreConfig(path=self.folder / f"{name}.db"))

    @asynccontextmanager
    async def node(self, name: str, *services: type[Service]) -> AsyncIterator[Node]:
        surroundings = Surroundings(now_ms=self.wall, random=random.Random(1).random, run_sync=inline)
        async with open_node(
            self.config_of(name), lightning=self.network.node(name), services=services, surroundings=surroundings
        ) as node:
            yield node


@asynccontextmanager
async def stage(folder: Path, wall: Wall, *, network: SimNetwork | None = None) -> AsyncIterator[Stage]:
    if network is None:
        network = SimNetwork(
            ["alice", "bob", "carol"],
            ["alice-bob:1000000", "bob-carol:1000000"],
            seed=1,
            now=lambda: wall() / 1000,
        )
    async with network.open():
        yield Stage(network, folder, wall)


@asynccontextmanager
async def two_nodes(folder: Path, wall: Wall) -> AsyncIterator[tuple[Stage, Node, Node]]:
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(stage(folder, wall))
        alice = await stack.enter_async_context(where.node("alice"))
        carol = await stack.enter_async_context(where.node("carol"))
        yield where, alice, carol


async def take(
    node: Node, number: int, *, since: int = 0, seconds: float = 600, service: str = "", starting: bytes = b""
) -> list[Event]:
    """Wait for so many events, at most so long in Trio's time."""
    taken: list[Event] = []
    with trio.fail_after(seconds):
        async with node.events(since=since) as events:
            while len(taken) < number:
                event = await events.receive()
                if event.service_type == (service or event.service_type) and event.data.startswith(starting):
                    taken.append(event)
    return taken


async def everything(node: Node) -> list[Event]:
    """What is in the log now."""
    async with node.events(since=0) as events:
        with trio.move_on_after(0.01):
            first = await events.receive()
            return [first, *events.receive_ready(1_000_000)]
    return []


def detail(event: Event) -> Any:
    return json.loads(event.data)
