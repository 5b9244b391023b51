"""What things are called by: nodes, messages, payments, services, records."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NewType, Self
from uuid import UUID

from impervious.errors import InvalidArgument

MessageId = UUID
"""A random (version 4) UUID; 16 bytes on the wire, its hyphenated text at the API."""

PaymentHash = NewType("PaymentHash", bytes)
"""32 bytes: SHA-256 of the preimage."""

ServiceType = NewType("ServiceType", str)
"""The wire's name of a service: message, federate, vpn, socket, sign, lightning, or a third party's."""

RecordType = NewType("RecordType", int)
"""Key of a custom record, from 65536 (BOLT 1 TLV, lnd SendPaymentRequest.dest_custom_records)."""

Records = Mapping[int, bytes]
"""Custom records: type -> value."""

STATUS: Final = ServiceType("status")
"""Outcomes of our own calls. Never comes from the wire."""


_FIELD_PRIME: Final = 2**256 - 2**32 - 977
"""Of secp256k1 (SEC 2, section 2.4.1)."""


@dataclass(frozen=True, slots=True, order=True)
class NodePubkey:
    """A node's identity: a compressed secp256k1 point."""

    raw: bytes
    """33 bytes."""

    def __post_init__(self) -> None:
        if len(self.raw) != 33 or self.raw[0] not in (2, 3):
            raise InvalidArgument("a pubkey is 33 bytes and begins with 02 or 03")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 66 hex digits that a person typed, and check that they are a point on the curve.

        Raises:
          InvalidArgument: what is wrong with them.
        """
        if not text:
            raise InvalidArgument("pubkey is missing: give the node's 66 hex digits (lncli getinfo, identity_pubkey)")
        if len(text) != 66:
            raise InvalidArgument(f"pubkey has {len(text)} characters; a compressed key has 66 hex digits")
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raise InvalidArgument("pubkey is not hexadecimal: use the digits 0-9 and a-f only") from None
        if len(raw) != 33:  # fromhex skips spaces
            raise InvalidArgument("pubkey is not hexadecimal: use the digits 0-9 and a-f only")
        if raw[0] not in (2, 3):
            raise InvalidArgument("pubkey does not begin with 02 or 03: it is not a compressed key")
        if not _on_curve(raw):
            raise InvalidArgument("pubkey is not a point on the curve: a digit is wrong")
        return cls(raw)

    @property
    def hex(self) -> str:
        """66 lower-case hex digits."""
        return self.raw.hex()

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        return f"NodePubkey({self.raw.hex()[:12]}…)"


def _on_curve(compressed: bytes) -> bool:
    x = int.from_bytes(compressed[1:])
    square = (pow(x, 3, _FIELD_PRIME) + 7) % _FIELD_PRIME
    return x < _FIELD_PRIME and pow(square, (_FIELD_PRIME - 1) // 2, _FIELD_PRIME) == 1  # Euler's criterion


@dataclass(frozen=True, slots=True)
class Preimage:
    """What claims a payment. Secret until the payment has settled, so it never prints itself."""

    raw: bytes = field(repr=False)
    """32 bytes."""

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise InvalidArgument("a preimage is 32 bytes")

    @property
    def payment_hash(self) -> PaymentHash:
        """SHA-256 of it."""
        return PaymentHash(hashlib.sha256(self.raw).digest())
