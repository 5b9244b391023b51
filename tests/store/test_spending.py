"""The budget's entries: each counts for 24 hours, and nobody else's is touched."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.conftest import inline
from tests.store.still import Still

from impervious.errors import ResourceExhausted
from impervious.model import ServiceType
from impervious.store import Store, Tx, open_store, spending
from impervious.units import Msat, Sat

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
VPN = ServiceType("vpn")
LIMIT = Sat(10)


@pytest.fixture
def wall() -> Still:
    return Still()


@pytest.fixture
async def store(tmp_path: Path, wall: Still) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


async def reserve(store: Store, identifier: UUID, amount: int, limit: Sat | None = LIMIT) -> None:
    await store.write(lambda tx: spending.reserve(tx, identifier, VPN, Msat(amount), daily_limit=limit))


async def more(store: Store, identifier: UUID, amount: int, limit: Sat | None = LIMIT) -> None:
    await store.write(lambda tx: spending.reserve_more(tx, identifier, Msat(amount), daily_limit=limit))


async def settle(store: Store, identifier: UUID, amount: int) -> None:
    await store.write(lambda tx: spending.settle(tx, identifier, Msat(amount)))


async def spent(store: Store) -> int:
    return await store.read(spending.spent)


async def reserved(store: Store, identifier: UUID) -> int:
    return await store.read(lambda tx: spending.reserved(tx, identifier))


async def test_the_whole_limit_may_be_spent_and_not_a_millisatoshi_more(store: Store) -> None:
    assert await spent(store) == 0
    await reserve(store, ONE, 4_000)
    with pytest.raises(ResourceExhausted, match="may cost 7 sat, and 4 of the 10 sat allowed in 24 hours"):
        await reserve(store, TWO, 6_001)
    assert await reserved(store, TWO) == 0
    await reserve(store, TWO, 6_000)
    assert await spent(store) == 10_000
    with pytest.raises(ResourceExhausted):
        await reserve(store, THREE, 1)


async def test_more_is_within_the_limit_too_and_for_one_entry(store: Store) -> None:
    await reserve(store, ONE, 4_000)
    await reserve(store, TWO, 1_000)
    with pytest.raises(ResourceExhausted):
        await more(store, ONE, 5_001)
    assert await reserved(store, ONE) == 4_000
    await more(store, ONE, 5_000)
    assert (await reserved(store, ONE), await reserved(store, TWO), await reserved(store, THREE)) == (9_000, 1_000, 0)
    assert await spent(store) == 10_000


async def test_what_is_owed_and_what_costs_nothing_asks_no_limit_and_counts(store: Store) -> None:
    await reserve(store, ONE, 15_000, None)
    await more(store, ONE, 5_000, None)
    assert await spent(store) == 20_000
    await reserve(store, TWO, 0)
    await more(store, TWO, 0)
    assert await spent(store) == 20_000
    with pytest.raises(ResourceExhausted):
        await reserve(store, THREE, 1)


async def test_an_end_replaces_one_entry(store: Store) -> None:
    await reserve(store, ONE, 4_000)
    await reserve(store, TWO, 6_000)
    await settle(store, ONE, 100)
    assert (await reserved(store, ONE), await reserved(store, TWO), await spent(store)) == (100, 6_000, 6_100)
    await settle(store, TWO, 0)
    assert await spent(store) == 100
    await settle(store, THREE, 5_000)
    assert await spent(store) == 100, "what has no entry gets none"


async def test_an_entry_counts_for_24_hours_from_when_it_was_made(store: Store, wall: Still) -> None:
    await reserve(store, ONE, 4_000)
    wall.offset_ms += 3_600_000
    await reserve(store, TWO, 1_000)
    wall.offset_ms += spending.WINDOW_MS - 3_600_000 - 1
    assert await spent(store) == 5_000
    await settle(store, ONE, 3_000)
    assert await spent(store) == 4_000
    wall.offset_ms += 1
    assert await spent(store) == 1_000
    await settle(store, ONE, 2_000)
    await more(store, ONE, 500, None)
    assert await spent(store) == 1_000, "it is of an earlier day, whatever it turns out to have cost"
    await reserve(store, THREE, 9_000)
    wall.offset_ms += 3_600_000
    assert await spent(store) == 9_000


async def test_a_clock_that_is_set_back_counts_again_what_it_counted_then(store: Store, wall: Still) -> None:
    await reserve(store, ONE, 4_000)
    wall.offset_ms += spending.WINDOW_MS
    assert await spent(store) == 0
    await reserve(store, TWO, 1_000)
    wall.offset_ms -= 1
    assert await spent(store) == 5_000
    await reserve(store, THREE, 2_000)
    wall.offset_ms += 1
    assert await spent(store) == 3_000


async def test_entries_of_an_earlier_day_are_dropped_the_oldest_first(store: Store, wall: Still) -> None:
    for identifier in (ONE, TWO, THREE):
        await reserve(store, identifier, 1_000)
        wall.offset_ms += 1_000
    wall.offset_ms += spending.WINDOW_MS

    def forget(tx: Tx, before_ms: int, limit: int) -> int:
        return spending.forget(tx, before_ms=before_ms, limit=limit)

    third_ms = wall() - spending.WINDOW_MS - 1_000
    assert await store.write(lambda tx: forget(tx, third_ms, 1)) == 1
    assert [await reserved(store, each) for each in (ONE, TWO, THREE)] == [0, 1_000, 1_000]
    assert await store.write(lambda tx: forget(tx, third_ms, 9)) == 1
    assert [await reserved(store, each) for each in (ONE, TWO, THREE)] == [0, 0, 1_000]
    assert await spent(store) == 0


async def test_no_statement_reads_entries_of_earlier_days(store: Store) -> None:
    def plan(tx: Tx) -> str:
        sql = "SELECT sum(msat) FROM spending WHERE at_ms > ? AND msat > 0"
        return " ".join(str(row[-1]) for row in tx.all(f"EXPLAIN QUERY PLAN {sql}", 0))

    assert await store.read(plan) == "SEARCH spending USING COVERING INDEX spending_cost (at_ms>?)"
