"""Judges the WireGuard interface itself: is it there, up, and the one that the configuration tells buyers about?"""

from collections.abc import Iterator

from impervious.config import VpnConfig
from impervious.wireguard.check.finding import Finding, bad, ok, unknown
from impervious.wireguard.check.machine import Link, Machine, Program, Unknown
from impervious.wireguard.peers import Interface
from impervious.wireguard.terms import Terms


def judge_interface(config: VpnConfig, terms: Terms, machine: Machine) -> Iterator[Finding]:
    """Yield what is right and wrong with it."""
    yield _program(config, machine.program)
    yield from _link(config.interface, terms, machine)
    yield _key(config, machine.interface)
    yield _port(config, machine.interface)
    yield _answer(config, machine.answers)


def _program(config: VpnConfig, program: Program) -> Finding:
    if not program.version:
        return bad(
            "program", f"{config.binary_path} does not run: {program.complaint}", "sudo apt install wireguard-tools"
        )
    return ok("program", f"{config.binary_path} is {program.version}")


def _link(name: str, terms: Terms, machine: Machine) -> Iterator[Finding]:
    if isinstance(machine.links, Unknown):
        yield unknown("interface", machine.links.reason)
        return
    link = machine.links.get(name)
    if link is None:
        yield bad("interface", f"there is no {name}", f"sudo wg-quick up {name}")
        return
    if link.up:
        yield ok("interface", f"{name} is up")
    else:
        yield bad("interface", f"{name} is down", f"sudo ip link set {name} up")
    yield _address(name, terms, link)


def _address(name: str, terms: Terms, link: Link) -> Finding:
    subnet = terms.subnet
    if any(address.ip == subnet.server and address.network == subnet.network for address in link.addresses):
        return ok("address", f"{name} has {subnet.server_interface}")
    return bad(
        "address",
        f"{name} does not have {subnet.server_interface}, the first address of vpn.subnet",
        f"sudo ip address add {subnet.server_interface} dev {name}",
    )


def _key(config: VpnConfig, interface: Interface | Unknown) -> Finding:
    if isinstance(interface, Unknown):
        return unknown("key", interface.reason)
    name, actual = config.interface, interface.public_key
    if actual is None:
        file = f"/etc/wireguard/{name}.key"
        return bad(
            "key",
            f"{name} has no private key",
            f"sudo sh -c 'umask 077; wg genkey > {file}; wg set {name} private-key {file}'",
        )
    if config.server_pub_key is None:
        return bad("key", "vpn.server_pub_key is not set: nothing is sold", f'vpn: {{server_pub_key: "{actual}"}}')
    if config.server_pub_key != actual.text:
        return bad(
            "key",
            f"vpn.server_pub_key is {config.server_pub_key}, and {name} has {actual}: no buyer's tunnel would work",
            f'vpn: {{server_pub_key: "{actual}"}}',
        )
    return ok("key", f"{name} has vpn.server_pub_key")


def _port(config: VpnConfig, interface: Interface | Unknown) -> Finding:
    if isinstance(interface, Unknown):
        return unknown("listen port", interface.reason)
    if interface.listen_port == config.server_port:
        return ok("listen port", f"{config.interface} listens on UDP {config.server_port}")
    return bad(
        "listen port",
        f"{config.interface} listens on {interface.listen_port}, and vpn.server_port is {config.server_port}",
        f"sudo wg set {config.interface} listen-port {config.server_port}",
    )


def _answer(config: VpnConfig, answers: bool | Unknown) -> Finding:
    if isinstance(answers, Unknown):
        return unknown("port", answers.reason)
    if answers:
        return ok("port", f"something holds UDP {config.server_port} on this machine")
    return bad(
        "port",
        f"nothing holds UDP {config.server_port} on this machine",
        f"sudo wg set {config.interface} listen-port {config.server_port} && sudo ip link set {config.interface} up",
    )
