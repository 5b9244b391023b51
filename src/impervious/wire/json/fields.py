"""What a message type's fields are called in JSON, and what they hold."""

import keyword
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final, cast, get_args, get_type_hints

import betterproto2 as proto

_TEXT_FIELDS: Final = frozenset({"msg", "data"})
"""The bytes fields that were text before v0.1.4. Others, such as hashes, are base64 in either encoding."""


_OURS: Final = 100
"""Fields from here on are additions of ours, which mean the same in either encoding."""


class Encoding(StrEnum):
    """How `msg` and `data` look: `server.payload_encoding`, or `?encoding=` of one request."""

    BASE64 = "base64"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a message type."""

    attribute: str
    """Of the Python class."""
    number: int
    proto_type: str
    """One of betterproto2's TYPE_ constants; of the values, where it is a map."""
    key_type: str | None
    """Of a map's keys; None where it is no map."""
    repeated: bool
    group: str | None
    """The oneof it belongs to."""
    target: type
    """The class of a message or an enum; of the items or values, where there are many."""

    @property
    def proto_name(self) -> str:
        """The name in the .proto file: betterproto2 adds an underscore to Python's keywords."""
        stem = self.attribute.removesuffix("_")
        return stem if keyword.iskeyword(stem) else self.attribute

    @property
    def json_name(self) -> str:
        """The name as protoc makes it: no underscores, and a capital after each."""
        first, *rest = self.proto_name.split("_")
        return first + "".join(word[:1].upper() + word[1:] for word in rest)

    @property
    def message_type(self) -> type[proto.Message]:
        """The class, where it holds messages."""
        return cast("type[proto.Message]", self.target)

    @property
    def enum_type(self) -> type[proto.Enum]:
        """The class, where it holds members of an enum."""
        return cast("type[proto.Enum]", self.target)

    def is_text(self, encoding: Encoding) -> bool:
        """Whether its bytes are shown as text."""
        return encoding is Encoding.TEXT and self.may_be_text

    @property
    def may_be_text(self) -> bool:
        """Whether its bytes are shown as text in one of the encodings."""
        return self.attribute in _TEXT_FIELDS and self.number < _OURS


def fields_of(message_type: type[proto.Message]) -> Iterator[Field]:
    """List the fields of a message type.

    Raises:
      TypeError: it has one of Google's well-known types, which have a JSON form of their own; our API has none.
    """
    hints = cast("dict[str, type]", get_type_hints(message_type))
    for entry in fields(message_type):  # type: ignore[arg-type] # every generated class is a dataclass
        meta = proto.FieldMetadata.get(entry)
        key, value = meta.map_meta or (None, meta)
        if value.unwrap is not None:
            raise TypeError(f"{message_type.__name__}.{entry.name} is of a type that has a JSON form of its own")
        yield Field(
            attribute=entry.name,
            number=meta.number,
            proto_type=value.proto_type,
            key_type=None if key is None else key.proto_type,
            repeated=bool(meta.repeated),
            group=meta.group,
            target=_innermost(hints[entry.name]),
        )


def _innermost(hint: type) -> type:
    """Take `int` out of int, `int | None`, `list[int]` and `dict[str, int]`."""
    inner = [each for each in get_args(hint) if each is not type(None)]
    return cast("type", inner[-1]) if inner else hint


def enum_names(enum: type[proto.Enum]) -> dict[str, proto.Enum]:
    """Give the members of an enum by their names in the .proto file, from which betterproto2 takes the prefix."""
    return {member.proto_name or name: member for name, member in enum.__members__.items()}
