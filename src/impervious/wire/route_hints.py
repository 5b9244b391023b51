"""Ways to a node that the graph does not hold, in the header of what that node sends: hops as in BOLT 11, field r.

Each way is one payment channel: 33 bytes of the node that forwards over it, 8 of its id, 4 of the base fee, 4 of the
proportional fee and 2 of the time lock. They are advice: what cannot be read is left out, and the message is none the
worse for it.
"""

import struct
from collections.abc import Sequence
from typing import Final

from impervious.errors import InvalidArgument
from impervious.model import HopHint, NodePubkey, RouteHint
from impervious.units import Msat

_HOP: Final = struct.Struct(">33sQIIH")
MAX_HINTS: Final = 3
MAX_BYTES: Final = MAX_HINTS * _HOP.size


def encode(hints: Sequence[RouteHint]) -> bytes:
    """Write the first ways that are one channel long."""
    hops = [hint[0] for hint in hints if len(hint) == 1][:MAX_HINTS]
    return b"".join(_HOP.pack(hop.pubkey.raw, hop.chan_id, hop.base_fee, hop.fee_ppm, hop.cltv_delta) for hop in hops)


def decode(data: bytes) -> tuple[RouteHint, ...]:
    """Read ways; none, if that is not what it is."""
    if len(data) % _HOP.size or len(data) > MAX_BYTES:
        return ()
    try:
        return tuple((_hop(*fields),) for fields in _HOP.iter_unpack(data))
    except InvalidArgument:
        return ()


def _hop(pubkey: bytes, chan_id: int, base_fee: int, fee_ppm: int, cltv_delta: int) -> HopHint:
    return HopHint(
        pubkey=NodePubkey(pubkey), chan_id=chan_id, base_fee=Msat(base_fee), fee_ppm=fee_ppm, cltv_delta=cltv_delta
    )
