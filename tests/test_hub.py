from uuid import UUID

import pytest
import trio

from impervious.hub import Hub
from impervious.model import Event, EventKind, ServiceType
from impervious.units import Msat


def event(seq: int) -> Event:
    return Event(
        seq=seq,
        kind=EventKind.NOTICE,
        id=UUID(int=seq),
        reply_to=None,
        sender=None,
        service_type=ServiceType("message"),
        topic=ServiceType("message"),
        data=b"",
        amount=Msat(0),
        sent_at_ms=0,
        verified=False,
    )


async def test_two_wake_ups_before_a_look_are_one() -> None:
    hub = Hub()
    with hub.waiting_for("a", "b") as wakes:
        hub.wake("a")
        hub.wake("b")
        hub.wake("other")
        await wakes.receive()
        with pytest.raises(trio.WouldBlock):
            wakes.receive_nowait()
    hub.wake("a")  # nobody waits any more


def test_a_full_feed_is_closed_and_can_be_drained() -> None:
    hub = Hub()
    with hub.live(2) as slow, hub.live(10) as quick:
        hub.publish([event(seq) for seq in (1, 2, 3)], set())
        assert [slow.receive_nowait().seq for _ in range(2)] == [1, 2]
        with pytest.raises(trio.EndOfChannel):
            slow.receive_nowait()
        assert [quick.receive_nowait().seq for _ in range(3)] == [1, 2, 3]


async def test_a_commit_wakes_the_topics_it_names() -> None:
    hub = Hub()
    with hub.waiting_for("outbound") as wakes:
        hub.publish([], {"outbound"})
        await wakes.receive()
