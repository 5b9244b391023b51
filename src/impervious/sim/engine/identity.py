"""A node's secp256k1 identity: the key behind its pubkey and its signatures."""

import hashlib
from typing import Final

from coincurve import PrivateKey

from impervious.model import NodePubkey
from impervious.wire import lnd_signature

_HEADER: Final = 31
"""27, and 4 for a compressed key."""


class Identity:
    """A key pair. The secret stays out of its repr."""

    __slots__ = ("_key", "pubkey")

    def __init__(self, secret: bytes) -> None:
        self._key = PrivateKey(secret)
        self.pubkey = NodePubkey(self._key.public_key.format())

    def __repr__(self) -> str:
        return f"Identity({self.pubkey!r})"

    @property
    def secret(self) -> bytes:
        """32 bytes, for saving it."""
        return self._key.secret

    def sign(self, text: bytes) -> bytes:
        """Sign as LND's SignMessage does: 65 bytes."""
        return lnd_signature.sign(text, self._key)

    def sign_once_hashed(self, text: bytes) -> bytes:
        """Sign as LND's SignMessage with single_hash does: over one SHA-256 instead of two."""
        digest = hashlib.sha256(lnd_signature.PREFIX + text).digest()
        compact = self._key.sign_recoverable(digest, hasher=None)
        return bytes([_HEADER + compact[64]]) + compact[:64]
