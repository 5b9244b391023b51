"""How many payments at a time: grown by success, cut by failure."""

import pytest

from impervious.outbound.window import LEAST, MOST, SLOWDOWN, START, Window


def test_it_doubles_in_the_time_of_a_payment_until_the_first_failure() -> None:
    window = Window(None)
    for _ in range(START):
        window.succeeded(0.4, full=True)
    assert window.size == 2 * START
    for _ in range(10_000):
        window.succeeded(0.4, full=True)
    assert window.size == MOST
    window.failed(sent_s=1.0, now_s=2.0)
    assert window.size == MOST // 2
    for _ in range(MOST // 2):
        window.succeeded(0.4, full=True)
    assert window.size == MOST // 2 + 1


def test_many_failures_of_one_time_cut_it_once() -> None:
    window = Window(64)
    window.succeeded(0.1, full=True)
    for sent_s in range(50):
        window.failed(sent_s=sent_s, now_s=100)
    assert window.size == 32
    window.failed(sent_s=101, now_s=102)
    assert window.size == 32  # nothing has arrived since: it is an outage
    for number in range(100):
        window.succeeded(0.1, full=False)
        window.failed(sent_s=200 + number, now_s=200 + number)
    assert window.size == LEAST


def test_it_does_not_grow_while_it_is_not_used_or_makes_payments_slow() -> None:
    window = Window(None)
    window.succeeded(0.1, full=False)
    assert window.size == START
    for _ in range(100):
        window.succeeded(0.1 * SLOWDOWN * 1.3, full=True)
    assert window.size == START
    for _ in range(10_000):  # the route has become slow for good
        window.succeeded(2.0, full=True)
    assert window.size > START


@pytest.mark.parametrize("most", [1, 2, 16, 483])
def test_the_operator_says_where_it_begins_and_ends(most: int) -> None:
    window = Window(most)
    assert window.size == most
    for _ in range(100):
        window.succeeded(0.1, full=True)
    assert window.size == most
    window.failed(sent_s=1, now_s=1)
    assert window.size == max(most // 2, min(most, LEAST))
