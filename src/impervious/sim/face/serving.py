"""Every node of a simulated network as an LND of its own: a port, a certificate and a macaroon for each."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from impervious.background import Tasks, open_tasks
from impervious.errors import ConfigError
from impervious.model import NodePubkey
from impervious.sim.face.credentials import Credentials
from impervious.sim.face.server import LndFace
from impervious.sim.network import SimNetwork

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLnd:
    """What a client needs in order to reach one of them."""

    name: str
    pubkey: NodePubkey
    host: str
    port: int
    credentials: Credentials


@asynccontextmanager
async def open_lnds(
    network: SimNetwork, folder: Path, ports: Mapping[str, int] | None = None
) -> AsyncIterator[Mapping[str, ServedLnd]]:
    """Serve all nodes of a network that runs, for as long as the block does, then shut them down as LND does.

    Args:
      network: it has to outlast the block.
      folder: each node's files are in `<folder>/<node>`, and made if they are not there.
      ports: by name; a node without one gets a free one.

    Yields:
      What is served, in the network's order.

    Raises:
      ConfigError: a port or a file cannot be used; names it.

    Cancellation: ends the block, then shuts them down in the same way.
    """
    served: dict[str, ServedLnd] = {}
    async with open_tasks() as tasks:
        for name in network.names:
            served[name] = await _serve(tasks, network, name, folder / name, (ports or {}).get(name, 0))
        try:
            yield served
        finally:
            for name in served:
                network.lnd(name).stop()


async def _serve(tasks: Tasks, network: SimNetwork, name: str, folder: Path, port: int) -> ServedLnd:
    """Start one among `tasks`, where it runs until cancelled."""
    lnd = network.lnd(name)
    try:
        credentials = Credentials.kept(folder)
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be used: {error.strerror}") from error
    try:
        bound = await tasks.start(partial(LndFace(lnd, credentials).serve, HOST, port))
    except OSError as error:
        raise ConfigError(
            f"the LND of {name} cannot listen on {HOST}:{port} ({error.strerror}): stop what listens there, or choose"
            " another port"
        ) from error
    return ServedLnd(name=name, pubkey=lnd.pubkey, host=HOST, port=bound, credentials=credentials)
