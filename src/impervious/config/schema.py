"""What every setting says about itself, kept beside its default in the dataclass that holds it.

The loader, `config show`, the file that `impervious init` writes and docs/config.md all read it from here, so they
cannot disagree.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Final, Generic, TypeVar

from impervious.config.values import Value

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_ABOUT: Final = "impervious"
"""Our key in a dataclass field's metadata."""


class Wrong(ValueError):
    """A value is not of its kind. The text, if any, is a hint and never repeats the value."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """A sort of value: how it is described to people, and how it is read."""

    says: str
    """Completes "… must be": `a whole number from 1 to 65535`."""
    read: Callable[[Value], T_co]
    """Raises `Wrong`."""
    is_list: bool = False
    """Given as YAML in the environment too."""


@dataclass(frozen=True, slots=True)
class Unset:
    """What it means that a setting still holds the published sample's placeholder."""

    effect: str
    """What is off or limited, and what to put there."""
    samples: tuple[str, ...] = ()
    """Placeholders of this setting alone, besides those that are placeholders everywhere."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A key with a value."""

    name: str
    """Of the dataclass field."""
    key: str
    """In the file."""
    kind: Kind[object]
    default: object
    """None where there is none."""
    meaning: str
    secret: bool = False
    unset: Unset | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A key with keys below it."""

    name: str
    key: str
    default: object
    """An instance of its dataclass."""
    meaning: str


@dataclass(frozen=True, slots=True)
class _About:
    meaning: str
    key: str
    kind: Kind[object] | None = None
    secret: bool = False
    unset: Unset | None = None


def setting(
    kind: Kind[T], default: T, meaning: str, *, key: str = "", secret: bool = False, unset: Unset | None = None
) -> T:
    """Declare a dataclass field that is a setting.

    Args:
      kind: what values it takes.
      default: its value when the file does not set it.
      meaning: a sentence or two for the operator, with the unit.
      key: its name in the file where that differs from the field's.
      secret: never shown, neither in a repr nor by `config show` nor in an error.
      unset: what a placeholder of the published sample means here.
    """
    about = _About(meaning=meaning, key=key, kind=kind, secret=secret, unset=unset)
    return field(default=default, repr=not secret, metadata={_ABOUT: about})


def naming(kind: Kind[object], meaning: str, *, key: str = "") -> Mapping[str, object]:
    """Make the metadata of a field that has no default."""
    return {_ABOUT: _About(meaning=meaning, key=key, kind=kind)}


def section(default: T, meaning: str, *, key: str = "") -> T:
    """Declare a dataclass field that holds settings of its own."""
    return field(default=default, metadata={_ABOUT: _About(meaning=meaning, key=key)})


def members(cls: type) -> tuple[Setting | Section, ...]:
    """List the settings and sections of a dataclass, in order; fields declared otherwise are left out."""
    return tuple(_members(cls))


def _members(cls: type) -> Iterator[Setting | Section]:
    for entry in fields(cls):
        about: _About | None = entry.metadata.get(_ABOUT)
        if about is None:
            continue
        key = about.key or entry.name
        if about.kind is None:
            yield Section(entry.name, key, entry.default, about.meaning)
        else:
            default = None if entry.default is MISSING else entry.default
            yield Setting(entry.name, key, about.kind, default, about.meaning, about.secret, about.unset)


def settings(cls: type, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Setting]]:
    """Walk all settings below a dataclass, each with its path of keys."""
    for member in members(cls):
        path = (*above, member.key)
        if isinstance(member, Section):
            yield from settings(type(member.default), path)
        else:
            yield path, member
