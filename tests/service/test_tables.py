from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import inline

from impervious.errors import ConfigError
from impervious.model import ServiceType
from impervious.service.tables import migrate, prefix
from impervious.store import Store, Tx, open_store

MY_KV = ServiceType("my.kv-2")
FIRST = """
-- A comment; with a semicolon.
CREATE TABLE my_kv_2_pair (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO my_kv_2_pair VALUES ('a;b', x'00');
CREATE TRIGGER my_kv_2_guard BEFORE DELETE ON my_kv_2_pair BEGIN
  SELECT 1;
  SELECT 2;
END;
"""
SECOND = """
ALTER TABLE my_kv_2_pair ADD COLUMN price INTEGER NOT NULL DEFAULT 0;
CREATE INDEX my_kv_2_of ON my_kv_2_pair (price)"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", run_sync=inline) as opened:
        yield opened


async def version(store: Store) -> int:
    return await store.read(lambda tx: tx.number("SELECT version FROM service_schema WHERE service_type = ?", MY_KV))


async def test_each_migration_is_applied_once_in_order(store: Store) -> None:
    for number, migrations in enumerate(((FIRST,), (FIRST, SECOND), (FIRST, SECOND)), start=1):
        await store.write(partial(migrate, service_type=MY_KV, migrations=migrations))
        assert await version(store) == min(number, 2)
    rows = await store.read(lambda tx: tx.all("SELECT key, price FROM my_kv_2_pair"))
    assert rows == [("a;b", 0)]
    assert prefix(MY_KV) == "my_kv_2_"


async def test_a_service_without_tables_has_none(store: Store) -> None:
    before = await store.read(lambda tx: tx.number("SELECT count(*) FROM sqlite_master"))
    await store.write(lambda tx: migrate(tx, MY_KV, ()))
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM sqlite_master")) == before


@pytest.mark.parametrize(
    ("migration", "says"),
    [
        ("CREATE TABLE pair (a)", "makes or drops pair"),
        ("CREATE TABLE my_kv_2 (a)", "must begin with my_kv_2_"),
        ("CREATE TABLE my_kv_2_ok (a); CREATE INDEX other ON my_kv_2_ok (a)", "makes or drops other"),
        ("DROP TABLE quarantine", "makes or drops quarantine"),
        ("ALTER TABLE event RENAME TO my_kv_2_event", "makes or drops event"),
        ("CREATE TABLE my_kv_2_a (b", "migration 1 of service my.kv-2 cannot be applied"),
        ("nonsense;", "cannot be applied"),
        ("CREATE TABLE my_kv_2_a (b); COMMIT", "cannot be applied: a service's SQL must not say COMMIT"),
        ("-- first\n/* then; */ pragma user_version = 9", "must not say PRAGMA"),
        ("/* then; */ " * 100 + "nonsense", "cannot be applied"),
    ],
)
async def test_a_migration_that_must_not_be_undoes_itself(store: Store, migration: str, says: str) -> None:
    def names(tx: Tx) -> list[object]:
        return [row[0] for row in tx.all("SELECT name FROM sqlite_master")]

    before = await store.read(names)
    with pytest.raises(ConfigError, match=says):
        await store.write(lambda tx: migrate(tx, MY_KV, (migration,)))
    assert await store.read(names) == before
    assert await version(store) == 0


async def test_tables_of_a_newer_version_are_left_alone(store: Store) -> None:
    await store.write(lambda tx: migrate(tx, MY_KV, (FIRST, SECOND)))
    with pytest.raises(ConfigError, match="newer version of it: install that one, or set its entry"):
        await store.write(lambda tx: migrate(tx, MY_KV, (FIRST,)))
