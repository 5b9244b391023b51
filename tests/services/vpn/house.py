"""Two nodes on the simulated network in virtual time: carol sells on an interface in memory, alice buys."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.conftest import Wall
from tests.services.vpn.shop import CONFIG, SERVER_KEY
from tests.walks import Stage, detail, everything, stage
from tests.wireguard.memory import MemoryWireGuard

from impervious.config import Config
from impervious.model import Event, MessageId, NodePubkey
from impervious.services.vpn.service import VpnService
from impervious.sim import SimNetwork
from impervious.supervisor import Node
from impervious.units import Sat


@dataclass
class House:
    """A network with a seller's machine on it."""

    where: Stage
    wireguard: MemoryWireGuard
    stack: AsyncExitStack
    settings: dict[str, Any]
    base: Config = field(default_factory=Config)

    @asynccontextmanager
    async def seller(self) -> AsyncIterator[Node]:
        """Run carol."""
        self.where.config = replace(self.base, vpn=replace(CONFIG, **self.settings))
        async with self.where.node("carol") as node:
            await node.wait_ready()
            yield node

    @asynccontextmanager
    async def buyer(self, name: str = "alice") -> AsyncIterator[Node]:
        """Run alice, or somebody else."""
        self.where.config = Config()
        async with self.where.node(name) as node:
            await node.wait_ready()
            yield node


@asynccontextmanager
async def house(folder: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[House]:
    wireguard = MemoryWireGuard(SERVER_KEY)
    monkeypatch.setattr(VpnService, "open_interface", staticmethod(lambda _config: wireguard))
    network = SimNetwork(
        ["alice", "bob", "carol"],
        ["alice-bob:1000000", "bob-carol:1000000"],
        seed=1,
        now=lambda: wall() / 1000,
    )
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(stage(folder, wall, network=network))
        yield House(where=where, wireguard=wireguard, stack=stack, settings=settings)


def vpn(node: Node) -> VpnService:
    return node.service(VpnService)


async def key(node: Node) -> NodePubkey:
    return (await node.wait_ready()).pubkey


async def answer(node: Node, request: MessageId, *, seconds: float = 120) -> Event:
    """Wait for the answer to a request."""
    with trio.fail_after(seconds):
        async with node.events(since=0) as events:
            async for event in events:
                if event.reply_to == request and event.service_type == "vpn":
                    return event
    raise AssertionError


async def told(node: Node, record: str) -> list[Any]:
    """Give what a node's stream shows of one kind so far, the oldest first."""
    shown = [detail(event) for event in await everything(node) if event.service_type == "vpn"]
    return [each for each in shown if each["recordId"] == record]


async def quoted(alice: Node, seller: NodePubkey, hours: int = 1) -> Any:
    """Ask for a quote and give it."""
    return detail(await answer(alice, await vpn(alice).request_quote(seller, hours)))


async def bought(alice: Node, seller: NodePubkey, hours: int = 1) -> tuple[Any, Event]:
    """Buy a tunnel; give the quote and what came of it."""
    quote = await quoted(alice, seller, hours)
    request = await vpn(alice).accept(seller, quote["nonce"], Sat(quote["price"]))
    return quote, await answer(alice, request)
