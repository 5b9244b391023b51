from dataclasses import replace

import pytest
from tests.cli.demo.facts import ARRIVED, BEGAN, DELIVERED, DONE, ENDED, FAILED, HALF, OPENED, SENT, STOPPING

from impervious.cli.demo.facts import Fact
from impervious.cli.demo.wording import lines_of


def said(fact: Fact) -> list[str]:
    return ["".join(piece.text for piece in line) for line in lines_of(fact)]


def test_everything_that_is_needed_to_join_in_is_said() -> None:
    lines = said(OPENED)
    assert "  alice -- bob -- carol" in lines
    assert "alice  02alice" in lines
    assert "  gRPC 127.0.0.1:8891  HTTP 127.0.0.1:8892  HTTP, text 127.0.0.1:8893  LND 127.0.0.1:8900" in lines
    assert "  curl -N 'http://127.0.0.1:8892/v1/subscribe?encoding=text&v=2'" in lines
    assert "  websocat 'ws://127.0.0.1:8892/v1/subscribe?encoding=text&v=2'" in lines
    assert """  curl -d '{"pubkey":"02carol","text":"hello"}' http://127.0.0.1:8882/v1/message/send""" in lines


@pytest.mark.parametrize(
    ("fact", "lines"),
    [
        (BEGAN, ["", "2/3 alice sends a lot"]),
        (SENT, ['  alice  sends      "hello"  01234567']),
        (replace(SENT, text="x" * 200, size=900), [f'  alice  sends      "{"x" * 60}..." (900 bytes)  01234567']),
        (replace(SENT, text="a\x1b[31m\nb", size=8), ['  alice  sends      "a.[31m.b"  01234567']),
        (ARRIVED, ['  carol  receives   "hello"  from alice, 1 sat  01234567']),
        (replace(ARRIVED, reply_to="x", amount_sat=0), ['  carol  receives   "hello"  from alice, a reply  01234567']),
        (replace(ARRIVED, service="vpn"), ['  carol  receives   vpn "hello"  from alice, 1 sat  01234567']),
        (DELIVERED, ["  alice  delivered  2 payments, 2 sat and 2000 msat in fees  01234567"]),
        (replace(DELIVERED, parts=1), ["  alice  delivered  1 payment, 2 sat and 2000 msat in fees  01234567"]),
        (FAILED, ["  alice  failed no route  01234567"]),
        (ENDED, ["  done in 1.23 s"]),
        (replace(DONE, goes_on=False), ["", "Everything arrived: 3 steps in 2.5 s."]),
        (STOPPING, ["Stopping."]),
        (HALF, []),
    ],
)
def test_each_fact_in_words(fact: Fact, lines: list[str]) -> None:
    assert said(fact) == lines


def test_what_goes_on_says_how_to_stop_it() -> None:
    assert "Ctrl-C stops" in said(DONE)[-1]
