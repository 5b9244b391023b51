"""The stream of a daemon, followed across disconnects: nothing is lost, and nothing shown twice.

One task connects, reads and hands each event over before it reads the next. The `seq` of the last event handed over is
where it goes on after a disconnect; before the first one it is what the daemon said when the stream began, so that not
even a client of live events misses what happens while it is away.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urlencode

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection

from impervious.background import background
from impervious.backoff import delays_s
from impervious.cli.client.answers import DaemonUnavailable, refusal, refusal_of_body, unreachable
from impervious.cli.client.door import Door
from impervious.cli.client.frames import StreamError, StreamEvent, read_frame
from impervious.cli.client.websocket import BROKEN, Dial, dial, open_websocket

FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 15.0
QUIET_S: Final = 45.0
"""After so long without an event the daemon is asked whether it is there: a machine that is gone says nothing."""
PONG_S: Final = 15.0
HEALTHY_S: Final = 30.0
"""A connection that stood this long is not part of a series of failures."""

_POSITION: Final = b"impervious-seq"
_BUSY: Final = 8
"""gRPC's RESOURCE_EXHAUSTED: too many subscribers, which passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What of the stream is followed."""

    since: int | None = None
    """Behind this `seq`; 0: everything kept; None: live."""
    service_types: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()

    def resource(self, since: int | None) -> str:
        """Path and query of the stream from `since` on."""
        pairs = [("v", "2"), ("encoding", "base64")]
        pairs += [("since", str(since))] if since is not None else []
        pairs += [("service_type", each) for each in self.service_types] + [("from", each) for each in self.senders]
        return "/v1/subscribe?" + urlencode(pairs)


@asynccontextmanager
async def follow(
    door: Door,
    watched: Watched,
    *,
    say: Callable[[str], None],
    opened: Callable[[], None] = lambda: None,
    patient: bool = False,
    dial: Dial = dial,
    random: Callable[[], float] = random.random,
) -> AsyncIterator[trio.MemoryReceiveChannel[StreamEvent]]:
    """Follow a daemon's stream for as long as the block runs.

    Args:
      door: of the daemon.
      watched: what to follow.
      say: told in one line of each disconnect, and that it is over.
      opened: told each time the stream stands: from the first time on nothing is missed.
      patient: whether to wait for a daemon that cannot be reached at first; later on it is always waited for.
      dial: how to reach it.
      random: numbers from 0 to 1, for the back-off.

    Raises:
      DaemonUnavailable: it cannot be reached at first.
      UsageError: it refuses what is asked.
      DaemonRefused: it ends the stream for good.
    """
    # 0: an event counts as handed over when the reader has it, and no sooner.
    send, receive = trio.open_memory_channel[StreamEvent](0)
    follower = _Follower(door, watched, send, say, opened, patient=patient, dial=dial, random=random)
    with send, receive:
        async with background(follower.run):
            yield receive


class _Follower:
    def __init__(
        self,
        door: Door,
        watched: Watched,
        send: trio.MemorySendChannel[StreamEvent],
        say: Callable[[str], None],
        opened: Callable[[], None],
        *,
        patient: bool,
        dial: Dial,
        random: Callable[[], float],
    ) -> None:
        self._door = door
        self._watched = watched
        self._send = send
        self._say = say
        self._tell_opened = opened
        self._patient = patient
        self._dial = dial
        self._random = random
        self._since = watched.since
        self._connected = False
        self._said = False
        """Whether the present absence was told."""

    async def run(self) -> NoReturn:
        """Connect again and again."""
        while True:
            for delay_s in delays_s(first_s=FIRST_DELAY_S, cap_s=LONGEST_DELAY_S, random=self._random):
                began = trio.current_time()
                try:
                    await self._connect()
                except DaemonUnavailable as gone:
                    if not (self._connected or self._patient):
                        raise
                    self._tell(f"{gone}; trying again")
                if self._connected and trio.current_time() >= began + HEALTHY_S:
                    break  # begin with short delays again
                await trio.sleep(delay_s)

    async def _connect(self) -> None:
        """Follow until the connection ends.

        Raises:
          DaemonUnavailable: it could not be made, or broke.
          ImperviousError: the daemon refuses, and would again.
        """
        resource = self._watched.resource(self._since)
        try:
            async with open_websocket(self._door, resource, dial=self._dial) as connection:
                await self._read(connection)
        except ConnectionRejected as error:
            raise refusal_of_body(error.body or b"", self._door, error.status_code) from error
        except (HandshakeError, *BROKEN) as error:
            raise unreachable(self._door, error) from error
        except ConnectionClosed as error:
            raise DaemonUnavailable(f"{self._door.url} has closed the stream") from error

    async def _read(self, connection: WebSocketConnection) -> NoReturn:
        self._opened(connection)
        while True:
            with trio.move_on_after(QUIET_S) as quiet:
                text = await connection.get_message()
            if quiet.cancelled_caught:
                with trio.fail_after(PONG_S):
                    await connection.ping()
                continue
            frame = read_frame(text)
            if isinstance(frame, StreamError):
                if frame.code == _BUSY:
                    raise DaemonUnavailable(frame.message)
                raise refusal(frame.code, frame.message)
            await self._hand_over(frame)

    def _opened(self, connection: WebSocketConnection) -> None:
        if self._since is None:
            headers = dict(connection.handshake_headers)
            self._since = int(headers[_POSITION]) if _POSITION in headers else None
        self._connected = True
        self._tell_opened()
        if self._said:
            self._say(f"{self._door.url} is back")
        self._said = False

    async def _hand_over(self, event: StreamEvent) -> None:
        if self._since is not None and event.seq <= self._since:
            await trio.lowlevel.checkpoint()
            return
        await self._send.send(event)
        self._since = event.seq

    def _tell(self, line: str) -> None:
        if not self._said:
            self._say(line)
        self._said = True
