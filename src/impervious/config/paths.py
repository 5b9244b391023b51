"""The files that a configuration names."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from impervious.config.schema import Section, members
from impervious.config.settings import Config

T = TypeVar("T")


def expand_home(config: Config, home: Path) -> Config:
    """Put a home directory in place of the `~` that a path begins with.

    Args:
      config: as loaded.
      home: of the user the daemon runs as; `~other` is left as it is.
    """
    return _expanded(config, home)


def _expanded(instance: T, home: Path) -> T:
    changes: dict[str, object] = {}
    for member in members(type(instance)):
        value: object = getattr(instance, member.name)
        if isinstance(member, Section):
            changes[member.name] = _expanded(value, home)
        elif isinstance(value, Path) and value.parts[:1] == ("~",):
            changes[member.name] = home.joinpath(*value.parts[1:])
    return replace(instance, **changes)  # type: ignore[type-var] # members() has seen that it is a dataclass
