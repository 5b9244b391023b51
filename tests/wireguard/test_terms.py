from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from impervious.config import Address, VpnConfig, load
from impervious.errors import ConfigError, InvalidArgument
from impervious.wireguard import PrivateKey, Subnet, Terms
from impervious.wireguard.terms import parse_endpoint, parse_host, parse_hosts, parse_network, parse_networks

KEY = PrivateKey(bytes(32)).public
CONFIG = VpnConfig(server_pub_key=KEY.text, server_ip="203.0.113.1", allowed_ips="0.0.0.0/0, ::/0", dns="10.0.0.1")


def test_a_sellers_configuration() -> None:
    terms = Terms.of(CONFIG)
    assert terms == Terms(
        server_key=KEY,
        endpoint=Address(host="203.0.113.1", port=51820),
        subnet=Subnet(ip_network("10.0.0.0/24")),
        allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")),
        dns=(ip_address("10.0.0.1"),),
    )
    assert list(terms.doubts()) == []


def test_buyers_may_keep_their_own_resolvers() -> None:
    assert Terms.of(replace(CONFIG, dns="none")).dns == ()
    assert load("vpn: {dns: None}", {}, "c.yml", needs_lnd=False).config.vpn.dns == "none"
    assert load("vpn: {dns: ''}", {}, "c.yml", needs_lnd=False).config.vpn.dns == VpnConfig().dns, "as every empty key"


def test_an_ipv6_server_gets_its_brackets() -> None:
    assert str(Terms.of(replace(CONFIG, server_ip="2001:db8::1")).endpoint) == "[2001:db8::1]:51820"
    assert str(Terms.of(replace(CONFIG, server_ip="vpn.example.com")).endpoint) == "vpn.example.com:51820"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (replace(CONFIG, server_pub_key=None), "vpn.server_pub_key: .*44 characters"),
        (replace(CONFIG, server_ip="0.0.0.0"), "vpn.server_ip: .*put the public one"),
        (replace(CONFIG, server_ip="::"), "vpn.server_ip: "),
        (replace(CONFIG, server_ip="224.0.0.1"), "vpn.server_ip: "),
        (replace(CONFIG, server_ip="a b"), "vpn.server_ip: .*host name"),
        (replace(CONFIG, server_ip="fe80::1%eth0"), "vpn.server_ip: .*host name"),
        (replace(CONFIG, subnet="10.0.0.0/31"), "vpn.subnet: .*no room"),
        (replace(CONFIG, subnet="127.0.0.0/8"), "vpn.subnet: .*cannot be routed"),
        (replace(CONFIG, allowed_ips=""), "vpn.allowed_ips: .*not a network"),
        (replace(CONFIG, allowed_ips="::/0"), "vpn.allowed_ips: none of it is IPv4"),
        (replace(CONFIG, subnet="fd00::/64", allowed_ips="0.0.0.0/0"), "vpn.allowed_ips: none of it is IPv6"),
        (replace(CONFIG, dns="127.0.0.53"), "vpn.dns: .*not the address of a machine"),
        (replace(CONFIG, dns="8.8.8.8, 0.0.0.0"), "vpn.dns: "),
    ],
)
def test_what_cannot_be_sold_names_its_setting(changed: VpnConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Terms.of(changed)


@pytest.mark.parametrize(
    ("changed", "doubts"),
    [
        (VpnConfig(server_pub_key=KEY.text), {"server_ip", "allowed_ips"}),  # the published sample
        (replace(CONFIG, server_ip="localhost"), {"server_ip"}),
        (replace(CONFIG, subnet="8.8.8.0/24"), {"subnet"}),
        (replace(CONFIG, allowed_ips="10.0.0.0/24", dns="9.9.9.9"), {"dns"}),
        (replace(CONFIG, allowed_ips="10.0.0.0/24"), set()),
        (replace(CONFIG, dns="none"), set()),
        (replace(CONFIG, subnet="fd00::/64", dns="fd00::1", allowed_ips="::/0"), {"allowed_ips"}),
    ],
)
def test_what_is_probably_not_meant(changed: VpnConfig, doubts: set[str]) -> None:
    found = list(Terms.of(changed).doubts())
    assert {doubt.setting for doubt in found} == doubts
    for doubt in found:
        if doubt.setting == "allowed_ips":
            better = Terms.of(replace(changed, allowed_ips=doubt.better))
            assert "allowed_ips" not in {left.setting for left in better.doubts()}


@pytest.mark.parametrize("text", ["203.0.113.1:51820", "[2001:db8::1]:1", "vpn.example.com:65535", "localhost:51820"])
def test_endpoints(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "203.0.113.1",
        ":51820",
        "203.0.113.1:",
        "203.0.113.1:0",
        "203.0.113.1:065",
        "203.0.113.1:65536",
        "203.0.113.1:+1",
        "203.0.113.1:1\n",
        "2001:db8::1:51820",
        "[203.0.113.1]:51820",
        "[::]:51820",
        "0.0.0.0:51820",
        "a..b:1",
        "-a:1",
        "a" * 64 + ":1",
        ".".join(["a" * 60] * 5) + ":1",
        "a b:1",
        "a\nPostUp = x:1",
        "[fe80::1%a\nPostUp = x]:1",
    ],
)
def test_no_endpoints(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_endpoint(text)


def test_lists() -> None:
    assert parse_hosts(" 10.0.0.1 ,fd00::1, 10.0.0.1") == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert parse_hosts(" ") == ()
    assert parse_networks("10.0.0.7/24,::/0") == (ip_network("10.0.0.0/24"), ip_network("::/0"))
    with pytest.raises(InvalidArgument, match="65 are too many"):
        parse_hosts(",".join(["10.0.0.1"] * 65))


@pytest.mark.parametrize("text", ["", "x", "10.0.0.1/32", "fe80::1%eth0", "fe80::1%a\nb", "127.0.0.1", "::", "ff02::1"])
def test_no_hosts(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not the address of a machine"):
        parse_host(text)


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "fe80::%eth0/64", "fe80::1%a\nb", "10.0.0.0/24\n"])
def test_no_networks(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not a network"):
        parse_network(text)
