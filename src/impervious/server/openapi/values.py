"""Types of Python as JSON schemas: what commands of services take and return.

`server.commands` reads and writes the values; each of its rules has its counterpart here.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Final, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from impervious.model import NodePubkey
from impervious.server.commands import MAX_INTEGER, camel, inner_type
from impervious.server.openapi.messages import Schema, base64_text, nullable, whole_number
from impervious.wire.json import Encoding

PUBKEY: Final = "^0[23][0-9a-fA-F]{64}$"
_MANY: Final = (list, tuple, set, frozenset, Sequence)


def taken(hint: object, encoding: Encoding) -> Schema:
    """Describe what a parameter of this type may be given as; null is the same as nothing."""
    return nullable(_taken(hint, encoding))


def _taken(hint: object, encoding: Encoding) -> Schema:
    hint = inner_type(hint)
    if get_origin(hint) in _MANY:
        return {"type": "array", "items": _taken(get_args(hint)[0], encoding)}
    if get_origin(hint) in (dict, Mapping):
        return {"type": "object"}
    if hint is int:
        return whole_number(-MAX_INTEGER, MAX_INTEGER, "int64")
    if hint is NodePubkey:
        return {"type": "string", "pattern": f"{PUBKEY}|^@.", "description": "A public key, or @imp_id of a live peer."}
    return _plain(hint, encoding)


def given(hint: object, encoding: Encoding) -> Schema:
    """Describe what an answer of this type looks like; a type that says nothing gives an empty schema."""
    if hint is None or hint is type(None):
        return {"type": "null"}
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    if get_origin(hint) in (Union, types.UnionType):
        return {"anyOf": [given(each, encoding) for each in get_args(hint)]}
    if get_origin(hint) in _MANY:
        return {"type": "array", "items": given(get_args(hint)[0], encoding)}
    if get_origin(hint) in (dict, Mapping):
        return {"type": "object", "additionalProperties": given(get_args(hint)[1], encoding)}
    if isinstance(hint, type) and is_dataclass(hint) and hint is not NodePubkey:
        return _dataclass(hint, encoding)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [each.value for each in hint]}
    return {"type": "integer"} if hint is int else _plain(hint, encoding)


def _dataclass(kind: type, encoding: Encoding) -> Schema:
    hints = cast("dict[str, object]", get_type_hints(kind))
    properties = {camel(each.name): given(hints[each.name], encoding) for each in fields(kind)}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _plain(hint: object, encoding: Encoding) -> Schema:
    make = _PLAIN.get(hint)
    return {} if make is None else make(encoding)


def _bytes(encoding: Encoding) -> Schema:
    return {"type": "string"} if encoding is Encoding.TEXT else base64_text()


_PLAIN: Final[Mapping[object, Callable[[Encoding], Schema]]] = {
    str: lambda _: {"type": "string"},
    bytes: _bytes,
    bool: lambda _: {"type": "boolean"},
    float: lambda _: {"type": "number"},
    NodePubkey: lambda _: {"type": "string", "pattern": PUBKEY},
    UUID: lambda _: {"type": "string", "format": "uuid"},
}
