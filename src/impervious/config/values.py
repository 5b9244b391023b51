"""What a configuration file says before anybody has decided what it means.

A scalar keeps the text as it was written, because only the setting it belongs to knows whether `0123` is a password or
a number; everything keeps the place it came from, so that an error can name it.
"""

from dataclasses import dataclass

from impervious.errors import ConfigError

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
"""What YAML and JSON can write."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One word or line."""

    where: str
    """`file:line`, or the environment variable's name."""
    text: str
    typed: str | int | float | bool | None
    """What YAML takes it for; matters only for null and where a setting takes any value."""

    @property
    def empty(self) -> bool:
        """Whether it stands for "not set": null, or nothing between quotes."""
        return self.typed is None or not self.text


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    where: str
    items: tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping; each value's `where` is that of its key."""

    where: str
    entries: dict[str, "Value"]


Value = Scalar | Listing | Table


def plain(value: Value) -> Plain:
    """Take YAML's word for what a value is."""
    match value:
        case Scalar():
            return value.typed
        case Listing():
            return [plain(item) for item in value.items]
        case Table():
            return {key: plain(entry) for key, entry in value.entries.items()}


def complain(where: str, problem: str) -> ConfigError:
    """Build the one line that the user reads: where it is, then what is wrong there."""
    return ConfigError(f"{where}: {problem}")
