"""A queue of tickets with deadlines."""

from uuid import uuid4

import trio
from tests.outbound.bench import ALICE

from impervious.outbound.lane import Lane
from impervious.outbound.places import Everywhere
from impervious.store.outbox import Ticket


def ticket(number: int, deadline_ms: int | None) -> Ticket:
    return Ticket(number=number, id=uuid4(), recipient=ALICE, deadline_ms=deadline_ms)


async def test_what_is_overdue_is_taken_wherever_it_waits() -> None:
    lane = Lane(Everywhere(), 2)
    for number, deadline_ms in enumerate([50, None, 30, 40, 20]):
        lane.add(ticket(number, deadline_ms))
    assert [each.number for each in lane.startable()] == [0, 1]
    assert lane.next_deadline_ms == 20
    assert [each.number for each in lane.overdue(35, limit=10)] == [4, 2]
    assert [each.number for each in lane.overdue(100, limit=10)] == [3]
    assert lane.next_deadline_ms is None
    assert not lane.ended
    lane.open = 0
    assert lane.ended
    await trio.lowlevel.checkpoint()


async def test_the_heap_forgets_what_was_begun() -> None:
    lane = Lane(Everywhere(), 10**9)
    for number in range(10_000):
        lane.add(ticket(number, 10**6 + number))
        assert len(list(lane.startable())) == 1
    assert len(lane._deadlines) < 100
    lane.put_back(ticket(7, 1))
    assert lane.next_deadline_ms is None
    await trio.lowlevel.checkpoint()
