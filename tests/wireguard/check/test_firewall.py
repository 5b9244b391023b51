"""How a packet walks; that the kernel agrees is `test_packets`."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.wireguard.check.firewall import Act, Answer, Chain, Firewall, Jump, Match, Packet, Rule, Table, unjudged

PACKET = Packet(
    into="wg0", out="eth0", source=ip_address("10.0.0.2"), target=ip_address("9.9.9.9"), protocol="udp", port=53
)


def always(_: Packet) -> Answer:
    return Answer.YES


def never(_: Packet) -> Answer:
    return Answer.NO


def firewall(*rules: Rule, drops: bool = False, family: str = "inet", **others: list[Rule]) -> Firewall:
    chains = {"base": Chain(name="base", rules=rules, hook="forward", drops=drops)}
    chains |= {name: Chain(name=name, rules=inner) for name, inner in others.items()}
    return Firewall([Table(tool="nft", family=family, name="t", chains=chains)])


def rule(act: Act | Jump, *matches: Match) -> Rule:
    return Rule(matches, act)


def answer(wall: Firewall) -> Answer:
    return wall.passes("forward", PACKET).answer


def test_three_valued_answers() -> None:
    yes, no, maybe = Answer.YES, Answer.NO, Answer.MAYBE
    assert (~yes, ~no, ~maybe) == (no, yes, maybe)
    assert (Answer.any([]), Answer.any([no, maybe]), Answer.any([maybe, yes])) == (no, maybe, yes)
    assert (Answer.all([]), Answer.all([yes, maybe]), Answer.all([maybe, no])) == (yes, maybe, no)


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        (Firewall(), Answer.YES),
        (firewall(), Answer.YES),
        (firewall(drops=True), Answer.NO),
        (firewall(rule(Act.DROP, never)), Answer.YES),
        (firewall(rule(Act.DROP, always, never)), Answer.YES),
        (firewall(rule(Act.ACCEPT), rule(Act.DROP)), Answer.YES),
        (firewall(rule(Act.NOTHING), rule(Act.DROP)), Answer.NO),
        (firewall(rule(Act.RETURN), rule(Act.ACCEPT), drops=True), Answer.NO),
        (firewall(rule(Act.UNJUDGED)), Answer.MAYBE),
        (firewall(rule(Act.DROP, unjudged)), Answer.MAYBE),
        (firewall(rule(Act.DROP, unjudged, never)), Answer.YES),
        (firewall(rule(Act.DROP, unjudged), rule(Act.DROP)), Answer.NO),
        (firewall(rule(Act.ACCEPT, unjudged), rule(Act.ACCEPT), drops=True), Answer.YES),
        (firewall(rule(Act.RETURN, unjudged), rule(Act.DROP)), Answer.MAYBE),
        (firewall(rule(Jump("c")), c=[rule(Act.DROP)]), Answer.NO),
        (firewall(rule(Jump("c")), rule(Act.DROP), c=[rule(Act.RETURN)]), Answer.NO),
        (firewall(rule(Jump("c", comes_back=False)), rule(Act.DROP), c=[]), Answer.YES),
        (firewall(rule(Jump("c", comes_back=False)), rule(Act.ACCEPT), drops=True, c=[]), Answer.NO),
        (firewall(rule(Jump("c"), unjudged), rule(Act.DROP), c=[rule(Act.ACCEPT)]), Answer.MAYBE),
        (firewall(rule(Jump("nowhere"))), Answer.MAYBE),
        (firewall(rule(Jump("c")), c=[rule(Jump("c"))]), Answer.MAYBE),
        (firewall(drops=True, family="ip6"), Answer.YES),
        (firewall(drops=True, family="ip"), Answer.NO),
    ],
)
def test_ends(wall: Firewall, expected: Answer) -> None:
    assert answer(wall) is expected


def test_every_chain_of_a_hook_must_let_it() -> None:
    good, doubtful, bad = firewall(), firewall(rule(Act.UNJUDGED)), firewall(drops=True)
    for walls, expected, place in (
        ((good, good), Answer.YES, None),
        ((good, doubtful), Answer.MAYBE, doubtful),
        ((doubtful, bad, good), Answer.NO, bad),
    ):
        passage = Firewall([wall.tables[0] for wall in walls]).passes("forward", PACKET)
        assert passage.answer is expected
        assert passage.place == (place and (place.tables[0], place.tables[0].chains["base"]))


def test_other_hooks_say_nothing() -> None:
    assert firewall(drops=True).passes("input", PACKET).answer is Answer.YES


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], Answer.NO),
        ([rule(Act.TRANSLATE)], Answer.YES),
        ([rule(Act.TRANSLATE, never)], Answer.NO),
        ([rule(Act.TRANSLATE, unjudged)], Answer.MAYBE),
        ([rule(Act.ACCEPT), rule(Act.TRANSLATE)], Answer.NO),
    ],
)
def test_translation(rules: list[Rule], expected: Answer) -> None:
    chain = Chain(name="n", rules=rules, hook="postrouting", translates=True)
    wall = Firewall([Table(tool="nft", family="ip", name="t", chains={"n": chain})])
    assert wall.translates(PACKET) is expected
    assert wall.passes("postrouting", PACKET).answer is Answer.YES


matches = st.lists(st.sampled_from([always, never, unjudged]), max_size=2)
acts = st.sampled_from([Act.ACCEPT, Act.DROP, Act.NOTHING, Act.RETURN, Jump("a"), Jump("b", comes_back=False)])
rules = st.lists(st.builds(Rule, matches, acts), max_size=4)
flat = st.lists(st.builds(Rule, matches, st.sampled_from([*Act])), max_size=3)


@given(rules, flat, flat, st.booleans(), st.data())
def test_a_doubt_resolved_either_way_is_never_against_the_answer(
    base: list[Rule], a: list[Rule], b: list[Rule], drops: bool, data: st.DataObject
) -> None:
    """Put yes or no in the place of every maybe: a definite answer stays."""
    before = answer(firewall(*base, drops=drops, a=a, b=b))

    def resolved(each: Rule) -> Rule:
        act = data.draw(st.sampled_from([Act.ACCEPT, Act.DROP])) if each.act is Act.UNJUDGED else each.act
        known = [data.draw(st.sampled_from([always, never])) if match is unjudged else match for match in each.matches]
        return replace(each, matches=known, act=act)

    after = answer(firewall(*map(resolved, base), drops=drops, a=[*map(resolved, a)], b=[*map(resolved, b)]))
    assert after is not Answer.MAYBE
    assert before in (Answer.MAYBE, after)
