"""gRPC requests, read strictly: what the protobuf library lets pass or stumbles over is an error of the caller's.

betterproto2 takes a varint for a string, a message that is cut off for a whole one, and raises whatever its parsing
happens to raise. Here each message is scanned against its definition first, at all levels, and its fields are counted,
because each costs as much as a short message.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

import betterproto2 as proto

from impervious.errors import InvalidArgument, Malformed
from impervious.rpc.message import Message
from impervious.wire.json.fields import fields_of
from impervious.wire.protobuf import LENGTH_DELIMITED, VARINT, read_varint, skip

M = TypeVar("M", bound=Message)

MAX_FIELDS: Final = 10_000
"""Of one request, at all levels: reading so many takes some 50 ms, in which nothing else happens."""

_FIXED64: Final = 1
_FIXED32: Final = 5
_WIRE_TYPES: Final[Mapping[str, int]] = {
    proto.TYPE_STRING: LENGTH_DELIMITED,
    proto.TYPE_BYTES: LENGTH_DELIMITED,
    proto.TYPE_MESSAGE: LENGTH_DELIMITED,
    proto.TYPE_FIXED32: _FIXED32,
    proto.TYPE_SFIXED32: _FIXED32,
    proto.TYPE_FLOAT: _FIXED32,
    proto.TYPE_FIXED64: _FIXED64,
    proto.TYPE_SFIXED64: _FIXED64,
    proto.TYPE_DOUBLE: _FIXED64,
}
"""Of every type that is no varint."""
_FIXED_BYTES: Final = {_FIXED32: 4, _FIXED64: 8}


def decode(message_type: type[M], data: bytes) -> M:
    """Read a request.

    Args:
      message_type: what it is; classes that are not betterproto2's read themselves.
      data: one serialized message.

    Raises:
      InvalidArgument: names the field and what is wrong with it. It never repeats the value.
    """
    name = message_type.__name__
    try:
        if issubclass(message_type, proto.Message):
            _Scan().message(data, _shape(message_type), "")
        return message_type.FromString(data)
    except Malformed as error:
        raise InvalidArgument(f"invalid {name}: {error}") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"invalid {name}: a string is not UTF-8") from None
    except Exception as error:  # whatever a parser raises, the bytes are to blame
        raise InvalidArgument(f"invalid {name}: {type(error).__name__}") from error


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    wire_type: int
    repeated: bool
    message_type: type[proto.Message] | None = None
    """What is inside. Its shape is looked up when it is needed, because a type may contain itself."""
    entry: "_Shape | None" = None
    """What is inside, in a map."""

    @property
    def inner(self) -> "_Shape | None":
        return self.entry if self.message_type is None else _shape(self.message_type)


_Shape = dict[int, _Field]


@cache
def _shape(message_type: type[proto.Message]) -> _Shape:
    found: _Shape = {}
    for field in fields_of(message_type):
        wire_type = _WIRE_TYPES.get(field.proto_type, VARINT)
        inner = field.message_type if field.proto_type == proto.TYPE_MESSAGE else None
        if field.key_type is not None:
            entry = {
                1: _Field("key", _WIRE_TYPES.get(field.key_type, VARINT), repeated=False),
                2: _Field("value", wire_type, repeated=False, message_type=inner),
            }
            found[field.number] = _Field(field.proto_name, LENGTH_DELIMITED, repeated=True, entry=entry)
        else:
            found[field.number] = _Field(field.proto_name, wire_type, field.repeated, inner)
    return found


class _Scan:
    """One pass over a request."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def message(self, data: bytes, shape: _Shape, place: str) -> None:
        """Look at every field.

        Raises:
          Malformed: it is cut off, a field has another wire type than its definition says, or there are too many.
        """
        at = 0
        while at < len(data):
            self._count()
            tag, at = read_varint(data, at)
            number, wire_type = tag >> 3, tag & 7
            if number == 0:
                raise Malformed(f"{place or 'it'} has a field 0")
            end = skip(data, at, wire_type)
            field = shape.get(number)
            if field is not None:
                self._field(field, wire_type, data[at:end], f"{place}{field.name}")
            at = end

    def _field(self, field: _Field, wire_type: int, data: bytes, place: str) -> None:
        if wire_type != field.wire_type:
            if field.repeated and wire_type == LENGTH_DELIMITED:
                self._packed(field.wire_type, _content(data))
                return
            raise Malformed(f"{place} has wire type {wire_type}, not {field.wire_type}")
        inner = field.inner
        if inner is not None:
            self.message(_content(data), inner, f"{place}.")

    def _packed(self, wire_type: int, data: bytes) -> None:
        at = 0
        while at < len(data):
            self._count()
            at = skip(data, at, wire_type)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"it has more than {MAX_FIELDS} fields: send less at once")


def _content(data: bytes) -> bytes:
    """Take the length off a length-delimited field."""
    return data[read_varint(data, 0)[1] :]
