"""What there is to know about a machine before it can sell: facts without a judgement.

A fact that could not be learnt is an `Unknown` with the reason, never a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeAlias

from impervious.wireguard.check.firewall import Firewall
from impervious.wireguard.peers import Interface


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why something could not be learnt."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The `wg` program."""

    version: str
    """As it says; empty if it does not run."""
    complaint: str = ""
    """Why it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface (ip-link(8))."""

    up: bool
    addresses: frozenset[IPv4Interface | IPv6Interface]
    """Each with the network it is in."""


Links: TypeAlias = Mapping[str, Link]
"""By name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Facts, of the IP version of `vpn.subnet` where that matters."""

    program: Program
    interface: Interface | Unknown
    links: Links | Unknown
    uplink: str | Unknown
    """Network interface of the default route; empty if there is none."""
    forwards: bool | Unknown
    """Whether the kernel passes packets on (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding)."""
    firewall: Firewall | Unknown
    answers: bool | Unknown
    """Whether something holds the UDP port, seen from this machine."""
