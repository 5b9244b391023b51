"""The tunnel's file on this machine, and `wg-quick`, which makes an interface of it."""

import subprocess
from pathlib import Path
from typing import Final

from impervious.cli.exits import UsageError
from impervious.wireguard import write_private
from impervious.wireguard.program import search_path

FOLDER: Final = Path("~/.imp/tunnels")
"""Where files go when none is named."""


def write_tunnel(folder: Path, interface: str, config: str) -> Path:
    """Write a tunnel's file, which only its owner can read.

    Raises:
      ConfigError: it cannot be written there.
    """
    path = tunnel_path(folder, interface)
    write_private(path, config)
    return path


def tunnel_path(folder: Path, interface: str) -> Path:
    """Say where a tunnel's file is."""
    return folder.expanduser().absolute() / f"{interface}.conf"


def wg_quick(verb: str, path: Path) -> None:
    """Run `wg-quick`, which needs root; what it says goes where ours goes.

    Args:
      verb: up or down.
      path: the tunnel's file.

    Raises:
      UsageError: it cannot be run, or failed.
    """
    try:
        # Our own environment may hold the database's password.
        done = subprocess.run(["wg-quick", verb, str(path)], check=False, env={"PATH": search_path()})
    except OSError as error:
        raise UsageError(
            f"wg-quick cannot be run: {error.strerror}: install it (apt install wireguard-tools)"
        ) from None
    if done.returncode:
        raise UsageError(f"wg-quick did not bring the tunnel {verb}; as root: sudo wg-quick {verb} {path}")
