"""JSON to messages, strictly.

Numbers are kept as they were written until their field is known: as a float, 9007199254740993 would be another.
"""

import binascii
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Final, TypeVar, cast

import betterproto2 as proto

from impervious.errors import InvalidArgument
from impervious.wire.json.fields import Encoding, Field, enum_names, fields_of

M = TypeVar("M", bound=proto.Message)
T = TypeVar("T")

_Read = Callable[[object], object]

INTEGERS: Final = {
    proto.TYPE_INT32: (-(2**31), 2**31 - 1),
    proto.TYPE_SINT32: (-(2**31), 2**31 - 1),
    proto.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    proto.TYPE_UINT32: (0, 2**32 - 1),
    proto.TYPE_FIXED32: (0, 2**32 - 1),
    proto.TYPE_INT64: (-(2**63), 2**63 - 1),
    proto.TYPE_SINT64: (-(2**63), 2**63 - 1),
    proto.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    proto.TYPE_UINT64: (0, 2**64 - 1),
    proto.TYPE_FIXED64: (0, 2**64 - 1),
}
"""The smallest and the largest value of each type."""

_LARGEST_FLOAT: Final[float] = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_FLOAT_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What proto3 JSON writes, in quotes, for the floats that JSON has no numbers for."""

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLAIN_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_LARGEST_EXPONENT: Final = 20
"""Of ten; 2**64 has 20 digits."""

MAX_VALUES: Final = 10_000
"""Names and values of one body, as gRPC has it for fields: reading so many takes a few ms, in which nothing else
happens."""
_DEEPEST: Final = 1000
"""Levels of one inside the other, beyond which a body is refused unread."""
_LONGEST_NUMBER: Final = 400
"""Characters: the largest double has 309 digits."""

_SHOWN: Final = 40
"""Characters of a map's key, or of a number, that an error repeats."""
_LONGEST_PATH: Final = 200
"""Characters."""

_ENCODE_IT: Final = "encode it (standard or URL-safe alphabet, no line breaks)"
_OR_SEND_TEXT: Final = f"{_ENCODE_IT}, or send plain text with ?encoding=text or to server.http_text_addr"


def decode(message_type: type[M], text: bytes, *, encoding: Encoding = Encoding.BASE64) -> M:
    """Read a request.

    Args:
      message_type: what the request is.
      text: a JSON object in UTF-8; nothing, or null, is the default message.
      encoding: how `msg` and `data` look.

    Raises:
      InvalidArgument: a sentence that names the field and what to do. It repeats no value but that of an amount.
    """
    try:
        value = _parse(text)
        return message_type() if value is None else cast("M", _reader(message_type, encoding)(value))
    except Misfit as wrong:
        raise InvalidArgument(str(wrong)) from None
    except RecursionError:
        raise InvalidArgument("the body's JSON is nested too deeply") from None


class Misfit(ValueError):
    """A value does not fit its place."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place or 'the body'} {problem}")
        self.problem = problem
        self.place = place

    def below(self, outer: str) -> "Misfit":
        """Name the place from one level further out."""
        dot = "." if self.place and not self.place.startswith("[") else ""
        return Misfit(self.problem, f"{outer}{dot}{self.place}")


@dataclass(frozen=True, slots=True)
class _Number:
    text: str


def _parse(text: bytes) -> object:
    bound(text)
    try:
        body = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misfit(f"is not UTF-8 text (byte {error.start + 1})") from None
    if not body or body.isspace():
        return None
    members = Members()
    try:
        value: object = json.loads(
            body,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=members,
        )
        members.check(value)
    except json.JSONDecodeError as error:
        problem = error.msg[0].lower() + error.msg[1:]
        raise Misfit(f"is not JSON: {problem} (line {error.lineno}, column {error.colno})") from None
    return value


def bound(text: bytes) -> None:
    """Refuse what takes long to parse, at the cost of a glance: values are counted by what stands between them.

    Raises:
      Misfit: there are more than MAX_VALUES.
      RecursionError: they are nested too deeply.
    """
    if _separators(text) <= MAX_VALUES:
        return
    # Without escapes, every second quote ends a string; what is between strings is what counts.
    parts = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 4 * MAX_VALUES)
    between = b"".join(parts[::2])
    first_end = min((at for at in (between.find(b"]"), between.find(b"}")) if at >= 0), default=len(between))
    if between.count(b"[", 0, first_end) + between.count(b"{", 0, first_end) > _DEEPEST:
        raise RecursionError
    if len(parts) > 4 * MAX_VALUES or _separators(between) > MAX_VALUES:
        raise Misfit(f"has more than {MAX_VALUES} values: send less at once")


def _separators(text: bytes) -> int:
    return sum(map(text.count, (b",", b":", b"[", b"{")))


class Members:
    """Makes objects of their members (`object_pairs_hook`), of which none may be given twice.

    Readers differ in which of two they take: a proxy may have judged the other one.
    """

    def __init__(self) -> None:
        self._twice: dict[int, str] = {}
        """Id of an object -> the member that it was given twice."""
        self._kept: list[object] = []
        """Those objects, so that no other gets the id of one."""

    def __call__(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        """Make an object."""
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            self._twice[id(found)] = next(name for name, count in counts.items() if count > 1)
            self._kept.append(found)
        return found

    def check(self, value: object) -> None:
        """Look for an object with a member that was given twice.

        Args:
          value: all that was read.

        Raises:
          Misfit: there is one; names the member with its path.
        """
        left = [(value, "")] if self._twice else []
        while left:
            item, path = left.pop()
            if id(item) in self._twice:
                place = _path(path, self._twice[id(item)])
                raise Misfit("is given twice: give it once", place if len(place) <= _LONGEST_PATH else "a member")
            if isinstance(item, dict):
                left += reversed([(inner, _path(path, name)) for name, inner in item.items()])
            elif isinstance(item, list):
                left += reversed([(inner, f"{path}[{position}]") for position, inner in enumerate(item)])


def _path(outer: str, name: str) -> str:
    shown = name[:_SHOWN] if name.isprintable() else "a member"
    return f"{outer}.{shown}" if outer else shown


def _refuse_constant(name: str) -> object:
    raise Misfit(f"is not JSON: {name} is no number")


# --- Messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    attribute: str
    group: str | None
    read: _Read


@cache
def _reader(message_type: type[proto.Message], encoding: Encoding) -> _Read:
    """Make the function that reads one type of message."""
    members: dict[str, _Member] = {}
    for field in fields_of(message_type):
        member = _Member(field.attribute, field.group, _read_field(field, encoding))
        members[field.proto_name] = members[field.json_name] = member

    def read(value: object) -> proto.Message:
        return message_type(**_read_members(members, _object(value)))

    return read


def _read_members(members: Mapping[str, _Member], value: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    chosen: dict[str, str] = {}
    given: dict[str, str] = {}
    """Attribute -> the name under which it came, of the two that it has."""
    for key, item in value.items():
        member = members.get(key)
        if member is None:
            continue
        first = given.setdefault(member.attribute, key)
        if first != key:
            raise Misfit(f"is {first}, which is given too: give one of them", key)
        if item is None:
            continue
        if member.group is not None and chosen.setdefault(member.group, member.attribute) != member.attribute:
            raise Misfit(f"cannot be given together with {chosen[member.group]}: choose one", key)
        found[member.attribute] = _at(key, member.read, item)
    return found


def _read_field(field: Field, encoding: Encoding) -> _Read:
    read = _read_single(field, encoding)
    if field.key_type is not None:
        return _read_map(_read_key(field.key_type), read)
    return _read_list(read) if field.repeated else read


def _read_single(field: Field, encoding: Encoding) -> _Read:
    """Choose the reader of one value."""
    if field.proto_type in INTEGERS:
        low, high = INTEGERS[field.proto_type]
        is_amount = field.proto_name == "amount" or field.proto_name.endswith("_sat")
        return _read_int(low, high, "whole satoshis, 0 or more" if is_amount else "")
    match field.proto_type:
        case proto.TYPE_STRING:
            return _read_string
        case proto.TYPE_BYTES if field.is_text(encoding):
            return _read_text
        case proto.TYPE_BYTES:
            return _read_base64(_OR_SEND_TEXT if field.may_be_text else _ENCODE_IT)
        case proto.TYPE_BOOL:
            return _read_bool
        case proto.TYPE_ENUM:
            return _read_enum(field.enum_type)
        case proto.TYPE_FLOAT:
            return _read_float(_LARGEST_FLOAT)
        case proto.TYPE_DOUBLE:
            return _read_float(math.inf)
    # A message's own reader is looked up when it is needed, because a type may contain itself.
    return lambda value: _reader(field.message_type, encoding)(value)


def _at(place: str, read: Callable[[object], T], value: object) -> T:
    try:
        return read(value)
    except Misfit as wrong:
        raise wrong.below(place) from None


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Misfit("must be an object, in braces")
    return value


def _read_list(read_item: _Read) -> _Read:
    def read(value: object) -> list[object]:
        if not isinstance(value, list):
            raise Misfit("must be a list, in brackets")
        return [_at(f"[{position}]", read_item, item) for position, item in enumerate(value)]

    return read


def _read_map(read_key: _Read, read_value: _Read) -> _Read:
    def read(value: object) -> dict[object, object]:
        given = _object(value)
        found = {
            _at(f"key {position}", read_key, key): _at(f"[{key[:_SHOWN]!r}]", read_value, item)
            for position, (key, item) in enumerate(given.items(), start=1)
        }
        if len(found) != len(given):
            raise Misfit("has two keys that are the same number")
        return found

    return read


def _read_key(key_type: str) -> _Read:
    """Choose the reader of a map's keys, which JSON always has in quotes."""
    if key_type == proto.TYPE_STRING:
        return _read_string
    if key_type == proto.TYPE_BOOL:
        return lambda key: _read_bool({"true": True, "false": False}.get(str(key)))
    return _read_int(*INTEGERS[key_type])


# --- Single values ----------------------------------------------------------------------------------------------------


def _read_string(value: object) -> str:
    _read_text(value)
    return cast("str", value)


def _read_text(value: object) -> bytes:
    if not isinstance(value, str):
        raise Misfit("must be a string, in quotes")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise Misfit("contains a lone surrogate: send it as UTF-8") from None


def _read_base64(remedy: str) -> _Read:
    def read(value: object) -> bytes:
        if not isinstance(value, str):
            raise Misfit("must be a string of base64, in quotes")
        standard = value.replace("-", "+").replace("_", "/")
        if "=" not in standard:
            standard += "=" * (-len(standard) % 4)
        try:
            # Python's other decoders skip bad characters: the bytes would be others than were meant.
            return binascii.a2b_base64(standard, strict_mode=True)
        except ValueError:
            raise Misfit(f"is not base64: {remedy}") from None

    return read


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise Misfit("must be true or false, without quotes")
    return value


def _number_text(value: object) -> str:
    if isinstance(value, _Number):
        return value.text
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return value
    raise Misfit("must be a number, with or without quotes")


def _read_int(low: int, high: int, what: str = "") -> Callable[[object], int]:
    def read(value: object) -> int:
        text = _number_text(value)
        number = int(text) if _PLAIN_INTEGER.fullmatch(text) else _whole(text)
        if number is None or not low <= number <= high:
            got = f" (got {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'})"
            raise Misfit(f"must be {what}{got}" if what else f"must be a whole number from {low} to {high}")
        return number

    return read


def _whole(text: str) -> int | None:
    """Take 5.0 and 1e3 for the whole numbers they are; None for what is not whole, or far out of range."""
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of many digits
        return None
    if (number and number.adjusted() > _LARGEST_EXPONENT) or number != number.to_integral_value():
        return None
    return int(number)


def _read_float(largest: float) -> _Read:
    def read(value: object) -> float:
        if isinstance(value, str) and value in _FLOAT_WORDS:
            return _FLOAT_WORDS[value]
        text = _number_text(value)
        if len(text) > _LONGEST_NUMBER:
            raise Misfit(f"must have at most {_LONGEST_NUMBER} characters")
        number = float(text)
        if math.isinf(number) or abs(number) > largest:
            raise Misfit("is too large for its type")
        return number

    return read


def _read_enum(enum: type[proto.Enum]) -> _Read:
    names = enum_names(enum)
    read_number = _read_int(*INTEGERS[proto.TYPE_INT32])

    def read(value: object) -> proto.Enum:
        if not isinstance(value, str):
            return enum(read_number(value))
        if value not in names:
            raise Misfit(f"must be one of {', '.join(names)}")
        return names[value]

    return read
