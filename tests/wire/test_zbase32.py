import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import Malformed
from impervious.wire import zbase32


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\x00", "yy"),
        (b"\xff", "9h"),
        (b"\xf0\xbf\xc7", "6n9hq"),
        (b"\xd4\x7a\x04", "4t7ye"),
        (bytes(65), "y" * 104),
    ],
)
def test_published_pairs_both_ways(data: bytes, text: str) -> None:
    assert zbase32.encode(data) == text
    assert zbase32.decode(text) == data


@given(st.binary(max_size=200))
def test_every_byte_string_survives(data: bytes) -> None:
    assert zbase32.decode(zbase32.encode(data)) == data


@given(st.text(alphabet=zbase32.ALPHABET, max_size=20))
def test_a_text_that_is_accepted_is_the_only_spelling(text: str) -> None:
    try:
        data = zbase32.decode(text)
    except Malformed:
        return
    assert zbase32.encode(data) == text


@pytest.mark.parametrize("text", ["Y" * 104, "l0", "yv", "y y", "é"])
def test_foreign_characters_are_named_by_their_place(text: str) -> None:
    with pytest.raises(Malformed, match=r"character \d+ is not zbase32"):
        zbase32.decode(text)


@pytest.mark.parametrize("text", ["y", "yyy", "yyyyyy", "yb", "9999"])
def test_cut_off_or_padded_text_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="cut off"):
        zbase32.decode(text)
