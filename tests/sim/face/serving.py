"""Nodes of a simulated network behind real sockets, TLS and macaroons, and channels to them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from tests.contract.stage import network as contract_network
from tests.sim.reader import preimage_of, until

from impervious.pb import lnrpc, routerrpc
from impervious.rpc import Channel, client_context, open_channel
from impervious.sim import SimLnd, SimNetwork
from impervious.sim.face import Credentials, LndFace
from impervious.sim.face.permissions import Permission
from impervious.wire.keysend import PREIMAGE_RECORD


@dataclass
class Served:
    """A network, and where its nodes listen."""

    network: SimNetwork
    nursery: trio.Nursery
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    credentials: dict[str, Credentials] = field(default_factory=dict)

    def lnd(self, name: str) -> SimLnd:
        return self.network.lnd(name)

    async def serve(self, name: str) -> None:
        """Open a node's port."""
        self.credentials[name] = Credentials.kept(self.folder / name)
        face = LndFace(self.lnd(name), self.credentials[name])
        self.ports[name] = await self.nursery.start(face.serve)

    @asynccontextmanager
    async def channel(self, name: str, metadata: Mapping[str, str] | None = None) -> AsyncIterator[Channel]:
        """A channel to a node; with its admin.macaroon unless told otherwise."""
        if metadata is None:
            metadata = {"macaroon": self.credentials[name].macaroon.read_bytes().hex()}
        context = client_context(self.credentials[name].certificate.read_text())
        async with open_channel("127.0.0.1", self.ports[name], ssl_context=context, metadata=metadata) as channel:
            yield channel

    async def channel_subscribed(self, name: str) -> None:
        """Wait until somebody hears of a node's channels."""
        await until(lambda: self.lnd(name).rpcs.channel_subscribers > 0)

    def baked(self, name: str, *permissions: tuple[str, str]) -> dict[str, str]:
        """Metadata with a macaroon that may do only these."""
        data = self.credentials[name].bake(frozenset(Permission(*permission) for permission in permissions))
        return {"macaroon": data.hex()}


@asynccontextmanager
async def served(folder: Path, *names: str) -> AsyncIterator[Served]:
    """The network of the contract suite; some of its nodes have open ports."""
    async with on_network(contract_network(), folder, *names) as world:
        yield world


@asynccontextmanager
async def on_network(described: SimNetwork, folder: Path, *names: str) -> AsyncIterator[Served]:
    """Any network; some of its nodes have open ports."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(described.open())
        nursery = await stack.enter_async_context(trio.open_nursery())
        world = Served(network, nursery, folder)
        for name in names:
            await world.serve(name)
        yield world
        nursery.cancel_scope.cancel()


def keysend(served: Served, to: str, number: int = 1, **change: object) -> routerrpc.SendPaymentRequest:
    """A request to pay a node one satoshi."""
    request = routerrpc.SendPaymentRequest(
        dest=served.lnd(to).pubkey.raw,
        amt_msat=1000,
        payment_hash=preimage_of(number).payment_hash,
        dest_custom_records={PREIMAGE_RECORD: preimage_of(number).raw},
        timeout_seconds=60,
        fee_limit_msat=5000,
    )
    for name, value in change.items():
        setattr(request, name, value)
    return request


async def send(channel: Channel, request: routerrpc.SendPaymentRequest) -> list[lnrpc.Payment]:
    """All updates of a payment."""
    async with channel.unary_stream("/routerrpc.Router/SendPaymentV2", request, lnrpc.Payment) as updates:
        return [update async for update in updates]
