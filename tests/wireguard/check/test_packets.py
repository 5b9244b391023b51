"""The imagined walk of a packet against the kernel's: what we say about a firewall is what it does."""

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
import trio
from tests.wireguard.lab import Machine, each_line, open_lab, piped

from impervious.wireguard.check.firewall import Answer, Firewall, Packet
from impervious.wireguard.check.gather import Iptables, combined
from impervious.wireguard.check.iptables import read_table
from impervious.wireguard.check.nftables import read_ruleset

INSIDE, ROUTER, OUTSIDE, LAN = "10.0.0.2", "198.51.100.1", "9.9.9.9", "192.168.9.9"


@dataclass(frozen=True)
class Way:
    """A datagram that is really sent, and the same one imagined."""

    source: str
    target: str
    port: int
    into: str
    out: str

    @property
    def packet(self) -> Packet:
        return Packet(
            into=self.into,
            out=self.out,
            source=ip_address(self.source),
            target=ip_address(self.target),
            protocol="udp",
            port=self.port,
        )


WAYS: Final = {
    "web": Way(INSIDE, OUTSIDE, 443, "wg0", "eth0"),
    "dns": Way(INSIDE, OUTSIDE, 53, "wg0", "eth0"),
    "lan": Way(INSIDE, LAN, 443, "wg0", "eth1"),
    "resolver": Way(INSIDE, "10.0.0.1", 53, "wg0", ""),
    "own": Way(INSIDE, "10.0.0.1", 10009, "wg0", ""),
    "arrival": Way(OUTSIDE, ROUTER, 51820, "eth0", ""),
}

LISTEN: Final = """
import json, selectors, socket, sys
chosen = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    chosen.register(server, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        text, (source, _) = key.fileobj.recvfrom(100)
        print(json.dumps([text.decode(), source]), flush=True)
"""
SEND: Final = """
import json, socket, sys
for text, source, target, port in json.loads(sys.argv[1]):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((source, 0))
    client.sendto(text.encode(), (target, port))
"""


@dataclass
class Case:
    """A firewall, in a language of its own."""

    name: str
    nft: str = ""
    iptables: str = ""
    unjudged: set[str] = field(default_factory=set)
    """Ways that nobody can tell from outside."""


def nft(name: str, chains: str, *, unjudged: str = "", family: str = "inet") -> Case:
    return Case(name=name, nft=f"table {family} t {{\n{chains}\n}}\n", unjudged=set(unjudged.split()))


FORWARD = "type filter hook forward priority filter; policy"
INPUT = "type filter hook input priority filter; policy"

CASES: Final = (
    Case("nothing"),
    nft("policies", f"chain f {{ {FORWARD} drop; }}\nchain i {{ {INPUT} drop; }}"),
    nft(
        "interfaces and addresses",
        f"""chain f {{ {FORWARD} drop;
          ct state established,related accept
          iifname "wg0" oifname "eth0" ip saddr 10.0.0.0/24 ip daddr != {{ 10.0.0.0/8, 192.168.0.0/16 }} accept
        }}
        chain i {{ {INPUT} accept;
          iifname "wg*" ip daddr 10.0.0.1 meta l4proto {{ tcp, udp }} th dport 53 accept
          iifname "wg*" icmp type echo-request accept
          iif "wg0" drop
        }}""",
    ),
    nft(
        "named sets, ranges, jumps",
        f"""set private {{ type ipv4_addr; flags interval; elements = {{ 192.168.0.0-192.168.255.255, 10.0.0.0/8 }} }}
        chain buyers {{
          ip daddr @private reject
          udp dport 50-60 return
          udp dport {{ 440-450, 1 }} accept
        }}
        chain f {{ {FORWARD} drop;
          iifname "wg0" jump buyers
          udp dport 53 accept
        }}""",
    ),
    nft(
        "goto does not come back",
        f"""chain side {{ udp dport 53 accept
        }}
        chain f {{ {FORWARD} drop;
          iifname "wg0" goto side
          accept
        }}""",
    ),
    nft(
        "verdict maps",
        f"""map by_port {{ type inet_service : verdict; elements = {{ 53 : accept, 10009 : drop }} }}
        chain f {{ {FORWARD} accept; oifname vmap {{ "eth0" : accept, "eth1" : drop }}
        }}
        chain i {{ {INPUT} accept;
          ct state vmap {{ invalid : drop, established : accept, related : accept }}
          iifname "wg0" udp dport vmap @by_port
        }}""",
    ),
    nft(
        "two chains at a hook",
        f"""chain f {{ {FORWARD} accept; iifname "wg0" accept
        }}
        chain late {{ type filter hook forward priority 10; policy accept; oifname "eth1" drop
        }}""",
    ),
    nft(
        "other protocols and families",
        f"""chain f {{ {FORWARD} drop;
          tcp dport != 1 accept
          ip6 daddr ::/0 accept
          ip protocol tcp accept
          meta nfproto ipv6 accept
          tcp flags syn accept
          meta l4proto 17 udp dport != 53 counter log prefix "seen " accept comment "web"
        }}""",
    ),
    nft("of the other family", f"chain f {{ {FORWARD} drop; }}", family="ip6"),
    nft(
        "what cannot be judged",
        f"""chain f {{ {FORWARD} accept;
          oifname "eth1" meta mark 7 drop
          udp dport 53 limit rate over 100000/second drop
          udp dport 443 oifname "eth0" limit rate 100000/second accept
        }}
        chain i {{ {INPUT} drop;
          iifname "wg0" udp dport 53 fib daddr type local accept
          udp dport 51820 ct count 1000 accept
        }}""",
        unjudged="lan dns resolver arrival",
    ),
    nft(
        "masquerade",
        """chain n { type nat hook postrouting priority srcnat; policy accept;
          ip saddr 10.0.0.0/24 oifname "eth0" udp dport 53 masquerade
        }""",
    ),
    nft(
        "snat, after returning",
        """chain n { type nat hook postrouting priority srcnat; policy accept;
          udp dport 53 return
          iifname "wg0" oifname "eth0" snat ip to 198.51.100.1
        }""",
    ),
    Case(
        "iptables",
        iptables="""
        iptables -P FORWARD DROP; iptables -P INPUT DROP
        iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A FORWARD -d 192.168.0.0/16 -i wg+ ! -o eth0 -j REJECT --reject-with icmp-port-unreachable
        iptables -A FORWARD -i wg0 -o eth0 -s 10.0.0.0/24 -p udp -m udp --dport 400:500 -j ACCEPT
        iptables -A INPUT -i lo -m comment --comment "to itself" -j ACCEPT
        iptables -A INPUT -p udp -m multiport --dports 53,51820 -j ACCEPT
        iptables -t nat -A POSTROUTING -s 10.0.0.0/24 ! -o wg0 -j MASQUERADE
        """,
    ),
    Case(
        "iptables with chains, as ufw and docker have them",
        iptables="""
        iptables -N USER; iptables -N MORE; iptables -P FORWARD DROP
        iptables -A FORWARD -j USER
        iptables -A FORWARD -m addrtype --dst-type LOCAL -j DROP
        iptables -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
        iptables -A FORWARD -g MORE
        iptables -A FORWARD -j DROP
        iptables -A USER -o eth1 -j DROP
        iptables -A USER -m conntrack --ctstate INVALID -j LOG --log-prefix "bad " --log-level 4
        iptables -A USER -j RETURN
        iptables -A MORE -i wg0 -p udp --dport 53 -j ACCEPT
        iptables -A INPUT -i eth0 -m state --state NEW -p udp --dport 51820 -j ACCEPT
        iptables -A INPUT -m mark --mark 9 -i wg0 -p udp --dport 53 -j DROP
        iptables -A INPUT -i wg0 -j DROP
        """,
        unjudged={"dns"},
    ),
)


@pytest.mark.slow
async def test_the_kernel_agrees(lab_folder: Path) -> None:
    async with open_lab(lab_folder) as lab:
        inside, router, outside, lan = [await lab.add(name) for name in ("inside", "router", "outside", "lan")]
        await lab.join(router, "10.0.0.1/24", inside, f"{INSIDE}/24", names=("wg0", "eth0"))
        await lab.join(router, f"{ROUTER}/24", outside, "198.51.100.254/24", names=("eth0", "eth0"))
        await lab.join(router, "192.168.9.1/24", lan, f"{LAN}/24", names=("eth1", "eth0"))
        await inside.sh("ip route add default via 10.0.0.1")
        await outside.sh(f"ip address add {OUTSIDE}/32 dev lo; ip route add default via {ROUTER}")
        await router.sh(f"ip route add {OUTSIDE} via 198.51.100.254; sysctl -qw net.ipv4.ip_forward=1")

        said: dict[str, Firewall] = {}
        arrived: dict[str, str] = {}
        async with AsyncExitStack() as stack:
            for machine, ports in ((router, (53, 10009, 51820)), (outside, (53, 443)), (lan, (443,))):
                await stack.enter_async_context(_collecting(machine, ports, arrived))
            for case in CASES:
                await _load(router, case)
                said[case.name] = await _read(router)
                for machine, sources in ((inside, {INSIDE}), (outside, {OUTSIDE})):
                    sends = [
                        (f"{case.name}/{name}", way.source, way.target, way.port)
                        for name, way in WAYS.items()
                        if way.source in sources
                    ]
                    await machine.run(sys.executable, "-ISc", SEND, json.dumps(sends))
            await trio.sleep(0.1)  # the last datagrams are on their way

    for case in CASES:
        for name, way in WAYS.items():
            _compare(case, name, way, said[case.name], arrived)
    assert 20 < len(arrived) < len(CASES) * len(WAYS) - 20, "both must happen often enough to mean something"


def _compare(case: Case, name: str, way: Way, firewall: Firewall, arrived: Mapping[str, str]) -> None:
    what = f"{case.name}/{name}"
    passage = firewall.passes("forward" if way.out else "input", way.packet)
    assert (passage.answer is Answer.MAYBE) == (name in case.unjudged), what
    assert (passage.place is None) == (passage.answer is Answer.YES), what
    if passage.answer is not Answer.MAYBE:
        assert (passage.answer is Answer.YES) == (what in arrived), what
    if what in arrived and way.out:
        translated = arrived[what] != way.source
        assert firewall.translates(way.packet) is Answer.of(translated), what


@asynccontextmanager
async def _collecting(machine: Machine, ports: tuple[int, ...], arrived: dict[str, str]) -> AsyncIterator[None]:
    """Note what arrives at a machine, and from whom, until the end of the block."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(piped(machine.argv(sys.executable, "-ISc", LISTEN, *map(str, ports))))
        assert await process.stdout.receive_some() == b"ready\n"
        nursery.start_soon(each_line, process, lambda line: arrived.update([json.loads(line)]))
        yield
        nursery.cancel_scope.cancel()


async def _load(router: Machine, case: Case) -> None:
    await router.sh("nft flush ruleset")
    if case.nft:
        await router.run("nft", "-f", "-", stdin=case.nft)
    await router.sh(case.iptables)


async def _read(router: Machine) -> Firewall:
    ruleset = read_ruleset(await router.run("nft", "--json", "list", "ruleset"))
    tables = [
        read_table(await router.run("iptables", "-t", name, "-S"), family="ip", name=name) for name in ("filter", "nat")
    ]
    return combined(ruleset, Iptables(legacy=False, tables=tuple(tables)))
