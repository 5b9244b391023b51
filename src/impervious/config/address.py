"""Where to listen or to connect, and who can reach it there."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a port to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_address(host: str) -> bool:
    """Whether it is a numeric address, IPv4 or IPv6."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name other than localhost counts as reachable from elsewhere."""
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host.lower().rstrip(".") == "localhost"
