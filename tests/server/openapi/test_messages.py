"""Schemas against the reader and the writer themselves, on types that hold every kind of field."""

import json
from typing import Any

import betterproto2 as proto
import pytest
from jsonschema import Draft202012Validator

from impervious.errors import InvalidArgument
from impervious.pb.lnrpc import Hop, Payment, Route
from impervious.pb.messaging import SendMessageRequest
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse
from impervious.server.openapi.messages import Messages, Way, full_name
from impervious.wire.json import Encoding, decode, encode


def validator(message_type: type[proto.Message], way: Way, encoding: Encoding = Encoding.BASE64) -> Any:
    messages = Messages(encoding)
    reference = messages.reference(message_type, way)
    return Draft202012Validator({**reference, "components": {"schemas": messages.schemas}})


WRITTEN = [
    SubscribeResponse(id="x", data=b"\xff", amount=7, seq=2**64 - 1, verified=True),
    SubscribeResponse(),
    Payment(payment_hash="00", fee_msat=-1),
    Route(total_amt_msat=5, hops=[Hop(custom_records={65536: b"\xff\xfe"}), Hop()]),
]


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("message", WRITTEN)
def test_what_is_written_fits(message: proto.Message, encoding: Encoding) -> None:
    schema = validator(type(message), Way.OUT, encoding)
    written = json.loads(encode(message, encoding=encoding))
    assert list(schema.iter_errors(written)) == []
    for name in written:
        assert list(schema.iter_errors({**written, name: [{"neither": "nor"}]})) != []
        # Streams in text mode leave the additions to an event out.
        added = isinstance(message, SubscribeResponse) and name in ("seq", "sentAtMs", "verified")
        if not (added and encoding is Encoding.TEXT):
            assert list(schema.iter_errors({key: written[key] for key in written if key != name})) != []


def decodes(message_type: type[proto.Message], body: object) -> bool:
    try:
        decode(message_type, json.dumps(body).encode())
    except InvalidArgument:
        return False
    return True


@pytest.mark.parametrize(
    ("message_type", "body"),
    [
        (SubscribeRequest, {"since": 3, "serviceType": ["vpn"]}),
        (SubscribeRequest, {"since": "3", "serviceType": None}),
        (SubscribeRequest, {"since": -1}),
        (SubscribeRequest, {"since": 2**64}),
        (SubscribeRequest, {"since": 1.5}),
        (SubscribeRequest, {"since": True}),
        (SubscribeRequest, {"serviceType": "vpn"}),
        (SubscribeRequest, {"serviceType": [None]}),
        (SendMessageRequest, {"msg": "_-8", "wait": False}),
        (SendMessageRequest, {"msg": "-_8=", "wait": None}),
        (SendMessageRequest, {"msg": "a"}),
        (SendMessageRequest, {"msg": "aGk=="}),
        (SendMessageRequest, {"wait": "true"}),
        (SendMessageRequest, {"text": 7}),
        (Payment, {"status": "SUCCEEDED"}),
        (Payment, {"status": 2}),
        (Payment, {"status": "NONE SUCH"}),
        (Route, {"hops": [{"customRecords": {"65536": "AA=="}}]}),
        (Route, {"hops": [{"customRecords": {"65536": 5}}]}),
    ],
)
def test_what_fits_is_read_and_what_does_not_is_refused(message_type: type[proto.Message], body: object) -> None:
    assert (list(validator(message_type, Way.IN).iter_errors(body)) == []) == decodes(message_type, body)


def test_a_type_that_goes_both_ways_has_two_schemas() -> None:
    messages = Messages(Encoding.BASE64)
    first = messages.reference(SubscribeRequest, Way.IN)
    assert first == {"$ref": "#/components/schemas/websocket.SubscribeRequest"}
    assert messages.reference(SubscribeRequest, Way.IN) == first
    assert messages.reference(SubscribeRequest, Way.OUT) == {
        "$ref": "#/components/schemas/websocket.SubscribeRequest.out"
    }
    assert full_name(SubscribeRequest) == "websocket.SubscribeRequest"


def test_what_is_needed_may_not_be_missing_or_null() -> None:
    messages = Messages(Encoding.BASE64)
    reference = messages.reference(SendMessageRequest, Way.IN, needs=frozenset({"pubkey"}))
    schema = Draft202012Validator({**reference, "components": {"schemas": messages.schemas}})
    assert [list(schema.iter_errors(body)) == [] for body in ({"pubkey": "02"}, {}, {"pubkey": None})] == [
        True,
        False,
        False,
    ]
