"""What one custom record holds: bytes to values and back, and the text its sender signs.

A record is two magic bytes, then a protobuf `Envelope`: a byte range of a message. One part of every message also
carries the serialized `Header` and the sender's signature: the signature covers the header, the header the hash of the
whole payload. The header's bytes are kept as they came: they are what is signed, and protobuf has no canonical form.
"""

import hashlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.errors import Malformed
from impervious.model import MessageId, NodePubkey, RecordType, RouteHint
from impervious.pb import envelope as pb
from impervious.units import MAX_MSAT, Msat
from impervious.wire import protobuf, route_hints
from impervious.wire.protobuf import LENGTH_DELIMITED, VARINT

MAGIC: Final = b"I\x01"
"""The letter I and the version of this format."""
SIGNING_PREFIX: Final = "impervious/"
"""What every text that nodes sign for each other begins with; /v1/sign refuses to sign such a text for anybody."""
MAX_VOID_ORDERS: Final = 64
SIGNATURE_BYTES: Final = 65
_MAX_INTEGER: Final = 2**63 - 1
"""SQLite's largest; a protobuf uint64 goes higher."""

_ENVELOPE_FIELDS: Final = {
    1: LENGTH_DELIMITED,
    2: VARINT,
    3: LENGTH_DELIMITED,
    4: LENGTH_DELIMITED,
    5: LENGTH_DELIMITED,
}
_HEADER_FIELDS: Final = {
    1: LENGTH_DELIMITED,
    2: VARINT,
    3: LENGTH_DELIMITED,
    4: VARINT,
    5: LENGTH_DELIMITED,
    6: VARINT,
    7: VARINT,
    8: VARINT,
    9: LENGTH_DELIMITED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a sender says of a whole message."""

    sender: NodePubkey
    sent_at_ms: int
    reply_to: MessageId | None
    total_bytes: int
    payload_sha256: bytes
    amount: Msat
    """What the caller meant to give: all parts together bring at least that."""
    order: int
    """Counter per sender and recipient over all services, from 1."""
    void_orders: tuple[int, ...] = ()
    """Orders that will never arrive."""
    hints: tuple[RouteHint, ...] = ()
    """Ways to the sender, if it has only private channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeader:
    """A header, the very bytes it was read from, and the signature that came with them."""

    header: Header
    raw: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A byte range of a message, one of them with the header."""

    message_id: MessageId
    offset: int
    payload: bytes
    signed_header: SignedHeader | None = None


def encode(envelope: Envelope) -> bytes:
    """Write a record's value."""
    signed = envelope.signed_header
    return MAGIC + bytes(
        pb.Envelope(
            message_id=envelope.message_id.bytes,
            offset=envelope.offset,
            payload=envelope.payload,
            header=signed.raw if signed else b"",
            signature=signed.signature if signed else b"",
        )
    )


def encode_header(header: Header) -> bytes:
    """Write the bytes that are hashed, signed and sent."""
    return bytes(
        pb.Header(
            sender=header.sender.raw,
            sent_at_ms=header.sent_at_ms,
            reply_to=header.reply_to.bytes if header.reply_to else b"",
            total_bytes=header.total_bytes,
            payload_sha256=header.payload_sha256,
            amount_msat=header.amount,
            order=header.order,
            void_orders=list(header.void_orders),
            route_hints=route_hints.encode(header.hints),
        )
    )


def is_envelope(value: bytes) -> bool:
    """Whether a record's value says that it is one of ours; an ordinary wallet's bytes do not."""
    return value.startswith(MAGIC)


def decode(value: bytes) -> Envelope:
    """Read a record's value.

    Raises:
      Malformed: it does not follow the format.
    """
    if not is_envelope(value):
        raise Malformed("the record does not begin with our magic bytes")
    data = value[len(MAGIC) :]
    fields = protobuf.parse(pb.Envelope, data, _ENVELOPE_FIELDS)
    _require(len(fields.message_id) == 16, "message_id is not 16 bytes")
    _require(fields.offset <= _MAX_INTEGER, "offset is too large")
    _require(bool(fields.payload), "payload is empty")
    _require(bool(fields.header) == bool(fields.signature), "header and signature do not come together")
    return Envelope(
        message_id=UUID(bytes=fields.message_id),
        offset=fields.offset,
        payload=fields.payload,
        signed_header=_signed_header(fields) if fields.header else None,
    )


def _signed_header(fields: pb.Envelope) -> SignedHeader:
    _require(len(fields.signature) == SIGNATURE_BYTES, "signature is not 65 bytes")
    header = decode_header(fields.header)
    _require(fields.offset + len(fields.payload) <= header.total_bytes, "the part ends beyond total_bytes")
    return SignedHeader(header=header, raw=fields.header, signature=fields.signature)


def decode_header(raw: bytes) -> Header:
    """Read a header.

    Raises:
      Malformed: it does not follow the format.
    """
    fields = protobuf.parse(pb.Header, raw, _HEADER_FIELDS, repeated=frozenset({8}))
    _require(len(fields.sender) == 33 and fields.sender[0] in (2, 3), "sender is not a compressed key")
    _require(len(fields.reply_to) in (0, 16), "reply_to is not 16 bytes")
    _require(len(fields.payload_sha256) == 32, "payload_sha256 is not 32 bytes")
    _require(0 < fields.total_bytes <= _MAX_INTEGER, "total_bytes is out of range")
    _require(fields.sent_at_ms <= _MAX_INTEGER, "sent_at_ms is out of range")
    _require(fields.amount_msat <= MAX_MSAT, "amount_msat is out of range")
    _require(0 < fields.order <= _MAX_INTEGER, "order is out of range")
    _require(len(fields.void_orders) <= MAX_VOID_ORDERS, "too many void_orders")
    _require(all(0 < order <= _MAX_INTEGER for order in fields.void_orders), "a void order is out of range")
    return Header(
        sender=NodePubkey(fields.sender),
        sent_at_ms=fields.sent_at_ms,
        reply_to=UUID(bytes=fields.reply_to) if fields.reply_to else None,
        total_bytes=fields.total_bytes,
        payload_sha256=fields.payload_sha256,
        amount=Msat(fields.amount_msat),
        order=fields.order,
        void_orders=tuple(fields.void_orders),
        hints=route_hints.decode(fields.route_hints),
    )


def signed_text(
    raw_header: bytes, *, network: str, record_type: RecordType, recipient: NodePubkey, message_id: MessageId
) -> bytes:
    """Compose what the sender signs: bound to version, network, service, recipient, message and header.

    Args:
      raw_header: the header's bytes as sent.
      network: GetInfo.chains[0].network of both ends.
      record_type: the service's custom record number.
      recipient: whom the message is for.
      message_id: the envelope's.
    """
    digest = hashlib.sha256(raw_header).hexdigest()
    return f"{SIGNING_PREFIX}1|{network}|{record_type}|{recipient.hex}|{message_id.hex}|{digest}".encode()


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Malformed(sentence)
