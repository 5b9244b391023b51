import math

from hypothesis import given, settings
from hypothesis import strategies as st

from impervious.relay.allowance import BUCKET_S, LARGEST_BYTES, Allowance


def test_without_limits_everything_passes() -> None:
    allowance = Allowance(packets_per_s=math.inf, bytes_per_s=math.inf, now=0)
    for now in range(3):
        allowance.refill(now)
        assert allowance.take(10**9, 10**15)


def test_a_quarter_of_a_second_passes_at_once_and_then_the_rate() -> None:
    allowance = Allowance(packets_per_s=100, bytes_per_s=math.inf, now=5)
    assert allowance.take(25, 0)
    assert not allowance.take(1, 0)
    allowance.refill(5.015)
    assert allowance.take(1, 0)
    assert not allowance.take(1, 0)


def test_a_refused_burst_costs_nothing() -> None:
    allowance = Allowance(packets_per_s=40, bytes_per_s=1_000_000, now=0)
    assert not allowance.take(11, 10)
    assert not allowance.take(1, 250_001)
    assert allowance.take(10, 250_000)


def test_bytes_are_limited_when_packets_are_not() -> None:
    allowance = Allowance(packets_per_s=math.inf, bytes_per_s=400_000, now=0)
    assert allowance.take(1, 100_000)
    allowance.refill(0.1)
    assert not allowance.take(1, 40_001)
    assert allowance.take(1, 39_999)


def test_the_largest_datagram_passes_however_low_the_rate_is() -> None:
    allowance = Allowance(packets_per_s=0.5, bytes_per_s=1, now=0)
    assert allowance.take(1, LARGEST_BYTES)


def test_a_long_silence_is_worth_no_more_than_a_bucket() -> None:
    allowance = Allowance(packets_per_s=100, bytes_per_s=math.inf, now=0)
    allowance.refill(10_000)
    assert not allowance.take(26, 0)
    assert allowance.take(25, 0)


def test_a_clock_that_stands_still_or_goes_back_adds_nothing() -> None:
    allowance = Allowance(packets_per_s=100, bytes_per_s=math.inf, now=10)
    allowance.take(25, 0)
    allowance.refill(10)
    allowance.refill(9)
    assert not allowance.take(1, 0)


@settings(deadline=None)
@given(
    st.floats(1, 10_000),
    st.floats(1, 1e7),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 64), st.integers(0, 65_535)), max_size=60),
)
def test_never_more_than_the_bucket_and_the_rate(
    packets_per_s: float, bytes_per_s: float, wishes: list[tuple[float, int, int]]
) -> None:
    allowance = Allowance(packets_per_s=packets_per_s, bytes_per_s=bytes_per_s, now=0)
    now, packets, size_bytes = 0.0, 0, 0
    for pause_s, wished, wished_bytes in wishes:
        now += pause_s
        allowance.refill(now)
        if allowance.take(wished, wished_bytes):
            packets += wished
            size_bytes += wished_bytes
    assert packets <= max(1, packets_per_s * BUCKET_S) + packets_per_s * now + 1e-6 * packets
    assert size_bytes <= max(LARGEST_BYTES, bytes_per_s * BUCKET_S) + bytes_per_s * now + 1e-6 * size_bytes
