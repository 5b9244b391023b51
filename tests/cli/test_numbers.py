from argparse import ArgumentTypeError

import pytest

from impervious.cli.numbers import milliseconds, port_base


def test_ports() -> None:
    assert port_base("1") == 1
    assert port_base("65535") == 65535
    assert port_base("0", lowest=0) == 0
    for text in ("0", "65536", "-1", "x", "", "8 8", "\u0663"):
        with pytest.raises(ArgumentTypeError, match="is no port: use a number from 1 to 65535"):
            port_base(text)


def test_times() -> None:
    assert milliseconds("0") == 0
    assert milliseconds("250") == 0.25
    for text in ("-1", "1.5", "600001", ""):
        with pytest.raises(ArgumentTypeError, match="use whole milliseconds"):
            milliseconds(text)
