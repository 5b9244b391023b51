"""iptables' rules, from the lines that `iptables -S` prints: the options that would make them (iptables(8))."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from impervious.wireguard.check.firewall import Act, Answer, Chain, Jump, Match, Packet, Rule, Table, unjudged

TARGETS: Final = {
    "ACCEPT": Act.ACCEPT,
    "DROP": Act.DROP,
    "REJECT": Act.DROP,
    "RETURN": Act.RETURN,
    "MASQUERADE": Act.TRANSLATE,
    "SNAT": Act.TRANSLATE,
    **dict.fromkeys(("LOG", "NFLOG", "TCPMSS", "MARK", "CONNMARK", "CT", "CHECKSUM", "CLASSIFY"), Act.NOTHING),
}
"""iptables-extensions(8)."""

_HOOKS: Final = {"INPUT": "input", "FORWARD": "forward", "POSTROUTING": "postrouting"}
_SILENT: Final = frozenset({"-m", "--comment", "--reject-with", "--to-source", "--to-ports", "--log-prefix"})
"""Options with one value that change nothing about where a packet goes."""


def read_table(text: str, *, family: str, name: str) -> Table:
    """Read one table; options that are not understood become conditions that nobody can judge.

    Args:
      text: what `iptables -t NAME -S` printed.
      family: ip or ip6.
      name: filter or nat.

    Raises:
      ValueError: it is not iptables' output.
    """
    chains: dict[str, _Reading] = {}
    for line in text.splitlines():
        match shlex.split(line):
            case ["-P", chain, policy, *_]:
                chains[chain] = _Reading(policy=policy)
            case ["-N", chain]:
                chains[chain] = _Reading()
            case ["-A", chain, *options] if chain in chains:
                chains[chain].rules.append(options)
            case []:
                continue
            case _:
                raise ValueError(f"not a line of iptables -S: {line[:60]!r}")
    return Table(
        tool="iptables" if family == "ip" else "ip6tables",
        family=family,
        name=name,
        chains={
            chain: Chain(
                name=chain,
                rules=tuple(_read_rule(options, chains) for options in reading.rules),
                hook=_HOOKS.get(chain, "") if reading.policy else "",
                translates=name == "nat",
                drops=reading.policy == "DROP",
            )
            for chain, reading in chains.items()
        },
    )


@dataclass(slots=True)
class _Reading:
    """One chain, while its lines come in."""

    policy: str = ""
    rules: list[list[str]] = field(default_factory=list)


def _read_rule(options: Sequence[str], chains: Mapping[str, _Reading]) -> Rule:
    matches: list[Match] = []
    act: Act | Jump = Act.NOTHING
    for option, values, negated in _options(options):
        match option, values:
            case (("-j" | "-g"), [target, *_]) if target in chains:
                act = Jump(target, comes_back=option == "-j")
            case "-j", [target, *_]:
                act = TARGETS.get(target, Act.UNJUDGED)
            case _ if act is not Act.NOTHING or option in _SILENT:
                continue  # options of the target, or of nothing
            case _, [value]:
                condition = _condition(option, value)
                matches.append(_negation(condition) if negated else condition)
            case _:
                matches.append(unjudged)
    return Rule(tuple(matches), act)


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str], bool]]:
    """Take options apart: name, values, whether it is negated."""
    option, values, negated, nots = "", list[str](), False, False
    for word in words:
        if word == "!":
            nots = True
        elif word.startswith("-"):
            if option:
                yield option, values, negated
            option, values, negated, nots = word, [], nots, False
        else:
            values.append(word)
    if option:
        yield option, values, negated


def _negation(match: Match) -> Match:
    return lambda packet: ~match(packet)


def _condition(option: str, value: str) -> Match:
    readers: Mapping[str, Callable[[Packet], bool]] = {
        "-i": lambda packet: _is_interface(value, packet.into),
        "-o": lambda packet: _is_interface(value, packet.out),
        "-s": lambda packet: packet.source in ip_network(value, strict=False),
        "-d": lambda packet: packet.target in ip_network(value, strict=False),
        "-p": lambda packet: value in (packet.protocol, "all"),
        "--dport": lambda packet: _is_port(value, packet.port),
        "--dports": lambda packet: any(_is_port(each, packet.port) for each in value.split(",")),
        "--ctstate": lambda packet: packet.state.upper() in value.split(","),
        "--state": lambda packet: packet.state.upper() in value.split(","),
    }
    read = readers.get(option)
    if read is None:
        return unjudged

    def judge(packet: Packet) -> Answer:
        try:
            return Answer.of(read(packet))
        except ValueError:
            return Answer.MAYBE

    return judge


def _is_interface(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _is_port(text: str, port: int) -> bool:
    low, _, high = text.partition(":")
    return int(low) <= port <= int(high or low)
