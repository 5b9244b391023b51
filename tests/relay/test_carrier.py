import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import trio

from impervious.relay.burst import BURST
from impervious.relay.carrier import TURN, Carrier

TURNS_WATCHED = 20


class Busy:
    """A link that always has a full burst waiting, and writes down when it is carried."""

    def __init__(self, number: int, served: list[int | None], *, datagrams: int = BURST) -> None:
        self.number = number
        self.served = served
        self.datagrams = datagrams

    def carry(self, now: float) -> int:
        self.served.append(self.number)
        return self.datagrams


@pytest.fixture
def ready_sockets() -> Iterator[list[socket.socket]]:
    """Ten sockets with a datagram that nobody takes, so that they are ready all the time."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(10)]
    for one, other in pairs:
        one.send(b"x")
        other.setblocking(False)
    yield [other for _, other in pairs]
    for pair in pairs:
        for sock in pair:
            sock.close()


class Turns(trio.abc.Instrument):
    """Notes each time that the loop has been through all tasks that were ready."""

    def __init__(self, served: list[int | None]) -> None:
        self.served = served

    def before_io_wait(self, timeout: float) -> None:
        self.served.append(None)


async def watch(carrier: Carrier, served: list[int | None]) -> None:
    turns = Turns(served)
    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carrier.run)
        for _ in range(TURNS_WATCHED):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(turns)


async def test_everybody_else_gets_a_turn_after_a_few_bursts(ready_sockets: list[socket.socket]) -> None:
    served: list[int | None] = []
    with closing(Carrier()) as carrier:
        for number, sock in enumerate(ready_sockets):
            carrier.add(sock, Busy(number, served))
        await watch(carrier, served)
    turns = [len(turn) for turn in split(served)]
    assert max(turns) == TURN // BURST


async def test_busy_links_are_served_in_turn(ready_sockets: list[socket.socket]) -> None:
    served: list[int | None] = []
    with closing(Carrier()) as carrier:
        for number, sock in enumerate(ready_sockets):
            carrier.add(sock, Busy(number, served))
        await watch(carrier, served)
    carried = [number for number in served if number is not None]
    assert len(carried) >= 20
    for start in range(0, len(carried) - 10, 10):
        assert sorted(carried[start : start + 10]) == list(range(10))


async def test_quiet_links_share_a_turn(ready_sockets: list[socket.socket]) -> None:
    served: list[int | None] = []
    with closing(Carrier()) as carrier:
        for number, sock in enumerate(ready_sockets):
            carrier.add(sock, Busy(number, served, datagrams=1))
        await watch(carrier, served)
    assert max(len(turn) for turn in split(served)) == 10


async def test_a_link_removed_while_its_turn_is_coming_is_not_carried(ready_sockets: list[socket.socket]) -> None:
    """A session may end while the carrier lets others run in the middle of a round."""
    served: list[int | None] = []
    others = ready_sockets[1:]

    class Ending(Busy):
        def carry(self, now: float) -> int:
            while others:
                carrier.remove(others.pop())
            return super().carry(now)

    with closing(Carrier()) as carrier:
        for number, sock in enumerate(others, start=1):
            carrier.add(sock, Busy(number, served, datagrams=TURN))
        carrier.add(ready_sockets[0], Ending(0, served))
        await watch(carrier, served)
    assert set(served[served.index(0) :]) == {0, None}


def split(served: list[int | None]) -> Iterator[list[int]]:
    turn: list[int] = []
    for number in served:
        if number is None:
            yield turn
            turn = []
        else:
            turn.append(number)
