import contextlib
import json

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import Malformed
from impervious.model import NodePubkey
from impervious.wire.payloads import Federate, Leave, SocketOffer, compact, decode_federate, port_text

KEY = NodePubkey(PrivateKey(bytes([7]) * 32).public_key.format())
SHAPE = {
    "recordId": "FEDERATE",
    "impId": "Zoë",
    "pubkey": KEY.hex,
    "ttl": 31_560_000,
    "services": ["message", "my.own-service"],
    "answer": False,
}


def test_a_federate_record_is_as_the_specification_has_it() -> None:
    record = Federate(imp_id="Zoë", pubkey=KEY, ttl_s=31_560_000, services=("message", "my.own-service"), answer=False)
    assert json.loads(record.encode()) == SHAPE
    assert decode_federate(record.encode()) == record
    assert decode_federate(Leave().encode()) == Leave()
    assert json.loads(Leave().encode()) == {"recordId": "LEAVE"}


def test_what_may_be_left_out_and_what_is_ignored() -> None:
    short = {key: value for key, value in SHAPE.items() if key not in ("services", "answer")} | {"more": 1}
    assert decode_federate(compact(short)) == Federate(
        imp_id="Zoë", pubkey=KEY, ttl_s=31_560_000, services=(), answer=False
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "recordId"),
        (compact({"recordId": "SOCKET"}), "recordId"),
        (compact({"recordId": ["LEAVE"]}), "recordId"),
        *[
            (compact(SHAPE | change), says)
            for change, says in (
                ({"impId": None}, "impId is not text"),
                ({"impId": ""}, "at least one character"),
                ({"impId": " \u3000"}, "at least one character"),
                ({"impId": "a\nb"}, "control characters"),
                ({"impId": "a\u202eb"}, "control characters"),
                ({"impId": "a\u2028b"}, "control characters"),
                ({"impId": "x" * 65}, "at most 64 bytes"),
                ({"impId": "ö" * 33}, "at most 64 bytes"),
                ({"pubkey": 7}, "pubkey is not text"),
                ({"pubkey": "02"}, "66 hex digits"),
                ({"ttl": 0}, "ttl"),
                ({"ttl": -1}, "ttl"),
                ({"ttl": True}, "ttl"),
                ({"ttl": 1.5}, "ttl"),
                ({"ttl": "60"}, "ttl"),
                ({"ttl": 2**63}, "ttl"),
                ({"services": "message"}, "services"),
                ({"services": ["a"] * 65}, "services"),
                ({"services": ["A"]}, "a service"),
                ({"services": [None]}, "a service"),
                ({"answer": "yes"}, "answer"),
            )
        ],
        (compact(SHAPE).replace(b"Zo", b"\\ud800"), "control characters"),
    ],
)
def test_everything_else_says_what_is_wrong(data: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        decode_federate(data)


@pytest.mark.slow
@given(st.one_of(st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda each: each)))
def test_nothing_else_is_ever_raised(value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(SHAPE | {"ttl": value, "services": value}).encode()
    with contextlib.suppress(Malformed):
        decode_federate(data)


def test_an_offer_is_what_was_published() -> None:
    """spec of 2021: programs read these keys, the colons included."""
    offer = SocketOffer(ip="1.1.1.1", ports=(6000, 9000))
    assert offer.encode() == b'{"recordId":"SOCKET","protocol":"udp","ip":"1.1.1.1","port1":":6000","port2":":9000"}'


def test_only_another_session_is_named() -> None:
    offer = SocketOffer(ip="2001:db8::1", ports=(1, 65_535), session="jeu à deux")
    assert json.loads(offer.encode()) == {
        "recordId": "SOCKET",
        "protocol": "udp",
        "ip": "2001:db8::1",
        "port1": ":1",
        "port2": ":65535",
        "session": "jeu à deux",
    }


def test_text_stays_text_and_no_byte_is_wasted() -> None:
    assert compact({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    assert port_text(6000) == ":6000"
