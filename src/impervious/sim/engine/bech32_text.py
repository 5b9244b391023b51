"""Whether a text is bech32 of any length, and LND's words if not (zpay32/bech32.go, zpay32/amountunits.go)."""

from typing import Final

from bech32 import CHARSET, bech32_hrp_expand, bech32_polymod

from impervious.sim.engine.answers import LndError

_CHECKSUM: Final = 6
_SHORTEST: Final = 8


def check_bech32(text: str) -> str:
    """Check a text's characters and its checksum.

    Returns:
      Its human-readable part, in small letters.

    Raises:
      LndError: it is not bech32.
    """
    raw = text.encode(errors="surrogatepass")
    length = len(raw)
    if length < _SHORTEST:
        raise LndError(f"invalid bech32 string length {length}")
    for byte in raw:
        if not 33 <= byte <= 126:
            raise LndError(f"invalid character in string: '{chr(byte)}'")
    if text not in (text.lower(), text.upper()):
        raise LndError("string not all lowercase or all uppercase")
    text = text.lower()
    hrp, separator, data = text.rpartition("1")
    if not hrp or not separator or len(data) < _CHECKSUM:
        raise LndError("invalid index of 1")
    for character in data:
        if character not in CHARSET:
            why = f"invalid character not part of charset: {ord(character)}"
            raise LndError(f"failed converting data to bytes: {why}")
    values = bech32_hrp_expand(hrp) + [CHARSET.find(character) for character in data]
    if bech32_polymod(values) != 1:
        right = bech32_polymod(values[:-_CHECKSUM] + [0] * _CHECKSUM) ^ 1
        expected = "".join(CHARSET[right >> 5 * (5 - position) & 31] for position in range(_CHECKSUM))
        raise LndError(f"checksum failed. Expected {expected}, got {text[-_CHECKSUM:]}.")
    return hrp
