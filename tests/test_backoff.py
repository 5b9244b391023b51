from itertools import islice

from impervious.backoff import delays_s


def test_doubles_up_to_the_cap() -> None:
    assert list(islice(delays_s(first_s=1, cap_s=5, random=lambda: 0.0), 5)) == [1, 2, 4, 5, 5]


def test_jitter_takes_at_most_half() -> None:
    assert list(islice(delays_s(first_s=1, cap_s=4, random=lambda: 1.0), 3)) == [0.5, 1, 2]
