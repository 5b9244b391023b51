from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from sqlcipher3 import dbapi2
from tests.conftest import Wall, inline
from tests.store.test_maintenance import event

from impervious.errors import AlreadyExists, InvalidArgument, ResourceExhausted
from impervious.model import MessageState, NodePubkey, OutboundMessage, RecordType, ServiceType
from impervious.outbound import SendPolicy, accept
from impervious.store import Store, Tx, answers, idempotency, log, open_store, outbox, schema, spending, upkeep
from impervious.store.connection import connect
from impervious.store.transaction import SqlValue
from impervious.store.upkeep import DAY_MS, Retention, Step
from impervious.units import Msat, Sat

PEER = NodePubkey(bytes.fromhex("02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5"))
MESSAGE = ServiceType("message")
POLICY = SendPolicy(
    record_types={MESSAGE: RecordType(400_000)},
    max_bytes=480_000,
    part_bytes=900,
    part_amount=Msat(1000),
    part_fee_limit=Msat(3000),
    in_flight_per_peer=16,
    payment_timeout_s=60,
    ttl_ms=3_600_000,
    daily_limit=Sat(100),
)


@pytest.fixture
async def store(tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


def message(size: int = 5, amount: int = 1000) -> OutboundMessage:
    return OutboundMessage(id=uuid4(), recipient=PEER, service_type=MESSAGE, payload=b"x" * size, amount=Msat(amount))


async def test_acceptance_stores_parts_order_and_budget(store: Store) -> None:
    first, second = message(1801, 10_000), message()
    await store.write(lambda tx: [accept(tx, what, POLICY) for what in (first, second)])  # type: ignore[func-returns-value]
    stored, parts = await store.read(lambda tx: outbox.load(tx, first.id))
    assert stored.message == first
    assert stored.order == 1
    assert [(part.offset, part.length, part.amount) for part in parts] == [
        (0, 900, 8000),
        (900, 900, 1000),
        (1800, 1, 1000),
    ]
    assert len({part.payment_hash for part in parts}) == 3
    assert (await store.read(lambda tx: outbox.load(tx, second.id)))[0].order == 2
    assert await store.read(spending.spent) == 10_000 + 3 * 3000 + 4000


async def test_the_budget_is_for_any_24_hours_and_refusal_leaves_nothing(store: Store, wall: Wall) -> None:
    await store.write(lambda tx: accept(tx, message(amount=90_000), POLICY))
    with pytest.raises(ResourceExhausted, match=r"94 sat.*93 of the 100|93 of the 100"):
        await store.write(lambda tx: accept(tx, message(amount=5000), POLICY))
    assert (await store.read(upkeep.summary)).unfinished_messages == 1
    await store.write(lambda tx: accept(tx, message(amount=90_000), POLICY, obligation=True))
    wall.offset_ms += DAY_MS + 1
    await store.write(lambda tx: accept(tx, message(amount=90_000), POLICY))


@pytest.mark.parametrize(
    ("what", "says"),
    [(message(0), "empty"), (message(480_001, 10**9), "480000"), (message(901, 1999), "need 2 sat")],
)
async def test_what_can_never_be_sent_is_refused(store: Store, what: OutboundMessage, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        await store.write(lambda tx: accept(tx, what, POLICY))
    assert await store.read(spending.spent) == 0


async def test_a_key_gives_its_id_for_the_same_request_only(store: Store, wall: Wall) -> None:
    identifier = uuid4()

    def recall(tx: Tx, digest: bytes) -> object:
        return idempotency.recall(tx, MESSAGE, "key", digest)

    await store.write(lambda tx: idempotency.remember(tx, MESSAGE, "key", b"digest", identifier))
    assert await store.read(lambda tx: recall(tx, b"digest")) == identifier
    with pytest.raises(AlreadyExists, match="another request"):
        await store.read(lambda tx: recall(tx, b"other"))
    wall.offset_ms += 8 * DAY_MS
    await store.write(lambda tx: upkeep.tidy(tx, Retention(events_days=0, events_mb=0, idempotency_days=7)))
    assert await store.read(lambda tx: recall(tx, b"digest")) is None


async def test_ended_messages_are_forgotten_and_unfinished_ones_kept(store: Store, wall: Wall) -> None:
    ended, open_one = message(), message()
    await store.write(lambda tx: accept(tx, ended, POLICY))
    await store.write(lambda tx: accept(tx, open_one, POLICY))
    await store.write(lambda tx: outbox.finish(tx, ended.id, MessageState.DELIVERED, "{}"))
    wall.offset_ms += 8 * DAY_MS
    await store.write(lambda tx: upkeep.tidy(tx, Retention(events_days=0, events_mb=0, idempotency_days=7)))
    assert await store.read(lambda tx: outbox.state(tx, ended.id)) is None
    assert await store.read(lambda tx: outbox.state(tx, open_one.id)) == (MessageState.ACCEPTED, None)
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM part")) == 1


FOREVER = Retention(events_days=0, events_mb=0, idempotency_days=0)


async def test_a_step_is_short_and_the_next_one_goes_on(store: Store, wall: Wall) -> None:
    def fill(tx: Tx) -> None:
        for number in range(1200):
            tx.emit(event(b"x"))
            idempotency.remember(tx, MESSAGE, f"key {number}", b"digest", uuid4())
            spending.reserve(tx, uuid4(), MESSAGE, Msat(1), daily_limit=None)

        for _ in range(3):
            long = message(480_000, 10**9)
            accept(tx, long, POLICY, obligation=True)
            outbox.finish(tx, long.id, MessageState.DELIVERED, "{}")

    await store.write(fill)
    wall.offset_ms += 8 * DAY_MS
    retention = Retention(events_days=1, events_mb=0, idempotency_days=7)
    steps: list[tuple[Step, dict[str, int]]] = []
    while not steps or steps[-1][0].more:
        step = await store.write(lambda tx: upkeep.tidy_step(tx, retention))
        steps.append((step, await store.read(rows)))
    assert [step.events for step, _ in steps] == [500, 500, 200, 0]
    assert [left["part"] for _, left in steps] == [2 * 534, 534, 0, 0]
    assert [left["idempotency"] for _, left in steps] == [700, 200, 0, 0]
    assert steps[-1][1] == dict.fromkeys(steps[-1][1], 0)


def rows(tx: Tx) -> dict[str, int]:
    return {table: tx.number(f"SELECT count(*) FROM {table}") for table in ("event", "part", "idempotency", "spending")}


async def test_nothing_is_forgotten_that_is_to_be_kept(store: Store, wall: Wall) -> None:
    await store.write(lambda tx: tx.emit(event(b"x")))
    await store.write(lambda tx: spending.reserve(tx, uuid4(), MESSAGE, Msat(1), daily_limit=None))
    wall.offset_ms += 1000 * DAY_MS
    assert await store.write(lambda tx: upkeep.tidy_step(tx, FOREVER)) == Step(events=0, more=False)
    assert (await store.read(rows))["spending"] == 1


class Noting(Tx):
    """Keeps the statements that were run."""

    def __init__(self, connection: dbapi2.Connection, *, now_ms: int) -> None:
        super().__init__(connection, now_ms=now_ms)
        self.statements: list[tuple[str, tuple[SqlValue, ...]]] = []

    @property
    def _open(self) -> dbapi2.Connection:
        return cast("dbapi2.Connection", self)

    def execute(self, sql: str, parameters: tuple[SqlValue, ...]) -> dbapi2.Cursor:
        self.statements.append((sql, parameters))
        return self._connection.execute(sql, parameters)


GROWING = ("event", "outbound", "part", "idempotency", "spending", "processed_invoice", "seen_message", "open_request")


def test_no_statement_reads_a_whole_table_that_grows(tmp_path: Path) -> None:
    connection = connect(tmp_path / "imp.db", None)
    schema.migrate(connection)
    connection.execute("BEGIN")
    tx = Noting(connection, now_ms=10**12)
    for retention in (Retention(events_days=1, events_mb=1, idempotency_days=7), FOREVER):
        upkeep.tidy(tx, retention)
    tx.run("INSERT INTO event SELECT NULL, 'message', x'00', NULL, NULL, 'a', 'a', x'', 0, 0, 0, 0, 0, NULL")
    upkeep.tidy(tx, Retention(events_days=1, events_mb=1, idempotency_days=7))
    log.prunable(tx, before_ms=10**12)
    upkeep.summary(tx)
    answers.open_request(tx, uuid4(), PEER, MESSAGE, expires_ms=1)
    assert len(tx.statements) > 30
    for sql, parameters in tx.statements:
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()]
        assert not [step for step in plan for table in GROWING if step == f"SCAN {table}"], (sql, plan)
    connection.execute("ROLLBACK")
    connection.close()
