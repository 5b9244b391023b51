import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.units import Msat, Sat, msat, sat_charged, sat_credited


@pytest.mark.parametrize(
    ("amount", "charged", "credited"),
    [(0, 0, 0), (1, 1, 0), (999, 1, 0), (1000, 1, 1), (1001, 2, 1), (1500, 2, 1), (1999, 2, 1), (2000, 2, 2)],
)
def test_rounding_favours_whom_the_name_says(amount: int, charged: int, credited: int) -> None:
    assert sat_charged(Msat(amount)) == charged
    assert sat_credited(Msat(amount)) == credited


@given(st.integers(0, 21_000_000 * 10**8))
def test_whole_satoshis_survive_both_ways(sat: int) -> None:
    assert sat_charged(msat(Sat(sat))) == sat == sat_credited(msat(Sat(sat)))
