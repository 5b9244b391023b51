"""The configuration file, and the files it names.

Everything that can be wrong with them is found before anything starts, and said in one line that names the setting and
the path.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from impervious.config import Config, expand_home, load
from impervious.errors import ConfigError

PLACES: Final = (Path("config/local.config.yml"), Path("config/config.yml"))
"""Where a configuration is looked for when none is named, relative to the working directory."""

_OTHER_ENDING: Final = ".yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A configuration that was read from a file."""

    path: Path
    config: Config
    """With the home directory in place of `~`."""
    warnings: tuple[str, ...]
    """To be shown once."""

    @property
    def secrets(self) -> tuple[str | None, ...]:
        """What no log line may hold."""
        lnd = self.config.lightning.lnd
        return (self.config.store.password, lnd.macaroon_hex, lnd.lndconnect)


def read_config(named: str | None, *, needs_lnd: bool = True, environ: Mapping[str, str] = os.environ) -> Found:
    """Find, read and check the configuration.

    Args:
      named: what --config says.
      needs_lnd: False for commands that only look: LND's credentials may then be missing or unreadable.
      environ: environment variables.

    Raises:
      ConfigError: one line with what is wrong and what to do.
    """
    path = find_config(named)
    loaded = load(_read_text(path), environ, str(path), needs_lnd=needs_lnd)
    config = _expand(loaded.config)
    if needs_lnd:
        check_files(config)
    warnings = loaded.warnings
    if path.suffix == _OTHER_ENDING:
        warnings = (f"{path}: the documented ending is .yml: rename the file", *warnings)
    return Found(path=path, config=config, warnings=warnings)


def find_config(named: str | None) -> Path:
    """Choose the configuration file.

    Raises:
      ConfigError: there is none; the line lists the places.
    """
    if named is not None:
        path = Path(named)
        if not path.exists():
            raise ConfigError(f"{path}: there is no such file; `impervious init {path}` writes a first one")
        return path
    for ending in (".yml", _OTHER_ENDING):
        for place in PLACES:
            if place.with_suffix(ending).exists():
                return place.with_suffix(ending)
    raise ConfigError(
        f"no configuration found: name one with --config PATH, or put it at {PLACES[0]} or {PLACES[1]}; "
        "`impervious init` writes a first one"
    )


def check_files(config: Config) -> None:
    """Read the certificates, the key and the macaroon as the daemon reads them when it starts.

    Raises:
      ConfigError: the first that cannot be used.
    """
    # Here, because `send`, `tail` and their like check no files and need not load LND's messages.
    from impervious.lnd.credentials import read_credentials
    from impervious.server.listeners import load_certificates

    read_credentials(config.lightning.lnd)
    if config.server.enabled:
        load_certificates(config.server.tls_cert, config.server.tls_key)


def _expand(config: Config) -> Config:
    try:
        return expand_home(config, Path.expanduser)
    except RuntimeError:  # neither HOME nor an entry in the password database, or no such user
        raise ConfigError(
            "a path in the configuration begins with ~, and this user has no home directory: set HOME, or write the"
            " path in full (sqlite3.path has a ~ unless it is set)"
        ) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start + 1})") from None
