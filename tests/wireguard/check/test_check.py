"""A machine is set up as docs/vpn.md says, or by the commands of the findings; real packets are the proof."""

import json
import sys
from functools import partial
from ipaddress import ip_address

import pytest
import trio
from tests.wireguard.lab import Machine
from tests.wireguard.town import NAS, SELLER, SOMEWHERE, SOMEWHERE_6, Found, Town, documented

from impervious.wireguard import PrivateKey, PublicKey

KEY = PrivateKey.generate()
GOOD: dict[str, str | int] = {
    "server_pub_key": KEY.public.text,
    "server_ip": SELLER,
    "allowed_ips": "0.0.0.0/0, ::/0",
    "dns": "10.0.0.1",
}

ABOUT_TRAFFIC = {
    "forwarding",
    "arrival",
    "forwarding rules",
    "address translation",
    "isolation",
    "private networks",
    "own services",
    "resolver",
}

NFT_THAT_DROPS = """
nft -f - <<'END'
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iif lo accept
  }
  chain forward { type filter hook forward priority filter; policy drop; }
}
END
"""
IPTABLES_THAT_DROPS = """
for tool in iptables ip6tables; do
  $tool -P INPUT DROP; $tool -P FORWARD DROP
  $tool -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; $tool -A INPUT -i lo -j ACCEPT
done
"""


async def reached(buyer: Machine) -> set[str]:
    """Say what a buyer gets to."""
    tries = {
        "somewhere": partial(buyer.ping, SOMEWHERE, within_s=2),
        "nas": partial(buyer.ping, NAS, within_s=0.3),
        "other buyer": partial(buyer.ping, "10.0.0.3", within_s=0.3),
        "lnd inside": partial(buyer.connects, "10.0.0.1", 10009),
        "lnd outside": partial(buyer.connects, SELLER, 10009),
        "resolver": partial(buyer.connects, "10.0.0.1", 53),
    }
    found: set[str] = set()

    async def attempt(what: str) -> None:
        if await tries[what]():
            found.add(what)

    assert await buyer.ping(SOMEWHERE)  # the handshake is over
    async with trio.open_nursery() as nursery:
        for what in tries:
            nursery.start_soon(attempt, what)
    return found


SAFE = {"somewhere", "resolver"}
EVERYTHING = {"somewhere", "nas", "other buyer", "lnd inside", "lnd outside", "resolver"}


async def two_sales(town: Town, server: PublicKey) -> Machine:
    for number, buyer in enumerate(town.buyers, start=2):
        await town.sell(buyer, server, ip_address(f"10.0.0.{number}"))
    return town.buyers[0]


def not_ok(found: Found) -> set[str]:
    return {name for name, (state, _, _) in found.items() if state != "ok"}


@pytest.mark.slow
async def test_the_documentation_sets_a_machine_up(town: Town) -> None:
    assert await town.buyers[0].ping(SOMEWHERE_6)
    said = await town.sudo(documented("vpn.md"))
    key = PublicKey.parse(said.splitlines()[-1])
    (found,) = await town.check({**GOOD, "server_pub_key": key.text})
    assert set(found) > ABOUT_TRAFFIC
    assert {name: found[name] for name in not_ok(found)} == {}
    (town.folder / "config.yml").write_text(json.dumps({"vpn": {**GOOD, "server_pub_key": key.text}}))
    verb = ("vpn", "check", "--config", str(town.folder / "config.yml"))
    assert "This machine can sell." in await town.seller.run(sys.executable, "-m", "impervious", *verb)

    buyer = await two_sales(town, key)
    async with town.seller.listening(10009, 53):
        assert await reached(buyer) == SAFE
    assert not await buyer.ping(SOMEWHERE_6, within_s=0.2), "IPv6 went around the tunnel"
    assert await buyer.ping("10.0.0.1")

    rules = await town.sudo("nft list ruleset")
    await town.sudo("wg-quick down wg0; wg-quick up wg0")
    assert await town.sudo("nft list ruleset") == rules


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ("", {"forwarding", "address translation", "isolation", "private networks", "own services"}),
        (NFT_THAT_DROPS, {"forwarding", "address translation", "arrival", "forwarding rules", "resolver"}),
        (IPTABLES_THAT_DROPS, {"forwarding", "address translation", "arrival", "forwarding rules", "resolver"}),
    ],
    ids=["no firewall", "nftables", "iptables"],
)
async def test_the_commands_of_the_findings_set_a_machine_up(town: Town, before: str, wrong: set[str]) -> None:
    await town.seller.add_wireguard(KEY, "10.0.0.1/24", listen_port=51820)
    if before:
        await town.sudo(before)
    # The second look is there because letting buyers through lets them into the LAN, too.
    first, _, last = await town.check(GOOD, rounds=3)
    assert not_ok(first) == wrong
    assert {name: last[name] for name in not_ok(last)} == {}

    buyer = await two_sales(town, KEY.public)
    async with town.seller.listening(10009, 53):
        assert await reached(buyer) == SAFE


@pytest.mark.slow
async def test_without_a_firewall_a_buyer_gets_everywhere(town: Town) -> None:
    """What the findings call bad is bad: the other tests would see it."""
    await town.seller.add_wireguard(KEY, "10.0.0.1/24", listen_port=51820)
    (found,) = await town.check(GOOD)
    await town.sudo(f"{found['forwarding'][2]}; {found['address translation'][2]}")
    buyer = await two_sales(town, KEY.public)
    async with town.seller.listening(10009, 53):
        assert await reached(buyer) == EVERYTHING


@pytest.mark.slow
async def test_an_interface_is_put_right_by_its_commands(town: Town) -> None:
    await town.seller.add_wireguard(KEY, "10.9.9.9/32", listen_port=40000)
    await town.seller.run("ip", "link", "set", "wg0", "down")
    first, last = await town.check(GOOD, rounds=2)
    assert not_ok(first) - ABOUT_TRAFFIC == {"interface", "address", "listen port", "port"}
    assert not_ok(last) <= ABOUT_TRAFFIC


async def test_nothing_is_there(town: Town) -> None:
    (found,) = await town.check(GOOD)
    assert found["program"][0] == "ok"
    assert found["interface"] == ("bad", "there is no wg0", "sudo wg-quick up wg0")
    assert found["key"][0] == found["listen port"][0] == "unknown"
    assert found["port"][0] == "bad"
