"""What `impervious simnet` prints once it serves."""

import shlex
from collections.abc import Iterator

from impervious.cli.simnet.serving import Simnet
from impervious.config import ServerConfig
from impervious.config.values import Plain
from impervious.units import sat_credited


def lines(simnet: Simnet) -> Iterator[str]:
    """Write it for people: the word `ready`, where everything is, and how to go on."""
    yield "ready"
    for name, lnd in simnet.lnds.items():
        files = lnd.credentials
        yield f"\n{name}  {lnd.pubkey}"
        yield f"  LND     {lnd.host}:{lnd.port}  {files.certificate}  {files.macaroon}"
        yield f"  daemon  {', '.join(f'{door} {address}' for door, address in _doors(simnet, name).items())}"
    yield "\nchannels"
    for channel in simnet.network.channels:
        (first, second), (left, right) = channel.nodes, (sat_credited(balance) for balance in channel.balances)
        yield f"  {first} {left} sat - {right} sat {second}"
    yield "\nStart a daemon on a node, in another terminal:"
    for setup in simnet.setups.values():
        yield f"  impervious run --config {shlex.quote(str(setup.path))}"


def summary(simnet: Simnet) -> dict[str, Plain]:
    """Put it into one object, for programs."""
    return {
        "ready": True,
        "dir": str(simnet.folder),
        "nodes": {name: _node(simnet, name) for name in simnet.lnds},
        "channels": [
            {
                "nodes": list(channel.nodes),
                "capacity_sat": sat_credited(channel.capacity),
                "balances_sat": [sat_credited(balance) for balance in channel.balances],
            }
            for channel in simnet.network.channels
        ],
    }


def _node(simnet: Simnet, name: str) -> Plain:
    lnd, setup = simnet.lnds[name], simnet.setups[name]
    return {
        "pubkey": lnd.pubkey.hex,
        "lnd": f"{lnd.host}:{lnd.port}",
        "tls_cert": str(lnd.credentials.certificate),
        "admin_macaroon": str(lnd.credentials.macaroon),
        "config": str(setup.path),
        "daemon": dict(_doors(simnet, name)),
    }


def _doors(simnet: Simnet, name: str) -> dict[str, str]:
    """Where a daemon will listen, by what its file says."""
    config = simnet.setups[name].config
    server = ServerConfig(enabled=False) if config is None else config.server
    if not server.enabled:
        return {}
    doors = {"grpc": str(server.grpc_addr), "http": str(server.http_addr)}
    return doors if server.http_text_addr is None else {**doors, "text": str(server.http_text_addr)}
