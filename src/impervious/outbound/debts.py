"""Debts that could not be delivered: kept with their bytes, told of, and tried again until they arrive.

A refund or an answer that was paid for ends as failed where its recipient cannot be paid: it has no channel any more,
does not take keysends, or no route carries what it gets. Its money is still the recipient's. So the message keeps its
payload and is sent anew, with new preimages, an hour later, then after twice as long, at last once a day. Part of one
that arrived is not sent twice: such a debt is only told of.
"""

from typing import Final

from impervious.model import Part
from impervious.outbound import plan
from impervious.outbound.accept import SendPolicy, beyond, cost, new_part
from impervious.store import Tx, outbox, spending
from impervious.units import Msat

FIRST_RETRY_MS: Final = 3_600_000
LAST_RETRY_MS: Final = 86_400_000
AT_A_TIME: Final = 64
"""Debts taken up in one transaction; the others follow in the next."""


def next_try_ms(tx: Tx, tries: int) -> int:
    """Say when a debt that failed `tries` times before is tried again, in milliseconds since 1970."""
    return tx.now_ms + min(FIRST_RETRY_MS << min(tries, 8), LAST_RETRY_MS)


def take_up(tx: Tx, policy: SendPolicy) -> int:
    """Put debts into the outbox again whose time has come; return how many, `AT_A_TIME` at most."""
    due = outbox.due_debts(tx, limit=AT_A_TIME)
    for debt in due:
        ranges = plan.cut(
            offset=0,
            length=debt.payload_bytes,
            amount=debt.amount,
            part_bytes=policy.part_bytes,
            part_amount=policy.part_amount,
        )
        fee_limit = policy.part_fee_limit
        if debt.received:
            left = debt.received - sum(piece.amount for piece in ranges)
            fee_limit = Msat(max(0, min(fee_limit, left // len(ranges))))
        parts: list[Part] = [new_part(piece, fee_limit) for piece in ranges]
        outbox.reopen(tx, debt.id, parts, order=outbox.next_order(tx, debt.recipient))
        spending.reserve_more(tx, debt.id, beyond(cost(parts), debt.received), daily_limit=None)
    return len(due)
