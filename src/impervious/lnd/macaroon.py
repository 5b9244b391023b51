"""What an LND macaroon says of itself: which operations it allows.

A macaroon is no secret code: its identifier lists the permissions in the clear, and only its signature is LND's. So a
macaroon that may not ask LND what it allows (macaroon:read) can still be read here. Caveats, which take something away
again, are left to LND. Formats: libmacaroon's binary version 2, lnd's bakery version 3 with lnrpc.MacaroonId.
"""

from collections.abc import Iterator
from typing import Final

from impervious.errors import Malformed
from impervious.wire.protobuf import LENGTH_DELIMITED, read_varint

_VERSION: Final = 2
_END_OF_SECTION: Final = 0
_IDENTIFIER: Final = 2
_SIGNATURE: Final = 6
_SIGNATURE_BYTES: Final = 32
_BAKERY_VERSION: Final = 3
_OPS: Final = 3
"""lnrpc.MacaroonId.ops"""
_ENTITY: Final = 1
_ACTIONS: Final = 2


def looks_like_one(data: bytes) -> bool:
    """Return whether `data` is a whole macaroon that LND could have made, and nothing behind it."""
    try:
        return _identifier(data)[:1] == bytes([_BAKERY_VERSION]) and _signature_ends(data)
    except Malformed:
        return False


def _signature_ends(data: bytes) -> bool:
    """Walk over all sections: the identifier's, those of caveats, an empty one; then the signature is the rest."""
    at, is_empty = 1, False
    while not is_empty:
        is_empty = True
        while True:
            field, at = read_varint(data, at)
            if field == _END_OF_SECTION:
                break
            _, at = _bytes(data, at)
            is_empty = False
    field, at = read_varint(data, at)
    signature, at = _bytes(data, at)
    return field == _SIGNATURE and len(signature) == _SIGNATURE_BYTES and at == len(data)


def permissions(data: bytes) -> frozenset[tuple[str, str]]:
    """Return the (entity, action) pairs that a macaroon grants; the entity `uri` stands before paths of methods.

    Raises:
      Malformed: it is no macaroon of LND's.
    """
    identifier = _identifier(data)
    if identifier[:1] != bytes([_BAKERY_VERSION]):
        raise Malformed("the macaroon's identifier has a version that is not LND's")
    granted: set[tuple[str, str]] = set()
    for number, op in _fields(identifier[1:]):
        if number == _OPS:
            entity = ""
            actions: list[str] = []
            for inner, value in _fields(op):
                if inner == _ENTITY:
                    entity = value.decode("utf-8", "replace")
                elif inner == _ACTIONS:
                    actions.append(value.decode("utf-8", "replace"))
            granted.update((entity, action) for action in actions)
    return frozenset(granted)


def _identifier(data: bytes) -> bytes:
    """The first section of a version 2 macaroon: location (optional), identifier, end."""
    if data[:1] != bytes([_VERSION]):
        raise Malformed("not a macaroon of version 2")
    at = 1
    identifier = b""
    while True:
        field, at = read_varint(data, at)
        if field == _END_OF_SECTION:
            return identifier
        value, at = _bytes(data, at)
        if field == _IDENTIFIER:
            identifier = value


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message that has only strings, bytes and messages."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 != LENGTH_DELIMITED:
            raise Malformed("the macaroon's identifier is not LND's")
        value, at = _bytes(data, at)
        yield tag >> 3, value


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = read_varint(data, at)
    if at + length > len(data):
        raise Malformed("the macaroon is cut off")
    return data[at : at + length], at + length
