"""Databases of before keep what they have."""

import sqlite3
from contextlib import closing

import pytest

from impervious.services.vpn.tables import MIGRATIONS


def test_contracts_and_requests_of_before_sellers_could_be_silent_stay() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(MIGRATIONS[0])
        bought = (b"s", "n", b"r", b"k", 100_000, 1, "paying", None, None, None, None, None, 0, 0, 0, "")
        connection.execute(f"INSERT INTO vpn_bought VALUES ({', '.join('?' * len(bought))})", bought)
        connection.execute("INSERT INTO vpn_asked VALUES (?, ?, ?, ?, ?, ?, ?)", (b"r", 1, b"s", "contract", "n", 7, 1))
        connection.executescript(MIGRATIONS[1])
        assert connection.execute("SELECT * FROM vpn_bought").fetchall() == [bought]
        assert connection.execute(
            "SELECT id, at_ms, open, automatic, arrived_ms, overdue FROM vpn_asked"
        ).fetchall() == [(b"r", 1, 1, 0, None, 0)]
        connection.execute("UPDATE vpn_bought SET stage = 'unanswered'")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE vpn_bought SET stage = 'silent'")
        indexes = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert {"vpn_bought_live", "vpn_asked_awaited"} <= indexes
