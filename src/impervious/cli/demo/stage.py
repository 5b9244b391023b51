"""What the tour plays on: alice and carol with a daemon each, bob between them, all over real sockets.

The daemons run in this process but know nothing of that: each reaches its node over LND's wire, and is reached through
its front doors.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio
from trio_websocket import open_websocket_url

from impervious.background import background
from impervious.cli.client.door import Door
from impervious.cli.client.rest import Facts, Rest, open_rest
from impervious.cli.demo.facts import Arrived, Concluded, Opened, Place, Tell, shortened
from impervious.cli.demo.inbox import STATUS, Arrival, Inbox
from impervious.cli.simnet.layout import NodePorts, check_room
from impervious.cli.simnet.setup import set_up
from impervious.config import Address, Config
from impervious.errors import ConfigError, ImperviousError
from impervious.server.listeners import Addresses
from impervious.sim import SimNetwork
from impervious.sim.face import ServedLnd, open_lnds
from impervious.supervisor import Node, open_node

HOSTS: Final = ("alice", "carol")
"""Nodes with a daemon, in the order of their ports."""
BETWEEN: Final = ("bob",)
CHANNELS: Final = ("alice-bob:1000000", "bob-carol:1000000")

LATENCY_S: Final = (0.05, 0.1)
"""A settlement between direct peers takes 0.2 to 0.5 s in truth: nobody should have to wait that long for a tour."""
START_S: Final = 30.0
"""How long everything may take to be ready, on a machine that is busy."""
_FRAME_BYTES: Final = 16 << 20
"""Largest frame that is read: far above the largest message."""


class DemoFailed(ImperviousError):
    """Something that must work did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A daemon, and what is used of it from outside."""

    name: str
    pubkey: str
    config: Config
    node: Node
    addresses: Addresses
    rest: Rest
    inbox: Inbox

    async def post(self, path: str, body: Mapping[str, object]) -> Facts:
        """Call it through its HTTP door; raises what `Rest.ask` does."""
        return await self.rest.ask(path, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that runs."""

    network: SimNetwork
    alice: Host
    carol: Host
    tell: Tell

    def settled_at(self, host: Host) -> int:
        """How many payments have settled at a host's Lightning node."""
        return self.network.lnd(host.name).node.invoices.settled


@asynccontextmanager
async def open_stage(folder: Path, tell: Tell, *, port_base: int, seconds: Callable[[], float]) -> AsyncIterator[Stage]:
    """Put it up, for as long as the block runs.

    Args:
      folder: for everything on disk.
      tell: told `Opened`, and then every event on the daemons' websockets.
      port_base: where alice's ports begin; carol's are ten further. 0: free ones.
      seconds: since the start.

    Raises:
      ConfigError: a port is taken.
      DemoFailed: it does not become ready.
    """
    ports = _ports(port_base)
    await _check_free(ports)
    network = SimNetwork((*HOSTS, *BETWEEN), CHANNELS, latency_s=LATENCY_S)
    names = {network.lnd(name).pubkey.hex: name for name in network.names}
    async with network.open(), open_lnds(network, folder) as lnds:
        opening = partial(_open_host, hear=partial(_hear, tell, names))
        async with (
            opening(lnds["alice"], ports["alice"]) as (alice, alice_at),
            opening(lnds["carol"], ports["carol"]) as (carol, carol_at),
        ):
            tell(Opened(places=(alice_at, carol_at), between=BETWEEN, seconds=seconds()))
            yield Stage(network=network, alice=alice, carol=carol, tell=tell)


def _ports(port_base: int) -> Mapping[str, NodePorts]:
    if port_base:
        check_room(port_base, len(HOSTS))
    return {
        name: NodePorts.at(port_base, position) if port_base else NodePorts.free()
        for position, name in enumerate(HOSTS)
    }


async def _check_free(ports: Mapping[str, NodePorts]) -> None:
    """See that the doors can be opened, before anything is: the daemons would name a setting that nobody has set."""
    for port in (port for each in ports.values() for port in (each.grpc, each.http, each.text)):
        try:
            listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be listened on ({error.strerror}): choose others with --port-base, or 0 for any"
            ) from error
        for listener in listeners:
            await listener.aclose()


@asynccontextmanager
async def _open_host(
    lnd: ServedLnd, ports: NodePorts, *, hear: Callable[[str, Arrival], None]
) -> AsyncIterator[tuple[Host, Place]]:
    """Run a daemon on a node, and watch its websocket."""
    setup = set_up(lnd, ports)
    assert setup.config is not None, setup.problems
    async with open_node(setup.config, doors=True) as node:
        assert node.addresses is not None, "it was asked to open its doors"
        await _ready(lnd.name, node)
        inbox, where = Inbox(partial(hear, lnd.name)), node.addresses
        url = f"ws://{where.http}/v1/subscribe?v=2"
        async with (
            open_rest(Door(address=where.http)) as rest,
            open_websocket_url(url, max_message_size=_FRAME_BYTES) as websocket,
        ):
            async with background(partial(inbox.watch, websocket)):
                host = Host(
                    name=lnd.name,
                    pubkey=lnd.pubkey.hex,
                    config=setup.config,
                    node=node,
                    addresses=where,
                    rest=rest,
                    inbox=inbox,
                )
                yield host, _place(host, lnd, setup.path)


async def _ready(name: str, node: Node) -> None:
    with trio.move_on_after(START_S) as waited:
        await node.wait_ready()
    if waited.cancelled_caught:
        raise DemoFailed(f"the daemon of {name} is not ready after {START_S:.0f} s: {node.status.reason}")


def _place(host: Host, lnd: ServedLnd, config: Path) -> Place:
    where = host.addresses
    assert where.http_text is not None, "its configuration has one"
    return Place(
        name=host.name,
        pubkey=host.pubkey,
        lnd=str(Address(host=lnd.host, port=lnd.port)),
        grpc=str(where.grpc),
        http=str(where.http),
        text=str(where.http_text),
        config=str(config),
    )


def _hear(tell: Tell, names: Mapping[str, str], at: str, arrival: Arrival) -> None:
    """Tell what came on a websocket."""
    if arrival.service != STATUS:
        tell(
            Arrived(
                at=at,
                sender=names.get(arrival.from_pubkey, arrival.from_pubkey),
                service=arrival.service,
                id=arrival.id,
                reply_to=arrival.reply_to,
                size=len(arrival.data),
                text=shortened(arrival.data),
                amount_sat=arrival.amount_sat,
            )
        )
        return
    outcome = json.loads(arrival.data)
    tell(
        Concluded(
            at=at,
            id=arrival.id,
            state=outcome["state"],
            reason=outcome.get("reason", ""),
            parts=outcome.get("parts", 0),
            amount_sat=outcome.get("amount_sat", 0),
            fee_msat=outcome.get("fee_msat", 0),
        )
    )
