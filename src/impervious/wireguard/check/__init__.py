"""Whether this machine can sell tunnels: what `impervious vpn check` shows.

`gather` asks the machine and changes nothing; `judge` is pure; every finding that is not as it should be carries the
command that puts it right.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from impervious.config import VpnConfig, is_address, is_loopback
from impervious.errors import ConfigError
from impervious.wireguard.check.finding import Finding, State, bad, ok, unknown
from impervious.wireguard.check.gather import gather
from impervious.wireguard.check.interface import judge_interface
from impervious.wireguard.check.machine import Links, Machine, Unknown
from impervious.wireguard.check.traffic import judge_traffic
from impervious.wireguard.keys import KEY_BYTES, PublicKey
from impervious.wireguard.terms import Terms

_NOT_YET: Final = PublicKey(bytes(KEY_BYTES)).text
"""Stands for a `vpn.server_pub_key` that is not set, so that everything else can be looked at."""


async def check(config: VpnConfig) -> list[Finding]:
    """Look at this machine and judge it. Needs root to see everything; what it cannot see it calls unknown.

    Args:
      config: what would be sold.
    """
    try:
        terms = _terms(config)
    except ConfigError as error:
        return [bad("configuration", str(error))]
    machine = await gather(
        config.interface,
        config.binary_path,
        version=terms.subnet.network.version,
        server=config.server_ip,
        port=config.server_port,
    )
    return list(judge(config, machine))


def judge(config: VpnConfig, machine: Machine) -> Iterator[Finding]:
    """Judge what was gathered, in the order in which one would put it right.

    Args:
      config: what would be sold.
      machine: what is there.

    Raises:
      ConfigError: the configuration cannot work on any machine.
    """
    terms = _terms(config)
    yield from judge_interface(config, terms, machine)
    if not is_loopback(config.server_ip):  # which the doubts below are about
        yield _public_address(config, machine.links)
    yield from judge_traffic(config.interface, terms, machine)
    for doubt in terms.doubts():
        yield bad(f"vpn.{doubt.setting}", doubt.says, f'vpn: {{{doubt.setting}: "{doubt.better}"}}')


def _terms(config: VpnConfig) -> Terms:
    return Terms.of(replace(config, server_pub_key=config.server_pub_key or _NOT_YET))


def _public_address(config: VpnConfig, links: Links | Unknown) -> Finding:
    name, server = "public address", config.server_ip
    if isinstance(links, Unknown):
        return unknown(name, links.reason)
    if not is_address(server):
        return unknown(name, f"see that {server} leads to this machine", f"getent hosts {server}")
    own = {address.ip for link in links.values() for address in link.addresses}
    if ip_address(server) in own:
        return ok(name, f"{server} is this machine's")
    return unknown(
        name,
        f"{server} is not an address of this machine: the router that has it must pass UDP {config.server_port} on",
    )


__all__ = ("Finding", "Machine", "State", "Unknown", "bad", "check", "gather", "judge")
