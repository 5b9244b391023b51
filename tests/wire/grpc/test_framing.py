"""Messages in frames: every way to cut them up, every way to get them wrong."""

import gzip
import math
import struct

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from impervious.wire.grpc.framing import GZIP, Budget, Inbox, frame_message


def inbox(limit_bytes: int = 1000, budget: float = math.inf, encoding: bytes = b"identity") -> Inbox:
    return Inbox(limit_bytes, Budget(budget), encoding)


def drain(box: Inbox) -> list[bytes]:
    return list(iter(box.next_message, None))


@given(st.lists(st.binary(max_size=50)), st.data())
def test_messages_come_out_however_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(frame_message(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    box, received = inbox(), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        box.feed(wire[start:end], end - start)
        if data.draw(st.booleans()):
            received += drain(box)
    received += drain(box)
    assert received == messages
    assert box.unread_bytes == 0
    assert not box.torn
    assert box._budget.used_bytes == 0


def test_the_wire_form() -> None:
    assert frame_message(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert frame_message(b"") == bytes(5)


def test_a_message_longer_than_a_prefix_can_say() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**32

    with pytest.raises(GRPCError) as caught:
        frame_message(Huge())
    assert caught.value.status is Status.RESOURCE_EXHAUSTED


def test_nothing_is_consumed_before_somebody_asks() -> None:
    box = inbox()
    box.feed(frame_message(b"one"), 8)
    box.feed(frame_message(b"two"), 10)  # two bytes of padding
    assert box.unread_bytes == 18
    assert box.next_message() == b"one"
    assert box.unread_bytes == 10
    assert box.next_message() == b"two"
    assert box.unread_bytes == 0


@pytest.mark.parametrize("cut", [5, 8])
def test_the_limit_is_checked_on_the_prefix(cut: int) -> None:
    wire = frame_message(b"x" * 11)
    for limit, fits in ((11, True), (10, False)):
        box = inbox(limit)
        box.feed(wire[:cut], cut)
        if fits:
            assert box.next_message() is None
            assert box.torn
            continue
        with pytest.raises(GRPCError, match="11 bytes is over the limit of 10") as caught:
            box.next_message()
        assert caught.value.status is Status.RESOURCE_EXHAUSTED


def test_a_whole_message_over_the_limit_is_refused() -> None:
    box = inbox(2)
    box.feed(frame_message(b"xxx"), 8)
    with pytest.raises(GRPCError, match="over the limit"):
        box.next_message()


def test_unfinished_messages_share_a_budget() -> None:
    budget = Budget(100)
    first, second = Inbox(1000, budget), Inbox(1000, budget)
    first.feed(struct.pack(">BI", 0, 200) + bytes(60), 65)
    assert first.next_message() is None
    second.feed(struct.pack(">BI", 0, 200) + bytes(60), 65)
    with pytest.raises(GRPCError, match="unfinished") as caught:
        second.next_message()
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert first.discard() == 0
    assert second.discard() == 0
    assert budget.used_bytes == 0


def test_discard_says_how_much_was_unread_and_can_be_repeated() -> None:
    box = inbox()
    box.feed(frame_message(b"one")[:3], 3)
    assert box.next_message() is None
    box.feed(b"rest", 4)
    assert box.discard() == 4
    assert box.discard() == 0
    assert not box.torn
    box.feed(frame_message(b"new"), 8)
    assert box.next_message() == b"new"


def compressed(message: bytes) -> bytes:
    body = gzip.compress(message)
    return struct.pack(">BI", 1, len(body)) + body


@given(st.binary(max_size=900), st.integers(0, 30))
def test_gzip_is_read(message: bytes, cut: int) -> None:
    wire = compressed(message)
    box = inbox(1000, encoding=GZIP)
    box.feed(wire[:cut], cut)
    box.next_message() if cut < len(wire) else None
    box.feed(wire[cut:] + frame_message(b"plain"), len(wire) - cut + 10)
    assert drain(box)[-2:] == [message, b"plain"]


def test_a_bomb_is_not_inflated() -> None:
    wire = compressed(bytes(50_000_000))
    assert len(wire) < 60_000
    box = inbox(60_000, encoding=GZIP)
    box.feed(wire, len(wire))
    with pytest.raises(GRPCError, match="inflates to more than the limit of 60000 bytes") as caught:
        box.next_message()
    assert caught.value.status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("wire", "encoding", "text"),
    [
        (compressed(b"x"), b"identity", "no grpc-encoding says how"),
        (b"\x02\x00\x00\x00\x01x", GZIP, "no grpc-encoding says how"),
        (b"\x01\x00\x00\x00\x02xx", GZIP, "not the gzip that it claims"),
        (b"\x01\x00\x00\x00\x00", GZIP, "not one whole gzip stream"),
        (struct.pack(">BI", 1, 15) + gzip.compress(b"hello")[:15], GZIP, "not one whole gzip stream"),
        (struct.pack(">BI", 1, len(gzip.compress(b"x")) + 1) + gzip.compress(b"x") + b"!", GZIP, "not one whole gzip"),
    ],
)
def test_bad_compression(wire: bytes, encoding: bytes, text: str) -> None:
    box = inbox(encoding=encoding)
    box.feed(wire, len(wire))
    with pytest.raises(GRPCError, match=text) as caught:
        box.next_message()
    assert caught.value.status is Status.INTERNAL
