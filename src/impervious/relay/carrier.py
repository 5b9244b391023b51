"""One task that carries the datagrams of all links, in turns short enough for everything else in the loop.

A task for each socket would pay for a task switch and two system calls each time a datagram comes, and forty of them
woken together would empty forty sockets before Trio looks at anything else: with twenty busy sessions that took 40 ms
and more. So all links are in one selector, whose own file descriptor Trio watches. Each link that is ready gets a burst
in its turn, and after `TURN` datagrams everybody else in the loop gets theirs.
"""

import selectors
import socket
from typing import Final, NoReturn, Protocol

import trio

from .burst import BURST, Burst, open_burst

TURN: Final = 4 * BURST
"""Datagrams between two looks at the rest of the loop: about 1 ms."""


class Carried(Protocol):
    """What is behind a link."""

    def carry(self, now: float) -> int:
        """Take one burst from the link; says how many datagrams that was, at least 1."""


class Carrier:
    """Carries for links that come and go.

    Attributes:
      burst: the buffer that everything goes through.

    *Ownership:* has a file descriptor; close it when `run` has ended.
    """

    def __init__(self) -> None:
        self.burst: Burst = open_burst()
        self._selector = selectors.DefaultSelector()
        self._links: dict[socket.socket, Carried] = {}

    def add(self, sock: socket.socket, carried: Carried) -> None:
        """Carry from now on."""
        self._selector.register(sock, selectors.EVENT_READ)
        self._links[sock] = carried

    def remove(self, sock: socket.socket) -> None:
        """Carry no more; before the socket is closed."""
        self._selector.unregister(sock)
        del self._links[sock]

    def close(self) -> None:
        """Give the file descriptor back."""
        self._selector.close()

    async def run(self) -> NoReturn:
        """Carry until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            left, now = TURN, trio.current_time()
            # Everyone who was ready is served before anyone is served again, or the first ones would starve the last.
            for key, _ in self._selector.select(0):
                if left <= 0:
                    await trio.lowlevel.checkpoint()
                    left, now = TURN, trio.current_time()
                if isinstance(key.fileobj, socket.socket) and (carried := self._links.get(key.fileobj)):
                    left -= carried.carry(now)
