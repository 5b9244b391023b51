"""Types of Python against `server.commands`, which reads and writes their values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NewType
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from tests.server.house import ALICE

from impervious.model import NodePubkey
from impervious.server.commands import to_json
from impervious.server.openapi.values import given, taken
from impervious.units import Sat
from impervious.wire.json import Encoding

Name = NewType("Name", str)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Stored:
    the_key: str
    raw: bytes
    price: Sat
    by: NodePubkey | None
    colours: tuple[Colour, ...] = ()


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (str, ["", None], [1]),
        (Name, ["x"], [b""]),
        (bytes, ["_-8="], ["a b"]),
        (bool, [True], ["true"]),
        (Sat, [5, "-7"], ["x", 1.5, 2**63]),
        (float, [1, 1.5], ["1"]),
        (NodePubkey, [ALICE.hex, "@bob"], ["02", "@"]),
        (UUID | None, [str(UUID(int=1)), None], [7]),
        (list[int], [[1, "2"]], ["1", ["x"]]),
        (Mapping[str, object], [{"x": [1]}], [[]]),
        (object, [None, 1, "x", []], []),
    ],
)
def test_what_a_parameter_takes(hint: object, right: list[object], wrong: list[object]) -> None:
    schema = Draft202012Validator(taken(hint, Encoding.BASE64))
    for value in right:
        assert list(schema.iter_errors(value)) == [], value
    for value in wrong:
        assert list(schema.iter_errors(value)) != [], value


@pytest.mark.parametrize("encoding", Encoding)
def test_what_an_answer_looks_like(encoding: Encoding) -> None:
    for hint, value in (
        (Stored, Stored("k", b"hi!", Sat(5), ALICE, (Colour.RED,))),
        (list[Stored], [Stored("k", b"", Sat(0), None)]),
        (dict[str, UUID], {"id": UUID(int=1)}),
        (Mapping[str, Name | None], {"a": None, "b": "c"}),
        (set[int], {1}),
        (float | None, 0.5),
        (Colour, Colour.RED),
        (None, None),
    ):
        schema = Draft202012Validator(given(hint, encoding))
        shown = to_json(value, encoding)
        assert list(schema.iter_errors(shown)) == [], hint
        assert list(schema.iter_errors("of another kind" if not isinstance(shown, str) else 7)) != [], hint


def test_a_type_that_says_nothing() -> None:
    assert given(object, Encoding.BASE64) == {}
    assert given(bytes, Encoding.TEXT) == {"type": "string"}
