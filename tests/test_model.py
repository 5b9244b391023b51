import hashlib

import pytest

from impervious.errors import InvalidArgument
from impervious.model import NodePubkey, Preimage

GOOD = "02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5"


@pytest.mark.parametrize("text", [GOOD, GOOD.upper(), "03" + GOOD[2:]])
def test_a_pubkey_is_read_in_either_case_and_either_half(text: str) -> None:
    assert NodePubkey.parse(text).hex == text.lower()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing"),
        (GOOD[:-1], "65 characters"),
        (GOOD + "00", "68 characters"),
        ("zz" + GOOD[2:], "not hexadecimal"),
        ("02 " + GOOD[3:], "not hexadecimal"),
        (" " * 66, "not hexadecimal"),
        ("04" + GOOD[2:], "02 or 03"),
        (GOOD[:-1] + "7", "not a point"),
        ("02" + "f" * 64, "not a point"),
    ],
)
def test_a_bad_pubkey_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        NodePubkey.parse(text)


def test_a_preimage_never_prints_itself() -> None:
    preimage = Preimage(bytes(range(32)))
    assert "0102" not in repr(preimage)
    assert preimage.payment_hash == hashlib.sha256(preimage.raw).digest()


def test_a_preimage_has_32_bytes() -> None:
    with pytest.raises(InvalidArgument):
        Preimage(b"short")
