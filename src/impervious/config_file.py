"""The configuration file, and the files it names.

Everything that can be wrong with them is found before anything starts, and said in one line that names the setting and
the path.
"""

import os
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from impervious.config import Config, expand_home, load
from impervious.errors import ConfigError

PLACES: Final = (Path("config/local.config.yml"), Path("config/config.yml"))
"""Where a configuration is looked for when none is named, relative to the working directory."""

_OTHER_ENDING: Final = ".yaml"
_LONGEST_HEX_NAME: Final = 64
"""Characters; a file may be named after a hash, a macaroon is longer."""


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
    config = expand_home(loaded.config, Path.home())
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
    """See that the certificates, keys and macaroon can be read and are what they should be.

    Raises:
      ConfigError: the first that is not.
    """
    lnd, server = config.lightning.lnd, config.server
    _check("lightning.lnd_node.admin_macaroon", lnd.macaroon, _macaroon_problem)
    _check("lightning.lnd_node.tls_cert", lnd.tls_cert, _certificate_problem)
    if server.enabled:
        _check("server.tls_cert", server.tls_cert, _certificate_problem)
        _check("server.tls_key", server.tls_key, _key_problem)


def _check(key: str, path: Path | None, problem_of: Callable[[bytes], str]) -> None:
    if path is None:
        return
    if len(path.name) > _LONGEST_HEX_NAME and _is_hex(path.name.encode()):
        # Not repeated here, as a path would be: it may be a macaroon.
        hint = f": {key}_hex takes hex" if key.startswith("lightning.") else ""
        raise ConfigError(f"{key} must be the path of a file, not its contents in hex{hint}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from None
    problem = problem_of(content)
    if problem:
        raise ConfigError(f"{key}: {path} {problem}")


def _macaroon_problem(content: bytes) -> str:
    if not content:
        return "is empty: copy LND's admin.macaroon again"
    if _is_hex(content.strip()):
        return "holds hex, not the macaroon itself: put its text at lightning.lnd_node.admin_macaroon_hex instead"
    return ""


def _is_hex(content: bytes) -> bool:
    return all(byte in string.hexdigits.encode() for byte in content)


def _certificate_problem(content: bytes) -> str:
    return "" if b"-----BEGIN CERTIFICATE-----" in content else "is not a PEM certificate"


def _key_problem(content: bytes) -> str:
    return "" if b"PRIVATE KEY-----" in content else "is not a PEM private key"


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start + 1})") from None
