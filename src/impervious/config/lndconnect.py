"""What an lndconnect address holds (https://github.com/LN-Zap/lndconnect, lnd_connect_uri.md).

lndconnect://host:port?cert=…&macaroon=…, where `cert` is the DER certificate and `macaroon` the macaroon's bytes, both
in URL-safe base64 without padding. Without `cert` the node has a certificate that the system's authorities vouch for.
"""

import base64
import binascii
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote, urlsplit

from impervious.config.kinds import HOST
from impervious.config.schema import Wrong
from impervious.config.settings import LndConfig
from impervious.config.values import Scalar
from impervious.errors import ConfigError

_PORT: Final = 10009
"""LND's own default, where the address has none."""
_DER_SEQUENCE: Final = 0x30
"""First byte of every X.509 certificate (RFC 5280, Certificate ::= SEQUENCE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lndconnect:
    """The parts of an lndconnect address."""

    host: str
    port: int
    certificate_hex: str | None
    """The PEM file, as hex; None where the system's authorities are to be trusted."""
    macaroon_hex: str | None = field(repr=False)


def parse_lndconnect(uri: str) -> Lndconnect:
    """Read an lndconnect address.

    Raises:
      ConfigError: what is wrong with it; never with its text, which is a secret.
    """
    try:
        parts = urlsplit(uri.strip())
        host, port = parts.hostname or "", _PORT if parts.port is None else parts.port
    except ValueError:
        raise ConfigError("the lndconnect address has no valid host and port") from None
    if parts.scheme != "lndconnect":
        raise ConfigError("an lndconnect address begins with lndconnect://")
    if not _is_host(host) or port == 0:
        raise ConfigError("the lndconnect address has no valid host and port")
    # Not parse_qs: it would take the + of standard base64 for a space.
    query = dict(pair.partition("=")[::2] for pair in parts.query.split("&"))
    certificate = _decode(query.get("cert", ""), "certificate")
    if certificate and certificate[0] != _DER_SEQUENCE:
        raise ConfigError("the lndconnect address holds a certificate that is not one: make the address again")
    macaroon = _decode(query.get("macaroon", ""), "macaroon")
    return Lndconnect(
        host=host,
        port=port,
        certificate_hex=_pem(certificate).hex() if certificate else None,
        macaroon_hex=macaroon.hex() or None,
    )


def resolve_credentials(lnd: LndConfig) -> LndConfig:
    """Leave one way to each credential, where the rest of the program looks for it.

    What an lndconnect address holds wins over the other settings, and hex over a file. An address without a certificate
    means the system's authorities, unless a certificate is configured beside it.

    Raises:
      ConfigError: the address cannot be read.
    """
    if lnd.lndconnect is not None:
        held = parse_lndconnect(lnd.lndconnect)
        lnd = replace(
            lnd,
            host=held.host,
            port=held.port,
            tls_cert_hex=held.certificate_hex or lnd.tls_cert_hex,
            macaroon_hex=held.macaroon_hex or lnd.macaroon_hex,
        )
    return replace(
        lnd,
        tls_cert=None if lnd.tls_cert_hex is not None else lnd.tls_cert,
        macaroon=None if lnd.macaroon_hex is not None else lnd.macaroon,
    )


def _is_host(host: str) -> bool:
    try:
        HOST.read(Scalar("", host, host))
    except Wrong:
        return False
    return True


def _decode(text: str, what: str) -> bytes:
    clean = unquote(text).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return binascii.a2b_base64(clean + "=" * (-len(clean) % 4), strict_mode=True)
    except ValueError:
        raise ConfigError(f"the lndconnect address holds a {what} that is not base64: copy it again, whole") from None


def _pem(der: bytes) -> bytes:
    body = base64.b64encode(der)
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
