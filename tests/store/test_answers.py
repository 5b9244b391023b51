"""What we asked, and what we answered by ourselves: counted for an hour and a day, each for its own."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from tests.conftest import inline
from tests.store.still import Still

from impervious.errors import ResourceExhausted
from impervious.model import NodePubkey, ServiceType
from impervious.store import Store, answers, open_store
from impervious.store.answers import DAY_MS, HOUR_MS
from impervious.units import Msat, Sat

ANN, BEN = NodePubkey(b"\x02" + b"\x0a" * 32), NodePubkey(b"\x02" + b"\x0b" * 32)
ONE, TWO, THREE, FOUR = (UUID(int=number) for number in (1, 2, 3, 4))
VPN, KV = ServiceType("vpn"), ServiceType("kv")


@pytest.fixture
def wall() -> Still:
    return Still()


@pytest.fixture
async def store(tmp_path: Path, wall: Still) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


async def asked(store: Store, identifier: UUID, to: NodePubkey, service: ServiceType, expires_ms: int) -> None:
    await store.write(lambda tx: answers.open_request(tx, identifier, to, service, expires_ms=expires_ms))


async def close(store: Store, identifier: UUID, to: NodePubkey, service: ServiceType) -> bool:
    return await store.write(lambda tx: answers.close_request(tx, identifier, to, service))


async def rows(store: Store, table: str) -> int:
    return await store.read(lambda tx: tx.number(f"SELECT count(*) FROM {table}"))


async def test_an_answer_counts_once_for_its_request_only(store: Store, wall: Still) -> None:
    for identifier, to, service in ((ONE, ANN, VPN), (TWO, ANN, VPN), (THREE, BEN, VPN), (FOUR, ANN, KV)):
        await asked(store, identifier, to, service, wall() + 1_000)
    assert not await close(store, ONE, BEN, VPN)
    assert not await close(store, ONE, ANN, KV)
    assert not await close(store, UUID(int=9), ANN, VPN)
    assert await close(store, ONE, ANN, VPN)
    assert not await close(store, ONE, ANN, VPN)
    assert await rows(store, "open_request") == 3
    assert await store.write(lambda tx: answers.withdraw_requests(tx, ANN, VPN)) == 1
    assert await close(store, THREE, BEN, VPN)
    assert await close(store, FOUR, ANN, KV)


async def test_a_request_is_open_until_its_time_and_then_forgotten(store: Store, wall: Still) -> None:
    await asked(store, ONE, ANN, VPN, wall() + 1_000)
    await asked(store, TWO, ANN, VPN, wall() + 1_001)
    wall.offset_ms += 999
    assert await close(store, ONE, ANN, VPN)
    await asked(store, ONE, ANN, VPN, wall() + 1)
    wall.offset_ms += 1
    assert not await close(store, ONE, ANN, VPN)
    await asked(store, THREE, ANN, VPN, wall() + 1_000)
    assert await rows(store, "open_request") == 2, "what is over goes when the next one comes"
    assert await close(store, TWO, ANN, VPN)


async def test_answers_are_counted_for_an_hour_each_for_its_recipient(store: Store, wall: Still) -> None:
    async def counted(to: NodePubkey) -> int:
        return await store.read(lambda tx: answers.answered_in_hour(tx, to))

    await store.write(lambda tx: answers.note_answer(tx, ONE, ANN))
    wall.offset_ms += 1
    await store.write(lambda tx: answers.note_answer(tx, TWO, ANN))
    await store.write(lambda tx: answers.note_answer(tx, THREE, BEN))
    assert (await counted(ANN), await counted(BEN)) == (2, 1)
    wall.offset_ms += HOUR_MS - 1
    assert (await counted(ANN), await counted(BEN)) == (1, 1)
    wall.offset_ms += 1
    assert (await counted(ANN), await counted(BEN)) == (0, 0)
    wall.offset_ms += DAY_MS - HOUR_MS
    assert await rows(store, "auto_answer") == 3
    await store.write(lambda tx: answers.note_answer(tx, FOUR, BEN))
    assert await rows(store, "auto_answer") == 1


async def test_what_an_answer_costs_beyond_its_request_counts_for_a_day(store: Store, wall: Still) -> None:
    async def charge(identifier: UUID, amount: int, limit: int = 5) -> None:
        await store.write(lambda tx: answers.charge(tx, identifier, Msat(amount), daily_limit=Sat(limit)))

    async def total() -> int:
        return await store.read(answers.answered_in_day)

    await charge(ONE, 99_000)  # a message that is no answer
    assert await total() == 0
    for identifier in (ONE, TWO):
        await store.write(partial(answers.note_answer, identifier=identifier, recipient=ANN))
    await charge(ONE, 2_000)
    await charge(ONE, 3_000)  # in place of the two
    assert await total() == 3_000
    with pytest.raises(ResourceExhausted, match=r"limits.auto_answers_sat_per_day \(5\) is reached"):
        await charge(TWO, 2_001)
    await charge(TWO, 2_000)
    assert await total() == 5_000
    await charge(ONE, 3_000)  # its own share is not counted twice
    await store.write(lambda tx: answers.settle(tx, ONE, Msat(40)))
    assert await total() == 2_040
    wall.offset_ms += DAY_MS - 1
    assert await total() == 2_040
    wall.offset_ms += 1
    assert await total() == 0
