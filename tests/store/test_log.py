import random
from pathlib import Path

import pytest
from tests.store.test_maintenance import event

from impervious.store import Tx, log, schema
from impervious.store.connection import connect


@pytest.fixture
def tx(tmp_path: Path) -> Tx:
    connection = connect(tmp_path / "imp.db", None)
    schema.migrate(connection)
    connection.execute("BEGIN")
    return Tx(connection, now_ms=1000)


def emit(tx: Tx, *sizes: int) -> None:
    for size in sizes:
        tx.emit(event(b"x" * size))


def seqs(tx: Tx) -> list[int]:
    return [row[0] for row in tx.all("SELECT seq FROM event ORDER BY seq")]


def test_the_size_is_kept_up(tx: Tx) -> None:
    emit(tx, 1, 10, 100)
    tx.run("UPDATE event SET service_type = service_type")
    assert (log.extent(tx).events, log.extent(tx).data_bytes, log.extent(tx).kept_bytes) == (3, 111, 711)
    assert log.by_service_type(tx) == {"message": 3}
    assert log.prune(tx, max_bytes=600) == 1
    assert log.extent(tx) == log.Extent(newest=3, pruned_through=1, events=2, data_bytes=110)
    tx.run("DELETE FROM event")  # by an operator's own hand
    assert (log.extent(tx).events, log.extent(tx).data_bytes, log.by_service_type(tx)) == (0, 0, {})


def test_a_database_that_has_events_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = schema.MIGRATIONS
    connection = connect(tmp_path / "imp.db", None)
    monkeypatch.setattr(schema, "MIGRATIONS", every[: every.index(schema._RETENTION)])
    schema.migrate(connection)
    connection.execute("BEGIN")
    tx = Tx(connection, now_ms=1000)
    for size in (5, 6):
        tx.run(f"INSERT INTO event SELECT NULL, '', x'', NULL, NULL, 'a', 'a', zeroblob({size}), 0, 0, 0, 0, 0, NULL")
    connection.execute("COMMIT")
    monkeypatch.setattr(schema, "MIGRATIONS", every)
    schema.migrate(connection)
    connection.execute("BEGIN")
    assert (log.extent(tx).events, log.extent(tx).data_bytes) == (2, 11)
    emit(tx, 7)
    assert (log.extent(tx).events, log.extent(tx).data_bytes) == (3, 18)
    connection.close()


@pytest.mark.parametrize("limit", [None, 3])
def test_the_same_goes_in_steps_and_at_once(tx: Tx, limit: int | None) -> None:
    chance = random.Random(5)
    for at_ms in range(0, 1000, 10):
        tx.now_ms = at_ms
        emit(tx, chance.randrange(500))
    wanted = log.prunable(tx, before_ms=300, max_bytes=25_000)
    done = []
    while count := log.prune(tx, limit=limit, before_ms=300, max_bytes=25_000):
        done.append(count)
    assert sum(done) == wanted >= 30
    assert seqs(tx) == list(range(wanted + 1, 101))
    assert log.pruned_through(tx) == wanted
    assert log.extent(tx).kept_bytes <= 25_000 < log.extent(tx).kept_bytes + 700
    assert (len(done) == 1) == (limit is None)
    assert log.prunable(tx, before_ms=300, max_bytes=25_000) == 0


def test_a_step_of_large_events_is_short(tx: Tx) -> None:
    emit(tx, *[1 << 20] * 5)
    assert log.prune(tx, max_bytes=0, limit=500) == 2
    assert log.prune(tx, max_bytes=0) == 3


def test_a_reader_is_waited_for(tx: Tx) -> None:
    emit(tx, *[10] * 10)
    log.advance_reader(tx, "slow", 4)
    assert log.prunable(tx, max_bytes=0) == 4
    assert log.prune(tx, max_bytes=0, limit=100) == 4
    assert log.prune(tx, max_bytes=0) == 0
    assert log.prune(tx, max_bytes=0, readers={"other"}) == 6


def test_without_a_rule_everything_stays(tx: Tx) -> None:
    emit(tx, 1)
    assert log.prune(tx) == log.prunable(tx) == 0
    assert log.prune(tx, max_bytes=10_000, before_ms=1000) == 0
