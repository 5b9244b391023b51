"""The doors' sockets and certificates: taken before anything else starts, because they are what fails most.

Another program has the port, the certificate cannot be read, the address belongs to another machine: each is an
error of the configuration, and names the key.
"""

import errno
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from impervious.config import Address, ServerConfig
from impervious.config.checks import check_doors
from impervious.errors import ConfigError
from impervious.files import read_small_file
from impervious.rpc import server_context

Bound = tuple[trio.SocketListener, ...]

_CURES: Final = {
    errno.EADDRINUSE: "another program listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: use 127.0.0.1, or one that `ip address` shows",
    errno.EACCES: "this user may not listen there: choose a port from 1024 up",
}

_ENCRYPTED: Final = re.compile(rb"-----BEGIN ENCRYPTED|^Proc-Type: *4, *ENCRYPTED", re.MULTILINE)
"""A key that needs a password, as PKCS #8 (RFC 7468, section 11) or as OpenSSL's older form (RFC 1421)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the doors listen."""

    grpc: Address
    http: Address
    http_text: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What the doors show who they are with. Both are of the same files."""

    grpc: ssl.SSLContext
    http: ssl.SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Everything the doors need of the machine. *Ownership:* whoever opened them closes them."""

    grpc: Bound
    http: Bound
    http_text: Bound
    certificates: Certificates | None
    """None: plaintext."""

    @property
    def addresses(self) -> Addresses:
        """Where they listen; where a name stands for several addresses, the first."""
        return Addresses(
            grpc=_address(self.grpc[0]),
            http=_address(self.http[0]),
            http_text=_address(self.http_text[0]) if self.http_text else None,
        )


@asynccontextmanager
async def open_listeners(config: ServerConfig) -> AsyncIterator[Listeners]:
    """Listen on every address that is configured, and close what nobody has closed.

    Raises:
      ConfigError: an address cannot be had, or a certificate cannot be used; names the key and what to do.
    """
    for _ in check_doors(config):  # who read the file has seen the warnings
        pass
    certificates = load_certificates(config.tls_cert, config.tls_key)
    async with AsyncExitStack() as stack:
        text = config.http_text_addr
        yield Listeners(
            grpc=await _listen(stack, "server.grpc_addr", config.grpc_addr),
            http=await _listen(stack, "server.http_addr", config.http_addr),
            http_text=await _listen(stack, "server.http_text_addr", text) if text else (),
            certificates=certificates,
        )


async def _listen(stack: AsyncExitStack, key: str, address: Address) -> Bound:
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except socket.gaierror as error:
        raise ConfigError(f"{key} {address}: the name is not known here ({error.strerror}): use an address") from error
    except OSError as error:
        cure = _CURES.get(error.errno or 0, str(error))
        raise ConfigError(f"{key} {address} cannot be listened on: {cure}") from error
    for listener in listeners:
        await stack.enter_async_context(listener)
    return tuple(listeners)


def load_certificates(certificate: Path | None, key: Path | None) -> Certificates | None:
    """Read the PEM files, if there are any.

    Raises:
      ConfigError: they cannot be used; names the key.
    """
    if certificate is None or key is None:
        return None
    _check_pem("server.tls_cert", certificate, b"CERTIFICATE-----", "certificate")
    if _ENCRYPTED.search(_check_pem("server.tls_key", key, b"PRIVATE KEY-----", "private key")):
        # OpenSSL would ask for the password at the terminal, and a daemon has none.
        raise ConfigError(f"server.tls_key {key} is encrypted: store it without a password (openssl pkey)")
    certificate, key = certificate.expanduser(), key.expanduser()
    try:
        return Certificates(grpc=server_context(certificate, key), http=_http_context(certificate, key))
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            f"server.tls_cert {certificate} and server.tls_key {key} cannot be used together: they must be PEM files,"
            f" the key unencrypted and that of the certificate ({reason})"
        ) from error


def _check_pem(key: str, path: Path, label: bytes, what: str) -> bytes:
    content = read_small_file(path, key, f"put the path of a PEM {what} there")
    if label not in content:
        raise ConfigError(f"{key}: {path} is not a PEM {what}")
    return content


def _http_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def socket_address(listener: trio.SocketListener) -> tuple[str, int]:
    """Return address and port of a listener."""
    host, port = listener.socket.getsockname()[:2]
    return host, port


def _address(listener: trio.SocketListener) -> Address:
    host, port = socket_address(listener)
    return Address(host=host, port=port)
