"""Who may call: the one place where both doors ask.

`authorize` decides about every call, whichever door it comes through; today everyone who reaches the door is let in,
because the doors stand on loopback. `BrowserRules` keeps web pages out before that: a page that a person has open in a
browser can reach loopback too. It is told by its `Origin`, and a page that had its name point at us (DNS rebinding) by
the `Host` it asks for. Programs that send no Origin are untouched.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

import trio

from impervious.config import is_address
from impervious.errors import PermissionDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls."""

    name: str


LOCAL: Final = Principal(name="local")
"""Whoever reaches the door."""

caller: ContextVar[Principal] = ContextVar("caller", default=LOCAL)
"""Who made the call that the present task answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What is known of a call before it is let in."""

    path: str
    """gRPC path or HTTP path."""
    peer: str
    """Address it came from."""
    metadata: Mapping[str, str]
    """gRPC metadata or HTTP headers; names in small letters."""


class Authorizer(Protocol):
    """Decides about a call."""

    async def __call__(self, facts: CallFacts, /) -> Principal:
        """Say who calls.

        Raises:
          Unauthenticated: it does not prove who it is.
          PermissionDenied: it may not do that.
        """
        ...


async def authorize(facts: CallFacts) -> Principal:
    """Let everyone in who reached the door."""
    await trio.lowlevel.checkpoint()
    return LOCAL


class ForeignHost(PermissionDenied):
    """The request is for a host that this daemon is not."""


class ForeignOrigin(PermissionDenied):
    """The request comes from a web page that is not allowed."""


class ForeignLoad(PermissionDenied):
    """A page of another site loads this as an image or a script."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserRules:
    """Which web pages may use the daemon, and by which names it may be asked for."""

    bound: tuple[tuple[str, int], ...]
    """Addresses and ports that the HTTP door listens on."""
    origins: frozenset[str] = frozenset()
    """`server.cors_origins`."""
    hosts: frozenset[str] = frozenset()
    """`server.allowed_hosts`, in small letters."""

    @classmethod
    def of(cls, bound: Iterable[tuple[str, int]], origins: Iterable[str], hosts: Iterable[str]) -> "BrowserRules":
        """Gather them from the configuration."""
        return cls(
            bound=tuple(bound),
            origins=frozenset(origin.lower().rstrip("/") for origin in origins),
            hosts=frozenset(_bare(host) for host in hosts),
        )

    def check(self, headers: Mapping[str, str], *, arrived_at: str | None) -> None:
        """Refuse what a foreign page would send.

        Args:
          headers: of the request; names in small letters.
          arrived_at: our own address on this connection.

        Raises:
          PermissionDenied: says which setting would allow it.
        """
        host, origin = headers.get("host"), headers.get("origin")
        if host is not None and not self.is_ours(host_name(host), arrived_at):
            raise ForeignHost(
                f"Host {_shown(host)} is not this daemon's: ask for an address it listens on, or add the name to"
                " server.allowed_hosts"
            )
        if origin is not None:
            if not self.allows(origin, host, arrived_at):
                raise ForeignOrigin(
                    f"pages of {_shown(origin)} may not use this daemon: add the origin to server.cors_origins"
                )
        elif _sent_by_foreign_page(headers):
            raise ForeignLoad("a page of another site may not load this: call it as an API, with an Origin")

    def is_ours(self, name: str, arrived_at: str | None) -> bool:
        """Whether this daemon may be asked for by that name or address."""
        if name == "localhost" or name in self.hosts:
            return True
        if not is_address(name):
            return any(name == host.lower() for host, _ in self.bound)
        address = ipaddress.ip_address(name)
        own = {host for host, _ in self.bound} | self.hosts | ({arrived_at} if arrived_at else set())
        return address.is_loopback or any(is_address(each) and ipaddress.ip_address(each) == address for each in own)

    def allows(self, origin: str, host: str | None, arrived_at: str | None) -> bool:
        """Whether pages of `origin` may use the daemon: our own, and those that are configured."""
        origin = origin.lower()
        if origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not self.is_ours(_bare(name), arrived_at):
            return False
        if host is not None and parts.netloc == host.lower():
            return True
        return port is not None and any(port == own for _, own in self.bound)

    def is_cross_origin(self, origin: str) -> bool:
        """Whether a browser needs to be told that pages of `origin` may read our answers."""
        return origin.lower() in self.origins


def host_name(host: str) -> str:
    """Take the port off a Host header: "[::1]:8882" is "::1"."""
    host = host.strip()
    if host.startswith("["):
        return _bare(host[1:].partition("]")[0])
    name, _, _ = host.partition(":")
    return _bare(name)


def _bare(name: str) -> str:
    return name.strip().strip("[]").lower().rstrip(".")


def _sent_by_foreign_page(headers: Mapping[str, str]) -> bool:
    """Browsers leave the Origin out of what `<img>` and `<script>` load, but say who asks (Fetch Metadata)."""
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"


def _shown(value: str) -> str:
    return repr(value if len(value) <= 100 else value[:100] + "…")
