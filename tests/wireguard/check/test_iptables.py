"""Reading `iptables -S`, apart from what `test_packets` has the real one print."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.wireguard.check.firewall import Answer, Firewall, Packet
from impervious.wireguard.check.iptables import read_table

UDP = Packet(
    into="wg0", out="eth0", source=ip_address("fd00::2"), target=ip_address("2001:db8::1"), protocol="udp", port=53
)


def end(*lines: str) -> Answer:
    text = "\n".join(("-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-N USER", *lines))
    return Firewall([read_table(text, family="ip6", name="filter")]).passes("forward", UDP).answer


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ("", Answer.YES),
        ("-i wg0", Answer.YES),
        ("-i wg+", Answer.YES),
        ("-i wg", Answer.NO),
        ("! -i wg0", Answer.NO),
        ("! -i eth0 -o eth0", Answer.YES),
        ("-i wg0 ! -o eth0", Answer.NO),
        ("-s fd00::/8", Answer.YES),
        ("-d fd00::/8", Answer.NO),
        ("-s host.example.com", Answer.MAYBE),
        ("-p udp -m udp --dport 53", Answer.YES),
        ("-p udp -m udp --dport 50:60", Answer.YES),
        ("-p udp -m udp --dport 54:60", Answer.NO),
        ("-p udp -m udp ! --dport 53", Answer.NO),
        ("-p udp -m multiport --dports 1,50:60", Answer.YES),
        ("-p tcp", Answer.NO),
        ("-p all", Answer.YES),
        ("-m conntrack --ctstate NEW", Answer.YES),
        ("-m state --state RELATED,ESTABLISHED", Answer.NO),
        ("-m mark --mark 0x1", Answer.MAYBE),
        ("-m mark ! --mark 0x1", Answer.MAYBE),
        ("-m tcp --tcp-flags SYN,RST SYN", Answer.MAYBE),
        ("-p tcp -m tcp --tcp-flags SYN,RST SYN", Answer.NO),
        ('-m comment --comment "! -i eth0 -j DROP"', Answer.YES),
        ("-m socket --transparent", Answer.MAYBE),
    ],
)
def test_conditions(options: str, dropped: Answer) -> None:
    assert ~end(f"-A FORWARD {options} -j DROP") is dropped


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["-A FORWARD -j REJECT --reject-with icmp6-port-unreachable"], Answer.NO),
        (["-A FORWARD -j LOG --log-prefix x --log-level 4"], Answer.YES),
        (["-A FORWARD -j NFQUEUE --queue-num 1"], Answer.MAYBE),
        (["-A FORWARD -j USER", "-A FORWARD -j DROP", "-A USER -j ACCEPT"], Answer.YES),
        (["-A FORWARD -j USER", "-A FORWARD -j DROP", "-A USER -j RETURN"], Answer.NO),
        (["-A FORWARD -g USER", "-A FORWARD -j DROP"], Answer.YES),
        (["-A INPUT -j DROP"], Answer.YES),
        (["-A FORWARD -i wg0"], Answer.YES),
    ],
)
def test_ends(lines: list[str], expected: Answer) -> None:
    assert end(*lines) is expected


def test_a_policy() -> None:
    table = read_table("-P FORWARD DROP\n", family="ip6", name="filter")
    passage = Firewall([table]).passes("forward", UDP)
    assert passage.answer is Answer.NO
    assert passage.place is not None
    assert passage.place[0].tool == "ip6tables"


def test_translation() -> None:
    text = "-P POSTROUTING ACCEPT\n-A POSTROUTING -s fd00::/8 ! -o wg0 -j MASQUERADE --random\n"
    assert Firewall([read_table(text, family="ip6", name="nat")]).translates(UDP) is Answer.YES


@pytest.mark.parametrize("text", ["hello", "-A FORWARD -j DROP", "-P FORWARD", '-P FORWARD "', "# Warning: x"])
def test_what_is_not_iptables_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_table(text, family="ip", name="filter")


words = st.sampled_from(
    ["-A", "FORWARD", "-j", "-g", "USER", "DROP", "!", "-i", "wg0", "-p", "--dport", "1:x", "-m", "x", "--comment", "9"]
)


@given(st.lists(words, max_size=8).map(" ".join))
def test_whatever_iptables_prints_is_read(options: str) -> None:
    end(f"-A FORWARD {options}")
