"""WireGuard's keys: X25519 (RFC 7748) and preshared, and what a buyer's key must be.

A key that comes from outside has exactly one spelling here: canonical base64 of a canonical point. Otherwise one buyer
could hold "different" keys that WireGuard, or our table, takes for the same one. Secret halves never print themselves.
"""

import base64
import binascii
import secrets
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, Self

from impervious.errors import AlreadyExists, InvalidArgument

KEY_BYTES: Final = 32

_FIELD_PRIME: Final = 2**255 - 19
_PROBE: Final = bytes(KEY_BYTES)
"""Any scalar finds low-order points: clamping makes every scalar a multiple of the cofactor."""


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """The name of a peer."""

    raw: bytes
    """32 bytes."""

    def __post_init__(self) -> None:
        _check_length(self.raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the base64 that `wg` prints.

        Raises:
          InvalidArgument: it is not 32 bytes in canonical base64.
        """
        return cls(_decoded(text, "public key"))

    @property
    def text(self) -> str:
        """44 characters of base64."""
        return _encoded(self.raw)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"PublicKey({self.text[:8]}…)"


@dataclass(frozen=True, slots=True)
class PresharedKey:
    """A secret that both ends add to a handshake. Never prints itself."""

    raw: bytes = field(repr=False)
    """32 bytes, not all zero: that is how WireGuard says that there is none."""

    def __post_init__(self) -> None:
        _check_length(self.raw)
        if not any(self.raw):
            raise InvalidArgument("the preshared key is all zero, which means none: leave it out")

    @classmethod
    def generate(cls) -> Self:
        """Draw a new one."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read base64.

        Raises:
          InvalidArgument: it is not 32 bytes in canonical base64; the text is not repeated.
        """
        return cls(_decoded(text, "preshared key"))

    @property
    def text(self) -> str:
        """44 characters of base64, for `wg`'s stdin and for the buyer."""
        return _encoded(self.raw)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """The secret half of a key pair. Never prints itself."""

    raw: bytes = field(repr=False)
    """32 bytes, clamped as `wg genkey` does."""

    def __post_init__(self) -> None:
        _check_length(self.raw)
        object.__setattr__(self, "raw", _clamped(self.raw))

    @classmethod
    def generate(cls) -> Self:
        """Draw a new one."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read base64.

        Raises:
          InvalidArgument: it is not 32 bytes in canonical base64; the text is not repeated.
        """
        return cls(_decoded(text, "private key"))

    @property
    def public(self) -> PublicKey:
        """The other half."""
        # Here, because it takes 8 MB, and most nodes neither sell nor buy.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return PublicKey(X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())

    @property
    def text(self) -> str:
        """44 characters of base64, for the configuration file alone."""
        return _encoded(self.raw)


def buyer_key(text: str, *, server: PublicKey, in_use: Container[PublicKey]) -> PublicKey:
    """Read the key that a buyer wants a tunnel for.

    Args:
      text: as it came from the other node.
      server: the key of the interface itself.
      in_use: keys of contracts that are not over, and of every peer on the interface.

    Raises:
      InvalidArgument: no tunnel can have that key.
      AlreadyExists: a tunnel has it.
    """
    key = PublicKey.parse(text)
    if int.from_bytes(key.raw, "little") >= _FIELD_PRIME:
        raise InvalidArgument("the public key is not reduced modulo 2^255-19: make a new one with `wg genkey`")
    if _is_low_order(key):
        raise InvalidArgument("the public key is a point of low order, which has no secret: make a new one")
    if key == server:
        raise InvalidArgument("the public key is the server's own: send the one of your own private key")
    if key in in_use:
        raise AlreadyExists("the public key is in use by another tunnel: make a new one for each contract")
    return key


def _is_low_order(key: PublicKey) -> bool:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        X25519PrivateKey.from_private_bytes(_PROBE).exchange(X25519PublicKey.from_public_bytes(key.raw))
    except ValueError:  # the shared secret would be zero (RFC 7748, section 6.1)
        return True
    return False


def _clamped(raw: bytes) -> bytes:
    return bytes([raw[0] & 248, *raw[1:31], (raw[31] & 127) | 64])  # RFC 7748, section 5


def _check_length(raw: bytes) -> None:
    if len(raw) != KEY_BYTES:
        raise InvalidArgument(f"a WireGuard key has {KEY_BYTES} bytes, not {len(raw)}")


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"the {what} is not base64: WireGuard's have 44 characters and end in =") from None
    if len(raw) != KEY_BYTES or _encoded(raw) != text:
        raise InvalidArgument(f"the {what} is not {KEY_BYTES} bytes in base64: WireGuard's have 44 characters")
    return raw
