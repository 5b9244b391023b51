"""Commands that a service offers over REST without touching the doors: a mark on a coroutine.

    @command("put")
    async def put(self, key: str, value: bytes) -> Stored: ...

answers `POST /v1/x/<service_type>/put`. The parameters' names and types say what the JSON body may hold, and the result
becomes the answer; `server.commands` knows how. In a program the same coroutine is called as it is.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import getmembers, iscoroutinefunction
from typing import Final, Protocol, TypeVar, cast

F = TypeVar("F")

_MARK: Final = "__impervious_command__"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Coroutine(Protocol):
    """A coroutine method, bound to its service."""

    def __call__(self, **arguments: object) -> Awaitable[object]:
        """Take keyword arguments."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A marked coroutine of a service."""

    name: str
    """Last part of its route."""
    call: Coroutine


def command(name: str) -> Callable[[F], F]:
    """Mark a coroutine method as a command.

    Args:
      name: last part of its route: small letters, digits, dashes and underscores.

    Raises:
      TypeError: what is marked is no coroutine function, or the name cannot be one.
    """

    def mark(method: F) -> F:
        if not iscoroutinefunction(cast("object", method)):
            raise TypeError(f"command {name!r} must be written with `async def`")
        if not _NAME.fullmatch(name):
            raise TypeError(f"command {name!r} must be small letters, digits, dashes and underscores")
        setattr(method, _MARK, name)
        return method

    return mark


def commands_of(service: object) -> list[Command]:
    """List the commands that a service offers, by name.

    Raises:
      TypeError: two have one name.
    """
    found: dict[str, Command] = {}
    for _, method in getmembers(type(service), iscoroutinefunction):
        name = getattr(method, _MARK, None)
        if name is None:
            continue
        if name in found:
            raise TypeError(f"{type(service).__name__} has two commands called {name!r}")
        bound = getattr(service, method.__name__)
        found[name] = Command(name, cast("Coroutine", bound))
    return [found[name] for name in sorted(found)]
