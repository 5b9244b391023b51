"""The files that a configuration names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from impervious.config.schema import Section, members
from impervious.config.settings import Config

T = TypeVar("T")


def expand_home(config: Config, expand: Callable[[Path], Path]) -> Config:
    """Put home directories in place of the `~` or `~user` that a path begins with.

    Args:
      config: as loaded.
      expand: called for paths that begin with `~`, and only for those; `Path.expanduser`, outside tests.
    """
    return _expanded(config, expand)


def _expanded(instance: T, expand: Callable[[Path], Path]) -> T:
    changes: dict[str, object] = {}
    for member in members(type(instance)):
        value: object = getattr(instance, member.name)
        if isinstance(member, Section):
            changes[member.name] = _expanded(value, expand)
        elif isinstance(value, Path) and value.parts and value.parts[0].startswith("~"):
            changes[member.name] = expand(value)
    return replace(instance, **changes)  # type: ignore[type-var] # members() has seen that it is a dataclass
