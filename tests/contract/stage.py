"""Where every kind of Lightning node is put to the same test: on a simulated network whose operator obeys.

Nothing here waits for time to pass: settlements take none, and what has to stay in flight is held until told otherwise.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from tests.sim.reader import preimage_of, until

from impervious.config import LndConfig
from impervious.lnd import LndNode, open_lnd
from impervious.model import Payment, Preimage, Records
from impervious.node import LightningNode
from impervious.sim import ChannelSpec, SimLnd, SimNetwork
from impervious.sim.engine.topology import NodeSpec
from impervious.sim.face import Credentials, LndFace
from impervious.units import Msat, Sat


@dataclass(frozen=True)
class Stage:
    """A network of alice, bob and carol in a line, dave who takes no keysends, and erin whom only bob knows."""

    network: SimNetwork
    node: Callable[[str], LightningNode]

    @property
    def alice(self) -> LightningNode:
        """Who is put to the test."""
        return self.node("alice")

    def lnd(self, name: str) -> SimLnd:
        """What the operator of a node commands."""
        return self.network.lnd(name)

    async def pay(
        self,
        number: int = 1,
        *,
        sender: str = "alice",
        to: str = "carol",
        amount: int = 1000,
        records: Records | None = None,
        fee_limit: int = 5000,
    ) -> Payment:
        """A keysend with a preimage of that number."""
        return await self.node(sender).send_keysend(
            self.lnd(to).pubkey,
            Msat(amount),
            preimage_of(number),
            records or {},
            fee_limit=Msat(fee_limit),
            timeout_s=60,
        )

    async def subscribed(self, name: str) -> None:
        """Wait until somebody hears at once what settles at a node."""
        await until(lambda: self.lnd(name).rpcs.invoice_subscribers > 0)

    async def hold(self, name: str, number: int) -> None:
        """Wait until a node that holds keysends holds the one of that number."""
        payment_hash = preimage_of(number).payment_hash
        async with self.lnd(name).rpcs.subscribe_single_invoice(payment_hash) as changes:
            async for invoice in changes:
                if invoice.htlcs:
                    return

    def release(self, name: str, preimage: Preimage) -> None:
        """Let it settle what it holds."""
        self.lnd(name).settle_invoice(preimage)


def network() -> SimNetwork:
    return SimNetwork(
        ["alice", "bob", "carol", NodeSpec(name="dave", accepts_keysend=False), "erin"],
        [
            "alice-bob:1000000",
            "bob-carol:1000000",
            "bob-dave:1000000",
            ChannelSpec(first="bob", second="erin", capacity=Sat(1_000_000), private=True),
        ],
        seed=5,
        latency_s=(0, 0),
    )


@asynccontextmanager
async def sim_stage() -> AsyncIterator[Stage]:
    """The nodes of the simulated network themselves."""
    async with network().open() as opened:
        yield Stage(network=opened, node=opened.node)


@asynccontextmanager
async def wire_stage() -> AsyncIterator[Stage]:
    """The LND client, and the same network behind TLS and macaroons."""
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(network().open())
            faces = await stack.enter_async_context(trio.open_nursery())
            clients: dict[str, LndNode] = {}
            for name in opened.names:
                credentials = Credentials.kept(Path(folder) / name)
                port = await faces.start(LndFace(opened.lnd(name), credentials).serve)
                config = LndConfig(port=port, tls_cert=credentials.certificate, macaroon=credentials.macaroon)
                clients[name] = await stack.enter_async_context(open_lnd(config))
            yield Stage(network=opened, node=clients.__getitem__)
            faces.cancel_scope.cancel()


STAGES: dict[str, Callable[[], AbstractAsyncContextManager[Stage]]] = {"sim": sim_stage, "lnd": wire_stage}
"""Every kind of node that must pass."""
