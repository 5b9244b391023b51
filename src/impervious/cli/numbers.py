"""Numbers on the command line, with what argparse says when they are wrong."""

from argparse import ArgumentTypeError

_LAST_PORT = 65535
_LONGEST_MS = 600_000


def port_base(text: str) -> int:
    """Read the first of several ports.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _LAST_PORT):
        raise ArgumentTypeError(f"{text!r} is no port: use a number from 1 to {_LAST_PORT}")
    return int(text)


def milliseconds(text: str) -> float:
    """Read a time in milliseconds, and return seconds.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) <= _LONGEST_MS):
        raise ArgumentTypeError(f"{text!r} is no time: use whole milliseconds, from 0 to {_LONGEST_MS}")
    return int(text) / 1000
