import pytest

from impervious.errors import InvalidArgument
from impervious.pb.lightning import SendKeysendRequest, TlvRecord
from impervious.pb.messaging import SendMessageRequest
from impervious.pb.routerrpc import SendPaymentRequest
from impervious.pb.websocket import SubscribeRequest
from impervious.server.strict import MAX_FIELDS, decode


def test_good_requests_are_read() -> None:
    for message in (
        SendMessageRequest(),
        SendMessageRequest(msg=b"\xff", pubkey="x" * 200, amount=-1, text="é", wait=True),
        SendKeysendRequest(pubkey="x", records=[TlvRecord(type=65536, value="aa"), TlvRecord(type=2**63)]),
        SendPaymentRequest(dest=b"x", dest_custom_records={65536: b"a", 2**63: b""}),
        SubscribeRequest(since=0, service_type=["a", "b"]),
    ):
        assert decode(type(message), bytes(message)) == message


def test_unknown_fields_and_repeated_ones_are_no_offence() -> None:
    data = b"\xf2\x3f\x01x" + bytes(SendMessageRequest(amount=1)) + bytes(SendMessageRequest(amount=2))
    assert decode(SendMessageRequest, data).amount == 2


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x08\x05", "msg has wire type 0, not 2"),
        (b"\x18\x05\x10\x05", "pubkey has wire type 0, not 2"),
        (b"\x1a\x01x", "amount has wire type 2, not 0"),
        (b"\x12\x02\xff\xfe", "a string is not UTF-8"),
        (b"\x0a\x05x", "cut off"),
        (b"\x0a", "cut off"),
        (b"\x80", "cut off"),
        (b"\x18" + b"\xff" * 10, "too long"),
        (b"\x0b\x0c", "wire type 3 is not used"),
        (b"\x00\x00", "field 0"),
        (b"\xf8\x3f\x00" * (MAX_FIELDS + 1), f"more than {MAX_FIELDS} fields"),
    ],
)
def test_others_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        decode(SendMessageRequest, data)


def test_what_is_inside_is_looked_at_too() -> None:
    with pytest.raises(InvalidArgument, match=r"records\.value has wire type 0"):
        decode(SendKeysendRequest, b"\x1a\x02\x10\x01")
    with pytest.raises(InvalidArgument, match="cut off"):
        decode(SendKeysendRequest, b"\x1a\x02\x08\x80")
    entry = bytes(SendPaymentRequest(dest_custom_records={1: b""}))[:1]
    with pytest.raises(InvalidArgument, match=r"dest_custom_records\.value has wire type 0"):
        decode(SendPaymentRequest, entry + b"\x04\x08\x01\x10\x01")


def test_packed_numbers_are_counted() -> None:
    packed = bytes(SendPaymentRequest(outgoing_chan_ids=[1, 2]))
    assert decode(SendPaymentRequest, packed).outgoing_chan_ids == [1, 2]
    tag = packed[:2]
    with pytest.raises(InvalidArgument, match="more than"):
        decode(SendPaymentRequest, tag + b"\x80\x80\x01" + bytes(1 << 14))


class Odd:
    """A message of another library."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def SerializeToString(self) -> bytes:
        return b""


@pytest.mark.parametrize("error", [EOFError(), RecursionError(), MemoryError(), AssertionError(), KeyError("x")])
def test_whatever_a_parser_raises(error: Exception) -> None:
    class Broken(Odd):
        @classmethod
        def FromString(cls, data: bytes, /) -> "Broken":
            raise error

    with pytest.raises(InvalidArgument, match=f"invalid Broken: {type(error).__name__}"):
        decode(Broken, b"")
