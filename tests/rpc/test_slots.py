import pytest
import trio
import trio.testing

from impervious.rpc.slots import PATIENCE_S, Full, Slots, client_of, fair_share


class Place:
    """A connection that waits for its client, or not."""

    def __init__(self, waiting_since: float | None) -> None:
        self.waiting_since = waiting_since
        self.ended = False

    def give_way(self) -> None:
        self.ended = True


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("/run/socket", None),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_counts_as_one(host: str, client: str | None) -> None:
    assert client_of(host) == client


def test_a_share_is_something() -> None:
    assert (fair_share(1), fair_share(100)) == (1, 25)


async def test_the_longest_waiting_gives_way(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(3, 0)
    await trio.sleep(100)
    works, waits, waits_longer = Place(None), Place(50.0), Place(40.0)
    for place in (works, waits, waits_longer):
        assert slots.take(place, "127.0.0.1") is None
    assert slots.take(Place(None), "127.0.0.1") is None
    assert (works.ended, waits.ended, waits_longer.ended) == (False, False, True)
    slots.give_back(waits_longer)  # its own task does so too, when it ends
    assert len(slots) == 3
    assert slots.take(Place(None), "127.0.0.1") is None
    assert str(full := slots.take(Place(None), "127.0.0.1")) == "in all"
    assert full == Full(3)
    assert not works.ended


async def test_nothing_gives_way_at_once(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1, 0)
    fresh = Place(trio.current_time())
    assert slots.take(fresh, None) is None
    assert slots.take(Place(None), None) == Full(1)
    await trio.sleep(PATIENCE_S)
    assert slots.take(Place(None), None) is None
    assert fresh.ended


async def test_one_address_cannot_take_all(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(10, 2)
    await trio.lowlevel.checkpoint()
    greedy = [Place(None) for _ in range(2)]
    for place in greedy:
        assert slots.take(place, "192.0.2.1") is None
    assert "limits.connections_per_address" in str(slots.take(Place(None), "192.0.2.1"))
    assert slots.take(Place(None), "192.0.2.2") is None
    for _ in range(5):
        assert slots.take(Place(None), "127.0.0.1") is None
    slots.give_back(greedy[0])
    assert slots.take(Place(None), "192.0.2.1") is None
    assert slots.of("192.0.2.1") == 2
