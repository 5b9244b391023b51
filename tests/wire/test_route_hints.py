import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.model import HopHint, NodePubkey
from impervious.units import Msat
from impervious.wire import route_hints

KEY = NodePubkey(b"\x02" + bytes(32))
hops = st.builds(
    HopHint,
    pubkey=st.just(KEY),
    chan_id=st.integers(0, 2**64 - 1),
    base_fee=st.integers(0, 2**32 - 1).map(Msat),
    fee_ppm=st.integers(0, 2**32 - 1),
    cltv_delta=st.integers(0, 2**16 - 1),
)


@given(st.lists(st.tuples(hops), max_size=3))
def test_ways_come_back_as_they_were(hints: list[tuple[HopHint]]) -> None:
    assert route_hints.decode(route_hints.encode(hints)) == tuple(hints)


def test_a_hop_is_that_of_bolt_11() -> None:
    hop = HopHint(pubkey=KEY, chan_id=0x0102030405060708, base_fee=Msat(1), fee_ppm=20, cltv_delta=3)
    assert route_hints.encode([(hop,)]).hex() == KEY.hex + "0102030405060708" + "00000001" + "00000014" + "0003"


def test_only_the_first_ways_of_one_channel_are_written() -> None:
    hop = HopHint(pubkey=KEY, chan_id=1, base_fee=Msat(1), fee_ppm=2, cltv_delta=3)
    assert len(route_hints.encode([(hop, hop), *[(hop,)] * 9])) == route_hints.MAX_BYTES == 153


@pytest.mark.parametrize("data", [b"x", bytes(51), bytes(50), bytes(204), b"\x02" + bytes(50) + bytes(51)])
def test_what_is_no_way_is_left_out(data: bytes) -> None:
    assert route_hints.decode(data) == ()
