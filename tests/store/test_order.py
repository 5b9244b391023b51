"""Turns in the database: ranges of what never comes, what waits, and that no work grows with what came before."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlcipher3 import dbapi2
from tests.conftest import Wall, inline
from tests.inbound.letters import ALICE_KEY, LOCAL, MESSAGE, invoice, node
from tests.inbound.test_assembly import add, complete, pieces

from impervious.errors import Malformed
from impervious.inbound import assembly, turns
from impervious.model import NodePubkey, PaymentHash
from impervious.store import Row, Store, Tx, inbox, log, open_store, order, schema
from impervious.store.connection import connect
from impervious.store.transaction import SqlValue
from impervious.units import Msat
from impervious.wire.envelope import Envelope

ALICE = node(ALICE_KEY)


@pytest.fixture
async def store(tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


def ranges(tx: Tx) -> list[Row]:
    return tx.all("SELECT first, last FROM void_range ORDER BY first")


# --- Orders that never come -------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 60), max_size=8), max_size=6), st.integers(0, 60))
def test_ranges_say_what_a_set_would(named: list[list[int]], shown: int) -> None:
    connection = dbapi2.connect(":memory:", isolation_level=None)
    schema.migrate(connection)
    connection.execute("BEGIN")
    tx = Tx(connection, now_ms=0)
    for orders in named:
        order.add_voids(tx, ALICE, orders)
    everything = {each for orders in named for each in orders}
    expected = shown
    while expected + 1 in everything:
        expected += 1
    assert order.void_through(tx, ALICE, shown) == expected
    kept = ranges(tx)
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(kept))
    connection.close()


async def test_consecutive_voids_are_one_range_and_scattered_ones_are_bounded(store: Store) -> None:
    def flood(tx: Tx) -> None:
        for number in range(200):
            turns.skip(tx, ALICE, range(3 + number * 64, 3 + (number + 1) * 64))

    await store.write(flood)
    assert await store.read(ranges) == [(3, 12_802)]
    await store.write(lambda tx: turns.skip(tx, ALICE, range(20_000, 30_000, 2)))
    assert await store.read(lambda tx: len(ranges(tx))) == order.VOID_RANGES
    await store.write(lambda tx: turns.skip(tx, ALICE, [1, 2, 2**63 - 1]))  # what is before the turn is done with
    assert await store.read(lambda tx: order.shown_order(tx, ALICE)) == 12_802
    await store.write(lambda tx: turns.take_turn(tx, complete(12_803)))
    assert await store.read(log.newest) == 1


# --- What is held -----------------------------------------------------------------------------------------------------


def held(tx: Tx) -> list[Row]:
    return tx.all(
        "SELECT s.messages, s.bytes, count(*), sum(length(data)) FROM held_sender s JOIN held h USING (sender)"
        " GROUP BY sender ORDER BY sender"
    )


async def test_what_waits_is_counted(store: Store) -> None:
    def take(tx: Tx, orders: Iterable[int]) -> None:
        for number in orders:
            turns.take_turn(tx, complete(number))

    for orders, waiting in (([2, 3, 5, 7], 4), ([1], 2), ([4, 9], 2), ([6], 1)):
        await store.write(lambda tx, orders=orders: take(tx, orders))  # type: ignore[misc]
        [(messages, size, counted, summed)] = await store.read(held)
        assert (messages, size) == (counted, summed) == (waiting, waiting)
    await store.write(lambda tx: take(tx, [8]))
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM held_sender")) == 0
    assert await store.read(log.newest) == 9


async def test_a_sender_that_has_too_much_waiting_gives_its_first_gap_up(store: Store) -> None:
    def flood(tx: Tx) -> None:
        for number in range(order.HELD_MESSAGES + 3):
            turns.take_turn(tx, complete(2 + 2 * number))

    await store.write(flood)
    await store.write(lambda tx: turns.release(tx, tx.now_ms))
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM held")) == order.HELD_MESSAGES
    assert await store.read(log.newest) == 3


async def test_many_senders_are_released_in_steps(store: Store, wall: Wall) -> None:
    def flood(tx: Tx) -> None:
        for number in range(3 * turns.RELEASED_TOGETHER):
            sender = NodePubkey(b"\x02" + number.to_bytes(32, "big"))
            turns.take_turn(tx, complete(2, sender=sender))

    await store.write(flood)
    due_ms = await store.write(lambda tx: turns.release(tx, tx.now_ms))
    assert due_ms is not None
    assert await store.read(log.newest) == 0
    wall.offset_ms = due_ms
    for expected in (64, 128, 192):
        due_ms = await store.write(lambda tx: turns.release(tx, tx.now_ms))
        assert due_ms is None or due_ms <= wall()
        assert await store.read(log.newest) == expected
    assert due_ms is None


# --- Parts ------------------------------------------------------------------------------------------------------------


def part(offset: int, payload: bytes, message_id: object) -> Envelope:
    return Envelope(message_id=message_id, offset=offset, payload=payload)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=20)), min_size=1, max_size=12))
def test_parts_are_kept_without_overlap_and_the_first_bytes_win(parts: list[tuple[int, bytes]]) -> None:
    connection = dbapi2.connect(":memory:", isolation_level=None)
    schema.migrate(connection)
    connection.execute("BEGIN")
    tx, message_id, whole = Tx(connection, now_ms=0), uuid4(), dict[int, int]()
    for offset, payload in parts:
        count = inbox.add_fragment(tx, MESSAGE, message_id, offset=offset, payload=payload, amount=Msat(1))
        for at, byte in enumerate(payload, start=offset):
            whole.setdefault(at, byte)
    kept = inbox.fragments(tx, MESSAGE, message_id)
    assert count == len(kept)
    assert {at: byte for offset, payload in kept for at, byte in enumerate(payload, start=offset)} == whole
    found = inbox.assembly(tx, MESSAGE, message_id)
    assert found is not None
    assert (found.bytes, found.amount) == (len(whole), len(parts)) == (sum(len(each[1]) for each in kept), len(parts))
    connection.close()


async def test_a_message_in_too_many_parts_is_malformed(store: Store) -> None:
    message_id = uuid4()

    def flood(tx: Tx) -> None:
        for number in range(inbox.MESSAGE_PARTS):
            add(tx, part(2 * number, b"x", message_id))

    await store.write(flood)
    with pytest.raises(Malformed, match="more than 4096 parts"):
        await store.write(lambda tx: add(tx, part(100_000, b"x", message_id)))
    await store.write(lambda tx: add(tx, part(2, b"x", message_id)))  # nothing new


async def test_headerless_messages_are_bounded_and_their_sums_are_right(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "STRANGER_MESSAGES", 20)

    def flood(tx: Tx) -> None:
        for number in range(50):
            first, second = pieces(b"a" * 1800, uuid4(), order=number + 1)
            add(tx, second)
            if number % 3 == 0:
                add(tx, first)
            if number % 5 == 0:
                add(tx, part(2, b"xyz", second.message_id))
            assembly.enforce_limits(tx, LOCAL, None)

    await store.write(flood)
    counted = "SELECT count(*), sum(bytes) FROM assembly WHERE sender IS NULL"
    sums = await store.read(lambda tx: tx.one("SELECT messages, bytes FROM headerless"))
    assert sums == await store.read(lambda tx: tx.one(counted))
    assert sums is not None
    assert sums[0] == 20


# --- What a former version stored -------------------------------------------------------------------------------------


async def test_what_a_former_version_stored_goes_on(tmp_path: Path, wall: Wall) -> None:
    path, message_id = tmp_path / "imp.db", uuid4()
    before = schema.MIGRATIONS.index(schema._BOUNDS)
    connection = connect(path, None)
    for number in range(before):
        connection.executescript(f"{schema.MIGRATIONS[number]}\nPRAGMA user_version = {number + 1};")
    connection.executemany("INSERT INTO inbound_void VALUES (?, ?)", [(ALICE.raw, each) for each in (2, 3, 5, 9)])
    for number in (4, 7):
        row = (ALICE.raw, number, uuid4().bytes, None, "message", str(number).encode(), 1000, 0, wall.offset_ms)
        connection.execute("INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute(
        "INSERT INTO assembly (record_type, id, bytes, amount_msat, began_at_ms, touched_at_ms)"
        " VALUES (?, ?, 4, 2, ?, ?)",
        (MESSAGE, message_id.bytes, wall.offset_ms, wall.offset_ms),
    )
    for position, payload in ((1, b"bc"), (2, b"XY")):  # they overlap
        connection.execute("INSERT INTO fragment VALUES (?, ?, ?, ?)", (MESSAGE, message_id.bytes, position, payload))
    for number in range(9):
        connection.execute(
            "INSERT INTO quarantine (payment_hash, reason, value, amount_msat, at_ms) VALUES (?, 'why', ?, 1, 1)",
            (bytes([number]) * 32, bytes(number)),
        )
    connection.close()
    async with open_store(path, now_ms=wall, run_sync=inline) as store:
        assert await store.read(ranges) == [(2, 3), (5, 5), (9, 9)]
        await store.write(lambda tx: turns.take_turn(tx, complete(1)))
        assert await store.read(lambda tx: order.shown_order(tx, ALICE)) == 5
        wall.offset_ms += turns.QUIET_MS
        await store.write(lambda tx: turns.release(tx, tx.now_ms))
        assert await store.read(log.newest) == 3
        [first, *_] = pieces(b"abcX", message_id, size=1)
        result = await store.write(lambda tx: add(tx, first))
        assert isinstance(result, inbox.Complete | assembly.Refused)
        through = await store.read(lambda tx: tx.all("SELECT through_bytes FROM quarantine ORDER BY number"))
        assert [row[0] for row in through] == [200 * n + n * (n - 1) // 2 for n in range(1, 10)]


# --- No statement reads a table that grows ----------------------------------------------------------------------------


class Noting(Tx):
    """Keeps every statement that is run."""

    noted: dict[str, tuple[SqlValue, ...]]

    def run(self, sql: str, *parameters: SqlValue) -> int:
        self.noted[sql] = parameters
        return super().run(sql, *parameters)

    def one(self, sql: str, *parameters: SqlValue) -> Row | None:
        self.noted[sql] = parameters
        return super().one(sql, *parameters)

    def all(self, sql: str, *parameters: SqlValue) -> list[Row]:
        self.noted[sql] = parameters
        return super().all(sql, *parameters)


SMALL = {"headerless", "invoice_cursor"}
"""Tables of one row."""


async def test_every_statement_for_what_arrives_uses_an_index(store: Store, wall: Wall) -> None:
    noted: dict[str, tuple[SqlValue, ...]] = {}

    def work(tx: Tx) -> list[str]:
        noting = Noting(tx._connection, now_ms=tx.now_ms)
        noting.noted = noted
        first, second = pieces(b"a" * 1800, uuid4(), order=4)
        for each in (second, first, pieces(b"b" * 1800, uuid4(), order=5)[0]):
            inbox.is_new_invoice(noting, invoice(b"").payment_hash)
            add(noting, each)
            assembly.enforce_limits(noting, LOCAL, None)
            assembly.enforce_limits(noting, LOCAL, ALICE)
        turns.skip(noting, ALICE, [2, 3, 8])
        for number in (9, 7, 1):
            turns.take_turn(noting, complete(number))
        turns.release(noting, tx.now_ms)
        turns.release(noting, tx.now_ms + turns.QUIET_MS)
        noting.now_ms += 2 * assembly.INCOMPLETE_TTL_MS
        assembly.expire(noting, LOCAL)
        payment_hash = PaymentHash(hashlib.sha256(b"").digest())
        inbox.quarantine(noting, payment_hash, "why", record_type=MESSAGE, value=b"x", amount=Msat(1))
        scans = []
        for sql, parameters in noted.items():
            for *_, detail in tx.all(f"EXPLAIN QUERY PLAN {sql}", *parameters):
                scanned = re.match(r"SCAN (\w+)", detail)
                if scanned and scanned[1] not in SMALL and "LIMIT 1" not in sql:
                    scans.append(f"{detail}: {sql}")
        return scans

    assert await store.write(work) == []
    assert len(noted) > 25
