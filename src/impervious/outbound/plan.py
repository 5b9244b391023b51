"""How a payload is cut into parts, and what each part carries: pure arithmetic.

A part is a byte range and a keysend. Each carries at least the minimum; what the caller gives beyond that goes with the
first part, which is also the one with the header.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from impervious.units import Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Bytes of the payload and the amount that goes with them."""

    offset: int
    length: int
    amount: Msat


def minimum_amount(payload_bytes: int, *, part_bytes: int, part_amount: Msat) -> Msat:
    """Say what a payload of this size carries at least."""
    return Msat(part_count(payload_bytes, part_bytes) * part_amount)


def part_count(payload_bytes: int, part_bytes: int) -> int:
    """Count the parts of a payload."""
    return -(-payload_bytes // part_bytes)


def cut(*, offset: int, length: int, amount: Msat, part_bytes: int, part_amount: Msat) -> Sequence[Range]:
    """Cut a range into parts of at most `part_bytes`; the first one takes what the others leave of `amount`.

    Args:
      offset: where the range begins in the payload.
      length: its bytes, at least 1.
      amount: what it carries. Where that is less than the minimum of its parts, each carries the minimum.
      part_bytes: the largest part.
      part_amount: what a part carries at least.
    """
    count = part_count(length, part_bytes)
    first = Msat(max(part_amount, amount - (count - 1) * part_amount))
    return [
        Range(
            offset=offset + index * part_bytes,
            length=min(part_bytes, length - index * part_bytes),
            amount=part_amount if index else first,
        )
        for index in range(count)
    ]
