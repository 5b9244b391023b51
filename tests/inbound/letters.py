"""Messages from alice to bob as they arrive: headers, signatures, records, settled invoices."""

import hashlib
from uuid import UUID, uuid4

from coincurve import PrivateKey

from impervious.inbound.arrival import Local
from impervious.model import NodePubkey, PaymentHash, RecordType, ServiceType, SettledInvoice
from impervious.units import Msat
from impervious.wire import envelope, lnd_signature
from impervious.wire.envelope import Envelope, Header, SignedHeader

ALICE_KEY, BOB_KEY, CAROL_KEY = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
MESSAGE = RecordType(400_000)
NOW_S = 1_760_000_000


def node(key: PrivateKey) -> NodePubkey:
    return NodePubkey(key.public_key.format())


LOCAL = Local(pubkey=node(BOB_KEY), network="regtest", services={MESSAGE: ServiceType("message")}, max_bytes=480_000)


def invoice(value: bytes, *, amount: int = 1000, record_type: int = MESSAGE, keysend: bool = True) -> SettledInvoice:
    return SettledInvoice(
        payment_hash=PaymentHash(hashlib.sha256(value + uuid4().bytes).digest()),
        amount=Msat(amount),
        records={record_type: value, 5482373484: bytes(32), 106823: b"\x07"},
        is_keysend=keysend,
        add_index=1,
        settle_index=1,
        created_s=NOW_S,
        settled_s=NOW_S,
    )


def header(data: bytes, *, key: PrivateKey = ALICE_KEY, order: int = 1, amount: int = 1000, **other: object) -> Header:
    fields = {
        "sender": node(key),
        "sent_at_ms": NOW_S * 1000,
        "reply_to": None,
        "total_bytes": len(data),
        "payload_sha256": hashlib.sha256(data).digest(),
        "amount": Msat(amount),
        "order": order,
        **other,
    }
    return Header(**fields)  # type: ignore[arg-type]


def sign(what: Header, identifier: UUID, *, key: PrivateKey = ALICE_KEY, **other: object) -> SignedHeader:
    raw = envelope.encode_header(what)
    bound = {"network": "regtest", "record_type": MESSAGE, "recipient": LOCAL.pubkey, "message_id": identifier, **other}
    return SignedHeader(header=what, raw=raw, signature=lnd_signature.sign(envelope.signed_text(raw, **bound), key))  # type: ignore[arg-type]


def whole(data: bytes, message_id: UUID, **other: object) -> Envelope:
    signed = sign(header(data, **other), message_id)  # type: ignore[arg-type]
    return Envelope(message_id=message_id, offset=0, payload=data, signed_header=signed)
