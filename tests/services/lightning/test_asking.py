"""What callers ask for, before anybody is asked about it; the service's own tests show the errors at work."""

import hashlib
from dataclasses import replace

import pytest

from impervious.config import LightningConfig
from impervious.errors import InvalidArgument
from impervious.services.lightning import asking
from impervious.units import Msat, Sat

CONFIGURED = replace(LightningConfig(), max_fee_sat=Sat(10), max_fee_ppm=50_000)


@pytest.mark.parametrize(
    ("amount", "given", "limit"),
    [
        (0, 0, 10_000),
        (200_000, 0, 10_000),
        (200_020, 0, 10_001),  # a twentieth, rounded down
        (200_039, 0, 10_001),
        (10**14, 0, 5 * 10**12),
        (10**14, 1, 1000),
        (1, 77, 77_000),
    ],
)
def test_the_fee_limit_is_the_calls_or_the_larger_of_two(amount: int, given: int, limit: int) -> None:
    assert asking.fee_limit(Msat(amount), Sat(given), CONFIGURED) == limit


def test_a_fee_limit_of_nothing_is_free_routes_only() -> None:
    assert asking.fee_limit(Msat(10**9), Sat(0), replace(CONFIGURED, max_fee_sat=Sat(0), max_fee_ppm=0)) == 0


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        " {}\n",
        "lightning:{}",
        "LIGHTNING:{}",
        " Lightning:{} ",
        "lightning: {}",
        "lightning://{}",
        "bitcoin:bc1q?amount=0.1&lightning={}",
        "BITCOIN:BC1Q?LIGHTNING={}&LABEL=A%20B",
        " bitcoin:?label=a+b&lightning=%20{0}&lightning={0}",
        "bitcoin:bc1q?lightning=lightning:{}",
        "bitcoin:bc1q?lightning={}#fragment",
    ],
)
def test_what_surrounds_an_invoice_is_taken_off(around: str) -> None:
    assert asking.invoice_text(around.format("lnbc1Qq")) == "lnbc1Qq"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lightning: ", "invoice is missing"),
        ("bitcoin:bc1q", "without a Lightning invoice"),
        ("bitcoin:bc1q?amount=1&lightning=", "without a Lightning invoice"),
        ("bitcoin:bc1q?lno=lno1q", "without a Lightning invoice"),
        ("bitcoin:?lightning=lnbc1a&lightning=lnbc1b", "several Lightning invoices"),
        ("bitcoin:?lightning=lnbc1a&req-foo=1", "requires 'req-foo'"),
        ("bitcoin:?lightning=" + "q" * 5000, "has 5000 characters"),
    ],
)
def test_what_holds_no_invoice_says_so(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        asking.invoice_text(text)


def test_a_memo_that_is_too_long_for_an_invoice_goes_into_it_as_its_hash() -> None:
    fits = asking.terms(Sat(1), "ö" * 319 + "x", description_hash=b"", expiry_s=0)
    assert (fits.description_hash, fits.amount, fits.expiry_s) == (b"", 1000, 86_400)
    memo = "ö" * 320
    assert (
        asking.terms(Sat(1), memo, description_hash=b"", expiry_s=5).description_hash
        == hashlib.sha256(memo.encode()).digest()
    )
    given = asking.terms(Sat(1), memo, description_hash=bytes(32), expiry_s=5)
    assert (given.description_hash, given.memo, given.expiry_s) == (bytes(32), memo, 5)


@pytest.mark.parametrize("memo", ["half \ud800", "half \ud800" * 100])
def test_half_a_character_is_no_memo(memo: str) -> None:
    with pytest.raises(InvalidArgument, match="half of a character"):
        asking.terms(Sat(1), memo, description_hash=b"", expiry_s=0)


def test_records_may_be_as_large_as_an_onion_to_a_peer() -> None:
    assert asking.keysend_records([(65_536, bytes(600)), (2**64 - 1, bytes(600))]) == {
        65_536: bytes(600),
        2**64 - 1: bytes(600),
    }
