"""Asks the machine what there is to know, changing nothing.

Everything is asked of the programs that an administrator would ask: `wg`, `ip`, `nft`, `iptables`. One that is missing
or refuses leaves a fact unknown.
"""

import json
import shutil
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Final

import trio

from impervious.config.values import Plain
from impervious.errors import WireGuardError
from impervious.wireguard.check.firewall import Firewall, Table
from impervious.wireguard.check.iptables import read_table
from impervious.wireguard.check.machine import Link, Links, Machine, Program, Unknown
from impervious.wireguard.check.nftables import Ruleset, read_ruleset
from impervious.wireguard.peers import Interface
from impervious.wireguard.program import run_program, search_path
from impervious.wireguard.wg import Wg

PATIENCE_S: Final = 5.0
"""For each program; `nft` takes a second on a machine with tens of thousands of rules."""

REFUSAL_S: Final = 0.2
"""How long a closed UDP port of this machine may take to say so; it takes microseconds."""

_FORWARDING: Final = {
    4: Path("/proc/sys/net/ipv4/ip_forward"),
    6: Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}


async def gather(interface: str, binary: Path, *, version: int, server: str, port: int) -> Machine:
    """Look at this machine.

    Args:
      interface: `vpn.interface`.
      binary: `vpn.binary_path`.
      version: 4 or 6, that of `vpn.subnet`.
      server: `vpn.server_ip`.
      port: `vpn.server_port`.
    """
    links = await _links()
    return Machine(
        program=await _program(binary),
        interface=await _interface(Wg(interface, binary, patience_s=PATIENCE_S)),
        links=links,
        uplink=await _uplink(version),
        forwards=_forwards(version),
        firewall=await _firewall(version),
        answers=await _answers(_own(server, links), port),
    )


async def _program(binary: Path) -> Program:
    said = await _run(str(binary), "--version")
    if isinstance(said, Unknown):
        return Program(version="", complaint=said.reason)
    return Program(version=" ".join(said.split()[:2]))


async def _interface(wg: Wg) -> Interface | Unknown:
    try:
        return await wg.interface()
    except WireGuardError as error:
        return Unknown(str(error))


async def _links() -> Links | Unknown:
    said = await _run("ip", "-json", "address", "show")
    if isinstance(said, Unknown):
        return said
    try:
        return read_links(said)
    except ValueError as error:
        return Unknown(f"ip address: {error}")


def read_links(text: str) -> Links:
    """Read what `ip -json address show` printed.

    Raises:
      ValueError: it is not that.
    """
    document: Plain = json.loads(text)
    links: dict[str, Link] = {}
    for entry in document if isinstance(document, list) else ():
        match entry:
            case {"ifname": str(name), "flags": [*flags], "addr_info": [*addresses]}:
                links[name] = Link(
                    up="UP" in flags,
                    addresses=frozenset(
                        ip_interface(f"{each['local']}/{each['prefixlen']}")
                        for each in addresses
                        if isinstance(each, dict) and "local" in each and "prefixlen" in each
                    ),
                )
    return links


async def _uplink(version: int) -> str | Unknown:
    said = await _run("ip", "-json", f"-{version}", "route", "show", "default")
    if isinstance(said, Unknown):
        return said
    try:
        return read_uplink(said)
    except ValueError as error:
        return Unknown(f"ip route: {error}")


def read_uplink(text: str) -> str:
    """Read what `ip -json route show default` printed: the first default route's network interface, or nothing.

    Raises:
      ValueError: it is not that.
    """
    document: Plain = json.loads(text or "[]")
    match document:
        case []:
            return ""
        case [{"dev": str(name)}, *_]:
            return name
        case _:
            raise ValueError("it printed no routes")


def _forwards(version: int) -> bool | Unknown:
    try:
        return _FORWARDING[version].read_text().strip() != "0"
    except OSError as error:
        return Unknown(f"{_FORWARDING[version]}: {error.strerror}")


async def _firewall(version: int) -> Firewall | Unknown:
    nft = await _nftables()
    old = await _iptables(version)
    if isinstance(nft, Unknown):
        # Without nft, iptables is all there is to see; with an nft that refuses, it is not.
        if isinstance(old, Unknown) or shutil.which("nft", path=search_path()):
            return nft
        return Firewall(old.tables)
    return combined(nft, None if isinstance(old, Unknown) else old)


@dataclass(frozen=True, slots=True, kw_only=True)
class Iptables:
    """What iptables shows, and whether nftables shows it too."""

    legacy: bool
    """Its rules live in the kernel's old tables, which nftables does not see."""
    tables: tuple[Table, ...]


def combined(nft: Ruleset, old: Iptables | None) -> Firewall:
    """Put both views together, each rule once: iptables' own wherever only iptables can explain it."""
    if old is None:
        return Firewall(nft.tables)
    ours = nft.tables if old.legacy else [each for each in nft.tables if (each.family, each.name) not in nft.compat]
    seen = {(each.family, each.name) for each in ours}
    theirs = [each for each in old.tables if old.legacy or (each.family, each.name) not in seen]
    return Firewall((*ours, *theirs))


async def _nftables() -> Ruleset | Unknown:
    said = await _run("nft", "--json", "list", "ruleset")
    if isinstance(said, Unknown):
        return said
    try:
        return read_ruleset(said)
    except ValueError as error:
        return Unknown(f"nft: {error}")


async def _iptables(version: int) -> Iptables | Unknown:
    tool, family = ("iptables", "ip") if version == 4 else ("ip6tables", "ip6")
    named = await _run(tool, "--version")
    if isinstance(named, Unknown):
        return named
    tables: list[Table] = []
    for name in ("filter", "nat"):
        said = await _run(tool, "-t", name, "-S")
        if isinstance(said, Unknown):
            return said
        try:
            tables.append(read_table(said, family=family, name=name))
        except ValueError as error:
            return Unknown(f"{tool}: {error}")
    return Iptables(legacy="nf_tables" not in named, tables=tuple(tables))


def _own(server: str, links: Links | Unknown) -> str:
    """Give the address to try the port at: the public one if it is this machine's, which behind a router it is not."""
    addresses = {} if isinstance(links, Unknown) else links
    mine = {str(address.ip) for link in addresses.values() for address in link.addresses}
    return server if server in mine else "127.0.0.1"


async def _answers(address: str, port: int) -> bool | Unknown:
    """Send a datagram that WireGuard ignores: only a closed port says something."""
    family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
    try:
        with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as probe:
            await probe.connect((address, port))
            await probe.send(b"\0")
            with trio.move_on_after(REFUSAL_S):
                await probe.recv(1)
    except ConnectionRefusedError:
        return False
    except OSError as error:
        return Unknown(f"{address} port {port}: {error.strerror}")
    return True


async def _run(*argv: str) -> str | Unknown:
    name = argv[0]
    path = shutil.which(name, path=search_path())
    if path is None:
        return Unknown(f"{name} is not installed")
    try:
        done = await run_program([path, *argv[1:]], patience_s=PATIENCE_S)
    except OSError as error:
        return Unknown(f"{name} cannot be run: {error.strerror}")
    except trio.TooSlowError:
        return Unknown(f"{name} gave no answer in {PATIENCE_S:g} s")
    if done.code:
        return Unknown(f"{name}: {done.complaint.splitlines()[0] if done.complaint else f'exit code {done.code}'}")
    return done.output
