"""What a part's record holds, and how large a record the way to the recipient can carry.

The size is computed against the route found, never assumed: LND tells an oversized payment from an unreachable one by
nothing at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from impervious.errors import NoRoute
from impervious.model import Part, Records, Route, RouteHint
from impervious.node import PaymentNode
from impervious.store.outbox import Stored
from impervious.wire import envelope, onion
from impervious.wire.envelope import Envelope, SignedHeader
from impervious.wire.keysend import PREIMAGE_RECORD

SMALLEST_PART_BYTES: Final = 200
"""A range that does not fit a route even so is given up."""
PROBE_BYTES: Final = 600
"""Records up to here fit twelve hops; longer ones are tried against QueryRoutes first."""
_LENGTH_PREFIX_BYTES: Final = 4
"""What offset and length may add to a smaller part's record."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Puts parts of one message into records."""

    stored: Stored
    signed: SignedHeader
    hints: tuple[RouteHint, ...] = ()
    """Ways to the recipient that our node's graph may not hold."""

    def record(self, part: Part) -> bytes:
        """Write the record's value; the part at offset 0 carries the header."""
        message = self.stored.message
        return envelope.encode(
            Envelope(
                message_id=message.id,
                offset=part.offset,
                payload=message.payload[part.offset : part.offset + part.length],
                signed_header=None if part.offset else self.signed,
            )
        )

    def records(self, part: Part) -> Records:
        """Return the custom records of a part's payment, without the preimage's own."""
        return {self.stored.record_type: self.record(part)}

    def overhead(self, part: Part) -> int:
        """Say how much longer than its payload the record of a part that begins there may be."""
        return len(self.record(part)) - part.length + _LENGTH_PREFIX_BYTES


async def probe(node: PaymentNode, packing: Packing, parts: Sequence[Part]) -> int | None:
    """Try a message's largest record against the routes, if it is large at all.

    Returns:
      The largest record that fits; None: all of them do.

    Raises:
      NoRoute: there is no way even for an empty record.
      NodeUnavailable: the node cannot be asked.
      NodeRefused: the node will not say.
    """
    largest = max(parts, key=lambda part: len(packing.record(part)))
    if len(packing.record(largest)) <= PROBE_BYTES:
        return None
    return await room_bytes(node, packing, largest)


async def room_bytes(node: PaymentNode, packing: Packing, part: Part) -> int | None:
    """Say how large a record the way to the recipient can carry; None: this part's fits.

    Raises: as `probe`.
    """
    try:
        await _route(node, packing, part, packing.records(part))
    except NoRoute:
        route = await _route(node, packing, part, {packing.stored.record_type: b""})
    else:
        return None
    return onion.room_bytes(
        packing.stored.record_type,
        hops=route.hops,
        amount=part.amount,
        total_amount=route.total_amount,
        height=route.height,
        records={PREIMAGE_RECORD: part.preimage.raw},
    )


async def _route(node: PaymentNode, packing: Packing, part: Part, records: Records) -> Route:
    recipient, hints = packing.stored.message.recipient, packing.hints
    return await node.find_route(recipient, part.amount, records, fee_limit=part.fee_limit, hints=hints)
