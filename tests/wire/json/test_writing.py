import json
import math
from dataclasses import dataclass

import betterproto2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.pb.lightning import CheckInvoiceResponse, GenerateInvoiceRequest
from impervious.pb.lnrpc import FeeLimit, Payment, PaymentPaymentStatus
from impervious.pb.messaging import SendMessageResponse
from impervious.pb.socket import StartSocketResponse, StopSocketResponse
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse
from impervious.wire.json import Encoding, decode, encode


@dataclass(eq=False, repr=False)
class Chest(betterproto2.Message):
    number: "float" = betterproto2.field(1, betterproto2.TYPE_DOUBLE)
    numbers: "list[int]" = betterproto2.field(2, betterproto2.TYPE_INT32, repeated=True)
    by_flag: "dict[bool, float]" = betterproto2.field(
        3, betterproto2.TYPE_MAP, map_meta=betterproto2.map_meta(betterproto2.TYPE_BOOL, betterproto2.TYPE_DOUBLE)
    )
    by_name: "dict[str, Chest]" = betterproto2.field(
        4, betterproto2.TYPE_MAP, map_meta=betterproto2.map_meta(betterproto2.TYPE_STRING, betterproto2.TYPE_MESSAGE)
    )
    added: "bool" = betterproto2.field(100, betterproto2.TYPE_BOOL)


EVENT = SubscribeResponse(
    id="5fed",
    from_pubkey="027b",
    data=b"hello?\xff>",
    service_type="message",
    amount=1,
    seq=2**64 - 1,
    sent_at_ms=-1,
    verified=True,
)


DEFAULT_EVENT = (
    b'{"id":"","replyToId":"","fromPubkey":"","data":"","serviceType":"","amount":"0","seq":"0","sentAtMs":"0",'
    b'"verified":false}'
)


def test_an_event_with_all_its_fields() -> None:
    assert encode(EVENT) == (
        b'{"id":"5fed","replyToId":"","fromPubkey":"027b","data":"aGVsbG8//z4=","serviceType":"message","amount":"1",'
        b'"seq":"18446744073709551615","sentAtMs":"-1","verified":true}'
    )


def test_an_event_as_it_was_published() -> None:
    assert (
        encode(EVENT, encoding=Encoding.TEXT, published=True)
        == (
            '{"id":"5fed","replyToId":"","fromPubkey":"027b","data":"hello?\N{REPLACEMENT CHARACTER}>",'
            '"serviceType":"message","amount":"1"}'
        ).encode()
    )


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (SendMessageResponse(), b'{"id":""}'),
        (CheckInvoiceResponse(), b'{"paid":false}'),
        (StopSocketResponse(), b"{}"),
        (SubscribeResponse(), DEFAULT_EVENT),
        (SubscribeRequest(), b'{"serviceType":[],"fromPubkey":[],"secrets":false}'),
        (SubscribeRequest(since=0), b'{"since":"0","serviceType":[],"fromPubkey":[],"secrets":false}'),
        (FeeLimit(), b"{}"),
        (FeeLimit(percent=0), b'{"percent":"0"}'),
    ],
)
def test_defaults_are_written_and_what_is_absent_is_not(message: betterproto2.Message, line: bytes) -> None:
    assert encode(message) == line


def test_added_fields_are_left_out_at_every_depth() -> None:
    chest = Chest(by_name={"x": Chest(added=True)}, added=True)
    assert json.loads(encode(chest, published=True)) == {
        "number": 0.0,
        "numbers": [],
        "byFlag": {},
        "byName": {"x": {"number": 0.0, "numbers": [], "byFlag": {}, "byName": {}}},
    }
    response = StartSocketResponse(protocol="udp", ip="1.1.1.1", port1=":6000", port2=":9000")
    assert encode(response, published=True) == b'{"protocol":"udp","ip":"1.1.1.1","port1":":6000","port2":":9000"}'


def test_many_and_nested() -> None:
    chest = Chest(number=1e300, numbers=[1, -2], by_flag={True: math.inf, False: -math.inf}, by_name={'"': Chest()})
    assert json.loads(encode(chest)) == {
        "number": 1e300,
        "numbers": [1, -2],
        "byFlag": {"true": "Infinity", "false": "-Infinity"},
        "byName": {'"': {"number": 0.0, "numbers": [], "byFlag": {}, "byName": {}, "added": False}},
        "added": False,
    }
    assert b'"number":"NaN"' in encode(Chest(number=math.nan))
    assert decode(Chest, encode(chest)) == chest


def test_enums_by_their_name_in_the_proto() -> None:
    assert json.loads(encode(Payment(status=PaymentPaymentStatus.SUCCEEDED)))["status"] == "SUCCEEDED"
    assert json.loads(encode(Payment(status=PaymentPaymentStatus(77))))["status"] == 77


def test_hashes_are_base64_in_either_encoding() -> None:
    for encoding in Encoding:
        assert b'"descriptionHash":"AAE="' in encode(
            GenerateInvoiceRequest(description_hash=b"\0\1"), encoding=encoding
        )


@given(st.text(), st.binary())
def test_an_event_is_one_line_of_utf8(text: str, data: bytes) -> None:
    event = SubscribeResponse(id=text, data=data)
    for encoding in Encoding:
        line = encode(event, encoding=encoding).decode()
        assert line.splitlines() == [line]


def test_characters_that_end_a_line_elsewhere_are_escaped() -> None:
    text = "a\nb\x85c\u2028d\u2029e\x0b\x1c"
    line = encode(SubscribeResponse(data=text.encode()), encoding=Encoding.TEXT)
    assert rb'"data":"a\nb\u0085c\u2028d\u2029e\u000b\u001c"' in line
    assert json.loads(line)["data"] == text


def test_half_a_character_does_not_end_a_stream() -> None:
    assert b'"id":"?"' in encode(SubscribeResponse(id="\ud800"))
