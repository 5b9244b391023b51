"""The configuration file of a daemon that runs on a node of a simulated network.

A file that is there already is left alone: its owner may have changed it. What in it no longer fits the network is
told, because the daemon would say no more than that its LND is away.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from impervious.cli.simnet.layout import NodePorts
from impervious.config import Config, sample
from impervious.config.values import Plain
from impervious.config_file import read_config
from impervious.errors import ConfigError
from impervious.sim.face import ServedLnd

FILE: Final = "config.yml"
_DATABASE: Final = "imp.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A daemon's configuration file, and what it says."""

    path: Path
    config: Config | None
    """None: it cannot be read; `problems` says why."""
    problems: tuple[str, ...]
    """Why a daemon may not find its LND; a line each."""


def set_up(lnd: ServedLnd, ports: NodePorts) -> Setup:
    """Write `config.yml` beside a node's certificate, unless there is one.

    Raises:
      ConfigError: it cannot be written.
    """
    path = lnd.credentials.macaroon.with_name(FILE)
    try:
        if not path.exists():
            _write(path, sample(settings(lnd, ports)))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        config = read_config(str(path), needs_lnd=False, environ={}).config
    except ConfigError as error:
        return Setup(path=path, config=None, problems=(str(error),))
    return Setup(path=path, config=config, problems=tuple(_misfits(path, config, lnd)))


def _write(path: Path, text: str) -> None:
    """Put the whole file in place, or none: half of one would be left alone for ever."""
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def settings(lnd: ServedLnd, ports: NodePorts) -> dict[str, Plain]:
    """Give what a daemon's configuration says, by dotted key."""
    folder = lnd.credentials.macaroon.parent.resolve()
    return {
        "server.grpc_addr": f"{lnd.host}:{ports.grpc}",
        "server.http_addr": f"{lnd.host}:{ports.http}",
        "server.http_text_addr": f"{lnd.host}:{ports.text}",
        "sqlite3.path": str(folder / _DATABASE),
        "lightning.lnd_node.ip": lnd.host,
        "lightning.lnd_node.port": lnd.port,
        "lightning.lnd_node.pub_key": lnd.pubkey.hex,
        "lightning.lnd_node.tls_cert": str(folder / lnd.credentials.certificate.name),
        "lightning.lnd_node.admin_macaroon": str(folder / lnd.credentials.macaroon.name),
        "federate.imp_id": lnd.name,
        "socket.server_ip": lnd.host,
        "socket.ports": [list(pair) for pair in ports.relay],
    }


def _misfits(path: Path, config: Config, lnd: ServedLnd) -> Iterator[str]:
    known = config.lightning.lnd
    if known.port != lnd.port:
        yield (
            f"{path}: lightning.lnd_node.port is {known.port}, but the LND of {lnd.name} listens on {lnd.port}: "
            "change it, or delete the file to have a new one written"
        )
    if known.pubkey not in (None, lnd.pubkey.hex):
        yield (
            f"{path}: lightning.lnd_node.pub_key is another node's than {lnd.name}, {lnd.pubkey}: delete the file to "
            "have a new one written, and the database beside it"
        )
