from hypothesis import given
from hypothesis import strategies as st

from impervious.wireguard import Traffic, Transfer


def seen(received_bytes: int, sent_bytes: int) -> Transfer:
    return Transfer(received_bytes=received_bytes, sent_bytes=sent_bytes)


def total(traffic: Traffic) -> tuple[int, int]:
    return traffic.received_bytes, traffic.sent_bytes


def test_a_look_adds_what_is_new() -> None:
    traffic = Traffic().counting(seen(100, 10)).counting(seen(150, 10))
    assert total(traffic) == (150, 10)
    assert traffic.counting(seen(150, 10)) == traffic


def test_a_counter_that_falls_has_started_again() -> None:
    traffic = Traffic().counting(seen(100, 10)).counting(seen(5, 0))
    assert total(traffic) == (105, 10)
    assert total(traffic.counting(seen(7, 1))) == (107, 11)


def test_both_counters_start_again_together() -> None:
    # More was sent since than before, but the other counter gives the new start away.
    assert total(Traffic().counting(seen(100, 10)).counting(seen(5, 30))) == (105, 40)


lives = st.lists(
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), min_size=1, max_size=5), min_size=1, max_size=5
)


@given(lives)
def test_totals_never_fall_and_never_invent(deltas: list[list[tuple[int, int]]]) -> None:
    """Lives of an interface, each of which counts from nothing; between two, the last look may miss something."""
    traffic, truth = Traffic(), (0, 0)
    for life in deltas:
        shown = (0, 0)
        for received, sent in life:
            shown = (shown[0] + received, shown[1] + sent)
            truth = (truth[0] + received, truth[1] + sent)
            before, traffic = traffic, traffic.counting(seen(*shown))
            assert total(traffic) >= total(before)
            assert traffic.received_bytes >= before.received_bytes
            assert traffic.sent_bytes >= before.sent_bytes
            assert traffic.received_bytes <= truth[0]
            assert traffic.sent_bytes <= truth[1]
    if len(deltas) == 1:
        assert total(traffic) == truth
