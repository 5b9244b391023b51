import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import Malformed
from impervious.pb.envelope import Header
from impervious.wire import protobuf

FIELDS = {1: 2, 2: 0, 3: 2, 4: 0, 5: 2, 6: 0, 7: 0, 8: 0}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x0a\x05abc", "cut off"),
        (b"\x0a", "cut off"),
        (b"\x10\xff", "cut off"),
        (b"\x10" + b"\xff" * 10, "too long"),
        (b"\x10" + b"\xff" * 9 + b"\x7f", "too long"),
        (b"\x00\x01", "number 0"),
        (b"\x08\x01", "wire type 0, not 2"),
        (b"\x10\x01\x10\x02", "twice"),
        (b"\x7b", "not used"),
        (b"\x79\x01", "cut off"),
    ],
)
def test_what_is_not_a_whole_message_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        protobuf.check(data, FIELDS, repeated=frozenset({8}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\x00",
        b"\x40\x01\x40\x02",  # field 8, one by one
        b"\x42\x02\x01\x02",  # field 8, packed
        b"\x79" + bytes(8),  # field 15, fixed64: from the future
        b"\x7d" + bytes(4),  # field 15, fixed32
        b"\x10" + b"\xff" * 9 + b"\x01",  # 2**64 - 1
    ],
)
def test_whole_messages_pass(data: bytes) -> None:
    protobuf.check(data, FIELDS, repeated=frozenset({8}))


@given(
    st.builds(
        Header,
        sender=st.binary(max_size=40),
        sent_at_ms=st.integers(0, 2**64 - 1),
        total_bytes=st.integers(0, 2**64 - 1),
        void_orders=st.lists(st.integers(0, 2**64 - 1), max_size=70),
    ),
    st.data(),
)
def test_every_prefix_of_a_message_is_whole_or_refused(header: Header, data: st.DataObject) -> None:
    whole = bytes(header)
    protobuf.check(whole, FIELDS, repeated=frozenset({8}))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        protobuf.check(cut, FIELDS, repeated=frozenset({8}))
    except Malformed:
        return
    assert bytes(Header.parse(cut)) == cut
