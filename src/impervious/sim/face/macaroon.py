"""Macaroons as LND bakes and checks them: version 2, binary, signed by a chain of HMACs from a root key.

Layout (gopkg.in/macaroon.v2): byte 2; fields of type, length and data up to an end mark of 0: location (1) and
identifier (2); the caveats, each a section of its own; an end mark; the signature (6). LND's identifier is byte 3 and a
MacaroonId that holds the permissions, so a macaroon can be checked without a database of what was baked.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from impervious.errors import Malformed
from impervious.pb.lnrpc import MacaroonId, Op
from impervious.sim.engine.answers import LndError
from impervious.sim.face.caveats import Caller, refusal
from impervious.sim.face.permissions import URI, Permission
from impervious.wire.protobuf import LENGTH_DELIMITED, check, read_varint

_VERSION: Final = 2
_BAKERY_VERSION: Final = 3
_END, _LOCATION, _IDENTIFIER, _VERIFICATION, _SIGNATURE = 0, 1, 2, 4, 6
_KEY_GENERATOR: Final = b"macaroons-key-generator"
ROOT_KEY_ID: Final = b"0"


@dataclass(frozen=True, slots=True)
class Macaroon:
    """A macaroon taken apart. Who has it may do what it says, so it does not print itself."""

    identifier: bytes = field(repr=False)
    caveats: tuple[bytes, ...]
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "Macaroon":
        """Read the binary form.

        Raises:
          LndError: it is none.
        """
        try:
            if data[:1] != bytes([_VERSION]):
                raise Malformed("version")
            header, at = _section(data, 1)
            caveats = []
            while data[at : at + 1] != bytes([_END]):
                caveat, at = _section(data, at)
                caveats.append(caveat[_IDENTIFIER])
            (kind, signature), at = _field(data, at + 1)
            if kind != _SIGNATURE or at != len(data):
                raise Malformed("signature")
            return cls(header[_IDENTIFIER], tuple(caveats), signature)
        except (Malformed, KeyError):
            raise LndError("cannot decode macaroon: unmarshal v2: invalid data") from None

    @property
    def permissions(self) -> frozenset[Permission]:
        """What its identifier allows.

        Raises:
          LndError: the identifier is not LND's.
        """
        return frozenset(Permission(op.entity, action) for op in self._id().ops for action in op.actions)

    def _id(self) -> MacaroonId:
        if self.identifier[:1] != bytes([_BAKERY_VERSION]):
            raise LndError("verification failed: macaroon id is not of version 3")
        try:
            check(self.identifier[1:], dict.fromkeys((1, 2, 3), LENGTH_DELIMITED), repeated=frozenset({3}))
            return MacaroonId.parse(self.identifier[1:])
        except Exception as error:  # betterproto2 raises whatever it likes, and accepts a good deal
            raise LndError("verification failed: macaroon id cannot be read") from error

    @property
    def root_key_id(self) -> bytes:
        """Which root key is said to have signed it.

        Raises:
          LndError: the identifier is not LND's.
        """
        return self._id().storage_id

    def check(self, root_key: bytes | None, caller: Caller) -> None:
        """See whether a root key has signed it, and whether its caveats hold.

        Args:
          root_key: the one that it names; None: there is none of that number.
          caller: who presents it.

        Raises:
          LndError: in LND's words.
        """
        number = self.root_key_id
        if root_key is None:
            raise LndError(f"cannot get macaroon: root key with id {number.decode(errors='replace')} doesn't exist")
        signature = _sign(root_key, self.identifier, self.caveats)
        if not hmac.compare_digest(signature, self.signature):
            raise LndError("verification failed: signature mismatch after caveat verification")
        for caveat in self.caveats:
            text = refusal(caveat, caller)
            if text:
                raise LndError(text)


def bake(
    root_key: bytes,
    permissions: Iterable[Permission],
    *,
    nonce: bytes,
    caveats: Collection[bytes] = (),
    root_key_id: bytes = ROOT_KEY_ID,
) -> bytes:
    """Make a macaroon.

    Args:
      root_key: 32 bytes that never leave the node.
      permissions: what its holder may do.
      nonce: 16 random bytes.
      caveats: conditions on top.
      root_key_id: the number of the root key, as text.
    """
    actions: dict[str, list[str]] = {}
    for permission in sorted(permissions):
        actions.setdefault(permission.entity, []).append(permission.action)
    ops = [Op(entity=entity, actions=names) for entity, names in actions.items()]
    identifier = bytes([_BAKERY_VERSION]) + bytes(MacaroonId(nonce=nonce, storage_id=root_key_id, ops=ops))
    end = bytes([_END])
    return b"".join(
        (
            bytes([_VERSION]),
            _written(_LOCATION, b"lnd") + _written(_IDENTIFIER, identifier) + end,
            *(_written(_IDENTIFIER, caveat) + end for caveat in caveats),
            end,
            _written(_SIGNATURE, _sign(root_key, identifier, caveats)),
        )
    )


def allows(granted: Collection[Permission], needed: Collection[Permission], path: str) -> bool:
    """Whether a macaroon's permissions cover what is needed, or name the RPC itself."""
    return all(permission in granted for permission in needed) or Permission(URI, path) in granted


def _sign(root_key: bytes, identifier: bytes, caveats: Iterable[bytes]) -> bytes:
    key = hmac.digest(_KEY_GENERATOR, root_key, hashlib.sha256)
    signature = hmac.digest(key, identifier, hashlib.sha256)
    for caveat in caveats:
        signature = hmac.digest(signature, caveat, hashlib.sha256)
    return signature


def _section(data: bytes, at: int) -> tuple[dict[int, bytes], int]:
    """The fields up to an end mark."""
    fields: dict[int, bytes] = {}
    while data[at : at + 1] != bytes([_END]):
        (kind, value), at = _field(data, at)
        if kind not in (_LOCATION, _IDENTIFIER, _VERIFICATION):
            raise Malformed("field")
        fields[kind] = value
    return fields, at + 1


def _field(data: bytes, at: int) -> tuple[tuple[int, bytes], int]:
    kind, at = read_varint(data, at)
    length, at = read_varint(data, at)
    if at + length > len(data):
        raise Malformed("length")
    return (kind, data[at : at + length]), at + length


def _written(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
