"""One session: two sides, the watch at their doors, and its end.

Opening is not a task's business: a `Session` that exists has both ports open, or there is none and nothing is open.
"""

import logging
import secrets
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import Final, NoReturn
from uuid import UUID, uuid4

import trio

from .admission import Admission, FirstCome
from .allowance import Allowance
from .carrier import Carrier
from .handshake import TokenBearer
from .side import Answered, Side
from .sockets import Door
from .values import CloseReason, Fact, Moved, Opened, Paired, SessionOptions, SessionStatistics, Token

logger = logging.getLogger(__name__)

PATROL_S: Final = 0.02
"""Pause at a door after a burst of strangers: a flood of them costs 3200 looks a second, the rest the kernel drops."""


class Session:
    """Two open ports, and what goes between them.

    Args:
      name: what it is called, among the sessions of a relay.
      options: how it behaves.
      carrier: where its links are carried.
      our_ports: ports of all sessions of the relay, this one's too, as they come and go.

    Attributes:
      id: tells it from others that had or will have its name.
      opened: the first fact about it.
      announced: whether that has been told; not if it was stopped at once.

    Raises:
      FailedPrecondition: a port cannot be opened; says which and why. Nothing is left open.
      ResourceExhausted: no more files may be open. Nothing is left open.

    *Ownership:* has sockets until `serve` returns; call `close` if `serve` is never called.
    """

    def __init__(self, name: str, options: SessionOptions, carrier: Carrier, our_ports: AbstractSet[int]) -> None:
        self.name = name
        self.id: UUID = uuid4()
        self.options = options
        self._opened_at = trio.current_time()
        self._tokens = (_token(), _token()) if options.require_token else None
        self._sides = _open_sides(options, self._tokens, carrier, our_ports)
        self.opened = Opened(session=name, id=self.id, ports=self.ports)
        self.announced = False
        self._reason = CloseReason.STOPPED
        self._running = trio.CancelScope()
        self._ended = trio.Event()
        self._last: SessionStatistics | None = None

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of side 1 and side 2."""
        first, second = self._sides
        return first.door.port, second.door.port

    @property
    def tokens(self) -> tuple[Token, Token] | None:
        """The secrets of side 1 and side 2; None if they need none."""
        return self._tokens

    def statistics(self) -> SessionStatistics:
        """Count up to now, or up to its end."""
        if self._last is not None:
            return self._last
        now = trio.current_time()
        first, second = self._sides
        return SessionStatistics(
            session=self.name,
            id=self.id,
            age_s=now - self._opened_at,
            sides=(first.statistics(now), second.statistics(now)),
        )

    async def stop(self) -> None:
        """End it; returns when its ports are free. Ending it again changes nothing.

        Cancellation: stops waiting, not ending.
        """
        self._running.cancel()
        await self._ended.wait()
        await trio.lowlevel.checkpoint()

    async def serve(self, facts: trio.MemorySendChannel[Fact]) -> CloseReason:
        """Relay until nothing is heard any more, or `stop`.

        Args:
          facts: where news goes. If nobody takes it, doors wait; what is carried does not.

        Cancellation: ends it.
        """
        try:
            logger.info("%s: relaying between UDP ports %d and %d", self.name, *self.ports)
            with self._running:
                await facts.send(self.opened)
                self.announced = True
                async with trio.open_nursery() as watch:
                    for number, side in enumerate(self._sides, start=1):
                        watch.start_soon(self._watch, number, side, facts)
                    await self._until_silent()
                    self._reason = CloseReason.IDLE
                    self._running.cancel()
        finally:
            self.close()
            logger.info("%s: relay closed (%s)", self.name, self._reason.value)
        return self._reason

    def close(self) -> None:
        """Give all sockets back."""
        self._last = self.statistics()
        for side in self._sides:
            side.close()
        self._ended.set()

    async def _watch(self, number: int, side: Side, facts: trio.MemorySendChannel[Fact]) -> NoReturn:
        """Let endpoints in at one side's door."""
        while True:
            await trio.lowlevel.wait_readable(side.door.sock)
            had_link = side.link is not None
            answered = side.answer(trio.current_time())
            if answered is Answered.ADMITTED:
                await self._announce(number, facts, moved=had_link)
            elif answered is Answered.STRANGERS:
                await trio.sleep(PATROL_S)

    async def _announce(self, number: int, facts: trio.MemorySendChannel[Fact], *, moved: bool) -> None:
        first, second = (side.link.endpoint if side.link else None for side in self._sides)
        endpoint = (first, second)[number - 1]
        logger.info("%s: endpoint %d is %s", self.name, number, endpoint)
        if moved and endpoint:
            await facts.send(Moved(session=self.name, id=self.id, side=number, endpoint=endpoint))
        elif first and second:
            await facts.send(Paired(session=self.name, id=self.id, endpoints=(first, second)))

    async def _until_silent(self) -> None:
        # The deadline moves with each datagram; an event for each would cost more than looking again at its old place.
        while (silent_at := self._heard_at() + self.options.idle_timeout_s) > trio.current_time():  # noqa: ASYNC110
            await trio.sleep_until(silent_at)

    def _heard_at(self) -> float:
        return max(side.link.heard_at if side.link else self._opened_at for side in self._sides)


def _token() -> Token:
    return Token(secrets.token_bytes(32))


def _open_sides(
    options: SessionOptions, tokens: tuple[Token, Token] | None, carrier: Carrier, our_ports: AbstractSet[int]
) -> tuple[Side, Side]:
    allowance = Allowance(packets_per_s=options.packets_per_s, bytes_per_s=options.bytes_per_s, now=trio.current_time())

    def admission(number: int) -> Admission:
        if tokens is None:
            return FirstCome(options.replace_after_s)
        return TokenBearer(tokens[number], secrets.token_bytes(32))

    doors: list[Door] = []
    with ExitStack() as opened:
        for port in options.ports:
            doors.append(Door.open(options.bind, port))
            opened.enter_context(doors[-1].sock)
        opened.pop_all()
    first, second = (Side(door, admission(number), allowance, carrier, our_ports) for number, door in enumerate(doors))
    first.other, second.other = second, first
    return first, second
