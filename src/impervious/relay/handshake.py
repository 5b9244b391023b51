"""The safe mode: an endpoint proves that it knows the side's token and that it receives at its address. Without I/O.

Four frames, HELLO → CHALLENGE → ANSWER → READY, are described for the authors of endpoints in docs/relay.md. Nothing is
stored for a HELLO: the cookie in CHALLENGE is an HMAC of the sender's address and the time, and ANSWER brings it back
(the idea of RFC 6347 section 4.2.1). Whoever does not know the token gets no reply at all, and no reply is longer than
what it answers, so that the relay neither shows itself nor amplifies. The token itself never travels.
"""

import hmac
from typing import Final

from impervious.config.address import Address

from .admission import STRANGER, Occupant, Verdict
from .values import Token

MAGIC: Final = b"IMR1"
HELLO: Final = MAGIC + b"\x01"
CHALLENGE: Final = MAGIC + b"\x02"
ANSWER: Final = MAGIC + b"\x03"
READY: Final = MAGIC + b"\x04"

NONCE_BYTES: Final = 16
COOKIE_BYTES: Final = 16
FRAME_BYTES: Final = 53
"""Of HELLO and ANSWER: 5 of kind, 16 of nonce or cookie, 32 of proof."""

COOKIE_S: Final = 30.0
"""A cookie is good for this long at least, and for twice as long at most."""


def proof(token: Token, frame: bytes) -> bytes:
    """Prove to know the token: HMAC-SHA256 (RFC 2104) of everything before the proof."""
    return hmac.digest(token.raw, frame, "sha256")


class TokenBearer:
    """Whoever proves to know the token is the endpoint, also when another one is.

    Args:
      token: what to know.
      secret: 32 random bytes for the cookies.
    """

    frame_bytes = FRAME_BYTES

    def __init__(self, token: Token, secret: bytes) -> None:
        self._token = token
        self._secret = secret
        self._admitted = 0
        self._accepted: tuple[Address, bytes] | None = None

    def judge(self, datagram: bytes, sender: Address, occupant: Occupant | None, now: float) -> Verdict:
        """See `Admission.judge`."""
        kind, middle, shown = datagram[:5], datagram[5:-32], datagram[-32:]
        if len(datagram) != FRAME_BYTES or kind not in (HELLO, ANSWER):
            return STRANGER
        if not hmac.compare_digest(shown, proof(self._token, datagram[:-32])):
            return STRANGER
        if kind == HELLO:
            return Verdict(reply=CHALLENGE + middle + self._cookie(sender, now))
        return self._answered(sender, middle, now)

    def _answered(self, sender: Address, cookie: bytes, now: float) -> Verdict:
        ready = READY + proof(self._token, READY + cookie)
        if self._accepted == (sender, cookie):
            return Verdict(reply=ready)  # our READY was lost
        if not any(hmac.compare_digest(cookie, self._cookie(sender, now - age_s)) for age_s in (0.0, COOKIE_S)):
            return STRANGER
        self._accepted = sender, cookie
        self._admitted += 1
        return Verdict(admit=True, reply=ready)

    def _cookie(self, sender: Address, now: float) -> bytes:
        # The number of admissions is part of it, so that an ANSWER overheard before the endpoint moved cannot call it
        # back to its old address.
        text = f"{self._admitted} {int(now // COOKIE_S)} {sender}"
        return hmac.digest(self._secret, text.encode(), "sha256")[:COOKIE_BYTES]
