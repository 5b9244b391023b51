import pytest

from impervious.model import MAX_INVOICE
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.asking import Ask, go_float
from impervious.units import Msat


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (86_400, "86400"),
        (999_999, "999999"),
        (1_000_000, "1e+06"),
        (1_234_567, "1.234567e+06"),
        (31_536_000, "3.1536e+07"),
        (10**9, "1e+09"),
        (0.5, "0.5"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
    ],
)
def test_numbers_are_written_as_go_does(value: float, text: str) -> None:
    assert go_float(value) == text


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (Ask(memo="x" * 1025), "memo too large: 1025 bytes (maxsize=1024)"),
        (Ask(memo="x" * 640), "data length too big to fit within 10 bits: 1024"),
        (Ask(description_hash=b"x"), "description hash is 1 bytes, must be 32"),
        (
            Ask(value=Msat(MAX_INVOICE + 123_456_789)),
            "invoice amount 100000.00123456 BTC is too large, max is 100000 BTC",
        ),
        (Ask(expiry_s=31_536_001), "expiry of 3.1536001e+07 seconds greater than max expiry of 3.1536e+07 seconds"),
        (Ask(cltv_expiry=23), "CLTV delta of 23 must be greater than minimum of 24"),
        (Ask(cltv_expiry=65_536), "CLTV delta of 65536 is too large, max accepted is: 65535"),
        (Ask(hints=((),)), "number of hop hint within a route must be positive"),
        (Ask(hints=((),) * 21), "number of routing hints must not exceed maximum of 20"),
    ],
)
def test_what_no_invoice_says_is_refused_in_lnds_words(ask: Ask, says: str) -> None:
    with pytest.raises(LndError) as refused:
        ask.check()
    assert refused.value.text == says


def test_limits_are_within() -> None:
    Ask(memo="x" * 639, value=MAX_INVOICE, expiry_s=31_536_000, cltv_expiry=24).check()
    Ask(memo="x" * 1024, description_hash=bytes(32), expiry_s=-1, cltv_expiry=65_535).check()
