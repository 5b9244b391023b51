"""One side of a session: lets an endpoint in at the door, and hands what its link brings to the other side.

What the endpoint sends before the other one is known is kept, up to `HELD` datagrams, and sent when it is: the first
words of a conversation are often a greeting that is not repeated soon. Empty datagrams are for the relay alone: they
teach an address, keep routers' tables and the session alive, and are not payload.
"""

import errno
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Final

from .admission import STRANGER, Admission, Occupant, Verdict
from .allowance import Allowance
from .burst import BURST
from .carrier import Carrier
from .sockets import Arrival, Door, Link, can_be_endpoint, is_ours
from .tally import Tally
from .values import SideStatistics

HELD: Final = 16
"""Datagrams kept for an endpoint that is not known yet: at most 1 MiB a side, in practice a few KiB."""

_OUR_BUGS: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EFAULT})
"""Errors that the network cannot cause."""


class Answered(Enum):
    """What was at the door."""

    STRANGERS = 0
    """Nobody who matters."""
    LATECOMERS = 1
    """Datagrams of the endpoint from before its link was open; there may be more."""
    ADMITTED = 2
    """An endpoint; there may be more."""


class Side:
    """A door, its link once there is one, and its counters.

    Args:
      door: the open port.
      admission: who may be the endpoint.
      allowance: what may pass, shared with the other side.
      carrier: where the link is carried.
      our_ports: ports of all doors of this relay, as they come and go.

    Attributes:
      other: the other side.

    *Ownership:* takes the door over, and opens and closes links.
    """

    other: "Side"

    def __init__(
        self, door: Door, admission: Admission, allowance: Allowance, carrier: Carrier, our_ports: AbstractSet[int]
    ) -> None:
        self.door = door
        self.link: Link | None = None
        self._admission = admission
        self._allowance = allowance
        self._carrier = carrier
        self._burst = carrier.burst
        self._our_ports = our_ports
        self._held: deque[bytes] = deque()
        self._tally = Tally()

    def close(self) -> None:
        """Give all sockets back."""
        self._close_link()
        self.door.sock.close()

    def statistics(self, now: float) -> SideStatistics:
        """Count up to now."""
        link = self.link
        return self._tally.statistics(
            port=self.door.port,
            endpoint=None if link is None else link.endpoint,
            silent_s=None if link is None else now - link.heard_at,
            overruns_now=0 if link is None else link.overruns(),
        )

    # --- At the door --------------------------------------------------------------------------------------------------

    def answer(self, now: float) -> Answered:
        """Look at what waits at the door, at most a burst."""
        answered = Answered.STRANGERS
        for _ in range(BURST):
            try:
                arrival = self.door.receive()
            except BlockingIOError:
                break
            except OSError as error:
                _raise_bug(error)
                continue
            if self.link and arrival.source == self.link.endpoint:
                self._take(arrival.payload, self.link, now)
                answered = Answered.LATECOMERS
            elif self._let_in(arrival, self._judge(arrival, now), now):
                return Answered.ADMITTED
        return answered

    def _judge(self, arrival: Arrival, now: float) -> Verdict:
        if not can_be_endpoint(arrival.source):
            return STRANGER
        # Somebody who forges a datagram from one of our ports to another would make us send to ourselves, forever.
        if arrival.source.port in self._our_ports and is_ours(arrival.source.host):
            return STRANGER
        link = self.link
        occupant = None if link is None else Occupant(silent_s=now - link.heard_at, refused=link.refused)
        return self._admission.judge(arrival.payload, arrival.source, occupant, now)

    def _let_in(self, arrival: Arrival, verdict: Verdict, now: float) -> bool:
        if not verdict.admit:
            if verdict.reply:
                self.door.reply(arrival, verdict.reply)
            else:
                self._tally.stranger += 1
            return False
        try:
            link = self.door.link_to(arrival, instead_of=self.link)
        except OSError as error:
            _raise_bug(error)
            self._tally.stranger += 1  # nothing can be sent there, so it is nobody's address
            return False
        self._close_link()
        self.link = link
        self._carrier.add(link.sock, self)
        self._heard(link, 1, len(arrival.payload), now)
        self._tell(link, verdict.reply)
        self.other.release()
        if verdict.payload:
            self._forward(verdict.payload)
        return True

    def _close_link(self) -> None:
        if self.link is not None:
            self._tally.overrun += self.link.overruns()
            self._carrier.remove(self.link.sock)
            self.link.sock.close()
            self.link = None

    # --- From the link to the other side ------------------------------------------------------------------------------

    def carry(self, now: float) -> int:
        """Take one burst from the link to the other side; says how many datagrams that was, at least 1."""
        link = self.link
        if link is None:
            return 1
        if link.unchecked:
            return self._carry_checked(link, now)
        try:
            sizes = self._burst.receive(link.sock)
        except BlockingIOError:
            return 1
        except OSError as error:
            self.hear_error(link, error)
            return 1
        total_bytes = sum(sizes)
        self._heard(link, len(sizes), total_bytes, now)
        if (
            self.other.link is None
            or 0 in sizes
            or self._admission.frame_bytes in sizes
            or not self._allowance.take(len(sizes), total_bytes)
        ):
            self._forward_each(link, sizes, now)
        else:
            self._send(0, sizes)
        return len(sizes)

    def release(self) -> None:
        """Send what was kept for the other endpoint."""
        while self._held:
            self._forward(self._held.popleft())

    def hear_error(self, link: Link, error: OSError) -> None:
        """Note what the network says about datagrams to this side's endpoint; it never ends anything."""
        _raise_bug(error)
        if error.errno == errno.ECONNREFUSED:
            self._tally.refusals += 1
            link.refused = True

    def _carry_checked(self, link: Link, now: float) -> int:
        taken = 0
        while link.unchecked:
            taken += 1
            try:
                payload, is_endpoints = link.receive_checked()
            except BlockingIOError:
                link.unchecked = 0
                break
            except OSError as error:
                self.hear_error(link, error)
                continue
            if is_endpoints:
                self._take(payload, link, now)
            else:
                self._tally.stranger += 1
        return taken

    def _heard(self, link: Link, packets: int, size_bytes: int, now: float) -> None:
        link.heard_at = now
        link.refused = False
        self._tally.received_packets += packets
        self._tally.received_bytes += size_bytes
        self._allowance.refill(now)

    def _take(self, payload: bytes, link: Link, now: float) -> None:
        """Take one datagram of the endpoint."""
        self._heard(link, 1, len(payload), now)
        if payload and not self._answered_frame(payload, link, now):
            self._forward(payload)

    def _forward_each(self, link: Link, sizes: Sequence[int], now: float) -> None:
        """Forward a burst in which not everything may pass as it is."""
        for slot, size in enumerate(sizes):
            if size == 0:
                continue
            if size == self._admission.frame_bytes and self._answered_frame(self._burst.datagram(slot), link, now):
                continue
            if self.other.link is None:
                self._hold(self._burst.datagram(slot))
            elif self._allowance.take(1, size):
                self._send(slot, (size,))
            else:
                self._tally.rate += 1

    def _answered_frame(self, payload: bytes, link: Link, now: float) -> bool:
        """Whether the endpoint repeats a part of its handshake; what only looks like one is payload."""
        if len(payload) != self._admission.frame_bytes:
            return False
        verdict = self._admission.judge(payload, link.endpoint, None, now)
        self._tell(link, verdict.reply)
        return bool(verdict.reply)

    def _forward(self, payload: bytes) -> None:
        if self.other.link is None:
            self._hold(payload)
        elif self._allowance.take(1, len(payload)):
            self._burst.load(payload)
            self._send(0, (len(payload),))
        else:
            self._tally.rate += 1

    def _hold(self, payload: bytes) -> None:
        if len(self._held) < HELD:
            self._held.append(payload)
        else:
            self._tally.unpaired += 1

    def _tell(self, link: Link, reply: bytes) -> None:
        if reply:
            try:
                link.sock.send(reply)
            except OSError as error:
                self.hear_error(link, error)

    def _send(self, first: int, sizes: Sequence[int]) -> None:
        """Send slots of the burst to the other endpoint."""
        link = self.other.link
        assert link is not None
        done, is_retry = 0, False
        while done < len(sizes):
            try:
                sent = self._burst.send(link.sock, first + done, len(sizes) - done)
            except BlockingIOError:
                self._tally.congested += len(sizes) - done
                return
            except OSError as error:
                self.other.hear_error(link, error)
                if is_retry:
                    self._tally.unsent(error)
                    done += 1
                # The first error may be about a datagram sent long ago (udp(7)); then this one was not tried yet.
                is_retry = not is_retry
            else:
                self._tally.forwarded_packets += sent
                self._tally.forwarded_bytes += sum(sizes[done : done + sent])
                done, is_retry = done + sent, False


def _raise_bug(error: OSError) -> None:
    if error.errno in _OUR_BUGS:
        raise error
