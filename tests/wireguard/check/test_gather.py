"""What the system's programs print becomes facts; on a real machine it does in `test_check`."""

from ipaddress import ip_interface
from pathlib import Path

import pytest
import trio

from impervious.wireguard import PrivateKey
from impervious.wireguard.check.firewall import Firewall, Table
from impervious.wireguard.check.gather import Iptables, combined, gather, read_links, read_uplink
from impervious.wireguard.check.machine import Link, Machine, Program, Unknown
from impervious.wireguard.check.nftables import Ruleset
from impervious.wireguard.peers import Interface

KEY = PrivateKey.generate().public
LINKS = """[
  {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
  {"ifname": "wg0", "flags": ["POINTOPOINT"], "addr_info": [{}, {"local": "10.0.0.1", "prefixlen": 24}]},
  {"ifname": "odd"}
]"""
NFT = '{"nftables": [{"table": {"family": "inet", "name": "t"}}]}'

GOOD = {
    "wg": f"""case "$*" in
      --version) echo 'wireguard-tools v1.2.3 - https://example.com' ;;
      *public-key) echo '{KEY}' ;;
      *listen-port) echo 51820 ;;
    esac""",
    "ip": f"""case "$*" in
      *address*) cat <<'END'\n{LINKS}\nEND\n ;;
      *-4*) echo '[{{"dst": "default", "gateway": "198.51.100.254", "dev": "eth0"}}]' ;;
      *-6*) echo '[]' ;;
    esac""",
    "nft": f"echo '{NFT}'",
    "iptables": """case "$*" in
      *--version) echo 'iptables v1.8.9 (nf_tables)' ;;
      *) echo '-P FORWARD DROP' ;;
    esac""",
}
GOOD["ip6tables"] = GOOD["iptables"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found before the system's."""
    for name, script in GOOD.items():
        put(tmp_path, name, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


async def look(folder: Path, version: int = 4, server: str = "127.0.0.1", port: int = 51820) -> Machine:
    with trio.fail_after(10):
        return await gather("wg0", folder / "wg", version=version, server=server, port=port)


def reason(fact: object) -> str:
    assert isinstance(fact, Unknown)
    return fact.reason


async def test_everything_is_there(programs: Path) -> None:
    machine = await look(programs)
    assert machine.program == Program(version="wireguard-tools v1.2.3")
    assert machine.interface == Interface(public_key=KEY, listen_port=51820)
    assert machine.links == {
        "lo": Link(up=True, addresses=frozenset({ip_interface("127.0.0.1/8")})),
        "wg0": Link(up=False, addresses=frozenset({ip_interface("10.0.0.1/24")})),
    }
    assert machine.uplink == "eth0"
    assert isinstance(machine.forwards, bool)
    assert isinstance(machine.firewall, Firewall)
    assert {(table.tool, table.name) for table in machine.firewall.tables} == {
        ("nft", "t"),
        ("iptables", "filter"),
        ("iptables", "nat"),
    }
    assert (await look(programs, 6)).uplink == ""


async def test_a_program_that_refuses_leaves_a_fact_unknown(programs: Path) -> None:
    for name in ("ip", "nft", "iptables"):
        put(programs, name, f"echo '{name}: Operation not permitted' >&2; exit 1")
    put(programs, "wg", "echo 'Unable to access interface: Operation not permitted' >&2; exit 1")
    machine = await look(programs)
    assert machine.program.version == ""
    assert "not permitted" in machine.program.complaint
    assert "CAP_NET_ADMIN" in reason(machine.interface)
    assert reason(machine.links) == reason(machine.uplink) == "ip: ip: Operation not permitted"
    assert reason(machine.firewall) == "nft: nft: Operation not permitted"


async def test_a_firewall_half_seen_is_not_seen(programs: Path) -> None:
    put(programs, "nft", "exit 1")
    assert reason((await look(programs)).firewall) == "nft: exit code 1"


async def test_iptables_alone_is_no_reason_to_know_nothing_of_nftables(programs: Path) -> None:
    put(programs, "iptables", "exit 1")
    firewall = (await look(programs)).firewall
    assert isinstance(firewall, Firewall)
    assert [table.tool for table in firewall.tables] == ["nft"]


@pytest.mark.parametrize("name", ["ip", "nft"])
async def test_what_is_not_their_output_is_not_believed(programs: Path, name: str) -> None:
    put(programs, name, "echo hello")
    machine = await look(programs)
    facts = (machine.links, machine.uplink) if name == "ip" else (machine.firewall,)
    for fact in facts:
        assert reason(fact).startswith(name)


async def test_a_program_that_is_not_there_is_named(programs: Path) -> None:
    (programs / "wg").unlink()
    assert "not installed" in (await look(programs)).program.complaint
    put(programs, "ip", "")
    (programs / "ip").chmod(0o600)
    (programs / "ip").write_text("#!/nonexistent\n")
    (programs / "ip").chmod(0o700)
    assert "cannot be run" in reason((await look(programs)).links)


async def test_a_port_that_something_holds(programs: Path) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as held:
        await held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        assert (await look(programs, port=port)).answers is True
        # Elsewhere's address is not ours to try: the port is looked for here.
        assert (await look(programs, server="203.0.113.1", port=port)).answers is True
    assert (await look(programs, port=port)).answers is False


@pytest.mark.parametrize("text", ["", "{", "hello"])
def test_no_links(text: str) -> None:
    with pytest.raises(ValueError):
        read_links(text)


def test_an_uplink() -> None:
    assert read_uplink("") == read_uplink("[]") == ""
    assert read_uplink('[{"dst": "default", "dev": "eth0"}, {"dst": "default", "dev": "eth1"}]') == "eth0"
    for text in ("{}", "[1]", "hello", '[{"dst": "default"}]'):
        with pytest.raises(ValueError):
            read_uplink(text)


def test_each_rule_is_seen_once() -> None:
    own = Table(tool="nft", family="inet", name="own")
    simple = Table(tool="nft", family="ip", name="nat")
    opaque = Table(tool="nft", family="ip", name="filter")
    nft = Ruleset(tables=(own, simple, opaque), compat=frozenset({("ip", "filter")}))
    clear = Table(tool="iptables", family="ip", name="filter")
    same = Table(tool="iptables", family="ip", name="nat")
    assert combined(nft, None).tables == (own, simple, opaque)
    assert combined(nft, Iptables(legacy=False, tables=(clear, same))).tables == (own, simple, clear)
    assert combined(nft, Iptables(legacy=True, tables=(clear, same))).tables == (own, simple, opaque, clear, same)
