"""nftables' ruleset, from the JSON that `nft --json list ruleset` prints (libnftables-json(5)).

What iptables put there through nftables' compatibility layer shows conditions as `xt`, which say nothing: such tables
are marked, so that iptables can be asked instead.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias

from impervious.config.values import Plain
from impervious.wireguard.check.firewall import Act, Answer, Chain, Jump, Match, Packet, Rule, Table, unjudged
from impervious.wireguard.check.iptables import TARGETS
from impervious.wireguard.peers import Host

_Value: TypeAlias = str | int | Host
_Reader: TypeAlias = Callable[[Packet], _Value | None]
"""Gives what a condition looks at; None when such a packet does not have it."""
_Sets: TypeAlias = Mapping[str, Plain]

_FAMILIES: Final = ("ip", "ip6", "inet")
_PASSIVE: Final = frozenset({"counter", "log", "comment", "mangle", "notrack", "flow", "ct helper", "set"})
"""Statements after which the rule goes on."""
_VERDICTS: Final = {
    "accept": Act.ACCEPT,
    "drop": Act.DROP,
    "reject": Act.DROP,
    "return": Act.RETURN,
    "continue": Act.NOTHING,
    "masquerade": Act.TRANSLATE,
    "snat": Act.TRANSLATE,
}

_META: Final[Mapping[str, _Reader]] = {
    "iifname": lambda packet: packet.into,
    "iif": lambda packet: packet.into,
    "oifname": lambda packet: packet.out,
    "oif": lambda packet: packet.out,
    "l4proto": lambda packet: packet.protocol,
    "nfproto": lambda packet: f"ipv{packet.target.version}",
    "protocol": lambda packet: "ip" if packet.target.version == 4 else "ip6",
}
_NUMBERS: Final = {6: "tcp", 17: "udp"}
"""Of protocols (IANA)."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What nftables holds."""

    tables: tuple[Table, ...] = ()
    compat: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """Family and name of tables that iptables made and that only iptables can explain."""


def read_ruleset(text: str) -> Ruleset:
    """Read what nft printed; parts that are not understood become conditions that nobody can judge.

    Raises:
      ValueError: it is not nft's JSON.
    """
    document: Plain = json.loads(text)
    match document:
        case {"nftables": [*entries]}:
            return _ruleset([entry for entry in entries if isinstance(entry, dict)])
        case _:
            raise ValueError("no nftables in it")


def _ruleset(entries: list[dict[str, Plain]]) -> Ruleset:
    reading: dict[tuple[str, str], _Reading] = {}
    for kind, body in ((kind, body) for entry in entries for kind, body in entry.items() if isinstance(body, dict)):
        match body:
            case {"family": str(family), "name": str(name)} if kind == "table" and family in _FAMILIES:
                reading[family, name] = _Reading(family, name)
            case {"family": str(family), "table": str(table)} if (family, table) in reading:
                reading[family, table].take(kind, body)
    return Ruleset(
        tables=tuple(each.table() for each in reading.values()),
        compat=frozenset(place for place, each in reading.items() if each.has_xt),
    )


class _Reading:
    """One table, while its parts come in."""

    def __init__(self, family: str, name: str) -> None:
        self._family = family
        self._name = name
        self._chains: dict[str, dict[str, Plain]] = {}
        self._rules: dict[str, list[Plain]] = {}
        self._sets: dict[str, Plain] = {}
        self.has_xt = False

    def take(self, kind: str, body: dict[str, Plain]) -> None:
        match kind, body:
            case "chain", {"name": str(name)}:
                self._chains[name] = body
            case "rule", {"chain": str(chain), "expr": [*expressions]}:
                self._rules.setdefault(chain, []).append(expressions)
                self.has_xt |= any(isinstance(each, dict) and "xt" in each for each in expressions)
            case "set" | "map", {"name": str(name)}:
                self._sets[f"@{name}"] = {"set": body.get("elem", [])}

    def table(self) -> Table:
        chains = {name: self._chain(name, body) for name, body in self._chains.items()}
        return Table(tool="nft", family=self._family, name=self._name, chains=chains)

    def _chain(self, name: str, body: dict[str, Plain]) -> Chain:
        rules = (rule for expressions in self._rules.get(name, ()) for rule in _read_rule(expressions, self._sets))
        return Chain(
            name=name,
            rules=tuple(rules),
            hook=str(body.get("hook", "")),
            translates=body.get("type") == "nat",
            drops=body.get("policy") == "drop",
        )


def _read_rule(expressions: Plain, sets: _Sets) -> Iterator[Rule]:
    """Read one rule; a verdict map makes it one for each of its entries."""
    matches: list[Match] = []
    for expression in expressions if isinstance(expressions, list) else ():
        key, body = next(iter(expression.items())) if isinstance(expression, dict) and expression else ("", None)
        act = _act(key, body)
        if act is not None:
            yield Rule(tuple(matches), act)
            return
        match key, body:
            case "match", {"op": str(op), "left": left, "right": right}:
                matches.append(_condition(op, left, right, sets))
            case "vmap", {"key": left, "data": data}:
                yield from _verdict_map(tuple(matches), left, data, sets)
                return
            case "xt", {"name": "comment"}:
                continue
            case _ if key not in _PASSIVE:
                matches.append(unjudged)
    yield Rule(tuple(matches), Act.NOTHING)


def _act(key: str, body: Plain) -> Act | Jump | None:
    match key, body:
        case (("jump" | "goto"), {"target": str(target)}):
            return Jump(target, comes_back=key == "jump")
        case "xt", {"type": "target", "name": str(name)}:
            return TARGETS.get(name, Act.UNJUDGED)
        case "xt", {"type": "match"}:
            return None
        case "xt" | "queue" | "tproxy" | "redirect" | "dnat", _:
            return Act.UNJUDGED
        case _:
            return _VERDICTS.get(key)


def _verdict_map(before: tuple[Match, ...], left: Plain, data: Plain, sets: _Sets) -> Iterator[Rule]:
    found = sets.get(data) if isinstance(data, str) else data
    match found:
        case {"set": [*entries]}:
            for entry in entries:
                match entry:
                    case [value, dict(verdict)] if verdict:
                        act = _act(*next(iter(verdict.items()))) or Act.UNJUDGED
                        yield Rule((*before, _condition("==", left, value, sets)), act)
                    case _:
                        yield Rule((*before, unjudged), Act.UNJUDGED)
        case _:
            yield Rule((*before, unjudged), Act.UNJUDGED)


def _condition(op: str, left: Plain, right: Plain, sets: _Sets) -> Match:
    read, protocol = _reader(left), _transport(left)

    def judge(packet: Packet) -> Answer:
        if protocol not in ("", "th", packet.protocol):
            return Answer.NO  # `udp dport != 53` is about UDP all the same
        if read is None or op not in ("==", "!=", "in"):
            return Answer.MAYBE
        value = read(packet)
        if value is None:
            return Answer.NO
        held = _holds(right, value, sets)
        return ~held if op == "!=" else held

    return judge


def _transport(left: Plain) -> str:
    """Give the protocol above IP that a condition is about: tcp, icmp …, th for any; empty if it is not about one."""
    match left:
        case {"payload": {"protocol": str(protocol)}} if protocol not in ("ip", "ip6", "ether"):
            return protocol
        case {"&": [masked, *_]}:
            return _transport(masked)
        case _:
            return ""


def _reader(left: Plain) -> _Reader | None:
    match left:
        case {"meta": {"key": str(key)}}:
            return _META.get(key)
        case {"ct": {"key": "state"}}:
            return lambda packet: packet.state
        case {"payload": {"protocol": "ip" | "ip6" as family, "field": str(field_name)}}:
            return _ip_reader(4 if family == "ip" else 6, field_name)
        case {"payload": {"protocol": "tcp" | "udp" | "th", "field": "dport"}}:
            return lambda packet: packet.port
        case _:
            return None


def _ip_reader(version: int, field_name: str) -> _Reader | None:
    readers: Mapping[str, _Reader] = {
        "saddr": lambda packet: packet.source,
        "daddr": lambda packet: packet.target,
        "protocol": lambda packet: packet.protocol,
        "nexthdr": lambda packet: packet.protocol,
    }
    read = readers.get(field_name)
    if read is None:
        return None
    return lambda packet: read(packet) if packet.target.version == version else None


def _holds(right: Plain, value: _Value, sets: _Sets) -> Answer:
    """Say whether a value is the right side of a condition, or among it."""
    match right:
        case {"set": elements} | {"elem": {"val": elements}}:
            listed = elements if isinstance(elements, list) else [elements]
            return Answer.any(_holds(element, value, sets) for element in listed)
        case [*flags]:
            return Answer.any(_holds(flag, value, sets) for flag in flags)
        case str(name) if name.startswith("@"):
            return _holds(sets[name], value, sets) if name in sets else Answer.MAYBE
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return _guarded(lambda: not isinstance(value, str | int) and value in ip_network(f"{address}/{length}"))
        case {"range": [low, high]}:
            return _guarded(lambda: _lies_between(low, value, high))
        case str() | int():
            return _guarded(lambda: _equals(right, value))
        case _:
            return Answer.MAYBE


def _guarded(judge: Callable[[], bool]) -> Answer:
    try:
        return Answer.of(judge())
    except ValueError:
        return Answer.MAYBE  # a symbolic name, of a service or a host


def _lies_between(low: Plain, value: _Value, high: Plain) -> bool:
    if isinstance(value, str):
        raise ValueError("ranges of words")
    if isinstance(value, int):
        return int(str(low)) <= value <= int(str(high))
    return int(ip_address(str(low))) <= int(value) <= int(ip_address(str(high)))


def _equals(right: str | int, value: _Value) -> bool:
    if isinstance(value, int):
        return int(right) == value
    if not isinstance(value, str):
        return ip_address(right) == value
    if isinstance(right, int):
        return _NUMBERS.get(right) == value
    return value.startswith(right[:-1]) if right.endswith("*") else right == value
