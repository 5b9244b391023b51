from functools import partial
from pathlib import Path

import pytest
from tests.conftest import Wall
from tests.outbound.bench import ALICE, BOB, open_bench
from trio.testing import MockClock

from impervious.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from impervious.store import Tx, outbox
from impervious.units import Msat, Sat


def waiting(tx: Tx) -> int:
    return len(outbox.tickets(tx, after=0, limit=100))


async def test_the_highest_cost_is_reserved(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, part_fee_limit=Msat(250)) as bench:
        message_id = await bench.accept(b"x" * 2_000, amount=10_000)
        parts = await bench.parts(message_id)
        assert [(part.offset, part.length, part.amount) for part in parts] == [
            (0, 900, 8_000),
            (900, 900, 1_000),
            (1_800, 200, 1_000),
        ]
        assert len({part.payment_hash for part in parts}) == 3
        assert await bench.spent() == 10_000 + 3 * 250


async def test_beyond_the_budget_nothing_is_stored(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, daily_limit=Sat(3), part_fee_limit=Msat(500)) as bench:
        await bench.accept()
        await bench.accept()  # exactly the budget
        with pytest.raises(ResourceExhausted, match="may cost 2 sat, and 3 of the 3 sat allowed in 24 hours"):
            await bench.accept()
        assert await bench.store.read(waiting) == 2
        assert await bench.spent() == 3_000
        wall.offset_ms += 86_400_000
        await bench.accept()
        assert await bench.store.read(waiting) == 3


async def test_an_obligation_asks_no_budget_and_has_no_end(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, daily_limit=Sat(0)) as bench:
        message_id = await bench.accept(obligation=True)
        stored, _ = await bench.store.read(lambda tx: outbox.load(tx, message_id))
        assert stored.deadline_ms is None
        assert await bench.spent() > 0


async def test_orders_count_for_each_recipient(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall) as bench:
        sent = [await bench.accept(to=to) for to in (ALICE, BOB, ALICE, ALICE, BOB)]
        stored = [(await bench.store.read(partial(outbox.load, message_id=each)))[0] for each in sent]
        assert [each.order for each in stored] == [1, 1, 2, 3, 2]


async def test_what_can_never_be_sent(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, max_bytes=1_000) as bench:
        with pytest.raises(InvalidArgument, match="msg is empty"):
            await bench.accept(b"", amount=1)
        with pytest.raises(InvalidArgument, match=r"1001 bytes; at most 1000 are sent \(message.max_bytes\)"):
            await bench.accept(b"x" * 1_001)
        with pytest.raises(InvalidArgument, match="901 bytes need 2 sat"):
            await bench.accept(b"x" * 901, amount=1_999)
        with pytest.raises(FailedPrecondition, match="kv has no record number"):
            await bench.accept(service="kv")
        assert await bench.store.read(waiting) == 0
        assert await bench.spent() == 0
        assert (await bench.store.read(lambda tx: outbox.next_order(tx, ALICE))) == 1


async def test_what_came_in_for_a_message_is_no_spending(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_bench(tmp_path, wall, daily_limit=Sat(1), part_fee_limit=Msat(3_000)) as bench:
        await bench.accept(amount=97_000, obligation=True, received=100_000)
        await bench.accept(received=4_000)
        assert await bench.spent() == 0
        await bench.accept(received=3_000)
        assert await bench.spent() == 1_000
        with pytest.raises(ResourceExhausted):
            await bench.accept(received=3_999)
        await bench.accept(received=4_000)  # costs nothing, however much is spent
        assert await bench.spent() == 1_000


async def test_the_largest_message_is_sent_until_its_deadline(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_bench(tmp_path, wall, max_bytes=1_000, ttl_ms=60_000) as bench:
        message_id = await bench.accept(b"x" * 1_000)
        stored, _ = await bench.store.read(lambda tx: outbox.load(tx, message_id))
        assert stored.deadline_ms == stored.accepted_at_ms + 60_000
