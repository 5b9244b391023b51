"""Addresses on a chain that is not there: made as regtest's are, so that programs which check them are content."""

import hashlib
import hmac
from collections.abc import Sequence
from enum import Enum
from typing import Final

from bech32 import CHARSET, bech32_hrp_expand, bech32_polymod, convertbits

from impervious.sim.engine.answers import LndError

HRP: Final = "bcrt"
_BECH32M: Final = 0x2BC830A3
"""BIP 350's constant; BIP 173's is 1."""
_SCRIPT_HASH, _KEY_HASH = 196, 111
"""Version bytes of regtest, which are testnet's."""
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class AddressKind(Enum):
    """What an address is of."""

    WITNESS = "witness"
    NESTED = "nested"
    TAPROOT = "taproot"


def address(kind: AddressKind, secret: bytes, number: int) -> str:
    """The address of a node with a number: always the same one, and of no key."""
    digest = hmac.digest(secret, b"address %d %s" % (number, kind.value.encode()), hashlib.sha256)
    if kind is AddressKind.WITNESS:
        return _segwit(0, digest[:20])
    if kind is AddressKind.TAPROOT:
        return _segwit(1, digest)
    return _base58(bytes([_SCRIPT_HASH]) + digest[:20])


def check_address(text: str) -> None:
    """See whether something is an address of regtest.

    Raises:
      LndError: it is none.
    """
    if witness_program(text) is not None:
        return
    reason = "decoded address is of unknown format"
    if text and all(character in _BASE58 for character in text):
        payload = base58_payload(text)
        if payload is not None and payload[0] in (_SCRIPT_HASH, _KEY_HASH):
            return
        reason = "checksum mismatch" if payload is None else "unknown address type"
    raise LndError(f"invalid fallback address: {reason}")


def witness_program(text: str) -> tuple[int, bytes] | None:
    """The version and program of a segwit address of regtest; None if it is none (BIP 173, BIP 350)."""
    lowered = text.lower()
    separator = lowered.rfind("1")
    values = [CHARSET.find(character) for character in lowered[separator + 1 :]]
    if text not in (lowered, text.upper()) or lowered[:separator] != HRP or -1 in values or len(values) < 8:
        return None
    version, expected = values[0], 1 if values[0] == 0 else _BECH32M
    program = convertbits(values[1:-6], 5, 8, False)
    if bech32_polymod(bech32_hrp_expand(HRP) + values) != expected or program is None or version > 16:
        return None
    fits = len(program) in (20, 32) if version == 0 else 2 <= len(program) <= 40
    return (version, bytes(program)) if fits else None


def base58_payload(text: str) -> tuple[int, bytes] | None:
    """The version byte and hash of an address in base58; None if it is none."""
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            return None
        number = number * 58 + digit
    if not text or number.bit_length() > 25 * 8:
        return None
    data = number.to_bytes(25)
    if hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] != data[21:]:
        return None
    return data[0], data[1:21]


def _segwit(version: int, program: bytes) -> str:
    data = [version, *_groups(program)]
    constant = 1 if version == 0 else _BECH32M
    polymod = bech32_polymod(bech32_hrp_expand(HRP) + data + [0] * 6) ^ constant
    checksum = [polymod >> 5 * (5 - position) & 31 for position in range(6)]
    return HRP + "1" + "".join(CHARSET[value] for value in (*data, *checksum))


def _groups(data: bytes) -> Sequence[int]:
    groups = convertbits(data, 8, 5)
    assert groups is not None
    return groups


def _base58(payload: bytes) -> str:
    data = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text
