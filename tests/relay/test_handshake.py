import os
from pathlib import Path

import pytest
from tests.relay.endpoint import frame, ready

from impervious.config.address import Address
from impervious.relay.admission import STRANGER, Occupant, Verdict
from impervious.relay.handshake import COOKIE_S, FRAME_BYTES, TokenBearer
from impervious.relay.values import Token

TOKEN = bytes(range(32))
NONCE = b"sixteen letters!"
HERE = Address(host="192.0.2.7", port=4000)
THERE = Address(host="192.0.2.8", port=4000)
BUSY = Occupant(silent_s=0, refused=False)


class Gate:
    """A side's rule, with the clock and the sender as state."""

    def __init__(self) -> None:
        self.rule = TokenBearer(Token(TOKEN), bytes(32))
        self.now = 1000 * COOKIE_S
        self.sender = HERE
        self.occupant: Occupant | None = None

    def judge(self, datagram: bytes) -> Verdict:
        return self.rule.judge(datagram, self.sender, self.occupant, self.now)

    def cookie(self) -> bytes:
        verdict = self.judge(frame(1, NONCE, TOKEN))
        assert not verdict.admit
        assert verdict.reply[:21] == b"IMR1\x02" + NONCE
        assert len(verdict.reply) == 37
        return verdict.reply[21:]

    def answer(self, cookie: bytes) -> Verdict:
        return self.judge(frame(3, cookie, TOKEN))


def test_hello_challenge_answer_ready() -> None:
    gate = Gate()
    cookie = gate.cookie()
    assert gate.answer(cookie) == Verdict(admit=True, reply=ready(cookie, TOKEN))


def test_the_document_shows_a_hello_that_is_answered() -> None:
    hello = bytes.fromhex(
        "494d523101"
        "7369787465656e206c65747465727321"
        "1eba92e09f326c1dc833e64f3784c1389cac7b4ad86a80c23800ea793e9ee679"  # by openssl dgst -mac HMAC
    )
    assert hello.hex() in Path("docs/relay.md").read_text()
    assert Gate().judge(hello).reply[:5] == b"IMR1\x02"


def test_no_reply_is_longer_than_what_it_answers() -> None:
    gate = Gate()
    cookie = gate.cookie()
    assert len(frame(1, NONCE, TOKEN)) == len(frame(3, cookie, TOKEN)) == FRAME_BYTES == 53
    assert len(gate.answer(cookie).reply) <= FRAME_BYTES


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"hello",
        bytes(FRAME_BYTES),
        frame(1, NONCE, bytes(32)),  # another token
        frame(1, NONCE, TOKEN)[:-1],
        frame(1, NONCE, TOKEN) + b"\0",
        b"IMR2" + frame(1, NONCE, TOKEN)[4:],
        frame(2, NONCE, TOKEN),  # frames of the relay's own
        frame(4, NONCE, TOKEN),
        frame(3, NONCE, TOKEN),  # a cookie that we never made
    ],
)
def test_whoever_does_not_know_the_token_or_has_no_cookie_hears_nothing(datagram: bytes) -> None:
    assert Gate().judge(datagram) == STRANGER


@pytest.mark.parametrize("at", range(FRAME_BYTES))
def test_every_byte_of_a_frame_counts(at: int) -> None:
    gate = Gate()
    for good in (frame(1, NONCE, TOKEN), frame(3, gate.cookie(), TOKEN)):
        broken = bytearray(good)
        broken[at] ^= 1
        assert gate.judge(bytes(broken)) == STRANGER


def test_a_cookie_is_good_only_where_it_was_sent() -> None:
    gate = Gate()
    cookie = gate.cookie()
    gate.sender = THERE
    assert gate.answer(cookie) == STRANGER
    gate.sender = Address(host=HERE.host, port=HERE.port + 1)
    assert gate.answer(cookie) == STRANGER


@pytest.mark.parametrize(("age_s", "is_good"), [(0, True), (COOKIE_S, True), (COOKIE_S * 2, False)])
def test_a_cookie_ages(age_s: float, is_good: bool) -> None:
    gate = Gate()
    cookie = gate.cookie()
    gate.now += age_s
    assert gate.answer(cookie).admit is is_good


def test_a_lost_ready_is_sent_again_and_admits_nobody_again() -> None:
    gate = Gate()
    cookie = gate.cookie()
    gate.answer(cookie)
    gate.now += 1000  # however late
    assert gate.answer(cookie) == Verdict(reply=ready(cookie, TOKEN))


def test_the_endpoint_moves_at_once_and_an_overheard_answer_does_not_call_it_back() -> None:
    gate = Gate()
    here = gate.cookie()
    gate.answer(here)
    gate.occupant, gate.sender = BUSY, THERE
    assert gate.answer(gate.cookie()).admit
    gate.sender = HERE
    assert gate.answer(here) == STRANGER


def test_cookies_do_not_repeat_among_sides() -> None:
    one, other = (TokenBearer(Token(TOKEN), os.urandom(32)) for _ in range(2))
    hello = frame(1, NONCE, TOKEN)
    assert one.judge(hello, HERE, None, 0).reply != other.judge(hello, HERE, None, 0).reply
