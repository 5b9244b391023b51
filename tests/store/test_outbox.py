"""The outbox: what is done to one message, or one part, is done to no other."""

from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from tests.conftest import inline
from tests.store.still import Still

from impervious.model import (
    Event,
    MessageId,
    MessageState,
    NodePubkey,
    OutboundMessage,
    Part,
    PartState,
    Preimage,
    RecordType,
    ServiceType,
)
from impervious.store import Store, Tx, open_store, outbox
from impervious.units import Msat

ANN, BEN = NodePubkey(b"\x02" + b"\x0a" * 32), NodePubkey(b"\x02" + b"\x0b" * 32)
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
ACCEPTED, SENDING, DELIVERED, FAILED = (
    MessageState.ACCEPTED,
    MessageState.SENDING,
    MessageState.DELIVERED,
    MessageState.FAILED,
)


@pytest.fixture
def wall() -> Still:
    return Still()


@pytest.fixture
async def store(tmp_path: Path, wall: Still) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


def part(message: MessageId, number: int, *, fee: int = 0, state: PartState = PartState.PENDING) -> Part:
    return Part(
        preimage=Preimage(bytes([message.int * 16 + number]) * 32),
        offset=10 * number,
        length=10,
        amount=Msat(1_000 + number),
        fee_limit=Msat(300),
        fee=Msat(fee),
        state=state,
    )


PARTS = {message: [part(message, number) for number in range(3)] for message in (ONE, TWO, THREE)}


def add(tx: Tx, message_id: MessageId, *, to: NodePubkey = ANN, deadline_ms: int | None = 5, received: int = 0) -> None:
    message = OutboundMessage(
        id=message_id,
        recipient=to,
        service_type=ServiceType("vpn"),
        payload=b"x" * 30,
        amount=Msat(3_003),
        reply_to=None,
    )
    outbox.add(
        tx,
        message,
        PARTS[message_id][::-1],
        record_type=RecordType(200_000),
        order=outbox.next_order(tx, to),
        deadline_ms=deadline_ms,
        received=Msat(received),
    )


async def load(store: Store, message_id: MessageId) -> tuple[outbox.Stored, list[Part]]:
    return await store.read(lambda tx: outbox.load(tx, message_id))


async def states(store: Store, message_id: MessageId) -> list[str]:
    found = await store.read(
        lambda tx: tx.all("SELECT state FROM part WHERE message_id = ? ORDER BY position", message_id.bytes)
    )
    return [row[0] for row in found]


@pytest.fixture
async def two(store: Store) -> Store:
    await store.write(lambda tx: add(tx, ONE, received=7_000))
    await store.write(lambda tx: add(tx, TWO, to=BEN, deadline_ms=None))
    return store


async def test_what_is_stored_is_loaded_by_offset(two: Store, wall: Still) -> None:
    stored, parts = await load(two, ONE)
    assert parts == PARTS[ONE]
    assert (stored.message.id, stored.message.recipient, stored.message.payload) == (ONE, ANN, b"x" * 30)
    assert (stored.message.amount, stored.received, stored.deadline_ms) == (3_003, 7_000, 5)
    assert (stored.state, stored.order, stored.record_type) == (ACCEPTED, 1, 200_000)
    assert stored.accepted_at_ms == wall()
    other, parts = await load(two, TWO)
    assert (other.received, other.deadline_ms, parts) == (0, None, PARTS[TWO])
    assert await two.read(lambda tx: outbox.state(tx, THREE)) is None


async def test_a_part_that_ends_leaves_the_others(two: Store) -> None:
    await two.write(lambda tx: outbox.settle_part(tx, PARTS[ONE][1].payment_hash, Msat(7)))
    await two.write(lambda tx: outbox.bury_part(tx, PARTS[ONE][2].payment_hash))
    assert await states(two, ONE) == ["pending", "settled", "dead"]
    assert await states(two, TWO) == ["pending"] * 3
    _, parts = await load(two, ONE)
    assert [(each.offset, each.state, each.fee) for each in parts] == [
        (0, PartState.PENDING, 0),
        (10, PartState.SETTLED, 7),
    ]
    assert await two.read(lambda tx: outbox.pending_parts(tx, ONE)) == 1
    assert await two.read(lambda tx: outbox.pending_parts(tx, TWO)) == 3
    assert await two.read(lambda tx: outbox.pending_amounts(tx, ONE)) == [(PARTS[ONE][0].payment_hash, 1_000)]


async def test_sums_are_of_one_message_and_of_what_was_or_may_be_paid(two: Store) -> None:
    def sums(tx: Tx) -> tuple[outbox.Totals, Msat]:
        return outbox.totals(tx, ONE), outbox.committed(tx, ONE)

    nothing = outbox.Totals(settled_parts=0, amount=Msat(0), fee=Msat(0))
    assert await two.read(sums) == (nothing, 3_003 + 3 * 300)
    await two.write(lambda tx: outbox.settle_part(tx, PARTS[ONE][1].payment_hash, Msat(7)))
    paid = outbox.Totals(settled_parts=1, amount=Msat(1_001), fee=Msat(7))
    assert await two.read(sums) == (paid, 1_000 + 300 + 1_001 + 7 + 1_002 + 300)
    await two.write(lambda tx: outbox.bury_part(tx, PARTS[ONE][2].payment_hash))
    assert await two.read(sums) == (paid, 1_000 + 300 + 1_001 + 7)
    await two.write(lambda tx: outbox.settle_part(tx, PARTS[ONE][0].payment_hash, Msat(5)))
    both = outbox.Totals(settled_parts=2, amount=Msat(2_001), fee=Msat(12))
    assert await two.read(sums) == (both, 2_013)


async def test_a_header_is_one_messages(two: Store) -> None:
    await two.write(lambda tx: outbox.set_signed(tx, ONE, header=b"header", signature=b"signature"))
    stored, _ = await load(two, ONE)
    assert (stored.state, stored.header, stored.signature) == (SENDING, b"header", b"signature")
    other, _ = await load(two, TWO)
    assert (other.state, other.header, other.signature) == (ACCEPTED, None, None)


async def test_an_end_buries_what_was_not_paid_and_nothing_else(two: Store) -> None:
    await two.write(lambda tx: outbox.settle_part(tx, PARTS[ONE][1].payment_hash, Msat(7)))
    await two.write(lambda tx: outbox.finish(tx, ONE, FAILED, "{}"))
    assert await states(two, ONE) == ["dead", "settled", "dead"]
    assert await states(two, TWO) == ["pending"] * 3
    assert await two.read(lambda tx: outbox.state(tx, ONE)) == (FAILED, "{}")
    assert await two.read(lambda tx: outbox.state(tx, TWO)) == (ACCEPTED, None)
    assert (await load(two, ONE))[0].message.payload == b""
    assert (await load(two, TWO))[0].message.payload == b"x" * 30


async def test_open_messages_come_in_order_behind_a_number(two: Store) -> None:
    await two.write(lambda tx: add(tx, THREE))

    async def waiting(after: int = 0, limit: int = 9) -> list[UUID]:
        return [each.id for each in await two.read(lambda tx: outbox.tickets(tx, after=after, limit=limit))]

    assert await waiting() == [ONE, TWO, THREE]
    assert await waiting(limit=2) == [ONE, TWO]
    first = (await two.read(lambda tx: outbox.tickets(tx, after=0, limit=1)))[0]
    assert await waiting(after=first.number) == [TWO, THREE]
    await two.write(lambda tx: outbox.set_signed(tx, TWO, header=b"h", signature=b"s"))
    assert await waiting() == [ONE, TWO, THREE]
    await two.write(lambda tx: outbox.finish(tx, ONE, DELIVERED, "{}"))
    await two.write(lambda tx: outbox.finish(tx, TWO, FAILED, "{}"))
    assert await waiting() == [THREE]
    assert (await load(two, THREE))[0].order == 2, "the second to ann"


async def test_voids_are_one_recipients_until_they_are_told(store: Store) -> None:
    for to, order in ((ANN, 3), (ANN, 1), (BEN, 2), (ANN, 2), (ANN, 2)):
        await store.write(partial(outbox.add_void, recipient=to, order=order))

    async def voids(to: NodePubkey, limit: int = 9) -> tuple[int, ...]:
        return await store.read(lambda tx: outbox.voids(tx, to, limit))

    assert (await voids(ANN), await voids(ANN, 2), await voids(BEN)) == ((1, 2, 3), (1, 2), (2,))
    await store.write(lambda tx: outbox.forget_voids(tx, ANN, [2, 3, 9]))
    assert (await voids(ANN), await voids(BEN)) == ((1,), (2,))


async def test_a_debt_is_reopened_alone_and_as_the_newest(two: Store, wall: Still) -> None:
    await two.write(lambda tx: add(tx, THREE, deadline_ms=None))
    await two.write(lambda tx: outbox.settle_part(tx, PARTS[THREE][0].payment_hash, Msat(1)))
    at_ms = wall() + 1_000
    await two.write(lambda tx: outbox.keep_debt(tx, TWO, "why", retry_ms=at_ms))
    assert await states(two, TWO) == ["dead"] * 3
    assert await states(two, THREE) == ["settled", "pending", "pending"]
    assert [await two.read(partial(outbox.tries, message_id=each)) for each in (ONE, TWO, THREE)] == [0, 1, 0]
    assert await two.read(outbox.count_debts) == 1
    assert await two.read(lambda tx: outbox.state(tx, TWO)) == (FAILED, "why")
    assert await two.read(lambda tx: outbox.due_debts(tx, limit=9)) == []
    wall.offset_ms += 1_000
    [debt] = await two.read(lambda tx: outbox.due_debts(tx, limit=9))
    assert (debt.id, debt.recipient, debt.payload_bytes, debt.amount, debt.received) == (TWO, BEN, 30, 3_003, 0)
    anew = [part(MessageId(int=9), number) for number in range(2)]
    await two.write(lambda tx: outbox.reopen(tx, TWO, anew, order=8))
    stored, parts = await load(two, TWO)
    assert (stored.state, stored.order, stored.header, parts) == (ACCEPTED, 8, None, anew)
    assert [each.id for each in await two.read(lambda tx: outbox.tickets(tx, after=0, limit=9))] == [ONE, THREE, TWO]
    assert (await load(two, ONE))[0].order == 1
    assert await two.read(outbox.count_debts) == 0
    await two.write(lambda tx: outbox.keep_debt(tx, TWO, "why", retry_ms=wall() + 5_000))
    await two.write(outbox.hasten_debts)
    assert len(await two.read(lambda tx: outbox.due_debts(tx, limit=9))) == 1
    await two.write(lambda tx: outbox.finish(tx, TWO, DELIVERED, "{}"))
    assert await two.read(outbox.count_debts) == 0


async def test_a_debt_that_is_reopened_gets_a_number_that_no_message_had_or_will_have(two: Store, wall: Still) -> None:
    """The sender takes up what is above the last number it has seen: one given twice would wait for a restart."""
    await two.write(lambda tx: add(tx, THREE, deadline_ms=None))
    seen = [each.number for each in await two.read(lambda tx: outbox.tickets(tx, after=0, limit=9))]
    await two.write(lambda tx: outbox.keep_debt(tx, ONE, "why", retry_ms=wall()))
    await two.write(lambda tx: tx.run("DELETE FROM outbound WHERE id IN (?, ?)", TWO.bytes, THREE.bytes))
    await two.write(lambda tx: outbox.reopen(tx, ONE, [part(MessageId(int=9), 0)], order=8))
    [debt] = await two.read(lambda tx: outbox.tickets(tx, after=max(seen), limit=9))
    assert debt.id == ONE
    await two.write(lambda tx: tx.run("DELETE FROM outbound"))
    await two.write(lambda tx: add(tx, TWO, deadline_ms=None))
    [later] = await two.read(lambda tx: outbox.tickets(tx, after=debt.number, limit=9))
    assert later.id == TWO


async def test_of_debts_the_longest_waiting_come_first(store: Store, wall: Still) -> None:
    for position, message_id in enumerate((ONE, TWO, THREE)):
        await store.write(partial(add, message_id=message_id, deadline_ms=None))
        at_ms = wall() - (5, 7, 6)[position]
        await store.write(partial(outbox.keep_debt, message_id=message_id, outcome="why", retry_ms=at_ms))
    assert [each.id for each in await store.read(lambda tx: outbox.due_debts(tx, limit=2))] == [TWO, THREE]


async def test_news_of_the_outbox_wakes_who_sends(tmp_path: Path, wall: Still) -> None:
    woken: list[str] = []

    def heard(_events: Sequence[Event], wakes: AbstractSet[str]) -> None:
        woken.extend(wakes)

    async with open_store(tmp_path / "imp.db", on_commit=heard, now_ms=wall, run_sync=inline) as store:
        await store.write(lambda tx: add(tx, ONE, deadline_ms=None))
        assert woken == ["outbound"]
        await store.write(lambda tx: outbox.keep_debt(tx, ONE, "why", retry_ms=0))
        assert woken == ["outbound"]
        await store.write(lambda tx: outbox.reopen(tx, ONE, [part(MessageId(int=9), 0)], order=8))
        assert woken == ["outbound", "outbound"]


async def test_only_open_messages_of_a_later_time_get_more_of_it(two: Store, wall: Still) -> None:
    wall.offset_ms += 1_000
    await two.write(lambda tx: add(tx, THREE))
    before_ms = wall() - 1_000

    async def deadlines() -> list[int | None]:
        return [(await load(two, each))[0].deadline_ms for each in (ONE, TWO, THREE)]

    await two.write(lambda tx: outbox.postpone(tx, accepted_after_ms=before_ms, step_ms=100))
    assert await deadlines() == [5, None, 105]
    await two.write(lambda tx: outbox.set_signed(tx, THREE, header=b"h", signature=b"s"))
    await two.write(lambda tx: outbox.postpone(tx, accepted_after_ms=before_ms - 1, step_ms=100))
    assert await deadlines() == [105, None, 205]
    await two.write(lambda tx: outbox.finish(tx, THREE, FAILED, "{}"))
    await two.write(lambda tx: outbox.postpone(tx, accepted_after_ms=0, step_ms=100))
    assert await deadlines() == [205, None, 205]


async def test_progress_and_ranges_are_one_messages(two: Store) -> None:
    async def progress(message_id: MessageId) -> str | None:
        row = await two.read(lambda tx: tx.one("SELECT progress FROM outbound WHERE id = ?", message_id.bytes))
        assert row is not None
        found: str | None = row[0]
        return found

    await two.write(lambda tx: outbox.set_progress(tx, ONE, "{}"))
    assert (await progress(ONE), await progress(TWO)) == ("{}", None)
    assert await two.read(lambda tx: outbox.ranges(tx, ONE)) == 3
    await two.write(lambda tx: outbox.bury_part(tx, PARTS[ONE][2].payment_hash))
    smaller = [part(MessageId(int=9), 2), part(MessageId(int=9), 4)]
    await two.write(lambda tx: outbox.add_parts(tx, ONE, smaller))
    assert await two.read(lambda tx: outbox.ranges(tx, ONE)) == 4
    await two.write(lambda tx: outbox.add_parts(tx, TWO, [part(MessageId(int=8), 7)]))
    assert await two.read(lambda tx: outbox.ranges(tx, ONE)) == 4, "whatever the other one has"


async def test_what_ended_long_ago_is_forgotten_the_oldest_first(store: Store, wall: Still) -> None:
    for message_id in (ONE, TWO, THREE):
        await store.write(partial(add, message_id=message_id, deadline_ms=None))
        wall.offset_ms += 10
    for message_id in (TWO, ONE):
        await store.write(partial(outbox.finish, message_id=message_id, state=DELIVERED, outcome="{}"))

    async def forget(before_ms: int, parts: int) -> int:
        return await store.write(lambda tx: outbox.forget_ended(tx, before_ms=before_ms, parts=parts))

    async def left() -> list[bool]:
        return [await store.read(partial(outbox.state, message_id=each)) is not None for each in (ONE, TWO, THREE)]

    assert await forget(wall() - 30, 99) == 0, "the first is not older"
    assert await forget(wall(), 4) == 1
    assert await left() == [False, True, True]
    assert await states(store, ONE) == []
    assert await states(store, TWO) == ["dead"] * 3
    assert await forget(wall(), 99) == 1
    assert await left() == [False, False, True], "what is open is kept"
    assert await states(store, THREE) == ["pending"] * 3
    await store.write(lambda tx: outbox.keep_debt(tx, THREE, "why", retry_ms=0))
    assert await forget(wall(), 99) == 0
    assert await left() == [False, False, True], "a debt is kept"
    assert await states(store, THREE) == ["dead"] * 3


async def test_a_database_is_one_nodes(store: Store) -> None:
    assert await store.read(outbox.identity) is None
    for pubkey in (ANN, BEN):
        await store.write(partial(outbox.set_identity, pubkey=pubkey))
        assert await store.read(outbox.identity) == pubkey


async def test_an_answer_knows_what_it_answers(store: Store) -> None:
    message = OutboundMessage(
        id=ONE, recipient=ANN, service_type=ServiceType("vpn"), payload=b"x", amount=Msat(1_000), reply_to=TWO
    )
    await store.write(
        lambda tx: outbox.add(tx, message, [], record_type=RecordType(200_000), order=1, deadline_ms=None)
    )
    assert (await load(store, ONE))[0].message == message


async def test_a_debt_that_is_due_keeps_its_place(store: Store, wall: Still) -> None:
    for message_id, due_ms in ((ONE, wall() + 9), (TWO, wall() - 9), (THREE, wall() - 5)):
        await store.write(partial(add, message_id=message_id, deadline_ms=None))
        await store.write(partial(outbox.settle_part, payment_hash=PARTS[message_id][0].payment_hash, fee=Msat(1)))
        await store.write(partial(outbox.keep_debt, message_id=message_id, outcome="why", retry_ms=due_ms))
        assert await states(store, message_id) == ["settled", "dead", "dead"]
    await store.write(outbox.hasten_debts)
    assert [each.id for each in await store.read(lambda tx: outbox.due_debts(tx, limit=9))] == [TWO, THREE, ONE]
