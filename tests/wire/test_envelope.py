import hashlib
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import Malformed
from impervious.model import HopHint, NodePubkey, RecordType
from impervious.pb import envelope as pb
from impervious.units import MAX_MSAT, Msat
from impervious.wire import envelope
from impervious.wire.envelope import Envelope, Header, SignedHeader

SENDER = NodePubkey(bytes.fromhex("02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5"))
ID = UUID(int=7, version=4)
WAY = (HopHint(pubkey=SENDER, chan_id=2**64 - 1, base_fee=Msat(1000), fee_ppm=1, cltv_delta=40),)
HEADER = Header(
    sender=SENDER,
    sent_at_ms=1_700_000_000_000,
    reply_to=UUID(int=8, version=4),
    total_bytes=3,
    payload_sha256=hashlib.sha256(b"abc").digest(),
    amount=Msat(1000),
    order=1,
    void_orders=(4, 5),
)


def signed(header: Header = HEADER) -> SignedHeader:
    return SignedHeader(header=header, raw=envelope.encode_header(header), signature=bytes(65))


PART = Envelope(message_id=ID, offset=0, payload=b"abc", signed_header=signed())


def test_a_record_is_two_magic_bytes_and_protobuf() -> None:
    value = envelope.encode(PART)
    assert value[:2] == b"\x49\x01"
    fields = pb.Envelope.parse(value[2:])
    assert (fields.message_id, fields.offset, fields.payload) == (ID.bytes, 0, b"abc")


integers = st.integers(1, 2**63 - 1)
headers = st.builds(
    Header,
    sender=st.just(SENDER),
    sent_at_ms=integers,
    reply_to=st.none() | st.uuids(),
    total_bytes=st.integers(1000, 2**63 - 1),
    payload_sha256=st.binary(min_size=32, max_size=32),
    amount=st.integers(0, MAX_MSAT).map(Msat),
    order=integers,
    void_orders=st.lists(integers, max_size=64).map(tuple),
    hints=st.sampled_from([(), (WAY,), (WAY, WAY)]),
)


@given(
    st.builds(
        Envelope,
        message_id=st.uuids(),
        offset=st.integers(0, 100),
        payload=st.binary(min_size=1, max_size=900),
        signed_header=st.none() | headers.map(signed),
    )
)
def test_envelopes_survive_both_ways(part: Envelope) -> None:
    assert envelope.decode(envelope.encode(part)) == part


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_decoder(data: bytes) -> None:
    try:
        envelope.decode(envelope.MAGIC + data)
    except Malformed:
        return


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"message_id": bytes(15)}, "message_id"),
        ({"payload": b""}, "payload is empty"),
        ({"offset": 2**63}, "offset"),
        ({"signature": b""}, "together"),
        ({"header": b""}, "together"),
        ({"signature": bytes(64)}, "65 bytes"),
        ({"offset": 1}, "beyond total_bytes"),
        ({"header": b"\x0a\x05"}, "cut off"),
    ],
)
def test_a_malformed_envelope_says_why(fields: dict[str, bytes | int], says: str) -> None:
    good = {"message_id": ID.bytes, "payload": b"abc", "header": signed().raw, "signature": bytes(65)}
    with pytest.raises(Malformed, match=says):
        envelope.decode(envelope.MAGIC + bytes(pb.Envelope(**{**good, **fields})))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sender": bytes(33)}, "sender"),
        ({"sender": b""}, "sender"),
        ({"reply_to": bytes(15)}, "reply_to"),
        ({"payload_sha256": bytes(31)}, "sha256"),
        ({"total_bytes": 0}, "total_bytes"),
        ({"total_bytes": 2**63}, "total_bytes"),
        ({"sent_at_ms": 2**63}, "sent_at_ms"),
        ({"amount_msat": 2**63}, "amount"),
        ({"order": 0}, "order"),
        ({"order": 2**63}, "order"),
        ({"void_orders": [1] * 65}, "void_orders"),
        ({"void_orders": [0]}, "void order"),
        ({"void_orders": [2**63]}, "void order"),
    ],
)
def test_a_malformed_header_says_why(fields: dict[str, object], says: str) -> None:
    good = pb.Header.parse(envelope.encode_header(HEADER))
    for name, value in fields.items():
        setattr(good, name, value)
    with pytest.raises(Malformed, match=says):
        envelope.decode_header(bytes(good))


def test_other_bytes_are_no_envelope() -> None:
    assert not envelope.is_envelope(b"hello")
    with pytest.raises(Malformed, match="magic"):
        envelope.decode(b"hello")


def test_the_signed_text_binds_everything() -> None:
    raw = envelope.encode_header(HEADER)
    text = envelope.signed_text(raw, network="regtest", record_type=RecordType(400000), recipient=SENDER, message_id=ID)
    digest = hashlib.sha256(raw).hexdigest()
    assert text.decode() == f"impervious/1|regtest|400000|{SENDER.hex}|{ID.hex}|{digest}"
    other = envelope.encode_header(replace(HEADER, order=2))
    assert text != envelope.signed_text(
        other, network="regtest", record_type=RecordType(400000), recipient=SENDER, message_id=ID
    )
