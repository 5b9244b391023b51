"""A simulated network in a folder, served: its state, its nodes' LNDs, and a configuration file for each daemon.

The folder remembers everything, its ports included, so that a later start needs no more than its name.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from impervious.cli.exits import UsageError
from impervious.cli.simnet.layout import DEFAULT_BASE, NodePorts, check_room
from impervious.cli.simnet.setup import Setup, set_up
from impervious.errors import ConfigError, InvalidArgument, StoreError
from impervious.sim import DEFAULT_LATENCY_S, SimNetwork, kept_names
from impervious.sim.face import ServedLnd, open_lnds

DEFAULT_NODES: Final = ("alice", "bob", "carol")
OPTIONS_FILE: Final = "simnet.json"
_PORT_BASE: Final = "port_base"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimnetOptions:
    """What a network is to be."""

    folder: Path
    nodes: tuple[str, ...] = ()
    """Empty: those that the folder keeps, else `DEFAULT_NODES`."""
    channels: tuple[str, ...] = ()
    """Empty: one between each of `nodes` and the next."""
    port_base: int | None = None
    """None: as last time, else `DEFAULT_BASE`."""
    latency_s: tuple[float, float] = DEFAULT_LATENCY_S
    """What a settlement between direct peers takes, at least and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simnet:
    """A network that is served."""

    folder: Path
    network: SimNetwork
    lnds: Mapping[str, ServedLnd]
    setups: Mapping[str, Setup]


@asynccontextmanager
async def open_simnet(options: SimnetOptions) -> AsyncIterator[Simnet]:
    """Serve a network for as long as the block does.

    Raises:
      UsageError: nodes, channels or ports make no sense.
      ConfigError: the folder or a port cannot be used.
    """
    network = _network(options)
    try:
        base = _port_base(options)
        ports = {name: NodePorts.at(base, position) for position, name in enumerate(network.names)}
        check_room(base, len(ports))
    except BaseException:
        network.close()
        raise
    async with (
        network.open(),
        open_lnds(network, options.folder, {name: each.lnd for name, each in ports.items()}) as lnds,
    ):
        setups = {name: set_up(lnd, ports[name]) for name, lnd in lnds.items()}
        _remember(options.folder, base)
        yield Simnet(folder=options.folder, network=network, lnds=lnds, setups=setups)


def _network(options: SimnetOptions) -> SimNetwork:
    try:
        nodes, channels = _wanted(options, kept_names(options.folder))
        return SimNetwork(nodes, channels, folder=options.folder, latency_s=options.latency_s)
    except InvalidArgument as error:
        raise UsageError(str(error)) from error
    except StoreError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{options.folder} cannot be used: {error.strerror}") from error


def _wanted(options: SimnetOptions, kept: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Give the nodes and channels that must be there; what is kept besides stays."""
    nodes = options.nodes or (() if kept else DEFAULT_NODES)
    return nodes, options.channels or [f"{one}-{other}" for one, other in pairwise(nodes)]


def _port_base(options: SimnetOptions) -> int:
    if options.port_base is not None:
        return options.port_base
    path = options.folder / OPTIONS_FILE
    try:
        base = json.loads(path.read_text("utf-8"))[_PORT_BASE]
    except FileNotFoundError:
        return DEFAULT_BASE
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): give --port-base to have it written anew") from error
    if not isinstance(base, int):
        raise ConfigError(f"{path}: {_PORT_BASE} must be a port: give --port-base to have it written anew")
    return base


def _remember(folder: Path, base: int) -> None:
    path = folder / OPTIONS_FILE
    try:
        path.write_text(json.dumps({_PORT_BASE: base}) + "\n", "utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
