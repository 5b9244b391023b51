"""Signatures as LND's SignMessage makes them: over a prefixed double SHA-256, from which the signer's key is recovered.

65 bytes: a header of 31 to 34 (27, the recovery id, and 4 for "compressed key"), then r and s. LND's own verdict
`valid` only says that the signer is in its graph, so everybody who must know who signed recovers the key here. A
signature is not unique (r, -s with the other recovery id gives the same key): never use one as an id.
"""

import hashlib
from typing import Final

from coincurve import PrivateKey, PublicKey

from impervious.errors import Unverified
from impervious.model import NodePubkey

PREFIX: Final = b"Lightning Signed Message:"
"""lnd rpcserver.go, signedMsgPrefix: no length goes before it or after it."""

SIGNATURE_BYTES: Final = 65
_HEADER: Final = 27 + 4
_OLDEST_HEADER: Final = 27
"""Headers from 27 to 30 mean "uncompressed key"; LND accepts them and recovers the same point."""


def digest(text: bytes) -> bytes:
    """Hash a text as LND does before it signs: 32 bytes."""
    return hashlib.sha256(hashlib.sha256(PREFIX + text).digest()).digest()


def sign(text: bytes, key: PrivateKey) -> bytes:
    """Sign `text`: deterministic (RFC 6979), low s, 65 bytes."""
    compact = key.sign_recoverable(digest(text), hasher=None)
    return bytes([_HEADER + compact[64]]) + compact[:64]


def recover(text: bytes, signature: bytes) -> NodePubkey:
    """Tell whose key signed `text`.

    A changed text or signature mostly recovers to some other key, so compare the answer with the claimed one.

    Raises:
      Unverified: it is no signature at all.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise Unverified(f"a signature has {SIGNATURE_BYTES} bytes, this one {len(signature)}")
    if not _OLDEST_HEADER <= signature[0] < _HEADER + 4:
        raise Unverified(f"a signature's header is 31 to 34, this one's {signature[0]}")
    recovery_id = (signature[0] - _OLDEST_HEADER) & 3
    try:
        key = PublicKey.from_signature_and_message(signature[1:] + bytes([recovery_id]), digest(text), hasher=None)
    except Exception as error:  # ValueError by its documentation; the C library's binding raises others, too
        raise Unverified("no key can have made this signature") from error
    return NodePubkey(key.format())
