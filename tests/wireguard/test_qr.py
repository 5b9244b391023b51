from functools import partial
from xml.etree import ElementTree as ET

import pytest
import segno
from tests.wireguard.test_client import received

from impervious.errors import InvalidArgument
from impervious.wireguard.qr import svg_qr, terminal_qr

TEXT = received().text()
MATRIX = [[bool(module) for module in row] for row in segno.make_qr(TEXT, error="l", boost_error=False).matrix]
SIZE = len(MATRIX)

LIGHT = {"█": (True, True), "▀": (True, False), "▄": (False, True), " ": (False, False)}
"""Which half of a character shines, upper and lower."""


def test_a_terminal_shows_the_modules() -> None:
    lines = terminal_qr(TEXT, colour=False).splitlines()
    rows: list[list[bool]] = []
    for line in lines:
        rows += [[not LIGHT[each][half] for each in line] for half in (0, 1)]
    assert len(lines[0]) == SIZE + 4
    assert [row[2:-2] for row in rows[2 : SIZE + 2]] == MATRIX
    assert not any(any(row) for row in rows[:2])
    assert not any(row[0] or row[1] or row[-1] or row[-2] for row in rows[: SIZE + 4])


def test_a_terminal_of_80_columns_is_wide_enough() -> None:
    assert SIZE + 4 <= 80


def test_colours_are_put_back_on_every_line() -> None:
    plain = terminal_qr(TEXT, colour=False).splitlines()
    assert terminal_qr(TEXT, colour=True).splitlines() == [f"\x1b[97;40m{line}\x1b[0m" for line in plain]


def test_an_svg_has_the_modules() -> None:
    root = ET.fromstring(svg_qr(TEXT))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("width") == root.get("height") == str((SIZE + 8) * 4)


def test_a_configuration_with_long_lists_still_fits() -> None:
    networks = ",".join(f"10.{number}.0.0/16" for number in range(64))
    assert svg_qr(received(allowed_ips=networks).text())


def test_what_is_too_long_is_said() -> None:
    for draw in (svg_qr, partial(terminal_qr, colour=True)):
        with pytest.raises(InvalidArgument, match="4000 bytes are too much"):
            draw("x" * 4000)
