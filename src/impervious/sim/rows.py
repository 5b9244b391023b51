"""Dataclasses as JSON texts and back, by their type hints.

Bytes become hex, enums their names, mappings lists of pairs. Only what the simulated network's state consists of is
understood; anything else is a mistake and says so.
"""

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from types import NoneType, UnionType
from typing import NewType, Protocol, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_text(value: object) -> str:
    """Write a dataclass."""
    return json.dumps(_written(value), separators=(",", ":"))


def from_text(kind: type[T], text: str) -> T:
    """Read what `to_text` has written of a dataclass of that type."""
    value = _reader(cast("Hashable", kind))(json.loads(text))
    assert isinstance(value, kind)
    return value


def _written(value: object) -> object:
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return [[_written(key), _written(item)] for key, item in value.items()]
    if isinstance(value, frozenset):
        return [_written(item) for item in sorted(value)]
    if isinstance(value, tuple | list):
        return [_written(item) for item in value]
    if is_dataclass(value):
        return {field.name: _written(getattr(value, field.name)) for field in fields(value) if field.init}
    raise TypeError(f"state does not hold {type(value).__name__}")


@cache
def _reader(kind: Hashable) -> Callable[[object], object]:
    """What reads JSON into that type."""
    if isinstance(kind, NewType):
        return _reader(kind.__supertype__)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return partial(_read_optional, _reader(inner))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return partial(_read_record, tuple(_reader(argument) for argument in arguments))
    if origin in (tuple, list, frozenset):
        return partial(_read_items, origin, _reader(arguments[0]))
    if origin in (dict, Mapping):
        return partial(_read_pairs, _reader(arguments[0]), _reader(arguments[1]))
    if kind is bytes:
        return _read_bytes
    if isinstance(kind, type) and issubclass(kind, Enum):
        return partial(_read_enum, kind)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return partial(
            _read_dataclass, cast("_Maker", kind), {f.name: _reader(hints[f.name]) for f in fields(kind) if f.init}
        )
    if kind in (int, float, str, bool):
        return _as_it_is
    raise TypeError(f"state does not hold {kind}")


def _as_it_is(value: object) -> object:
    return value


def _read_bytes(value: object) -> bytes:
    assert isinstance(value, str)
    return bytes.fromhex(value)


def _read_optional(inner: Callable[[object], object], value: object) -> object:
    return None if value is None else inner(value)


def _read_enum(kind: type[Enum], value: object) -> Enum:
    assert isinstance(value, str)
    return kind[value]


def _read_record(readers: tuple[Callable[[object], object], ...], value: object) -> object:
    assert isinstance(value, list)
    return tuple(read(item) for read, item in zip(readers, value, strict=True))


def _read_items(kind: Callable[[list[object]], object], read: Callable[[object], object], value: object) -> object:
    assert isinstance(value, list)
    return kind([read(item) for item in value])


def _read_pairs(read_key: Callable[[object], object], read: Callable[[object], object], value: object) -> object:
    assert isinstance(value, list)
    return {read_key(key): read(item) for key, item in value}


class _Maker(Protocol):
    def __call__(self, **values: object) -> object: ...


def _read_dataclass(kind: _Maker, readers: Mapping[str, Callable[[object], object]], value: object) -> object:
    assert isinstance(value, dict)
    return kind(**{name: read(value[name]) for name, read in readers.items() if name in value})
