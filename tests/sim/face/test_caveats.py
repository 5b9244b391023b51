import pytest

from impervious.sim.face.caveats import Caller, go_quoted, refusal

NOW_S = 1_760_000_000  # 2025-10-09T08:53:20Z
CALLER = Caller(host="127.0.0.1", now_s=NOW_S)
SIX = Caller(host="::1", now_s=NOW_S)


@pytest.mark.parametrize(
    ("caveat", "caller"),
    [
        (b"time-before 2025-10-09T08:53:21Z", CALLER),
        (b"time-before 2025-10-09T08:53:20.5Z", CALLER),
        (b"time-before 2025-10-09T10:53:21+02:00", CALLER),
        (b"ipaddr 127.0.0.1", CALLER),
        (b"ipaddr ::ffff:127.0.0.1", CALLER),
        (b"ipaddr 0:0:0:0:0:0:0:1", SIX),
        (b"iprange 127.0.0.0/8", CALLER),
        (b"iprange ::/0", SIX),
    ],
)
def test_what_holds_is_no_refusal(caveat: bytes, caller: Caller) -> None:
    assert refusal(caveat, caller) == ""


@pytest.mark.parametrize(
    ("caveat", "says"),
    [
        (b"time-before 2025-10-09T08:53:20Z", "macaroon has expired"),
        (b"time-before 2025-10-09T10:53:20+02:00", "macaroon has expired"),
        (b"time-before 2009-01-01T00:00:00.5Z", "macaroon has expired"),
        (b"ipaddr 1.2.3.4", "macaroon locked to different IP address"),
        (b"ipaddr ::1", "macaroon locked to different IP address"),
        (b"ipaddr x", "macaroon locked to different IP address"),
        (b"ipaddr", "macaroon locked to different IP address"),
        (b"iprange 10.0.0.0/8", "macaroon locked to different IP range"),
        (b"iprange x", "unable to parse macaroon IP range: invalid CIDR address: x"),
        (
            b"lnd-custom a b",
            "cannot accept macaroon with custom caveat 'a', no middleware registered to handle it",
        ),
        (b"foo bar", "caveat not recognized"),
        (b"error x", "bad caveat"),
    ],
)
def test_what_does_not_hold_is_refused_in_lnds_words(caveat: bytes, says: str) -> None:
    """Real lnd nodes were asked with the same caveats."""
    assert refusal(caveat, CALLER) == f'caveat "{caveat.decode()}" not satisfied: {says}'


@pytest.mark.parametrize("text", [b"2030", b"2025-13-01T00:00:00Z", b"2025-10-09 08:53:21Z", b"", b"x\xff"])
def test_a_time_that_is_none_is_refused(text: bytes) -> None:
    assert "parsing time" in refusal(b"time-before " + text, CALLER)


def test_what_is_no_caveat_is_refused_in_lnds_words() -> None:
    assert refusal(b"", CALLER) == 'cannot parse caveat "": empty caveat'
    assert refusal(b" x", CALLER) == 'cannot parse caveat " x": caveat starts with space character'


def test_bytes_are_quoted_as_go_does() -> None:
    assert go_quoted(b'foo "\xc3\xa4 \xff\n') == '"foo \\"\u00e4 \\xff\\n"'
