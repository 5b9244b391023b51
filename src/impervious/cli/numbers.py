"""Numbers on the command line, with what argparse says when they are wrong."""

from argparse import ArgumentTypeError
from typing import Final

_LAST_PORT: Final = 65535
_LONGEST_MS: Final = 600_000


def port_base(text: str, *, lowest: int = 1) -> int:
    """Read the first of several ports.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and lowest <= int(text) <= _LAST_PORT):
        raise ArgumentTypeError(f"{text!r} is no port: use a number from {lowest} to {_LAST_PORT}")
    return int(text)


def milliseconds(text: str) -> float:
    """Read a time in milliseconds, and return seconds.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) <= _LONGEST_MS):
        raise ArgumentTypeError(f"{text!r} is no time: use whole milliseconds, from 0 to {_LONGEST_MS}")
    return int(text) / 1000
