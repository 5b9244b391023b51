"""How far this database has come: in time, and in the Lightning node's payments."""

from impervious.store.transaction import Tx


def newest_ms(tx: Tx) -> int:
    """Return the newest time in the database, as far as that can be found at once; 0: it is new."""
    return max(
        tx.number("SELECT clock_ms FROM history"),
        tx.number("SELECT written_at_ms FROM event ORDER BY seq DESC LIMIT 1"),
        tx.number("SELECT accepted_at_ms FROM outbound ORDER BY number DESC LIMIT 1"),
    )


def note_time(tx: Tx) -> None:
    """Store how far time has come, and take what lies ahead of it for now: a clock that was ahead must bind nobody.

    Money that was spent by such a clock counts for the 24 hours that begin now.
    """
    tx.run("UPDATE history SET clock_ms = ?", tx.now_ms)
    tx.run("UPDATE spending SET at_ms = ? WHERE at_ms > ?", tx.now_ms, tx.now_ms)
    tx.run("UPDATE auto_answer SET at_ms = ? WHERE at_ms > ?", tx.now_ms, tx.now_ms)
