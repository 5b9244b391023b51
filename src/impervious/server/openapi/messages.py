"""Message types as JSON schemas: what `wire.json` takes, and what it writes.

The two differ: on the way in everything may be absent or null, and numbers may be strings; on the way out everything is
there, and numbers of 64 bits are strings. So a schema belongs to a direction.
"""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Final, cast

import betterproto2 as proto

from impervious.pb.message_pool import default_message_pool
from impervious.server.descriptors import comments
from impervious.wire.json import Encoding, encode
from impervious.wire.json.fields import Field, enum_names, fields_of
from impervious.wire.json.reading import INTEGERS

Schema = dict[str, object]

_URL: Final = "type.googleapis.com/"
_WHOLE: Final = "^-?(0|[1-9][0-9]*)$"
_BASE64: Final = "^([A-Za-z0-9+/_-]{4})*([A-Za-z0-9+/_-]{2}(==)?|[A-Za-z0-9+/_-]{3}=?)?$"
_FLOAT_WORDS: Final = ("NaN", "Infinity", "-Infinity")


class Way(Enum):
    """Which way a message goes."""

    IN = "in"
    OUT = "out"


class Messages:
    """The schemas of the message types that a document mentions.

    Args:
      encoding: how `msg` and `data` look.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._names: dict[tuple[type[proto.Message], Way], str] = {}
        self.schemas: dict[str, Schema] = {}
        """By name, for `components`: those of all types that were referred to."""

    def reference(self, message_type: type[proto.Message], way: Way, *, needs: frozenset[str] = frozenset()) -> Schema:
        """Refer to the schema of a type.

        Args:
          message_type: the type.
          way: which way it goes.
          needs: fields that must be there on the way in.
        """
        name = self._names.get((message_type, way))
        if name is None:
            name = full_name(message_type)
            if name in self.schemas:  # the type goes the other way too
                name = f"{name}.{way.value}"
            self._names[message_type, way] = name
            self.schemas[name] = {}  # a type may contain itself
            self.schemas[name] = self._schema(message_type, way, needs)
        return {"$ref": f"#/components/schemas/{name}"}

    def _schema(self, message_type: type[proto.Message], way: Way, needs: frozenset[str]) -> Schema:
        schema = described({"type": "object"}, comments().get(full_name(message_type)))
        properties = self.fields(message_type, way)
        if way is Way.OUT:
            required = list(self._always_written(message_type))
        else:
            required = [field.json_name for field in fields_of(message_type) if field.proto_name in needs]
            properties = {name: each if name in required else nullable(each) for name, each in properties.items()}
        if properties:
            schema["properties"] = properties
        if required:
            schema["required"] = required
        return schema

    def fields(self, message_type: type[proto.Message], way: Way) -> dict[str, Schema]:
        """Describe each field of a type by itself."""
        prefix, said = full_name(message_type), comments()
        return {
            field.json_name: described(self._field(field, way), said.get(f"{prefix}.{field.proto_name}"))
            for field in fields_of(message_type)
        }

    def _always_written(self, message_type: type[proto.Message]) -> Iterator[str]:
        """Ask the writer itself: what it writes of an empty message. In text mode streams leave the additions out."""
        published = self._encoding is Encoding.TEXT and full_name(message_type) == "websocket.SubscribeResponse"
        yield from json.loads(encode(message_type(), encoding=self._encoding, published=published))

    def _field(self, field: Field, way: Way) -> Schema:
        single = self._single(field, way)
        if field.key_type is not None:
            single = {"type": "object", "additionalProperties": single}
        elif field.repeated:
            single = {"type": "array", "items": single}
        return single

    def _single(self, field: Field, way: Way) -> Schema:
        if field.proto_type in INTEGERS:
            return _integer(field.proto_type, way)
        match field.proto_type:
            case proto.TYPE_BOOL:
                return {"type": "boolean"}
            case proto.TYPE_BYTES:
                return {"type": "string"} if field.is_text(self._encoding) else base64_text()
            case proto.TYPE_FLOAT | proto.TYPE_DOUBLE:
                words: Schema = {"type": "string", "enum": list(_FLOAT_WORDS)}
                return {"anyOf": [{"type": "number", "format": field.proto_type}, words]}
            case proto.TYPE_ENUM:
                return _enum(field.enum_type, way)
            case proto.TYPE_MESSAGE:
                return self.reference(field.message_type, way)
        return {"type": "string"}


def full_name(message_type: type[proto.Message]) -> str:
    """Name a type as its .proto file does, such as "messaging.SendMessageRequest"."""
    return default_message_pool.type_to_url[message_type].removeprefix(_URL)


def described(schema: Schema, text: str | None) -> Schema:
    """Add a description, if there is one."""
    return {**schema, "description": text} if text else schema


def nullable(schema: Schema) -> Schema:
    """Allow null, which stands for the default."""
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    if isinstance(kind, list):
        return {**schema, "type": [*kind, "null"]}
    bare = {key: value for key, value in schema.items() if key != "description"}
    return described({"anyOf": [bare, {"type": "null"}]}, cast("str | None", schema.get("description")))


def base64_text() -> Schema:
    """Describe bytes: either alphabet, padding optional."""
    return {"type": "string", "contentEncoding": "base64", "pattern": _BASE64}


def whole_number(low: int, high: int, kind: str) -> Schema:
    """Describe a whole number that may be a string."""
    return {"type": ["integer", "string"], "format": kind, "minimum": low, "maximum": high, "pattern": _WHOLE}


def _integer(proto_type: str, way: Way) -> Schema:
    low, high = INTEGERS[proto_type]
    bits = "64" if "64" in proto_type else "32"
    kind = f"uint{bits}" if low == 0 else f"int{bits}"
    if way is Way.IN:
        return whole_number(low, high, kind)
    if bits == "64":
        return {"type": "string", "format": kind, "pattern": _WHOLE}
    return {"type": "integer", "format": kind, "minimum": low, "maximum": high}


def _enum(enum: type[proto.Enum], way: Way) -> Schema:
    names: Schema = {"type": "string", "enum": list(enum_names(enum))}
    return {"anyOf": [names, {"type": "integer"}]} if way is Way.IN else names
