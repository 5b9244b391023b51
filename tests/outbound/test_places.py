"""Places for payments: of one recipient, of all, and of slow ones."""

import pytest
import trio

from impervious.model import PaymentHash
from impervious.outbound.places import MAX_IN_FLIGHT, MAX_SLOW_PER_PEER, Everywhere, Places


def name(number: int) -> PaymentHash:
    return PaymentHash(number.to_bytes(32, "big"))


async def test_a_wait_that_is_left_takes_nothing() -> None:
    everywhere = Everywhere()
    first, second = Places(everywhere, MAX_IN_FLIGHT), Places(everywhere, 1)
    for number in range(MAX_IN_FLIGHT):
        await first.take(name(number))
    with trio.move_on_after(0.01) as scope:
        await second.take(name(1_000))
    assert scope.cancelled_caught
    assert second.taken == 0
    first.give_back(name(0))
    first.give_back(name(0))  # twice is as good as once
    await second.take(name(1_001))
    assert second.has(name(1_001))


async def test_slow_payments_give_their_places_to_others() -> None:
    places = Places(Everywhere(), 1)
    for number in range(MAX_SLOW_PER_PEER):
        await places.take(name(number))
        assert places.make_slow(name(number))
    await places.take(name(1_000))
    assert not places.make_slow(name(1_000))
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
        await places.take(name(1_001))
    places.give_back(name(0))
    assert places.make_slow(name(1_000))
    await places.take(name(1_001))
    assert places.taken == MAX_SLOW_PER_PEER + 1
