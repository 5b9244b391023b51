"""Numbers on the command line, with what argparse says when they are wrong."""

from argparse import ArgumentTypeError

_LAST_PORT = 65535


def port_base(text: str) -> int:
    """Read the first of several ports.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _LAST_PORT):
        raise ArgumentTypeError(f"{text!r} is no port: use a number from 1 to {_LAST_PORT}")
    return int(text)
