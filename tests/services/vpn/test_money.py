from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import InvalidArgument
from impervious.services.vpn.money import SMALLEST, Entry, refund, refundable, sale, taken_back
from impervious.units import Msat

CAUSE = UUID(int=1)
amounts = st.integers(0, 10**12).map(Msat)


@given(amounts, amounts)
def test_nobody_gets_more_back_than_came_less_the_fee(amount: Msat, fee: Msat) -> None:
    back = refundable(amount, fee)
    assert back == 0 or (back >= SMALLEST and back + fee == amount)
    assert back or amount - fee < SMALLEST
    assert (refund(CAUSE, "n", amount, fee).refunded, taken_back(CAUSE, "n", amount, fee).refunded) == (back, back)
    assert sale(CAUSE, "n", amount).sold + taken_back(CAUSE, "n", amount, fee).sold == 0


def test_an_entry_adds_up() -> None:
    with pytest.raises(InvalidArgument, match="5 msat are not"):
        Entry(cause=CAUSE, nonce="", received=Msat(5), sold=Msat(1), refunded=Msat(1), kept=Msat(1))


def test_what_is_just_enough_to_be_sent_goes_back() -> None:
    assert refundable(Msat(8_000), Msat(3_000), Msat(5_000)) == 5_000
    assert refundable(Msat(7_999), Msat(3_000), Msat(5_000)) == 0
