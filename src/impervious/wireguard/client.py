"""The buyer's end: the configuration file that `wg-quick` and every WireGuard app read.

Its parts are values (see `terms`), so a seller cannot smuggle a line into it. The file's name is the interface's, which
Linux limits to 15 characters; it holds the private key, so only its owner can read it, from the first byte on.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from impervious.config import Address
from impervious.errors import ConfigError, InvalidArgument, Malformed
from impervious.wireguard.keys import PresharedKey, PrivateKey, PublicKey
from impervious.wireguard.peers import Host, Network
from impervious.wireguard.terms import parse_endpoint, parse_host, parse_hosts, parse_networks

MTU: Final = 1420
"""Bytes: 1500 less WireGuard's 80 over IPv6, so that it fits whichever way the datagrams go."""

KEEPALIVE_S: Final = 25
"""Shorter than any home router forgets a UDP mapping (wg-quick(8))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """One tunnel, seen from the buyer."""

    private_key: PrivateKey
    address: Host
    dns: tuple[Host, ...]
    server_key: PublicKey
    preshared_key: PresharedKey | None
    allowed: tuple[Network, ...]
    endpoint: Address

    @classmethod
    def received(
        cls,
        private_key: PrivateKey,
        *,
        address: str,
        dns: str,
        server_key: str,
        preshared_key: str,
        allowed_ips: str,
        endpoint: str,
    ) -> Self:
        """Read what a seller sent.

        Args:
          private_key: our own.
          address: ours in the tunnel, with or without its /32 or /128.
          dns: addresses separated by commas, or empty.
          server_key: base64.
          preshared_key: base64, or empty.
          allowed_ips: networks separated by commas.
          endpoint: `host:port`.

        Raises:
          Malformed: it says what the seller got wrong.
        """
        try:
            return cls(
                private_key=private_key,
                address=_parse_own(address),
                dns=parse_hosts(dns),
                server_key=PublicKey.parse(server_key),
                preshared_key=PresharedKey.parse(preshared_key) if preshared_key else None,
                allowed=parse_networks(allowed_ips),
                endpoint=parse_endpoint(endpoint),
            )
        except InvalidArgument as error:
            raise Malformed(f"the seller's configuration cannot be used: {error}") from None

    def text(self) -> str:
        """Write the file. It holds the private key."""
        peer = [f"PublicKey = {self.server_key.text}"]
        if self.preshared_key is not None:
            peer.append(f"PresharedKey = {self.preshared_key.text}")
        return "\n".join(
            (
                "[Interface]",
                f"PrivateKey = {self.private_key.text}",
                f"Address = {self.address}/{self.address.max_prefixlen}",
                *([f"DNS = {', '.join(map(str, self.dns))}"] if self.dns else []),
                f"MTU = {MTU}",
                "",
                "[Peer]",
                *peer,
                f"AllowedIPs = {', '.join(map(str, self.allowed))}",
                f"Endpoint = {self.endpoint}",
                f"PersistentKeepalive = {KEEPALIVE_S}",
                "",
            )
        )


def interface_name(contract: str) -> str:
    """Name the buyer's interface for a contract: the same for the same contract, 12 characters.

    Args:
      contract: what names it for good, such as seller and nonce.
    """
    return f"imp-{hashlib.sha256(contract.encode()).hexdigest()[:8]}"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all; one that is there is replaced.

    Raises:
      ConfigError: it cannot be written there; nothing was.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _parse_own(text: str) -> Host:
    address, slash, length = text.partition("/")
    host = parse_host(address)
    if slash and length != str(host.max_prefixlen):
        raise InvalidArgument(f"{text[:64]!r} is not one address: it must end in /{host.max_prefixlen}")
    return host
