"""Metadata, timeouts and status messages, as tables and as round trips."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from impervious.wire.grpc import headers

KEYS = st.from_regex(r"[a-z0-9_.\-]{1,20}", fullmatch=True).filter(
    lambda key: not key.startswith("grpc-") and key not in {"te", "content-type", "user-agent"}
)
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
PAIRS = st.lists(
    st.one_of(
        st.tuples(KEYS.filter(lambda key: not key.endswith("-bin")), TEXT),
        st.tuples(KEYS.map(lambda key: key + "-bin"), st.binary()),
    )
)


@given(PAIRS)
def test_metadata_comes_back_in_order(pairs: list[tuple[str, str | bytes]]) -> None:
    assert list(headers.decode_metadata(headers.encode_metadata(pairs)).items()) == pairs


def test_metadata_may_be_a_mapping_pairs_or_nothing() -> None:
    assert headers.encode_metadata(None) == []
    assert headers.encode_metadata({}) == []
    assert headers.encode_metadata({"macaroon": "0201"}) == [(b"macaroon", b"0201")]
    twice = MultiDict([("k", "1"), ("k", "2")])
    assert headers.encode_metadata(twice) == [(b"k", b"1"), (b"k", b"2")]
    assert headers.encode_metadata([("k-bin", b"\x00\xff")]) == [(b"k-bin", b"AP8")]


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("Upper", "x", ValueError),
        ("", "x", ValueError),
        ("with space", "x", ValueError),
        (":path", "x", ValueError),
        ("grpc-timeout", "1S", ValueError),
        ("te", "trailers", ValueError),
        ("content-type", "x", ValueError),
        ("user-agent", "x", ValueError),
        ("k", "line\nbreak", ValueError),
        ("k", "ümlaut", ValueError),
        ("k", b"bytes", TypeError),
        ("k-bin", "text", TypeError),
    ],
)
def test_bad_metadata_is_refused_without_showing_the_value(
    key: str, value: str | bytes, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        headers.encode_metadata([(key, value)])
    assert repr(key) in str(caught.value)
    assert str(value) not in str(caught.value).replace(repr(key), "") or value == "x"


def test_what_belongs_to_http2_or_grpc_is_not_metadata() -> None:
    received = [
        (b":path", b"/a/b"),
        (b"grpc-timeout", b"1S"),
        (b"grpc-status", b"0"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"x"),
        (b"macaroon", b"0201"),
        (b"latin", b"\xe9"),
    ]
    assert list(headers.decode_metadata(received).items()) == [("macaroon", "0201"), ("latin", "\ufffd")]


@pytest.mark.parametrize(
    ("value", "decoded"),
    [(b"", [b""]), (b"AP8", [b"\x00\xff"]), (b"AP8=", [b"\x00\xff"]), (b"AA, /w==", [b"\x00", b"\xff"])],
)
def test_binary_metadata_with_and_without_padding_and_joined(value: bytes, decoded: list[bytes]) -> None:
    assert headers.decode_metadata([(b"k-bin", value)]).getall("k-bin") == decoded


@pytest.mark.parametrize("value", [b"A", b"\xff\xff", b"A-_A", b"AA AA"])
def test_binary_metadata_that_is_not_base64(value: bytes) -> None:
    with pytest.raises(ValueError, match="base64"):
        headers.decode_metadata([(b"k-bin", value)])


@pytest.mark.parametrize(
    ("seconds", "encoded"),
    [
        (1e-12, b"1n"),
        (0.0, b"1n"),
        (-5.0, b"1n"),
        (1e-9, b"1n"),
        (0.05, b"50000000n"),
        (1.0, b"1000000u"),
        (29.95, b"29950000u"),
        (100.0, b"100000m"),
        (99_999.9995, b"100000S"),
        (100_000.0, b"100000S"),
        (1e8, b"1666667M"),
        (6e9, b"1666667H"),
        (1e30, b"99999999H"),
    ],
)
def test_timeouts_are_rounded_up_to_the_finest_unit(seconds: float, encoded: bytes) -> None:
    assert headers.encode_timeout(seconds) == encoded


@given(st.floats(min_value=0, max_value=1e11))
def test_the_far_end_never_gets_less_time(seconds: float) -> None:
    allowed = headers.decode_timeout(headers.encode_timeout(seconds))
    assert allowed >= seconds or math.isclose(allowed, seconds)
    assert allowed <= seconds * 1.0001 + 1e-6 or seconds < 1e-6 or allowed - seconds <= 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600.0), (b"2M", 120.0), (b"3S", 3.0), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"00000000S", 0.0)],
)
def test_timeouts_of_every_unit(value: bytes, seconds: float) -> None:
    assert headers.decode_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1s", b"-1S", b"1.5S", b"123456789S", b"1S ", "1²S".encode()])
def test_malformed_timeouts(value: bytes) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        headers.decode_timeout(value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_status_messages_come_back(message: str) -> None:
    encoded = headers.encode_message(message)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert headers.decode_message(encoded) == message


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        ("plain text", b"plain text"),
        ("100%", b"100%25"),
        ("a\r\nb", b"a%0D%0Ab"),
        ("€", b"%E2%82%AC"),
        ("\ud800", b"?"),
    ],
)
def test_status_messages_on_the_wire(message: str, encoded: bytes) -> None:
    assert headers.encode_message(message) == encoded


@given(st.text(st.sampled_from("a%€é\U0001f4a9"), min_size=1500, max_size=6000))
def test_long_status_messages_are_cut_between_characters(message: str) -> None:
    encoded = headers.encode_message(message)
    assert len(encoded) <= headers.MESSAGE_LIMIT
    assert message.startswith(headers.decode_message(encoded))
    assert len(encoded) > headers.MESSAGE_LIMIT - 12 or headers.decode_message(encoded) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [(b"%", "%"), (b"%zz", "%zz"), (b"%E2%82", "\ufffd"), (b"%e2%82%ac", "€"), (b"\xff", "\ufffd")],
)
def test_status_messages_are_read_as_far_as_possible(value: bytes, message: str) -> None:
    assert headers.decode_message(value) == message
