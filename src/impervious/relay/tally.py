"""Counts what became of the datagrams of one endpoint. Plain numbers that only grow, cheap enough for every burst."""

import errno
from dataclasses import dataclass

from impervious.config.address import Address

from .values import Dropped, SideStatistics


@dataclass(slots=True)
class Tally:
    """The counters behind `SideStatistics`, which explains them."""

    received_packets: int = 0
    received_bytes: int = 0
    forwarded_packets: int = 0
    forwarded_bytes: int = 0
    refusals: int = 0
    stranger: int = 0
    unpaired: int = 0
    rate: int = 0
    too_large: int = 0
    congested: int = 0
    unreachable: int = 0
    overrun: int = 0
    """Of links that are closed; an open one is asked."""

    def unsent(self, error: OSError) -> None:
        """Count a datagram that the system did not take."""
        if error.errno == errno.EMSGSIZE:
            self.too_large += 1
        elif error.errno == errno.ENOBUFS:
            self.congested += 1
        else:
            self.unreachable += 1

    def statistics(
        self, *, port: int, endpoint: Address | None, silent_s: float | None, overruns_now: int
    ) -> SideStatistics:
        """Freeze.

        Args:
          port: the side's.
          endpoint: the side's, if it has one.
          silent_s: since when it is silent.
          overruns_now: of the open link.
        """
        return SideStatistics(
            port=port,
            endpoint=endpoint,
            silent_s=silent_s,
            received_packets=self.received_packets,
            received_bytes=self.received_bytes,
            forwarded_packets=self.forwarded_packets,
            forwarded_bytes=self.forwarded_bytes,
            refusals=self.refusals,
            dropped=Dropped(
                stranger=self.stranger,
                unpaired=self.unpaired,
                rate=self.rate,
                too_large=self.too_large,
                congested=self.congested,
                unreachable=self.unreachable,
                overrun=self.overrun + overruns_now,
            ),
        )
