"""What was found, in a sentence, and the command that puts it right."""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """Whether something is as it should be."""

    OK = "ok"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `impervious vpn check`."""

    name: str
    """What was looked at, in one or two words."""
    state: State
    says: str
    """What was found, or why nothing was."""
    fix: str = ""
    """A command for a shell or, for a setting, the line for the configuration file; empty if `says` says it all."""

    @property
    def is_bad(self) -> bool:
        """Whether it must be put right."""
        return self.state is State.BAD

    @property
    def is_unknown(self) -> bool:
        """Whether it could not be seen."""
        return self.state is State.UNKNOWN


def ok(name: str, says: str) -> Finding:
    """Say that it is as it should be."""
    return Finding(name=name, state=State.OK, says=says)


def bad(name: str, says: str, fix: str = "") -> Finding:
    """Say that it is not."""
    return Finding(name=name, state=State.BAD, says=says, fix=fix)


def unknown(name: str, why: str, fix: str = "") -> Finding:
    """Say that it could not be seen."""
    return Finding(name=name, state=State.UNKNOWN, says=why, fix=fix)
