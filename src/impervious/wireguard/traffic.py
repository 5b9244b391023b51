"""How much a buyer has used, over counters that start again.

WireGuard counts from when a peer was added, and a userspace one from when it was started. When either counter is lower
than it was, both have started again, and everything they show is new.
"""

from dataclasses import dataclass

from impervious.wireguard.peers import Transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Totals that never fall, and the counters they were last brought up to."""

    received_bytes: int = 0
    """From the buyer, ever."""
    sent_bytes: int = 0
    """To the buyer, ever."""
    last: Transfer = Transfer(received_bytes=0, sent_bytes=0)
    """What the interface showed."""

    def counting(self, seen: Transfer) -> "Traffic":
        """Add what was exchanged since the last look. Looking twice adds nothing.

        Args:
          seen: what the interface shows now (`WireGuard.transfer`).
        """
        last = self.last
        if seen.received_bytes < last.received_bytes or seen.sent_bytes < last.sent_bytes:
            last = Transfer(received_bytes=0, sent_bytes=0)
        return Traffic(
            received_bytes=self.received_bytes + seen.received_bytes - last.received_bytes,
            sent_bytes=self.sent_bytes + seen.sent_bytes - last.sent_bytes,
            last=seen,
        )
