"""What becomes of a packet in a firewall, as far as its rules are understood.

Rules come from nftables or iptables. A packet that is only imagined walks through the chains of a hook; where a rule
says something that we cannot judge, such as a rate limit, the walk goes both ways. So a walk has a set of possible
ends, and only when they are all the same is there an answer. A packet passes a hook when every base chain there lets
it (nft(8): "accept" ends one base chain, "drop" ends them all).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from impervious.wireguard.peers import Host

DEEPEST: Final = 16
"""Jumps within jumps, as in the kernel (NFT_JUMP_STACK_SIZE)."""


class Answer(Enum):
    """Yes, no, or nobody knows."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"

    def __invert__(self) -> "Answer":
        return {Answer.NO: Answer.YES, Answer.YES: Answer.NO}.get(self, self)

    @classmethod
    def of(cls, known: bool) -> "Answer":
        """Give a definite answer."""
        return cls.YES if known else cls.NO

    @classmethod
    def any(cls, answers: Iterable["Answer"]) -> "Answer":
        """Whether one of them is yes."""
        given = set(answers)
        return cls.YES if cls.YES in given else cls.MAYBE if cls.MAYBE in given else cls.NO

    @classmethod
    def all(cls, answers: Iterable["Answer"]) -> "Answer":
        """Whether none of them is no."""
        given = set(answers)
        return cls.NO if cls.NO in given else cls.MAYBE if cls.MAYBE in given else cls.YES


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet that might come."""

    into: str
    """Network interface it comes in by."""
    out: str
    """The one it leaves by; empty if it is for this machine."""
    source: Host
    target: Host
    protocol: str
    """tcp or udp."""
    port: int
    """Where it goes to."""
    state: str = "new"
    """Of its connection (nft(8), ct state)."""


Match: TypeAlias = Callable[[Packet], Answer]
"""One condition of a rule."""


def unjudged(_: Packet) -> Answer:
    """Stand for a condition that is not understood."""
    return Answer.MAYBE


class Act(Enum):
    """What a rule does with a packet that meets its conditions."""

    ACCEPT = "accept"
    DROP = "drop"
    TRANSLATE = "translate"
    """Give it another source address, and accept it."""
    RETURN = "return"
    NOTHING = "nothing"
    """Count it, log it, change a mark: go on with the next rule."""
    UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain of the table."""

    chain: str
    comes_back: bool = True
    """False for goto."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that must all be met, and what then happens."""

    matches: Sequence[Match]
    act: Act | Jump


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Rules in order."""

    name: str
    rules: Sequence[Rule] = ()
    hook: str = ""
    """input, forward, postrouting …; empty for a chain that is only jumped to."""
    translates: bool = False
    """Whether it is there to change addresses (type nat)."""
    drops: bool = False
    """Its policy: what happens to a packet that comes to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Chains that can jump to one another."""

    tool: str
    """nft or iptables: the program to change it with."""
    family: str
    """ip, ip6 or inet."""
    name: str
    chains: Mapping[str, Chain] = field(default_factory=dict)

    def sees(self, packet: Packet) -> bool:
        """Whether packets of this kind come here."""
        return self.family == "inet" or self.family == ("ip" if packet.target.version == 4 else "ip6")


class _End(Enum):
    """How a chain can end for a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    TRANSLATE = "translate"
    THROUGH = "through"
    """No rule decided."""


_Ends: TypeAlias = frozenset[_End]

_ENDS: Final[Mapping[Act, _Ends]] = {
    Act.ACCEPT: frozenset({_End.ACCEPT}),
    Act.DROP: frozenset({_End.DROP}),
    Act.TRANSLATE: frozenset({_End.TRANSLATE}),
    Act.NOTHING: frozenset({_End.THROUGH}),
    Act.UNJUDGED: frozenset(_End),
}


def _walk(table: Table, chain: Chain, packet: Packet, depth: int = 0) -> _Ends:
    ends: set[_End] = set()
    for rule in chain.rules:
        met = Answer.all(match(packet) for match in rule.matches)
        if met is Answer.NO:
            continue
        if rule.act is Act.RETURN:
            after, goes_on = frozenset({_End.THROUGH}), False
        elif isinstance(rule.act, Jump):
            target = table.chains.get(rule.act.chain)
            known = target is not None and depth < DEEPEST
            after = _walk(table, target, packet, depth + 1) if target is not None and known else frozenset(_End)
            goes_on = rule.act.comes_back and _End.THROUGH in after
        else:
            after = _ENDS[rule.act]
            goes_on = _End.THROUGH in after
        ends |= after - {_End.THROUGH} if goes_on else after
        if met is Answer.YES and not goes_on:
            return frozenset(ends)
    return frozenset(ends | {_End.THROUGH})


@dataclass(frozen=True, slots=True)
class Passage:
    """Whether a packet gets past a hook."""

    answer: Answer
    place: tuple[Table, Chain] | None = None
    """The base chain that drops it, or may."""


@dataclass(frozen=True, slots=True)
class Firewall:
    """All the rules of a machine."""

    tables: Sequence[Table] = ()

    def passes(self, hook: str, packet: Packet) -> Passage:
        """Say whether a packet gets past a hook.

        Args:
          hook: input or forward.
          packet: as it is there: with the addresses it came with.
        """
        doubt: Passage | None = None
        for table, chain in self._base_chains(hook, packet, translating=False):
            ends = _walk(table, chain, packet)
            if _End.THROUGH in ends:
                ends = ends - {_End.THROUGH} | {_End.DROP if chain.drops else _End.ACCEPT}
            if ends == {_End.DROP}:
                return Passage(Answer.NO, (table, chain))
            if _End.DROP in ends and doubt is None:
                doubt = Passage(Answer.MAYBE, (table, chain))
        return doubt or Passage(Answer.YES)

    def translates(self, packet: Packet) -> Answer:
        """Say whether a packet that leaves gets another source address."""
        walks = [_walk(table, chain, packet) for table, chain in self._base_chains("postrouting", packet)]
        return Answer.any(
            Answer.YES if ends == {_End.TRANSLATE} else Answer.MAYBE if _End.TRANSLATE in ends else Answer.NO
            for ends in walks
        )

    def _base_chains(self, hook: str, packet: Packet, *, translating: bool = True) -> Iterable[tuple[Table, Chain]]:
        for table in self.tables:
            for chain in table.chains.values():
                if chain.hook == hook and chain.translates == translating and table.sees(packet):
                    yield table, chain
