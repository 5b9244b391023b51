"""The budget: what was spent, or may still be, in any 24 hours.

An entry is made, at its highest possible cost, in the transaction that decides to spend; it shrinks to what was really
spent when that is known. What only gives back money that came in, or answers for it, is no spending: whoever makes the
entry takes off what was received.
"""

from typing import Final

from impervious.errors import ResourceExhausted
from impervious.model import MessageId, ServiceType
from impervious.store.transaction import Tx
from impervious.units import Msat, Sat, msat, sat_charged

WINDOW_MS: Final = 86_400_000
"""The budget rolls: any 24 hours, not a calendar day."""


def spent(tx: Tx) -> Msat:
    """Sum what was spent or is reserved in the last 24 hours."""
    return Msat(tx.number("SELECT sum(msat) FROM spending WHERE at_ms > ? AND msat > 0", tx.now_ms - WINDOW_MS))


def reserve(tx: Tx, identifier: MessageId, service_type: ServiceType, amount: Msat, *, daily_limit: Sat | None) -> None:
    """Set aside what something may cost.

    Args:
      tx: the transaction.
      identifier: of the message or payment.
      service_type: whose it is.
      amount: in msat, fees included, less what came in for it.
      daily_limit: None: an obligation, which no budget stops.

    Raises:
      ResourceExhausted: the budget does not allow it; nothing is reserved.
    """
    _check(tx, amount, daily_limit)
    tx.run("INSERT INTO spending VALUES (?, ?, ?, ?)", identifier.bytes, service_type, tx.now_ms, amount)


def note(tx: Tx, identifier: MessageId, service_type: ServiceType, amount: Msat, *, at_ms: int) -> None:
    """Store what was spent already, whatever the budget says.

    Args:
      tx: the transaction.
      identifier: of the message or payment.
      service_type: whose it is.
      amount: in msat, fees included.
      at_ms: when, in milliseconds since 1970.
    """
    tx.run("INSERT OR REPLACE INTO spending VALUES (?, ?, ?, ?)", identifier.bytes, service_type, at_ms, amount)


def reserve_more(tx: Tx, identifier: MessageId, amount: Msat, *, daily_limit: Sat | None) -> None:
    """Set aside more for something that has an entry.

    Raises:
      ResourceExhausted: the budget does not allow it.
    """
    _check(tx, amount, daily_limit)
    tx.run("UPDATE spending SET msat = msat + ? WHERE id = ?", amount, identifier.bytes)


def reserved(tx: Tx, identifier: MessageId) -> Msat:
    """Return what is set aside for something."""
    return Msat(tx.number("SELECT msat FROM spending WHERE id = ?", identifier.bytes))


def settle(tx: Tx, identifier: MessageId, amount: Msat) -> None:
    """Replace a reservation by what was really spent."""
    tx.run("UPDATE spending SET msat = ? WHERE id = ?", amount, identifier.bytes)


def forget(tx: Tx, *, before_ms: int, limit: int) -> int:
    """Drop entries that no budget counts any more, at most `limit`; return how many."""
    return tx.run(
        "DELETE FROM spending WHERE id IN (SELECT id FROM spending WHERE at_ms < ? ORDER BY at_ms LIMIT ?)",
        before_ms,
        limit,
    )


def _check(tx: Tx, amount: Msat, daily_limit: Sat | None) -> None:
    if daily_limit is None or amount <= 0:  # what others paid for costs this node nothing
        return
    before = spent(tx)
    if before + amount > msat(daily_limit):
        raise ResourceExhausted(
            f"this may cost {sat_charged(amount)} sat, and {sat_charged(before)} of the {daily_limit} sat allowed in 24"
            " hours are spent or reserved: wait, send less or raise lightning.daily_limit_sat"
        )
