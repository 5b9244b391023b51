import hashlib

import pytest

from impervious.errors import InvalidArgument
from impervious.model import MAX_INVOICE, DecodedInvoice, InvoiceTerms, NodePubkey, PaymentHash, Preimage
from impervious.units import Msat

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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"amount": -1}, "amount is not between 0"),
        ({"amount": MAX_INVOICE + 1}, "100000 bitcoin"),
        ({"memo": "é" * 320}, "memo has 640 bytes; an invoice carries up to 639"),
        ({"memo": "x" * 1025}, "memo has 1025 bytes; LND keeps up to 1024"),
        ({"memo": "x" * 1025, "description_hash": bytes(32)}, "memo has 1025 bytes"),
        ({"memo": "\ud800"}, "memo is not text"),
        ({"description_hash": bytes(31)}, "description_hash has 31 bytes"),
        ({"expiry_s": 0}, "between 1 second and a year"),
        ({"expiry_s": 31_536_001}, "between 1 second and a year"),
    ],
)
def test_an_invoice_that_cannot_be_says_what_is_wrong(change: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        InvoiceTerms(**{"amount": 1000, **change})  # type: ignore[arg-type]  # a table of one argument each


def test_an_invoice_lasts_a_day_and_a_decoded_one_tells_its_end() -> None:
    assert InvoiceTerms(amount=Msat(0)).expiry_s == 86_400
    decoded = DecodedInvoice(
        payment_request="lnbcrt1",
        payee=NodePubkey(b"\x02" + bytes(32)),
        payment_hash=PaymentHash(bytes(32)),
        amount=Msat(0),
        created_s=100,
        expiry_s=20,
    )
    assert decoded.expires_s == 120
