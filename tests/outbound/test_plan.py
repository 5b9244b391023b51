from hypothesis import given
from hypothesis import strategies as st

from impervious.outbound import plan
from impervious.units import Msat

amounts = st.integers(0, 10**9).map(Msat)
sizes = st.integers(1, 100_000)
part_sizes = st.integers(1, 2_000)


@given(offset=st.integers(0, 10**6), length=sizes, amount=amounts, part_bytes=part_sizes, part_amount=amounts)
def test_a_cut_covers_the_range_once_and_pays_what_was_asked(
    offset: int, length: int, amount: Msat, part_bytes: int, part_amount: Msat
) -> None:
    ranges = plan.cut(offset=offset, length=length, amount=amount, part_bytes=part_bytes, part_amount=part_amount)
    at = offset
    for piece in ranges:
        assert piece.offset == at
        assert 1 <= piece.length <= part_bytes
        assert piece.amount >= part_amount
        at += piece.length
    assert at == offset + length
    assert len(ranges) == plan.part_count(length, part_bytes)
    minimum = plan.minimum_amount(length, part_bytes=part_bytes, part_amount=part_amount)
    assert sum(piece.amount for piece in ranges) == max(amount, minimum)


def test_what_is_given_beyond_the_minimum_goes_with_the_header() -> None:
    ranges = plan.cut(offset=0, length=2_000, amount=Msat(7_500), part_bytes=900, part_amount=Msat(1_000))
    assert [(piece.length, piece.amount) for piece in ranges] == [(900, 5_500), (900, 1_000), (200, 1_000)]
