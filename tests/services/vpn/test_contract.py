import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.vpn.shop import HOUR_MS, START_MS

from impervious.services.vpn.contract import MINUTE_MS, WARNINGS_MS, Notice, Term, extended, next_second

times = st.integers(0, 2**45)
spans = st.integers(1, 720).map(lambda hours: hours * HOUR_MS) | st.integers(1, 20).map(lambda seconds: seconds * 1000)


@given(times)
def test_a_second_begins_within_a_second(now_ms: int) -> None:
    assert next_second(now_ms) % 1000 == 0
    assert 0 <= next_second(now_ms) - now_ms < 1000


@given(times, spans, times)
def test_time_that_is_bought_is_never_less(expires_ms: int, span_ms: int, now_ms: int) -> None:
    expires_ms = next_second(expires_ms)
    after = extended(expires_ms, span_ms, now_ms)
    assert after - max(expires_ms, next_second(now_ms)) == span_ms
    term = Term(expires_ms=expires_ms, span_ms=span_ms)
    assert term.more(now_ms).rest_ms(now_ms) == term.rest_ms(now_ms) + span_ms


@given(spans, st.lists(st.integers(1, 30 * HOUR_MS), max_size=30))
def test_every_announcement_comes_once_and_the_end_last(span_ms: int, pauses: list[int]) -> None:
    term, now_ms, said = Term(expires_ms=START_MS + span_ms, span_ms=span_ms), START_MS, []
    for pause in [*pauses, 721 * HOUR_MS, 1]:
        now_ms += pause
        notice = term.due(now_ms)
        if notice is not None:
            term = term.told(now_ms)
            said.append(notice)
            assert (notice is Notice.EXPIRED) == (now_ms >= term.expires_ms)
        assert term.due(now_ms) is None
    assert said[-1] is Notice.EXPIRED
    assert said.count(Notice.EXPIRED) == 1
    assert len(said) <= 1 + sum(1 for each in WARNINGS_MS if each < span_ms)


@pytest.mark.parametrize(
    ("span_ms", "rests"),
    [
        (5000, []),
        (10 * MINUTE_MS, []),
        (HOUR_MS, [10 * MINUTE_MS]),
        (24 * HOUR_MS, [HOUR_MS, 10 * MINUTE_MS]),
        (25 * HOUR_MS, [24 * HOUR_MS, HOUR_MS, 10 * MINUTE_MS]),
    ],
)
def test_the_announcements_that_apply(span_ms: int, rests: list[int]) -> None:
    term, now_ms, at = Term(expires_ms=START_MS + span_ms, span_ms=span_ms), START_MS, []
    while (due_ms := term.next_due_ms(now_ms)) is not None:
        now_ms = due_ms
        at.append(term.expires_ms - now_ms)
        term = term.told(now_ms)
    assert at == [*rests, 0]


def test_after_a_renewal_the_end_is_announced_again() -> None:
    term = Term(expires_ms=START_MS, span_ms=HOUR_MS).told(START_MS)
    assert term.due(START_MS + 5) is None
    renewed = term.more(START_MS + 5)
    assert renewed.due(START_MS + 5) is None
    assert renewed.due(renewed.expires_ms - 9 * MINUTE_MS) is Notice.EXPIRING
