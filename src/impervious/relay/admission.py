"""Who may be a side's endpoint: decisions about datagrams from addresses that are not, without I/O.

`FirstCome` is the published behaviour: whoever sends first. It asks for no proof, so all it can do against strangers is
to leave an endpoint its place for as long as it shows life. The other rule, a token, is in `handshake`.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from impervious.config.address import Address

REFUSED_AFTER_S: Final = 3.0
"""Silence that is enough when the endpoint's machine has said that nobody listens there: the program has restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """What is known about the endpoint that has the place."""

    silent_s: float
    """Seconds since it was last heard."""
    refused: bool
    """Whether its machine has said since then that nobody listens there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do about a datagram."""

    admit: bool = False
    """Its sender is the endpoint from now on."""
    payload: bytes = b""
    """What of it is for the other endpoint."""
    reply: bytes = b""
    """What its sender gets, never more than it sent."""


STRANGER: Final = Verdict()
"""Drop it, silently."""


class Admission(Protocol):
    """The rule of one side."""

    frame_bytes: int
    """Datagrams of exactly this size may be meant for the relay, also when they come from the endpoint. -1: none."""

    def judge(self, datagram: bytes, sender: Address, occupant: Occupant | None, now: float) -> Verdict:
        """Decide about a datagram.

        Args:
          datagram: its payload.
          sender: where it came from.
          occupant: the endpoint, if the side has one.
          now: seconds on any clock that does not go back.
        """


class FirstCome:
    """The first sender is the endpoint, and stays it until it falls silent.

    Args:
      replace_after_s: silence after which the next sender takes its place; infinite: never.
    """

    frame_bytes = -1

    def __init__(self, replace_after_s: float) -> None:
        self._replace_after_s = replace_after_s
        self._refused_after_s = (
            replace_after_s if math.isinf(replace_after_s) else min(REFUSED_AFTER_S, replace_after_s)
        )

    def judge(self, datagram: bytes, sender: Address, occupant: Occupant | None, now: float) -> Verdict:
        """See `Admission.judge`."""
        if occupant is not None:
            needed_s = self._refused_after_s if occupant.refused else self._replace_after_s
            if occupant.silent_s < needed_s:
                return STRANGER
        return Verdict(admit=True, payload=datagram)
