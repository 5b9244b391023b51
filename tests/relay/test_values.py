import math
from uuid import UUID

import pytest

from impervious.config.address import Address
from impervious.errors import InvalidArgument
from impervious.relay import Dropped, SessionOptions, SessionStatistics, SideStatistics, Token


def test_a_token_never_prints_itself() -> None:
    token = Token(b"s" * 32)
    assert token.hex == "73" * 32
    for text in (repr(token), str(token), f"{token}"):
        assert "73" not in text
        assert "sss" not in text


@pytest.mark.parametrize("raw", [b"", b"s" * 31, b"s" * 33])
def test_a_token_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="32 bytes"):
        Token(raw)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ports": (6000, 6000)}, "both ports are 6000"),
        ({"ports": (6000, 65_536)}, "from 1 to 65535"),
        ({"ports": (-1, 6000)}, "from 1 to 65535"),
        ({"bind": "localhost"}, "'localhost' is not a numeric address"),
        ({"idle_timeout_s": 0}, "idle_timeout_s must be more than 0"),
        ({"packets_per_s": -1}, "packets_per_s must be more than 0"),
        ({"bytes_per_s": math.nan}, "bytes_per_s must be more than 0"),
        ({"replace_after_s": 0}, "replace_after_s must be more than 0"),
    ],
)
def test_options_that_cannot_work(options: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        SessionOptions(**{"ports": (6000, 9000)} | options)  # type: ignore[arg-type]


def test_both_ports_may_be_the_systems_choice() -> None:
    assert SessionOptions(ports=(0, 0)).ports == (0, 0)


def side(endpoint: Address | None) -> SideStatistics:
    return SideStatistics(
        port=6000,
        endpoint=endpoint,
        silent_s=None,
        received_packets=0,
        received_bytes=0,
        forwarded_packets=0,
        forwarded_bytes=0,
        refusals=0,
        dropped=Dropped(),
    )


@pytest.mark.parametrize(
    ("host", "family"), [("192.0.2.1", "ipv4"), ("2001:db8::1", "ipv6"), ("fe80::1%eth0", "ipv6"), (None, None)]
)
def test_the_family_is_the_endpoints(host: str | None, family: str | None) -> None:
    assert side(None if host is None else Address(host=host, port=1)).family == family


def test_paired_means_both() -> None:
    one, none = side(Address(host="192.0.2.1", port=1)), side(None)
    assert SessionStatistics(session="x", id=UUID(int=1), age_s=0, sides=(one, one)).paired
    assert not SessionStatistics(session="x", id=UUID(int=1), age_s=0, sides=(one, none)).paired
