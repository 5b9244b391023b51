"""Judges what becomes of buyers' packets: onward to the internet, and nowhere else.

Packets that a buyer could send are imagined and walked through the firewall. Each finding's command adds to the rules
that are there. What must be dropped is dropped in a table of its own, because a drop ends a packet whatever other
tables say; what must be let through goes in front of the chain that drops it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from impervious.wireguard.check.finding import Finding, bad, ok, unknown
from impervious.wireguard.check.firewall import Answer, Firewall, Packet, Passage
from impervious.wireguard.check.machine import Links, Machine, Unknown
from impervious.wireguard.peers import Host, Network
from impervious.wireguard.terms import Terms

PRIVATE: Final[Mapping[int, Sequence[Network]]] = {
    4: tuple(
        ip_network(each)
        for each in ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
    ),
    6: (ip_network("fc00::/7"), ip_network("fe80::/10")),
}
"""Networks that are somebody's own (RFC 1918, 3927, 6598, 4193, 4291), by IP version."""

_SOMEWHERE: Final[Mapping[int, Host]] = {4: ip_address("9.9.9.9"), 6: ip_address("2620:fe::fe")}
"""An address on the internet like any other."""

_OWN_PORTS: Final = {22: "ssh", 8881: "this daemon", 8882: "this daemon", 10009: "LND"}
"""TCP ports of this machine that are not for buyers."""

_LEAST_FIRST: Final = (Answer.NO, Answer.MAYBE, Answer.YES)


def judge_traffic(interface: str, terms: Terms, machine: Machine) -> Iterator[Finding]:
    """Yield what is right and wrong with forwarding and the firewall.

    Args:
      interface: `vpn.interface`.
      terms: what is sold.
      machine: what is there.
    """
    version = terms.subnet.network.version
    yield _forwarding(machine.forwards, version)
    match machine.uplink, machine.links, machine.firewall:
        case (Unknown() as gap, _, _) | (_, Unknown() as gap, _):
            yield from (unknown(name, gap.reason) for name in _LOOKS)
        case "", _, _:
            says = f"no IPv{version} default route: nothing leads to the internet"
            yield from (bad(name, says, "ip route") if name == _ONWARD else unknown(name, says) for name in _LOOKS)
        case _, _, Unknown() as gap:
            yield from (unknown(name, gap.reason, "sudo impervious vpn check") for name in _LOOKS)
        case str(uplink), links, Firewall() as firewall:
            looking = _Looking(interface, uplink, terms, firewall, {} if isinstance(links, Unknown) else links)
            yield from (look(looking, name) for name, look in _LOOKS.items())


def _forwarding(forwards: bool | Unknown, version: int) -> Finding:
    name, key = "forwarding", "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
    if isinstance(forwards, Unknown):
        return unknown(name, forwards.reason)
    if forwards:
        return ok(name, f"the kernel passes packets on ({key})")
    file = "/etc/sysctl.d/90-impervious-vpn.conf"
    fix = f"echo {key}=1 | sudo tee -a {file} && sudo sysctl -p {file}"
    return bad(name, f"the kernel does not pass packets on ({key} is 0)", fix)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule in both languages, without its verdict."""

    nft: str
    iptables: str


@dataclass(frozen=True, slots=True)
class _Looking:
    """What every look needs, and the packets and commands that they share."""

    interface: str
    uplink: str
    terms: Terms
    firewall: Firewall
    links: Links

    @property
    def version(self) -> int:
        return self.terms.subnet.network.version

    @property
    def family(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    @property
    def somewhere(self) -> Host:
        return _SOMEWHERE[self.version]

    @property
    def own_address(self) -> Host:
        """The one that the internet knows this machine by, as far as the machine can tell."""
        here = self.links[self.uplink].addresses if self.uplink in self.links else ()
        fitting = (each.ip for each in here if each.version == self.version and not each.is_link_local)
        return min(fitting, default=self.terms.subnet.server)

    def buyers(self, target: Host, *, out: str, port: int = 443, protocol: str = "tcp") -> Packet:
        """Imagine a packet of the first buyer."""
        source = self.terms.subnet.network[2]
        return Packet(into=self.interface, out=out, source=source, target=target, protocol=protocol, port=port)

    def kept_out(self, name: str, passage: Passage, good: str, wrong: str, *rules: _Rule, hook: str) -> Finding:
        """Judge something that must not get through."""
        if passage.answer is Answer.NO:
            return ok(name, good)
        fix = " && ".join(self._drop(rule, hook) for rule in rules)
        return bad(name, wrong, fix) if passage.answer is Answer.YES else unknown(name, f"perhaps {wrong}", fix)

    def let_through(self, name: str, passage: Passage, good: str, wrong: str, *rules: _Rule) -> Finding:
        """Judge something that must get through."""
        if passage.answer is Answer.YES or passage.place is None:
            return ok(name, good)
        table, chain = passage.place
        if table.tool == "nft":
            place = f"{table.family} {table.name} {chain.name}"
            fixes = [f"sudo nft 'insert rule {place} {rule.nft} accept'" for rule in rules]
        else:
            fixes = [f"sudo {table.tool} -I {chain.name} {rule.iptables} -j ACCEPT" for rule in rules]
        fix = " && ".join(fixes)
        return bad(name, wrong, fix) if passage.answer is Answer.NO else unknown(name, f"perhaps {wrong}", fix)

    def translate(self, rule: _Rule) -> str:
        """Give the command that makes packets leave with this machine's address."""
        if self._old_tool:
            return f"sudo {self._old_tool} -t nat -A POSTROUTING {rule.iptables} -j MASQUERADE"
        return _guard("postrouting", f"{rule.nft} masquerade", kind="nat", priority=100)

    def _drop(self, rule: _Rule, hook: str) -> str:
        if self._old_tool:
            return f"sudo {self._old_tool} -I {hook.upper()} {rule.iptables} -j DROP"
        return _guard(hook, f"{rule.nft} drop")

    @property
    def _old_tool(self) -> str:
        """Name iptables where nothing else is in use."""
        tools = {table.tool for table in self.firewall.tables}
        return "" if not tools or "nft" in tools else min(tools)


def _guard(hook: str, rule: str, *, kind: str = "filter", priority: int = -5) -> str:
    chain = f"add chain inet vpn_guard {hook} {{ type {kind} hook {hook} priority {priority}; policy accept; }}"
    return f"sudo nft 'add table inet vpn_guard; {chain}; add rule inet vpn_guard {hook} {rule}'"


def _arrival(look: _Looking, name: str) -> Finding:
    """A buyer's datagram, on its way to WireGuard."""
    port = look.terms.endpoint.port
    packet = Packet(into=look.uplink, out="", source=look.somewhere, target=look.own_address, protocol="udp", port=port)
    return look.let_through(
        name,
        look.firewall.passes("input", packet),
        f"the firewall lets UDP {port} in",
        f"the firewall drops what comes in to UDP {port}",
        _Rule(f"udp dport {port}", f"-p udp --dport {port}"),
    )


def _onward(look: _Looking, name: str) -> Finding:
    """A buyer's packet to the internet, and the answer."""
    there = look.buyers(look.somewhere, out=look.uplink)
    back = Packet(
        into=look.uplink,
        out=look.interface,
        source=there.target,
        target=there.source,
        protocol="tcp",
        port=50000,
        state="established",
    )
    passages = [look.firewall.passes("forward", packet) for packet in (there, back)]
    subnet, inside, outside = look.terms.subnet.network, look.interface, look.uplink
    return look.let_through(
        name,
        _worst(passages),
        f"the firewall lets packets through from {inside} to {outside}, and answers back",
        f"the firewall drops packets between {inside} and {outside}",
        _Rule(
            f'iifname "{inside}" oifname "{outside}" {look.family} saddr {subnet}',
            f"-i {inside} -o {outside} -s {subnet}",
        ),
        _Rule(
            f'iifname "{outside}" oifname "{inside}" ct state established,related',
            f"-i {outside} -o {inside} -m conntrack --ctstate ESTABLISHED,RELATED",
        ),
    )


def _translation(look: _Looking, name: str) -> Finding:
    """A buyer's packet to the internet, as it leaves."""
    subnet, uplink = look.terms.subnet.network, look.uplink
    answer = look.firewall.translates(look.buyers(look.somewhere, out=uplink))
    if answer is Answer.YES:
        return ok(name, f"{subnet} leaves {uplink} with this machine's address")
    fix = look.translate(_Rule(f'{look.family} saddr {subnet} oifname "{uplink}"', f"-s {subnet} -o {uplink}"))
    if answer is Answer.MAYBE:
        return unknown(name, "the firewall has rules that cannot be judged", fix)
    if not subnet.is_private:
        return unknown(name, f"{subnet} leaves as it is: right only if your provider routes it to this machine", fix)
    return bad(name, f"{subnet} leaves {uplink} as it is: no answer can find its way back", fix)


def _isolation(look: _Looking, name: str) -> Finding:
    """A buyer's packet to another buyer."""
    inside = look.interface
    return look.kept_out(
        name,
        look.firewall.passes("forward", look.buyers(look.terms.subnet.network[3], out=inside)),
        "buyers do not reach each other",
        "buyers reach each other",
        _Rule(f'iifname "{inside}" oifname "{inside}"', f"-i {inside} -o {inside}"),
        hook="forward",
    )


def _private_networks(look: _Looking, name: str) -> Finding:
    """A buyer's packet into networks that are the seller's own."""
    passages = {
        f"{target} through {out}": look.firewall.passes("forward", look.buyers(target, out=out))
        for out, target in _private_targets(look)
    }
    worst = _furthest(passages)
    networks = list(map(str, PRIVATE[look.version]))
    return look.kept_out(
        name,
        passages[worst],
        "buyers reach no private network",
        f"buyers reach private networks, {worst} for one",
        _Rule(
            f'iifname "{look.interface}" {look.family} daddr {{ {", ".join(networks)} }}',
            f"-i {look.interface} -d {','.join(networks)}",
        ),
        hook="forward",
    )


def _private_targets(look: _Looking) -> Iterator[tuple[str, Host]]:
    """Give a host of every private network: of those beyond the uplink, and of those that this machine is in."""
    for network in PRIVATE[look.version]:
        yield look.uplink, _outside(network, look.terms.subnet.network)
    for name, link in look.links.items():
        for address in link.addresses:
            near = address.network
            own = any(address.ip in network for network in PRIVATE[look.version] if network.version == address.version)
            if name != look.interface and own and near.num_addresses > 2:
                yield name, near[1] if near[1] != address.ip else near[2]


def _outside(network: Network, subnet: Network) -> Host:
    last = network[-2]
    return network[1] if last in subnet else last


def _own_services(look: _Looking, name: str) -> Finding:
    """A buyer's packet to this machine itself."""
    passages = {
        f"TCP {port} of {target} ({what})": look.firewall.passes("input", look.buyers(target, out="", port=port))
        for port, what in _OWN_PORTS.items()
        for target in (look.terms.subnet.server, look.own_address)
    }
    worst = _furthest(passages)
    inside, resolves = look.interface, look.terms.subnet.server in look.terms.dns
    return look.kept_out(
        name,
        passages[worst],
        "buyers reach none of this machine's own services",
        f"buyers reach services of this machine, {worst} for one",
        *(
            _Rule(
                f'iifname "{inside}" ct state new {f"{each} dport != 53" if resolves else f"meta l4proto {each}"}',
                f"-i {inside} -p {each}{' ! --dport 53' if resolves else ''} -m conntrack --ctstate NEW",
            )
            for each in ("tcp", "udp")
        ),
        hook="input",
    )


def _resolver(look: _Looking, name: str) -> Finding:
    """A buyer's query, if the resolver is this machine."""
    server = look.terms.subnet.server
    if server not in look.terms.dns:
        return ok(name, f"buyers ask {', '.join(map(str, look.terms.dns)) or 'whomever they like'}")
    protocols, inside = ("udp", "tcp"), look.interface
    passages = [
        look.firewall.passes("input", look.buyers(server, out="", port=53, protocol=each)) for each in protocols
    ]
    return look.let_through(
        name,
        _worst(passages),
        f"the firewall lets queries to {server} in",
        f"the firewall drops buyers' queries to {server}",
        *(
            _Rule(
                f'iifname "{inside}" {look.family} daddr {server} {each} dport 53',
                f"-i {inside} -d {server} -p {each} --dport 53",
            )
            for each in protocols
        ),
    )


def _worst(passages: Iterable[Passage]) -> Passage:
    """Choose the one that gets least far."""
    return min(passages, key=lambda passage: _LEAST_FIRST.index(passage.answer))


def _furthest(passages: Mapping[str, Passage]) -> str:
    """Choose the one that gets furthest."""
    return max(passages, key=lambda name: _LEAST_FIRST.index(passages[name].answer))


_ONWARD: Final = "forwarding rules"
_LOOKS: Final[Mapping[str, Callable[[_Looking, str], Finding]]] = {
    "arrival": _arrival,
    _ONWARD: _onward,
    "address translation": _translation,
    "isolation": _isolation,
    "private networks": _private_networks,
    "own services": _own_services,
    "resolver": _resolver,
}
