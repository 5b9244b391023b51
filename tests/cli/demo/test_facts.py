import pytest

from impervious.cli.demo.facts import TEXT_CHARS, shortened


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("grüß dich".encode(), "grüß dich"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 100_000, "x" * TEXT_CHARS),
        ("€".encode() * 100_000, "€" * TEXT_CHARS),
    ],
)
def test_a_text_is_repeated_in_part(data: bytes, text: str) -> None:
    assert shortened(data) == text
