"""Where a daemon's HTTP door is: from --url, or from the configuration that the daemon runs with."""

import ssl
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from impervious.cli.exits import UsageError
from impervious.config import Address, Config, ServerConfig
from impervious.config_file import PLACES, read_config
from impervious.errors import ConfigError

_SECURE: Final = {"http": False, "ws": False, "https": True, "wss": True}
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a daemon is reached on its own machine that listens on all addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The HTTP door of a daemon."""

    address: Address
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    path: str = ""
    """What stands before /v1 in the URL, behind a proxy."""

    @property
    def url(self) -> str:
        """As people write it."""
        return f"{'http' if self.tls is None else 'https'}://{self.address}{self.path}"


def add_door_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments that say where the daemon is."""
    parser.add_argument(
        "--url", help="the daemon's HTTP door; otherwise server.http_addr of the configuration (127.0.0.1:8882)"
    )
    parser.add_argument(
        "--cacert", metavar="PATH", help="PEM file of the daemon's certificate, if the system does not know it"
    )


def find_door(args: Namespace) -> Door:
    """Find the daemon that the command line means.

    Raises:
      UsageError: --url is none.
      ConfigError: the configuration cannot be read, or says that the daemon has no door.
    """
    if args.url is not None:
        return door_of_url(args.url, args.cacert)
    if args.config is None and not any(place.exists() for place in PLACES):
        return Door(address=ServerConfig().http_addr, tls=_context(args.cacert) if args.cacert else None)
    return door_of_config(read_config(args.config, needs_lnd=False).config, args.cacert)


def door_of_url(url: str, cacert: str | None = None) -> Door:
    """Read a URL, with or without its scheme.

    Raises:
      UsageError: it is none.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in _SECURE or not parts.hostname or port == 0 or parts.query or "@" in parts.netloc:
        raise UsageError(f"--url {url!r} is not the address of a daemon: write it like http://127.0.0.1:8882")
    secure = _SECURE[parts.scheme]
    if cacert and not secure:
        raise UsageError("--cacert is for a daemon with TLS: its URL begins with https://")
    address = Address(host=parts.hostname, port=port or (443 if secure else 80))
    return Door(address=address, tls=_context(cacert) if secure else None, path=parts.path.rstrip("/"))


def door_of_config(config: Config, cacert: str | None = None) -> Door:
    """Give the door of the daemon that runs with a configuration on this machine.

    Raises:
      ConfigError: it has none, or nobody knows where.
    """
    server = config.server
    if not server.enabled:
        raise ConfigError("server.enabled is false: this daemon has no door; set it to true, or name one with --url")
    if server.http_addr.port == 0:
        raise ConfigError("server.http_addr has port 0, a different one at each start: say with --url which it is")
    host = _EVERYWHERE.get(server.http_addr.host, server.http_addr.host)
    return Door(
        address=Address(host=host, port=server.http_addr.port),
        tls=_own_context(Path(cacert) if cacert else server.tls_cert) if server.tls_cert else None,
    )


def _context(cacert: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if cacert:
        _trust(context, Path(cacert), f"--cacert {cacert}")
    return context


def _own_context(certificate: Path | None) -> ssl.SSLContext:
    """Trust exactly the certificate that the daemon shows: then its name, which is rarely 127.0.0.1, says nothing."""
    assert certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _trust(context, certificate, f"server.tls_cert {certificate}")
    return context


def _trust(context: ssl.SSLContext, certificate: Path, name: str) -> None:
    # A daemon's certificate counts by itself, also when it is not an authority's (default since Python 3.13).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate.expanduser())
    except ssl.SSLError:
        raise ConfigError(f"{name} holds no PEM certificate") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
