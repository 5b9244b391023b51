"""`impervious init`: a first configuration file.

It encrypts the database with a password of its own, and points at the credentials of an LND on this machine where
there is one.
"""

import os
import secrets
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from impervious.cli.exits import OK
from impervious.config import sample
from impervious.config_file import PLACES
from impervious.errors import ConfigError

_PASSWORD_BYTES: Final = 24
_LND_FOLDER: Final = {"darwin": Path("Library/Application Support/Lnd")}
"""Below the home directory, by sys.platform (lnd, btcutil.AppDataDir)."""
_NETWORKS: Final = ("mainnet", "testnet", "testnet4", "signet", "regtest", "simnet")


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", nargs="?", metavar="PATH", help=f"where to write it (default: {PLACES[-1]})")
    parser.add_argument("--force", action="store_true", help="replace a file; the old one is kept beside it as .bak")


def run(args: Namespace) -> int:
    """Write the file and return the exit code."""
    path = Path(args.path or args.config or PLACES[-1])
    kept = _write(path, sample(_first_values(_home())), force=args.force)
    print(f"wrote {path}")
    if kept is not None:
        print(f"kept the old one as {kept}: it holds the password of the database made with it")
    command = "impervious" if path in PLACES else f"impervious --config {path}"
    print(f"Now see that lightning.lnd_node in it is your node, then run\n  {command} config check")
    return OK


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in the password database
        return None


def _first_values(home: Path | None) -> dict[str, str]:
    macaroon, certificate = _lnd_files(home)
    return {
        "sqlite3.password": secrets.token_urlsafe(_PASSWORD_BYTES),
        "lightning.lnd_node.ip": "127.0.0.1",
        "lightning.lnd_node.port": "10009",
        "lightning.lnd_node.tls_cert": str(certificate),
        "lightning.lnd_node.admin_macaroon": str(macaroon),
    }


def _lnd_files(home: Path | None) -> tuple[Path, Path]:
    """Give the macaroon and certificate of LND on this machine, where it puts them unless told otherwise."""
    folder = _LND_FOLDER.get(sys.platform, Path(".lnd"))
    macaroons = [folder / "data/chain/bitcoin" / network / "admin.macaroon" for network in _NETWORKS]
    macaroon = next((each for each in macaroons if home and (home / each).exists()), macaroons[0])
    return Path("~") / macaroon, Path("~") / folder / "tls.cert"


def _write(path: Path, text: str, *, force: bool) -> Path | None:
    """Write the file, readable by its owner only; give the name the old one was kept under."""
    kept = _free_name(path) if path.exists() else None
    if kept is not None and not force:
        raise ConfigError(f"{path}: exists already; --force replaces it and keeps the old one as {kept.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kept is not None:
            # Never overwritten: without its password the database made with it cannot be opened.
            path.rename(kept)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    return kept


def _free_name(path: Path) -> Path:
    count = 1
    candidate = path.with_name(f"{path.name}.bak")
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}.bak{count}")
    return candidate
