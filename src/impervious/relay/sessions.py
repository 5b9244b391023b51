"""Sessions by name, and the news about them: the face of this room.

Facts of all sessions come out of one channel, in order. A reader that is late holds up only facts: doors wait to let
new endpoints in, while what is carried goes on.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Final

import trio

from impervious.background import Tasks, open_tasks
from impervious.errors import AlreadyExists, NotFound

from .carrier import Carrier
from .session import Session
from .values import Closed, Fact, SessionOptions, SessionStatistics

FACTS_SIZE: Final = 16
"""Facts that wait for the reader: a session has three or four in its life. Beyond it sessions wait, nothing is lost."""


class Relay:
    """Relays between pairs of UDP ports.

    Attributes:
      facts: what happens, in order; one reader.
    """

    def __init__(
        self,
        carrier: Carrier,
        tasks: Tasks,
        news: trio.MemorySendChannel[Fact],
        facts: trio.MemoryReceiveChannel[Fact],
    ) -> None:
        self._carrier = carrier
        self._tasks = tasks
        self._sessions: dict[str, Session] = {}
        self._ports: set[int] = set()
        self._news = news
        self.facts = facts

    def open(self, name: str, options: SessionOptions) -> Session:
        """Open a session; it can be used at once.

        Args:
          name: what `session` and `stop` call it.
          options: how it behaves.

        Raises:
          AlreadyExists: a session has that name.
          FailedPrecondition: a port cannot be opened; says which and why. Nothing is left open.
          ResourceExhausted: no more files may be open.
          trio.ClosedResourceError: this relay has ended.
        """
        self.check_free(name)
        session = Session(name, options, self._carrier, self._ports)
        try:
            self._tasks.start_soon(self._serve, session)
        except BaseException:
            session.close()  # now, and not when the garbage collector comes to it
            raise
        self._sessions[name] = session
        self._ports.update(session.ports)
        return session

    def check_free(self, name: str) -> None:
        """Refuse a name that a session has.

        Raises:
          AlreadyExists: says where that session is.
        """
        if name in self._sessions:
            first, second = self._sessions[name].ports
            raise AlreadyExists(f"session {name!r} is open already, on UDP ports {first} and {second}: stop it first")

    def session(self, name: str) -> Session:
        """Find an open session.

        Raises:
          NotFound: none has that name.
        """
        try:
            return self._sessions[name]
        except KeyError:
            raise NotFound(f"no session {name!r} is open: start it first") from None

    def sessions(self) -> tuple[Session, ...]:
        """All open sessions, oldest first."""
        return tuple(self._sessions.values())

    async def stop(self, name: str) -> SessionStatistics:
        """End a session; returns its last counters when its ports are free.

        Raises:
          NotFound: none has that name.

        Cancellation: stops waiting, not ending.
        """
        session = self.session(name)
        await session.stop()
        return session.statistics()

    def statistics(self) -> tuple[SessionStatistics, ...]:
        """Count all open sessions."""
        return tuple(session.statistics() for session in self.sessions())

    async def _serve(self, session: Session) -> None:
        ports = session.ports
        try:
            reason = await session.serve(self._news)
        finally:
            del self._sessions[session.name]
            self._ports.difference_update(ports)
        if not session.announced:
            await self._news.send(session.opened)
        await self._news.send(
            Closed(session=session.name, id=session.id, reason=reason, statistics=session.statistics())
        )


@asynccontextmanager
async def open_relay() -> AsyncIterator[Relay]:
    """Run a relay, without sessions at first, for as long as the block does.

    Cancellation: ends all sessions.
    """
    news, facts = trio.open_memory_channel[Fact](FACTS_SIZE)
    with closing(Carrier()) as carrier, news, facts:
        async with open_tasks() as tasks:
            tasks.start_soon(carrier.run)
            yield Relay(carrier, tasks, news, facts)
