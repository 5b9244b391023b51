"""zbase32 without padding: how LND writes signatures.

Five bits a character, most significant first, in an alphabet made for being read aloud (Zooko O'Whielacronn,
"human-oriented base-32 encoding"). Only the canonical text of a byte string is accepted: one value, one spelling.
"""

from typing import Final

from impervious.errors import Malformed

ALPHABET: Final = "ybndrfg8ejkmcpqxot1uwisza345h769"
_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """Write bytes as text; the last character is filled up with zero bits."""
    characters = -(-len(data) * 8 // 5)
    number = int.from_bytes(data) << (characters * 5 - len(data) * 8)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (characters - 1), -1, -5))


def decode(text: str) -> bytes:
    """Read what `encode` writes.

    Raises:
      Malformed: a character is not of the alphabet, or no byte string is written like this.
    """
    number = 0
    for position, character in enumerate(text):
        if character not in _VALUES:
            raise Malformed(f"character {position + 1} is not zbase32: only {ALPHABET} occur")
        number = number << 5 | _VALUES[character]
    length, spare_bits = divmod(len(text) * 5, 8)
    if spare_bits >= 5 or number & (1 << spare_bits) - 1:
        raise Malformed("zbase32 text is cut off or has bits to spare")
    return (number >> spare_bits).to_bytes(length)
