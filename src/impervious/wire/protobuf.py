"""Strictness that the protobuf library lacks: is this a whole, well-formed message?

betterproto2 accepts a message that is cut off in the middle of a field. What comes from other nodes is scanned here
first, field by field, against the wire types that its definition gives (protobuf encoding: tag = number << 3 | type).
"""

from collections.abc import Mapping
from typing import Final, Protocol, Self, TypeVar

from impervious.errors import Malformed

VARINT: Final = 0
LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_MAX_VARINT_BYTES: Final = 10


class Parsable(Protocol):
    """A generated message class."""

    @classmethod
    def parse(cls, data: bytes, /) -> Self:
        """Read the message with that wire form."""
        ...


M = TypeVar("M", bound=Parsable)


def parse(
    message_type: type[M], data: bytes, wire_types: Mapping[int, int], *, repeated: frozenset[int] = frozenset()
) -> M:
    """Check one serialized message as `check` does, then read it.

    Raises:
      Malformed: `check` refuses it, or the library does, whatever it raises.
    """
    check(data, wire_types, repeated=repeated)
    try:
        return message_type.parse(data)
    except Exception as error:  # the library raises EOFError, struct.error, UnicodeDecodeError, RecursionError ...
        raise Malformed(f"protobuf library: {type(error).__name__}") from error


def check(data: bytes, wire_types: Mapping[int, int], *, repeated: frozenset[int] = frozenset()) -> None:
    """Read every field of `data` without keeping any.

    Args:
      data: one serialized message.
      wire_types: field number -> the wire type it must have. Other numbers may have any: they are from the future.
      repeated: numbers of varints that may appear more than once, also packed.

    Raises:
      Malformed: it or a packed field is cut off, a field has another wire type, or a field that is not repeated
        appears twice.
    """
    at = 0
    seen: set[int] = set()
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("protobuf field number 0")
        expected = wire_types.get(number)
        packed = number in repeated and wire_type == LENGTH_DELIMITED
        if expected is not None and wire_type != expected and not packed:
            raise Malformed(f"protobuf field {number} has wire type {wire_type}, not {expected}")
        if expected is not None and number not in repeated:
            if number in seen:
                raise Malformed(f"protobuf field {number} appears twice")
            seen.add(number)
        begin, at = at, skip(data, at, wire_type)
        if packed:
            _check_packed(data, read_varint(data, begin)[1], at)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 varint at position `at`.

    Returns:
      The value and the position behind it.

    Raises:
      Malformed: cut off, longer than ten bytes or above 2**64 - 1.
    """
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise Malformed("protobuf message is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, at + index + 1
    raise Malformed("protobuf varint is too long")


def _check_packed(data: bytes, at: int, end: int) -> None:
    """Read the varints of a packed field, the last of which must end where the field does."""
    while at < end:
        at = read_varint(data, at)[1]
    if at > end:
        raise Malformed("packed protobuf field is cut off")


def skip(data: bytes, at: int, wire_type: int) -> int:
    """Find the end of the value at position `at`.

    Raises:
      Malformed: it is cut off, or of a wire type that is not used.
    """
    if wire_type == VARINT:
        return read_varint(data, at)[1]
    if wire_type == LENGTH_DELIMITED:
        length, at = read_varint(data, at)
        end = at + length
    elif wire_type in _FIXED_BYTES:
        end = at + _FIXED_BYTES[wire_type]
    else:
        raise Malformed(f"protobuf wire type {wire_type} is not used")
    if end > len(data):
        raise Malformed("protobuf message is cut off")
    return end
