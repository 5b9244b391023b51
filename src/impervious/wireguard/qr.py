"""A buyer's configuration as a picture, for the camera of a WireGuard app."""

from io import BytesIO, StringIO
from typing import Final

import segno

from impervious.errors import InvalidArgument

_BORDER: Final = 2
"""Modules around it. The standard (ISO/IEC 18004) asks for 4; phones take 2, and a terminal has 80 columns."""
_WHITE_ON_BLACK: Final = "\x1b[97;40m"
_AS_BEFORE: Final = "\x1b[0m"


def terminal_qr(text: str, *, colour: bool) -> str:
    """Draw it with half blocks, two modules a character.

    Args:
      text: what it says; it is as secret as the picture.
      colour: whether to fix white on black, for terminals that may have a light background.

    Raises:
      InvalidArgument: it is too long.
    """
    out = StringIO()
    _code(text).terminal(out=out, border=_BORDER, compact=True)
    lines = out.getvalue().splitlines()
    return "\n".join(f"{_WHITE_ON_BLACK}{line}{_AS_BEFORE}" if colour else line for line in lines)


def svg_qr(text: str) -> str:
    """Draw it as an SVG document.

    Raises:
      InvalidArgument: it is too long.
    """
    out = BytesIO()
    _code(text).save(out, kind="svg", scale=4, light="#fff")
    return out.getvalue().decode()


def _code(text: str) -> segno.QRCode:
    try:
        # The least error correction makes the fewest modules: a screen does not get scratched.
        return segno.make_qr(text, error="l", boost_error=False)
    except segno.DataOverflowError:
        raise InvalidArgument(
            f"{len(text.encode())} bytes are too much for a QR code, which holds 2953: use the file"
        ) from None
