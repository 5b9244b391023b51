import errno

import pytest

from impervious.relay import Dropped
from impervious.relay.tally import Tally


@pytest.mark.parametrize(
    ("number", "dropped"),
    [
        (errno.EMSGSIZE, Dropped(too_large=1)),
        (errno.ENOBUFS, Dropped(congested=1)),
        (errno.ENETUNREACH, Dropped(unreachable=1)),
        (errno.EHOSTUNREACH, Dropped(unreachable=1)),
        (errno.EPERM, Dropped(unreachable=1)),
    ],
)
def test_what_is_not_sent_has_a_reason(number: int, dropped: Dropped) -> None:
    tally = Tally()
    tally.unsent(OSError(number, "so it is"))
    assert tally.statistics(port=1, endpoint=None, silent_s=None, overruns_now=0).dropped == dropped


def test_overruns_of_closed_and_open_links_are_added() -> None:
    tally = Tally(overrun=3)
    assert tally.statistics(port=1, endpoint=None, silent_s=None, overruns_now=4).dropped.overrun == 7
