"""How much fits into a payment's onion: 1300 bytes for all hops together (BOLT 4).

Every hop after the sender costs its payload, the payload's length and a 32-byte HMAC. A forwarding hop is told amount,
expiry and next channel; the last one amount, expiry and the custom records. LND cuts oversized payments off inside its
path finding, so they look like "no route": whoever sends must do this sum first.
"""

from bisect import bisect_right
from typing import Final

from impervious.model import Records
from impervious.units import Msat

MAX_BYTES: Final = 1300
"""Routing information of one onion packet (BOLT 4, hop_payloads)."""

MAX_HOPS: Final = 27
"""lnd refuses longer routes."""

_HMAC_BYTES: Final = 32
_CHANNEL_BYTES: Final = 1 + 1 + 8
"""short_channel_id: type, length, value."""

_MPP_TYPE: Final = 8
_PAYMENT_ADDR_BYTES: Final = 32


def bigsize_bytes(value: int) -> int:
    """Bytes that BOLT 1's BigSize takes for `value`."""
    return 1 if value < 0xFD else 3 if value <= 0xFFFF else 5 if value <= 0xFFFFFFFF else 9


def record_bytes(record_type: int, length: int) -> int:
    """Bytes of one TLV record with a value of `length` bytes."""
    return bigsize_bytes(record_type) + bigsize_bytes(length) + length


def forwarding_bytes(amount: Msat, expiry_height: int) -> int:
    """Bytes of a hop that passes `amount` on, with `expiry_height` as its outgoing time lock."""
    return _framed(_amount_and_expiry(amount, expiry_height) + _CHANNEL_BYTES)


def final_bytes(amount: Msat, expiry_height: int, records: Records, *, payment_addr: bool = False) -> int:
    """Bytes of the last hop, which takes `amount` and `records`, the keysend preimage's included.

    Args:
      amount: what it receives, in msat.
      expiry_height: absolute time lock of its HTLC.
      records: type -> value.
      payment_addr: whether an MPP record goes with it, as it does for invoices.
    """
    payload = _amount_and_expiry(amount, expiry_height)
    payload += sum(record_bytes(record_type, len(value)) for record_type, value in records.items())
    if payment_addr:
        payload += record_bytes(_MPP_TYPE, _PAYMENT_ADDR_BYTES + _truncated_bytes(amount))
    return _framed(payload)


def room_bytes(
    record_type: int, *, hops: int, amount: Msat, total_amount: Msat, height: int, records: Records | None = None
) -> int:
    """Largest value of one more record on a route, computed so that it surely fits.

    Args:
      record_type: of the record in question.
      hops: payment channels crossed; 1 for a direct peer.
      amount: what the receiver gets, in msat.
      total_amount: amount and fees: no hop forwards more.
      height: time lock of the first hop: no hop's is higher.
      records: what travels besides, the keysend preimage's record included.

    Returns:
      A length in bytes, 0 if not even an empty value fits.
    """
    taken = (hops - 1) * forwarding_bytes(total_amount, height)

    def size_bytes(length: int) -> int:
        return taken + final_bytes(amount, height, {**(records or {}), record_type: bytes(length)})

    return max(0, bisect_right(range(MAX_BYTES), MAX_BYTES, key=size_bytes) - 1)


def _amount_and_expiry(amount: Msat, expiry_height: int) -> int:
    return 2 + _truncated_bytes(amount) + 2 + _truncated_bytes(expiry_height)


def _truncated_bytes(value: int) -> int:
    return (value.bit_length() + 7) // 8  # tu64 and tu32 of BOLT 1: no leading zero bytes


def _framed(payload_bytes: int) -> int:
    return payload_bytes + bigsize_bytes(payload_bytes) + _HMAC_BYTES
