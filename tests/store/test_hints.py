"""Ways to nodes: the newest, for a month, of so many nodes."""

from pathlib import Path

import pytest
from tests.conftest import Wall, inline
from tests.server.house import ALICE, BOB, ME
from trio.testing import MockClock

from impervious.model import HopHint
from impervious.store import Tx, hints, open_store
from impervious.units import Msat


def way(chan_id: int) -> tuple[tuple[HopHint, ...]]:
    return ((HopHint(pubkey=BOB, chan_id=chan_id, base_fee=Msat(0), fee_ppm=0, cltv_delta=0),),)


async def test_ways_are_remembered_for_a_month_and_of_so_many_nodes(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "MAX_NODES", 2)
    async with open_store(tmp_path / "imp.db", on_commit=lambda *_: None, now_ms=wall, run_sync=inline) as store:
        for number, node in enumerate((ALICE, BOB, ALICE, ME)):
            await store.write(lambda tx, node=node, number=number: hints.remember(tx, node, way(number)))  # type: ignore[misc]
            wall.offset_ms += 1
        assert await store.read(lambda tx: hints.find(tx, ALICE)) == way(2)
        assert await store.read(lambda tx: hints.find(tx, BOB)) == ()
        assert await store.read(lambda tx: hints.find(tx, ME)) == way(3)
        wall.offset_ms += hints.MAX_AGE_MS - 2
        assert await store.read(lambda tx: hints.find(tx, ALICE)) == ()
        assert await store.read(lambda tx: hints.find(tx, ME)) == way(3)


async def test_finding_the_oldest_reads_an_index(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    def plan(tx: Tx) -> str:
        return str(
            tx.all("EXPLAIN QUERY PLAN SELECT pubkey FROM route_hint ORDER BY at_ms DESC LIMIT 1 OFFSET ?", 4096)
        )

    async with open_store(tmp_path / "imp.db", on_commit=lambda *_: None, now_ms=wall, run_sync=inline) as store:
        assert "USING COVERING INDEX route_hint_at" in await store.read(plan)
