"""Reading nft's JSON, apart from what `test_packets` has the real nft print."""

import json
from collections.abc import Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.wireguard.check.firewall import Answer, Firewall, Packet
from impervious.wireguard.check.nftables import Ruleset, read_ruleset

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

UDP = Packet(
    into="wg0", out="eth0", source=ip_address("fd00::2"), target=ip_address("2001:db8::1"), protocol="udp", port=53
)


def read(*expressions: Json, more: tuple[Json, ...] = (), policy: str = "accept") -> Ruleset:
    place = {"family": "inet", "table": "t"}
    base = {**place, "name": "c", "type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    entries: list[object] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "t", "handle": 1}},
        {"chain": base},
        *more,
        {"rule": {**place, "chain": "c", "expr": list(expressions)}},
    ]
    return read_ruleset(json.dumps({"nftables": entries}))


def met(condition: Json) -> Answer:
    """Say whether a condition holds for the packet."""
    passage = Firewall(read(condition, {"drop": None}).tables).passes("forward", UDP)
    return ~passage.answer


def equal(left: Mapping[str, Json], right: Json, op: str = "==") -> Json:
    return {"match": {"op": op, "left": dict(left), "right": right}}


META_IN: Mapping[str, Json] = {"meta": {"key": "iifname"}}
PORT: Mapping[str, Json] = {"payload": {"protocol": "th", "field": "dport"}}
SOURCE: Mapping[str, Json] = {"payload": {"protocol": "ip6", "field": "saddr"}}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (equal(META_IN, "wg0"), Answer.YES),
        (equal(META_IN, "wg*"), Answer.YES),
        (equal(META_IN, "wg"), Answer.NO),
        (equal(META_IN, "wg0", "!="), Answer.NO),
        (equal(META_IN, "wg0", "<"), Answer.MAYBE),
        (equal(META_IN, {"set": ["eth0", {"elem": {"val": "wg0", "counter": {}}}]}), Answer.YES),
        (equal(META_IN, "@unknown"), Answer.MAYBE),
        (equal(META_IN, {"range": ["a", "z"]}), Answer.MAYBE),
        (equal(META_IN, {"jinja": 1}), Answer.MAYBE),
        (equal(PORT, 53), Answer.YES),
        (equal(PORT, "domain"), Answer.MAYBE),
        (equal(PORT, {"set": [1, {"range": [50, 60]}]}), Answer.YES),
        (equal(PORT, {"range": [54, 60]}), Answer.NO),
        (equal({"payload": {"protocol": "tcp", "field": "dport"}}, 53, "!="), Answer.NO),
        (equal({"payload": {"protocol": "udp", "field": "length"}}, 53), Answer.MAYBE),
        (equal({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, "syn"]}, "syn"), Answer.NO),
        (equal(SOURCE, "fd00::2"), Answer.YES),
        (equal(SOURCE, {"prefix": {"addr": "fd00::", "len": 8}}), Answer.YES),
        (equal(SOURCE, {"range": ["fd00::", "fd00::1"]}), Answer.NO),
        (equal(SOURCE, "host.example.com"), Answer.MAYBE),
        (equal(SOURCE, {"prefix": {"addr": "fd00::", "len": 300}}), Answer.MAYBE),
        (equal({"payload": {"protocol": "ip", "field": "saddr"}}, "10.0.0.2", "!="), Answer.NO),
        (equal({"payload": {"protocol": "ip6", "field": "hoplimit"}}, 1), Answer.MAYBE),
        (equal({"payload": {"protocol": "ip6", "field": "nexthdr"}}, "udp"), Answer.YES),
        (equal({"meta": {"key": "nfproto"}}, "ipv6"), Answer.YES),
        (equal({"meta": {"key": "protocol"}}, "ip"), Answer.NO),
        (equal({"meta": {"key": "l4proto"}}, 17), Answer.YES),
        (equal({"meta": {"key": "l4proto"}}, 47), Answer.NO),
        (equal({"meta": {"key": "mark"}}, 1), Answer.MAYBE),
        (equal({"ct": {"key": "state"}}, ["established", "related"], "in"), Answer.NO),
        (equal({"ct": {"key": "state"}}, "new", "in"), Answer.YES),
        ({"limit": {"rate": 1, "per": "second"}}, Answer.MAYBE),
        ({"counter": {"packets": 0, "bytes": 0}}, Answer.YES),
        ({"xt": {"type": "match", "name": "comment"}}, Answer.YES),
        ({"xt": {"type": "match", "name": "conntrack"}}, Answer.MAYBE),
    ],
)
def test_conditions(condition: Json, expected: Answer) -> None:
    assert met(condition) is expected


def end(*expressions: Json, policy: str = "accept", more: tuple[Json, ...] = ()) -> Answer:
    tables = read(*expressions, policy=policy, more=more).tables
    return Firewall(tables).passes("forward", UDP).answer


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"reject": {"type": "icmpx"}}, Answer.NO),
        ({"xt": {"type": "target", "name": "REJECT"}}, Answer.NO),
        ({"xt": {"type": "target", "name": "TCPMSS"}}, Answer.YES),
        ({"xt": {"type": "target", "name": "SOMETHING"}}, Answer.MAYBE),
        ({"xt": None}, Answer.MAYBE),
        ({}, Answer.YES),
        ({"queue": {"num": 3}}, Answer.MAYBE),
        ({"jump": {"target": "nowhere"}}, Answer.MAYBE),
        ({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@unknown"}}, Answer.MAYBE),
        ({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["wg0", {"drop": None}]]}}}, Answer.NO),
        ({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["eth0", {"drop": None}]]}}}, Answer.YES),
        ({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": ["odd"]}}}, Answer.MAYBE),
    ],
)
def test_statements(statement: Json, expected: Answer) -> None:
    assert end(statement) is expected


def test_a_policy_and_a_named_map() -> None:
    place: dict[str, Json] = {"family": "inet", "table": "t"}
    named: Json = {"map": {**place, "name": "m", "map": "verdict", "elem": [["wg0", {"accept": None}]]}}
    assert end(policy="drop") is Answer.NO
    lookup: Json = {"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@m"}}
    assert end(lookup, policy="drop", more=(named,)) is Answer.YES


def test_what_only_iptables_can_explain_is_marked() -> None:
    assert read({"xt": {"type": "match", "name": "conntrack"}}).compat == {("inet", "t")}
    assert read({"accept": None}).compat == frozenset()


def test_tables_of_other_families_are_not_about_routed_packets() -> None:
    text = json.dumps({"nftables": [{"table": {"family": "bridge", "name": "t"}}, {"flowtable": {"family": "bridge"}}]})
    assert read_ruleset(text) == Ruleset()


@pytest.mark.parametrize("text", ["", "table inet t {}", "[]", '{"nftables": 1}', "null"])
def test_what_is_not_nfts_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_ruleset(text)


words = st.sampled_from(
    [
        *("table", "chain", "rule", "set", "map", "family", "inet", "name", "expr", "match", "op", "left", "right"),
        *("meta", "key", "iifname", "==", "vmap", "data", "drop", "jump", "target", "xt", "type", "elem", "prefix"),
        *("addr", "len", "range", "payload", "protocol", "field", "udp", "dport", "t", "hook", "forward", "@t"),
    ]
)
values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(words, values, min_size=1, max_size=1), max_size=6), values)
def test_whatever_nft_prints_is_read(entries: list[object], expression: object) -> None:
    place = {"family": "inet", "table": "t"}
    chain = {**place, "name": "t", "type": "filter", "hook": "forward", "policy": "accept"}
    whole: list[object] = [
        {"table": {"family": "inet", "name": "t"}},
        {"chain": chain},
        *entries,
        {"rule": {**place, "chain": "t", "expr": [expression]}},
    ]
    Firewall(read_ruleset(json.dumps({"nftables": whole})).tables).passes("forward", UDP)
