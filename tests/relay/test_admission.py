import math

import pytest

from impervious.config.address import Address
from impervious.relay.admission import REFUSED_AFTER_S, STRANGER, FirstCome, Occupant, Verdict

SENDER = Address(host="192.0.2.7", port=4000)


def judge(occupant: Occupant | None, replace_after_s: float = 30, datagram: bytes = b"hi") -> Verdict:
    return FirstCome(replace_after_s).judge(datagram, SENDER, occupant, now=1000)


def test_the_first_sender_is_let_in_with_what_it_says() -> None:
    assert judge(None) == Verdict(admit=True, payload=b"hi")
    assert judge(None, datagram=b"") == Verdict(admit=True)


@pytest.mark.parametrize(
    ("silent_s", "refused", "replace_after_s", "admitted"),
    [
        (0, False, 30, False),
        (29.9, False, 30, False),
        (30, False, 30, True),
        (REFUSED_AFTER_S - 0.1, True, 30, False),
        (REFUSED_AFTER_S, True, 30, True),
        (1, True, 1, True),
        (1e9, False, math.inf, False),
        (1e9, True, math.inf, False),
    ],
)
def test_a_place_is_kept_for_as_long_as_its_endpoint_shows_life(
    silent_s: float, refused: bool, replace_after_s: float, admitted: bool
) -> None:
    verdict = judge(Occupant(silent_s=silent_s, refused=refused), replace_after_s)
    assert verdict == (Verdict(admit=True, payload=b"hi") if admitted else STRANGER)
