"""Rate limits: two token buckets, one of datagrams and one of bytes, as plain arithmetic.

A bucket holds what may pass at once, a quarter of a second's worth, and fills at the rate. The clock is an argument,
given once for a whole burst of datagrams. What does not fit is dropped by the caller, not delayed: delay would fill the
system's buffers with stale datagrams, and the endpoints' own congestion control sees a loss at once.
"""

import math
from typing import Final

BUCKET_S: Final = 0.25
"""Seconds of the rate that may pass at once: a burst of an ordinary sender passes, a flood does not."""

LARGEST_BYTES: Final = 65_535
"""A bucket of bytes holds at least one datagram of any size; otherwise large ones could never pass."""


class Allowance:
    """What may still pass now.

    Args:
      packets_per_s: rate of datagrams; infinite: no limit.
      bytes_per_s: rate of payload bytes; infinite: no limit.
      now: seconds on any clock that does not go back.
    """

    def __init__(self, *, packets_per_s: float, bytes_per_s: float, now: float) -> None:
        self._rates = packets_per_s, bytes_per_s
        self._sizes = max(1.0, packets_per_s * BUCKET_S), max(float(LARGEST_BYTES), bytes_per_s * BUCKET_S)
        self._packets, self._bytes = self._sizes
        self._filled_at = now

    def refill(self, now: float) -> None:
        """Add what has come due since the last call."""
        passed_s = now - self._filled_at
        if passed_s <= 0 or self._packets == self._bytes == math.inf:
            return
        self._filled_at = now
        self._packets = min(self._sizes[0], self._packets + passed_s * self._rates[0])
        self._bytes = min(self._sizes[1], self._bytes + passed_s * self._rates[1])

    def take(self, packets: int, size_bytes: int) -> bool:
        """Let datagrams pass, all of them or none.

        Args:
          packets: how many.
          size_bytes: their payloads together.
        """
        if self._packets < packets or self._bytes < size_bytes:
            return False
        self._packets -= packets
        self._bytes -= size_bytes
        return True
