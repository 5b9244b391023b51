"""Facts become findings; that their commands work is `test_check`."""

import subprocess
from dataclasses import replace
from ipaddress import ip_interface

import pytest
from tests.wireguard.lab import alone, require_lab

from impervious.config import VpnConfig
from impervious.errors import ConfigError
from impervious.wireguard import Interface, PrivateKey
from impervious.wireguard.check import Finding, Machine, State, Unknown, check, judge
from impervious.wireguard.check.firewall import Act, Chain, Firewall, Match, Packet, Rule, Table, unjudged
from impervious.wireguard.check.firewall import Answer as A
from impervious.wireguard.check.machine import Link, Program

KEY = PrivateKey.generate().public
OTHER = PrivateKey.generate().public
CONFIG = VpnConfig(
    server_pub_key=KEY.text,
    server_ip="198.51.100.1",
    allowed_ips="0.0.0.0/0, ::/0",
    dns="10.0.0.1",
    subnet="10.0.0.0/24",
)


def link(*addresses: str, up: bool = True) -> Link:
    return Link(up=up, addresses=frozenset(map(ip_interface, addresses)))


def chain(hook: str, *rules: Rule, drops: bool = False, translates: bool = False) -> Chain:
    return Chain(name=hook, hook=hook, rules=rules, drops=drops, translates=translates)


def table(*chains: Chain, tool: str = "nft", family: str = "inet", name: str = "t") -> Table:
    return Table(tool=tool, family=family, name=name, chains={each.name: each for each in chains})


def met(judge: Match, act: Act = Act.ACCEPT) -> Rule:
    return Rule((judge,), act)


def is_onward(packet: Packet) -> A:
    return A.of(packet.into == "wg0" and packet.out == "eth0" and packet.target.is_global)


def is_answer(packet: Packet) -> A:
    return A.of(packet.state == "established")


def is_query(packet: Packet) -> A:
    return A.of(packet.into == "wg0" and packet.port == 53)


def is_arrival(packet: Packet) -> A:
    return A.of(packet.into == "eth0" and packet.protocol == "udp" and packet.port == 51820)


FILTER = table(
    chain("forward", met(is_answer), met(is_onward), drops=True),
    chain("input", met(is_arrival), met(is_query), drops=True),
)
NAT = table(chain("postrouting", met(is_onward, Act.TRANSLATE), translates=True), family="ip", name="nat")

MACHINE = Machine(
    program=Program(version="wireguard-tools v1"),
    interface=Interface(public_key=KEY, listen_port=51820),
    links={
        "lo": link("127.0.0.1/8", "::1/128"),
        "eth0": link("198.51.100.1/24"),
        "lan0": link("192.168.9.1/24", "fe80::1/64"),
        "wg0": link("10.0.0.1/24"),
    },
    uplink="eth0",
    forwards=True,
    firewall=Firewall((FILTER, NAT)),
    answers=True,
)

TRAFFIC = (
    "arrival",
    "forwarding rules",
    "address translation",
    "isolation",
    "private networks",
    "own services",
    "resolver",
)
ALL = ("program", "interface", "address", "key", "listen port", "port", "public address", "forwarding", *TRAFFIC)


def found(machine: Machine = MACHINE, config: VpnConfig = CONFIG) -> dict[str, Finding]:
    return {each.name: each for each in judge(config, machine)}


def wrong(machine: Machine = MACHINE, config: VpnConfig = CONFIG) -> dict[str, Finding]:
    return {name: each for name, each in found(machine, config).items() if each.state is not State.OK}


def the_one(machine: Machine = MACHINE, config: VpnConfig = CONFIG) -> Finding:
    (only,) = wrong(machine, config).values()
    assert only.says
    return only


def test_a_good_machine() -> None:
    assert wrong() == {}
    assert tuple(found()) == ALL
    assert all(each.says and not each.fix for each in found().values())


# --- The interface ----------------------------------------------------------------------------------------------------


def test_no_program() -> None:
    finding = the_one(replace(MACHINE, program=Program(version="", complaint="wg is not installed")))
    assert (finding.name, finding.state) == ("program", State.BAD)
    assert finding.fix == "sudo apt install wireguard-tools"
    assert "wg is not installed" in finding.says


def test_no_interface() -> None:
    machine = replace(MACHINE, links={"eth0": link("198.51.100.1/24")}, interface=Unknown("no such interface"))
    findings = wrong(machine)
    assert set(findings) == {"interface", "key", "listen port"}
    assert findings["interface"].fix == "sudo wg-quick up wg0"
    assert findings["key"].state is State.UNKNOWN
    assert findings["key"].says == "no such interface"


def test_an_interface_that_is_down_or_has_another_address() -> None:
    links = {"eth0": link("198.51.100.1/24"), "wg0": link("10.0.0.2/24", "10.0.0.1/16", up=False)}
    findings = wrong(replace(MACHINE, links=links))
    assert {name: finding.fix for name, finding in findings.items()} == {
        "interface": "sudo ip link set wg0 up",
        "address": "sudo ip address add 10.0.0.1/24 dev wg0",
    }


def test_keys() -> None:
    none = the_one(replace(MACHINE, interface=Interface(public_key=None, listen_port=51820)))
    assert none.fix == (
        "sudo sh -c 'umask 077; wg genkey > /etc/wireguard/wg0.key; wg set wg0 private-key /etc/wireguard/wg0.key'"
    )
    for config, says in ((CONFIG, "no buyer's tunnel would work"), (replace(CONFIG, server_pub_key=None), "not set")):
        finding = the_one(replace(MACHINE, interface=Interface(public_key=OTHER, listen_port=51820)), config)
        assert (finding.name, finding.state) == ("key", State.BAD)
        assert says in finding.says
        assert finding.fix == f'vpn: {{server_pub_key: "{OTHER}"}}'


def test_ports() -> None:
    finding = the_one(replace(MACHINE, interface=Interface(public_key=KEY, listen_port=40000)))
    assert (finding.name, finding.fix) == ("listen port", "sudo wg set wg0 listen-port 51820")
    finding = the_one(replace(MACHINE, answers=False))
    assert (finding.name, finding.state) == ("port", State.BAD)
    finding = the_one(replace(MACHINE, answers=Unknown("no network")))
    assert (finding.name, finding.state, finding.says) == ("port", State.UNKNOWN, "no network")


def test_public_addresses() -> None:
    finding = the_one(config=replace(CONFIG, server_ip="203.0.113.1"))
    assert (finding.name, finding.state) == ("public address", State.UNKNOWN)
    assert "the router that has it must pass UDP 51820 on" in finding.says
    finding = the_one(config=replace(CONFIG, server_ip="vpn.example.com"))
    assert (finding.state, finding.fix) == (State.UNKNOWN, "getent hosts vpn.example.com")
    finding = the_one(config=replace(CONFIG, server_ip="127.0.0.1"))
    assert (finding.name, finding.state) == ("vpn.server_ip", State.BAD)


def test_settings_that_are_probably_not_meant() -> None:
    finding = the_one(config=replace(CONFIG, allowed_ips="0.0.0.0/0"))
    assert (finding.name, finding.state) == ("vpn.allowed_ips", State.BAD)
    assert finding.fix == 'vpn: {allowed_ips: "0.0.0.0/0, ::/0"}'


# --- Traffic ----------------------------------------------------------------------------------------------------------


def test_a_kernel_that_does_not_forward() -> None:
    finding = the_one(replace(MACHINE, forwards=False))
    assert (finding.name, finding.state) == ("forwarding", State.BAD)
    assert "net.ipv4.ip_forward=1" in finding.fix
    finding = the_one(replace(MACHINE, forwards=Unknown("no /proc")))
    assert (finding.state, finding.says) == (State.UNKNOWN, "no /proc")


@pytest.mark.parametrize(
    "machine",
    [
        replace(MACHINE, firewall=Unknown("not permitted")),
        replace(MACHINE, uplink=Unknown("not permitted")),
        replace(MACHINE, links=Unknown("not permitted")),
    ],
)
def test_what_was_not_seen_is_not_judged(machine: Machine) -> None:
    findings = wrong(machine)
    assert set(findings) >= set(TRAFFIC)
    for finding in findings.values():
        assert (finding.state, finding.says) == (State.UNKNOWN, "not permitted")


def test_no_default_route() -> None:
    findings = wrong(replace(MACHINE, uplink=""))
    assert set(findings) == set(TRAFFIC)
    assert findings["forwarding rules"].state is State.BAD
    assert {findings[name].state for name in TRAFFIC if name != "forwarding rules"} == {State.UNKNOWN}


def test_no_firewall_at_all() -> None:
    findings = wrong(replace(MACHINE, firewall=Firewall()))
    assert set(findings) == {"address translation", "isolation", "private networks", "own services"}
    assert {finding.state for finding in findings.values()} == {State.BAD}
    assert all(finding.fix.startswith("sudo nft 'add table inet vpn_guard; ") for finding in findings.values())
    assert "169.254.0.0/16" in findings["private networks"].fix
    assert "tcp dport != 53" in findings["own services"].fix
    assert "udp dport != 53" in findings["own services"].fix
    elsewhere = wrong(replace(MACHINE, firewall=Firewall()), replace(CONFIG, dns="9.9.9.9"))
    assert "dport" not in elsewhere["own services"].fix


def test_a_firewall_that_drops_everything() -> None:
    closed = table(chain("forward", drops=True), chain("input", drops=True), family="ip", name="filter")
    insert = "sudo nft 'insert rule ip filter"
    findings = wrong(replace(MACHINE, firewall=Firewall((closed, NAT))))
    assert {name: finding.fix for name, finding in findings.items()} == {
        "arrival": f"{insert} input udp dport 51820 accept'",
        "forwarding rules": (
            f"""{insert} forward iifname "wg0" oifname "eth0" ip saddr 10.0.0.0/24 accept' && """
            f"""{insert} forward iifname "eth0" oifname "wg0" ct state established,related accept'"""
        ),
        "resolver": (
            f"""{insert} input iifname "wg0" ip daddr 10.0.0.1 udp dport 53 accept' && """
            f"""{insert} input iifname "wg0" ip daddr 10.0.0.1 tcp dport 53 accept'"""
        ),
    }


def test_iptables_alone_is_spoken_to_in_its_own_language() -> None:
    opened = table(chain("forward"), chain("input"), tool="iptables", family="ip", name="filter")
    findings = wrong(replace(MACHINE, firewall=Firewall((opened,))))
    assert {name: finding.fix for name, finding in findings.items()} == {
        "address translation": "sudo iptables -t nat -A POSTROUTING -s 10.0.0.0/24 -o eth0 -j MASQUERADE",
        "isolation": "sudo iptables -I FORWARD -i wg0 -o wg0 -j DROP",
        "private networks": (
            "sudo iptables -I FORWARD -i wg0 -d 10.0.0.0/8,100.64.0.0/10,169.254.0.0/16,172.16.0.0/12,192.168.0.0/16"
            " -j DROP"
        ),
        "own services": (
            "sudo iptables -I INPUT -i wg0 -p tcp ! --dport 53 -m conntrack --ctstate NEW -j DROP && "
            "sudo iptables -I INPUT -i wg0 -p udp ! --dport 53 -m conntrack --ctstate NEW -j DROP"
        ),
    }
    closed = table(chain("forward", drops=True), tool="iptables", family="ip", name="filter")
    finding = wrong(replace(MACHINE, firewall=Firewall((closed, NAT))))["forwarding rules"]
    assert finding.fix.startswith("sudo iptables -I forward -i wg0 -o eth0 -s 10.0.0.0/24 -j ACCEPT && ")


def test_a_doubt_is_called_one() -> None:
    doubtful = table(chain("forward", met(unjudged, Act.DROP)), chain("input", met(unjudged, Act.DROP)))
    nat = table(chain("postrouting", met(unjudged, Act.TRANSLATE), translates=True), name="n")
    findings = wrong(replace(MACHINE, firewall=Firewall((doubtful, nat))))
    assert set(findings) == set(TRAFFIC)
    assert {finding.state for finding in findings.values()} == {State.UNKNOWN}
    assert all(finding.fix for finding in findings.values())
    assert findings["isolation"].says == "perhaps buyers reach each other"


def test_one_private_network_is_enough() -> None:
    def is_lan(packet: Packet) -> A:
        return A.of(packet.out == "lan0")

    leaking = table(
        chain("forward", met(is_answer), met(is_lan), met(is_onward), drops=True),
        chain("input", met(is_arrival), met(is_query), drops=True),
    )
    finding = the_one(replace(MACHINE, firewall=Firewall((leaking, NAT))))
    assert finding.name == "private networks"
    assert "192.168.9.2 through lan0" in finding.says


def test_one_open_port_is_enough() -> None:
    def is_lnd(packet: Packet) -> A:
        return A.of(packet.into == "wg0" and packet.port == 10009 and str(packet.target) == "198.51.100.1")

    leaking = table(
        chain("forward", met(is_answer), met(is_onward), drops=True),
        chain("input", met(is_arrival), met(is_query), met(is_lnd), drops=True),
    )
    finding = the_one(replace(MACHINE, firewall=Firewall((leaking, NAT))))
    assert finding.name == "own services"
    assert "TCP 10009 of 198.51.100.1 (LND)" in finding.says


def test_answers_must_come_back() -> None:
    one_way = table(
        chain("forward", met(is_onward), drops=True), chain("input", met(is_arrival), met(is_query), drops=True)
    )
    assert the_one(replace(MACHINE, firewall=Firewall((one_way, NAT)))).name == "forwarding rules"


def test_a_public_subnet_may_be_routed() -> None:
    config = replace(CONFIG, subnet="8.8.8.0/24", dns="9.9.9.9")
    links = {"eth0": link("198.51.100.1/24"), "wg0": link("8.8.8.1/24")}
    findings = wrong(replace(MACHINE, links=links, firewall=Firewall((FILTER,))), config)
    assert findings["address translation"].state is State.UNKNOWN
    assert "routes it to this machine" in findings["address translation"].says


def test_a_subnet_that_is_a_whole_private_network() -> None:
    config = replace(CONFIG, subnet="10.0.0.0/8")
    machine = replace(MACHINE, links={"eth0": link("198.51.100.1/24"), "wg0": link("10.0.0.1/8")})
    assert set(found(machine, config)) == set(ALL)


def test_an_ipv6_subnet() -> None:
    config = replace(CONFIG, subnet="fd00::/64", dns="fd00::1", server_ip="2001:db8::5")
    links = {"eth0": link("198.51.100.1/24", "fe80::5/64", "2001:db8::5/64"), "wg0": link("fd00::1/64")}
    machine = replace(MACHINE, links=links, firewall=Firewall())
    findings = wrong(machine, config)
    assert set(findings) == {"address translation", "isolation", "private networks", "own services"}
    assert "ip6 saddr fd00::/64" in findings["address translation"].fix
    assert "ip6 daddr { fc00::/7, fe80::/10 }" in findings["private networks"].fix
    assert "net.ipv6.conf.all.forwarding=1" in wrong(replace(machine, forwards=False), config)["forwarding"].fix


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, subnet="fd00::/64", dns="fd00::1", server_ip="2001:db8::5")]
)
def test_nft_takes_every_rule(config: VpnConfig) -> None:
    """That they do what they should is `test_check`; here all are at least nft's language."""
    require_lab()
    family = "ip6" if ":" in config.subnet else "ip"
    closed = table(chain("forward", drops=True), chain("input", drops=True), family=family, name="filter")
    setup = f"add table {family} filter; add chain {family} filter input; add chain {family} filter forward; "
    for firewall in (Firewall(), Firewall((closed,))):
        for finding in wrong(replace(MACHINE, firewall=firewall), config).values():
            for fix in finding.fix.split(" && "):
                if not fix.startswith("sudo nft '"):
                    continue
                rules = fix.removeprefix("sudo nft '").removesuffix("'")
                command = alone("nft", "--check", setup + rules)
                checked = subprocess.run(command, capture_output=True, text=True, check=False)
                assert checked.returncode == 0, (rules, checked.stderr)


# --- The configuration ------------------------------------------------------------------------------------------------


async def test_a_configuration_that_cannot_be_is_all_there_is_to_say() -> None:
    config = replace(CONFIG, subnet="10.0.0.0/31")
    (finding,) = await check(config)
    assert (finding.name, finding.state) == ("configuration", State.BAD)
    assert finding.says.startswith("vpn.subnet: ")
    with pytest.raises(ConfigError):
        list(judge(config, MACHINE))
