"""What opens LND's door: where it listens, the certificate that proves it, the macaroon that it asks for.

They come from files, hex or an lndconnect address (`config.LndConfig`). Files are read anew for every connection,
because LND replaces its certificate when that expires and operators bake new macaroons. Neither a macaroon nor the text
of a file appears in any error or repr.
"""

import base64
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from impervious.config import LndConfig, resolve_credentials
from impervious.errors import ConfigError, InvalidArgument
from impervious.files import is_hex, read_small_file
from impervious.lnd import macaroon
from impervious.model import NodePubkey
from impervious.rpc import client_context

_KEY: Final = "lightning.lnd_node."
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_PEM: Final = re.compile(_PEM_BEGIN + rb".*?-----END CERTIFICATE-----", re.DOTALL)
"""A certificate; what surrounds it, in whatever encoding, is a comment (RFC 7468, section 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """All that a connection to one LND needs, in memory."""

    host: str
    port: int
    certificate: str | None
    """PEM, the only root that is trusted; None: the system's roots."""
    macaroon: bytes | None = field(repr=False)
    """As in the file; None for an LND that runs with --no-macaroons."""
    pubkey: NodePubkey | None = None
    """The node it must be; None: any."""

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def ssl_context(self) -> ssl.SSLContext:
        """Make a TLS context that trusts exactly this node."""
        return client_context(self.certificate)

    def metadata(self) -> dict[str, str | bytes]:
        """Return what every call carries (lnd docs/macaroons.md: the binary macaroon as hex)."""
        return {} if self.macaroon is None else {"macaroon": self.macaroon.hex()}


Source = Callable[[], Credentials]
"""Reads credentials as they are now; raises ConfigError."""


def read_credentials(config: LndConfig) -> Credentials:
    """Read the files that a configuration names, once.

    Raises:
      ConfigError: one is missing, unreadable or not what it should be; names the setting, never the content.
    """
    config = resolve_credentials(config)
    return Credentials(
        host=config.host,
        port=config.port,
        certificate=_certificate(config),
        macaroon=_macaroon(config),
        pubkey=_pubkey(config),
    )


def _certificate(config: LndConfig) -> str | None:
    key = f"{_KEY}tls_cert_hex"
    if config.tls_cert_hex is not None:
        data = _unhex(config.tls_cert_hex, key)
    elif config.tls_cert is not None:
        key = f"{_KEY}tls_cert"
        data = read_small_file(config.tls_cert, key, "put the path of LND's tls.cert there")
        key = f"{key}: {config.tls_cert}"
    else:
        return None
    if _PEM_BEGIN not in data:
        what = "a private key" if b"PRIVATE KEY-----" in data else "no certificate"
        raise ConfigError(f"{key} holds {what}: put LND's tls.cert there, a PEM file")
    try:
        text = "".join(f"{each.decode('ascii')}\n" for each in _PEM.findall(data))
        if not text:  # a beginning without an end; as a root, an empty text would mean the system's
            raise ValueError
        client_context(text)
    except (ssl.SSLError, ValueError):  # ValueError: also what is not ASCII
        raise ConfigError(f"{key} holds a damaged certificate: copy LND's tls.cert again, whole") from None
    return text


def _macaroon(config: LndConfig) -> bytes | None:
    key = f"{_KEY}admin_macaroon_hex"
    if config.macaroon_hex is not None:
        data = _unhex(config.macaroon_hex, key)
    elif config.macaroon is not None:
        key = f"{_KEY}admin_macaroon"
        data = read_small_file(config.macaroon, key, "put the path of LND's admin.macaroon there")
        key = f"{key}: {config.macaroon}"
    else:
        return None
    if not macaroon.looks_like_one(data):
        raise ConfigError(f"{key} holds {_mistaken_for_macaroon(data)}")
    return data


def _mistaken_for_macaroon(data: bytes) -> str:
    """Describe what was put in a macaroon's place, and the cure; never the content."""
    text = data.strip()
    if not text:
        return "no macaroon, it is empty: copy LND's admin.macaroon again"
    if is_hex(text):
        return f"no macaroon but its text in hex: put that into {_KEY}admin_macaroon_hex instead"
    if text.startswith(b"lndconnect://"):
        return f"no macaroon but an lndconnect address: put its text into {_KEY}lndconnect instead"
    if _is_base64_of_macaroon(text):
        return (
            "no macaroon but its text in base64: copy LND's admin.macaroon, the binary file, or decode it (base64 -d)"
        )
    return "no macaroon: copy LND's admin.macaroon again, as the binary file it is"


def _is_base64_of_macaroon(text: bytes) -> bool:
    padded = text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4)
    try:
        return macaroon.looks_like_one(
            base64.b64decode(padded, altchars=b"-_" if b"-" in text or b"_" in text else None)
        )
    except ValueError:
        return False


def _pubkey(config: LndConfig) -> NodePubkey | None:
    if config.pubkey is None:
        return None
    try:
        return NodePubkey.parse(config.pubkey)
    except InvalidArgument as error:
        raise ConfigError(f"{_KEY}pub_key: {error}") from error


def _unhex(text: str, key: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigError(f"{key} is not hexadecimal: copy it again, whole") from None
