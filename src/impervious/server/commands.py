"""A service's commands as JSON over REST: what a coroutine's parameters say is what a body may hold.

Names are taken as they are written in Python or in lowerCamelCase; unknown ones are ignored, null means absent, as
everywhere in our API. Numbers of 64 bits may be strings on the way in. The answer is what the coroutine returns: a
dataclass, a mapping, or nothing. A parameter `idempotency_key` is what the header of that name says.
"""

import binascii
import inspect
import json
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import partial
from typing import Final, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from impervious.errors import InvalidArgument
from impervious.model import NodePubkey
from impervious.server.convert import message_id
from impervious.server.operations import CallContext
from impervious.service import Service
from impervious.service.command import Command, commands_of
from impervious.service.faults import answered
from impervious.wire.json import Encoding
from impervious.wire.json.reading import Members, Misfit, bound

MAX_INTEGER: Final = 2**63 - 1
"""What a command can be given, either way from zero."""
KEY: Final = "idempotency_key"
"""The parameter of a command that takes one."""
_ABSENT: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A command as the HTTP door offers it."""

    path: str
    service_type: str
    """Whose command it is."""
    parameters: "Sequence[Parameter]"
    answer: object
    """The type that it says it returns."""
    description: str
    """Its docstring."""
    keyed: bool
    """Whether it takes an idempotency key; the others refuse one."""
    call: Callable[[bytes, CallContext], Awaitable[bytes]]
    """Body to answer; raises whatever `server.convert` knows."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A peer by its imp id, to be looked up."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One value that a command takes."""

    name: str
    hint: object
    """Its type."""
    default: object
    """`_ABSENT`: there is none."""

    @property
    def json_name(self) -> str:
        """What it is called in a body."""
        return camel(self.name)

    @property
    def required(self) -> bool:
        """Whether a body must have it."""
        return self.default is _ABSENT and not _takes_none(self.hint)


def routes(services: Iterable[Service]) -> list[Route]:
    """List the commands of all services.

    Raises:
      TypeError: a command has a parameter of a type that JSON cannot give it.
    """
    return [_route(service, each) for service in services for each in commands_of(service)]


def _route(service: Service, command: Command) -> Route:
    parameters = _parameters(command)
    keyed = any(each.name == KEY for each in parameters)

    async def call(body: bytes, context: CallContext) -> bytes:
        service.context.config.require_active()
        if context.idempotency_key is not None and not keyed:
            # Whoever gives one believes that the call can be repeated, and nobody here knows whether it can.
            raise InvalidArgument(f"{command.name} takes no Idempotency-Key, and nothing was done: call it without")
        arguments = read_arguments(parameters, body, context.encoding)
        if context.idempotency_key is not None:
            arguments[KEY] = context.idempotency_key
        for name, value in arguments.items():
            arguments[name] = await _resolved(value, service)
        answer = to_json(await answered(service.service_type, partial(command.call, **arguments)), context.encoding)
        return json.dumps({} if answer is None else answer, ensure_ascii=False, separators=(",", ":")).encode()

    return Route(
        path=f"/v1/x/{service.service_type}/{command.name}",
        service_type=service.service_type,
        parameters=parameters,
        answer=get_type_hints(command.call).get("return", object),
        description=inspect.getdoc(command.call) or "",
        keyed=keyed,
        call=call,
    )


def _parameters(command: Command) -> list[Parameter]:
    hints = cast("dict[str, object]", get_type_hints(command.call))
    found = []
    for name, parameter in inspect.signature(command.call).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"command {command.name!r}: *{name} cannot come from JSON; name each parameter")
        if name not in hints:
            raise TypeError(f"command {command.name!r}: parameter {name} has no type")
        _check_hint(hints[name], f"command {command.name!r}: parameter {name}")
        if name == KEY and inner_type(hints[name]) is not str:
            raise TypeError(f"command {command.name!r}: parameter {name} comes from a header: its type is str | None")
        found.append(Parameter(name=name, hint=hints[name], default=parameter.default))
    return found


# --- JSON to arguments ------------------------------------------------------------------------------------------------


def read_arguments(parameters: Sequence[Parameter], body: bytes, encoding: Encoding) -> dict[str, object]:
    """Read a body.

    Raises:
      InvalidArgument: names the field and what to do.
    """
    given = read_object(body)
    arguments: dict[str, object] = {}
    for each in parameters:
        value = given.get(each.json_name)
        if value is None:
            value = given.get(each.name)
        if value is not None:
            arguments[each.name] = _read(value, each.hint, each.json_name, encoding)
        elif each.required:
            raise InvalidArgument(f"{each.json_name} is missing")
        elif each.default is _ABSENT:
            arguments[each.name] = None
    return arguments


def read_object(body: bytes) -> Mapping[str, object]:
    """Read a JSON object; an empty body is an empty one.

    Raises:
      InvalidArgument: says where it stops being JSON.
    """
    members = Members()
    try:
        bound(body)
        text = body.decode("utf-8-sig")
        value: object = (
            json.loads(text, parse_constant=_refuse, object_pairs_hook=members) if text and not text.isspace() else {}
        )
        members.check(value)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the body is not UTF-8 text (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        problem = f"{error.msg[0].lower()}{error.msg[1:]} (line {error.lineno}, column {error.colno})"
        raise InvalidArgument(f"the body is not JSON: {problem}") from None
    except Misfit as misfit:
        raise InvalidArgument(str(misfit)) from None
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        raise InvalidArgument("the body holds something too large") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument("the body must be a JSON object")
    return cast("dict[str, object]", value)


def _refuse(name: str) -> object:
    raise InvalidArgument(f"the body is not JSON: {name} is no number")


def _read(value: object, hint: object, place: str, encoding: Encoding) -> object:
    hint = inner_type(hint)
    if get_origin(hint) in (list, Sequence, tuple):
        if not isinstance(value, list):
            raise InvalidArgument(f"{place} must be a list")
        item = get_args(hint)[0]
        return [_read(each, item, f"{place}[{index}]", encoding) for index, each in enumerate(value)]
    if get_origin(hint) in (dict, Mapping):
        if not isinstance(value, dict):
            raise InvalidArgument(f"{place} must be an object")
        return value
    return _SCALARS[hint](value, place, encoding)


def _read_text(value: object, place: str, _encoding: Encoding) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{place} must be text")
    try:
        value.encode()
    except UnicodeEncodeError:  # "\ud800"
        raise InvalidArgument(f"{place} contains a lone surrogate") from None
    return value


def _read_bytes(value: object, place: str, encoding: Encoding) -> bytes:
    text = _read_text(value, place, encoding)
    if encoding is Encoding.TEXT:
        return text.encode()
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError:
        raise InvalidArgument(f"{place} is not base64: encode it, or send text with ?encoding=text") from None


def _read_bool(value: object, place: str, _encoding: Encoding) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{place} must be true or false")
    return value


def _read_int(value: object, place: str, _encoding: Encoding) -> int:
    if isinstance(value, str) and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit():
        value = int(value) if len(value) <= len(str(MAX_INTEGER)) + 1 else MAX_INTEGER + 1
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{place} must be a whole number")
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise InvalidArgument(f"{place} is out of range")
    return value


def _read_float(value: object, place: str, _encoding: Encoding) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{place} must be a number")
    return float(value)


def _read_pubkey(value: object, place: str, encoding: Encoding) -> "NodePubkey | _Named":
    text = _read_text(value, place, encoding)
    return _Named(text) if text.startswith("@") else NodePubkey.parse(text)


async def _resolved(value: object, service: Service) -> object:
    """Put keys in the place of names."""
    if isinstance(value, list):
        return [await _resolved(each, service) for each in value]
    return await service.context.resolve(value.text) if isinstance(value, _Named) else value


def _read_id(value: object, place: str, encoding: Encoding) -> UUID | None:
    return message_id(_read_text(value, place, encoding), place)


def _read_anything(value: object, _place: str, _encoding: Encoding) -> object:
    return value


_SCALARS: Final[Mapping[object, Callable[[object, str, Encoding], object]]] = {
    str: _read_text,
    bytes: _read_bytes,
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    NodePubkey: _read_pubkey,
    UUID: _read_id,
    object: _read_anything,
}


def _check_hint(hint: object, place: str) -> None:
    hint = inner_type(hint)
    if get_origin(hint) in (list, Sequence, tuple):
        _check_hint(get_args(hint)[0], place)
    elif get_origin(hint) not in (dict, Mapping) and hint not in _SCALARS:
        raise TypeError(f"{place} is of type {hint}, which does not come from JSON")


def inner_type(hint: object) -> object:
    """Take `int` out of Sat, which is a NewType of it, and `str` out of `str | None`.

    Of `NodePubkey | str` it is the last one, which takes most.
    """
    hint = _bare(hint)
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    return _bare([each for each in get_args(hint) if each is not type(None)][-1])


def _bare(hint: object) -> object:
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    return hint


def _takes_none(hint: object) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


# --- Answers to JSON --------------------------------------------------------------------------------------------------


def to_json(value: object, encoding: Encoding) -> object:
    """Turn what a command returns into what JSON can say.

    Raises:
      TypeError: it holds something else.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray():
            is_text = encoding is Encoding.TEXT
            return value.decode("utf-8", "replace") if is_text else binascii.b2a_base64(value, newline=False).decode()
        case Enum():
            return to_json(value.value, encoding)
        case NodePubkey() | UUID():
            return str(value)
        case Mapping():
            return {str(key): to_json(each, encoding) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [to_json(each, encoding) for each in value]
    if is_dataclass(value):
        return {camel(entry.name): to_json(getattr(value, entry.name), encoding) for entry in fields(value)}
    raise TypeError(f"a command returned a {type(value).__name__}, which JSON cannot hold")


def camel(name: str) -> str:
    """Write a Python name as JSON has it: `reply_to` is `replyTo`."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)
