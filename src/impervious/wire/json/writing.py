"""Messages to JSON, on one line.

Every event passes here once for each way it is shown, so the line is put together from parts that a type's first
message prepared, by the C functions that json.dumps uses too.
"""

import binascii
import math
import operator
from collections.abc import Callable
from functools import cache
from json.encoder import encode_basestring as _quoted
from typing import Final, Never, TypeVar

import betterproto2 as proto

from impervious.wire.json.fields import Encoding, Field, enum_names, fields_of

PUBLISHED_BELOW: Final = 100
"""Field numbers from here up are additions to the API of 2021."""

K = TypeVar("K")
V = TypeVar("V")

_Write = Callable[[Never], str]
"""Takes what its field holds, which differs from field to field."""

_LINE_ENDS: Final = {"\u0085": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"}
"""JSON lets them stand, but many a client that reads line by line would cut the line there (str.splitlines does)."""


def encode(message: proto.Message, *, encoding: Encoding = Encoding.BASE64, published: bool = False) -> bytes:
    """Write an answer or an event, without a newline at its end.

    Args:
      message: what to write. Every field is written, except one that can be absent and is.
      encoding: how `msg` and `data` look; as text, bytes that are not UTF-8 become U+FFFD.
      published: leave out the fields that were added to the API of 2021.
    """
    line = _writer(type(message), encoding, published)(message)
    if not line.isascii():
        for character, escaped in _LINE_ENDS.items():
            line = line.replace(character, escaped)
    # Half a character cannot come in by any of our doors; if one did, it must not end a stream.
    return line.encode("utf-8", "replace")


@cache
def _writer(message_type: type[proto.Message], encoding: Encoding, published: bool) -> Callable[[proto.Message], str]:
    """Make the function that writes one type of message."""
    members = tuple(
        (f'"{field.json_name}":', operator.attrgetter(field.attribute), _write_field(field, encoding, published))
        for field in fields_of(message_type)
        if not published or field.number < PUBLISHED_BELOW
    )

    def write(message: proto.Message) -> str:
        parts = []
        for key, get, write_value in members:
            value = get(message)
            if value is not None:
                parts.append(key + write_value(value))
        return "{" + ",".join(parts) + "}"

    return write


def _write_field(field: Field, encoding: Encoding, published: bool) -> _Write:
    write = _write_single(field, encoding, published)
    if field.key_type is not None:
        write_key: _Write = _write_bool if field.key_type == proto.TYPE_BOOL else str
        return _write_map(write_key, write)
    if field.repeated:
        return _write_list(write)
    return write


def _write_list(write: Callable[[V], str]) -> Callable[[list[V]], str]:
    return lambda values: "[" + ",".join([write(value) for value in values]) + "]"


def _write_map(write_key: Callable[[K], str], write: Callable[[V], str]) -> Callable[[dict[K, V]], str]:
    return lambda values: (
        "{" + ",".join([f"{_quoted(write_key(key))}:{write(value)}" for key, value in values.items()]) + "}"
    )


def _write_single(field: Field, encoding: Encoding, published: bool) -> _Write:
    match field.proto_type:
        case proto.TYPE_STRING:
            return _quoted
        case proto.TYPE_BYTES:
            return _write_text if field.is_text(encoding) else _write_base64
        case proto.TYPE_BOOL:
            return _write_bool
        case proto.TYPE_ENUM:
            return _write_enum(field.enum_type)
        case proto.TYPE_FLOAT | proto.TYPE_DOUBLE:
            return _write_float
        case proto.TYPE_MESSAGE:
            return _write_message(field.message_type, encoding, published)
    # JavaScript's numbers end at 2**53, so those of 64 bits travel as strings.
    return _write_int64 if "64" in field.proto_type else str


def _write_message(message_type: type[proto.Message], encoding: Encoding, published: bool) -> _Write:
    def write(message: proto.Message) -> str:
        # Looked up when it is needed, because a type may contain itself.
        return _writer(message_type, encoding, published)(message)

    return write


def _write_int64(value: int) -> str:
    return f'"{value}"'


def _write_bool(value: bool) -> str:
    return "true" if value else "false"


def _write_base64(value: bytes) -> str:
    return '"' + binascii.b2a_base64(value, newline=False).decode("ascii") + '"'


def _write_text(value: bytes) -> str:
    return _quoted(value.decode("utf-8", "replace"))


def _write_float(value: float) -> str:
    if math.isnan(value):
        return '"NaN"'
    if math.isinf(value):
        return '"Infinity"' if value > 0 else '"-Infinity"'
    return repr(value)


def _write_enum(enum: type[proto.Enum]) -> _Write:
    names = {member.value: f'"{name}"' for name, member in enum_names(enum).items()}
    return lambda value: names.get(value, str(int(value)))
