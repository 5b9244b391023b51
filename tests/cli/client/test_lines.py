import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.cli.client.frames import StreamEvent
from impervious.cli.client.lines import Look, exact_sat, in_words, printable, shortened_key, shown_data

KEY = "02" + "ab" * 32
EVENT = StreamEvent(
    seq=7,
    id="5fed7c1e-0000-4000-8000-000000000000",
    reply_to="",
    sender=KEY,
    service_type="message",
    data=b"hello",
    amount_sat=0,
    sent_at_ms=1_760_000_000_123,
    verified=True,
    json="{}",
)
LOOK = Look(local=lambda at_ms: datetime.fromtimestamp(at_ms / 1000, UTC))


def test_a_message() -> None:
    assert LOOK.line(EVENT) == "2025-10-09 08:53:20 #7 message  02abababab…abab hello"
    full = replace(EVENT, amount_sat=3, verified=False, reply_to="12345678-90ab", sender="")
    assert LOOK.line(full) == "2025-10-09 08:53:20 #7 message  nobody known unverified 3 sat re 12345678 hello"
    assert LOOK.line(replace(EVENT, data=b"")).endswith(" (empty)")


def test_an_outcome() -> None:
    told = {"state": "delivered", "service": "message", "fee_msat": 1030, "amount_sat": 2, "parts": 2}
    status = replace(EVENT, service_type="status", data=json.dumps(told).encode())
    assert LOOK.line(status).endswith(f" message {EVENT.id} delivered: 2 parts, 2 sat, fee 1.03 sat")
    told = {"state": "failed", "service": "message", "reason": "no\nroute", "retryable": True, "parts_settled": 0}
    failed = replace(status, data=json.dumps(told).encode())
    assert LOOK.line(failed).endswith(f" message {EVENT.id} failed: no\\nroute; sending it again may work")
    for state in ("retrying", "pending"):
        waits = replace(status, data=json.dumps({"state": state, "service": "message", "reason": "no route"}).encode())
        assert LOOK.line(waits).endswith(f" message {EVENT.id} {state}: no route")


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b'{"state":"expired","sender":"02"}', b'{"state":"failed"}'])
def test_an_outcome_in_other_words_is_shown_as_it_is(data: bytes) -> None:
    line = LOOK.line(replace(EVENT, service_type="status", data=data))
    assert line.endswith(data.decode() or "(empty)")


def test_no_terminal_can_be_steered() -> None:
    line = Look(colours=True).line(replace(EVENT, data="\x1b]0;owned\x07\r\n\u202egnp".encode(), service_type="a\x1bb"))
    assert "\x1b]0" not in line
    assert "\\x1b]0;owned\\x07\\r\\n\\u202egnp" in line
    assert "a\\x1bb" in line
    assert "\n" not in line


@given(st.text(), st.integers(1, 80))
def test_what_is_shown_is_one_line_of_that_length(text: str, room: int) -> None:
    shown = shown_data(text.encode("utf-8", "replace"), room)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    assert len(shown) <= max(room, 1 + len(f"… ({len(text.encode('utf-8', 'replace')):,} bytes)"))


def test_long_and_binary_data() -> None:
    assert shown_data(b"x" * 2000, 20) == "xxxxx… (2,000 bytes)"
    assert shown_data(b"x" * 2000, None) == "x" * 2000
    assert shown_data(b"\xff" * 20, 80) == f"<20 bytes: {'ff' * 16}…>"
    assert shown_data(b"\xff" * 20, None) == f"<20 bytes: {'ff' * 20}>"
    line = replace(LOOK, width=80).line(replace(EVENT, data=b"x" * 500))
    assert len(line) == 80


def test_a_time_that_no_clock_has() -> None:
    assert LOOK.time(2**62) == f"at {2**62} ms"


def test_small_words() -> None:
    assert [exact_sat(msat) for msat in (0, 1, 30, 1000, 1030, 20_500)] == ["0", "0.001", "0.03", "1", "1.03", "20.5"]
    assert shortened_key("0201") == "0201"
    spans = [timedelta(seconds=each) for each in (-1, 1, 59, 60, 3599, 7200, 86_400, 30 * 86_400)]
    assert [in_words(span) for span in spans] == [
        "0 seconds",
        "1 second",
        "59 seconds",
        "1 minute",
        "59 minutes",
        "2 hours",
        "1 day",
        "30 days",
    ]
