"""Messages handed to a daemon: an Idempotency-Key lets a call be repeated, so an answer that got lost costs nothing.

A call is asked again when its answer did not come, never when the daemon has answered. Waiting for an outcome is the
same call once more with `wait`: the daemon knows the key, so it sends nothing and answers when the message has ended,
and a daemon that restarts meanwhile is asked again when it is back.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx2
import trio

from impervious.backoff import delays_s
from impervious.cli.client.answers import DaemonUnavailable
from impervious.cli.client.door import Door
from impervious.cli.client.rest import ANSWER_S, NoAnswer, Rest, facts_of, open_rest, text
from impervious.errors import ImperviousError

ASK_AGAIN_S: Final = 50.0
"""How long one call waits for an outcome: shorter than what proxies allow, and long enough to cost nothing."""
PATIENCE_S: Final = 60.0
"""How long a daemon may be away before we stop asking."""
FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 5.0
PIECE_BYTES: Final = 16 << 10
"""Of a body, between two looks at how far it is."""

_SEND: Final = "/v1/message/send?encoding=base64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is to be sent, as the REST door takes it."""

    body: bytes
    """JSON, its `msg` in base64."""
    key: str
    """Idempotency-Key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Sends messages through a daemon. Made by `open_calls`."""

    rest: Rest
    random: Callable[[], float]

    async def send(self, message: Message, *, uploaded: Callable[[int], None]) -> str:
        """Have a message accepted, and return its id.

        Args:
          message: to be sent.
          uploaded: told how many bytes of the body have left.

        Raises:
          DaemonUnavailable: nobody answers there, or LND cannot serve; nothing was sent.
          NoAnswer: the daemon went away before it answered, and did not come back.
          UsageError, DaemonRefused: the daemon's answer.
        """
        lost: NoAnswer | None = None
        began = trio.current_time()
        for delay_s in delays_s(first_s=FIRST_DELAY_S, cap_s=LONGEST_DELAY_S, random=self.random):
            try:
                return await self._post(message, uploaded=uploaded, wait=False, within_s=ANSWER_S)
            except NoAnswer as error:
                lost = error
            except DaemonUnavailable:
                if lost is None:
                    raise  # the very first call did not get there, or was refused
            if trio.current_time() - began > PATIENCE_S:
                raise lost
            await trio.sleep(delay_s)
        raise AssertionError("delays never end")  # pragma: no cover

    async def wait(self, message: Message) -> None:
        """Wait until a message that was accepted is delivered.

        Raises:
          DaemonRefused: it was not; says why.
          DaemonUnavailable: the daemon went away and did not come back. The message goes on when it does.

        Cancellation: stops waiting, not sending.
        """
        heard = trio.current_time()
        delays = self._delays()
        while True:
            try:
                await self._post(message, uploaded=_nothing, wait=True, within_s=ASK_AGAIN_S)
            except _StillWaiting:
                heard, delays = trio.current_time(), self._delays()
            except DaemonUnavailable:
                if trio.current_time() - heard > PATIENCE_S:
                    raise
                await trio.sleep(next(delays))
            else:
                return

    def _delays(self) -> Iterator[float]:
        return delays_s(first_s=FIRST_DELAY_S, cap_s=LONGEST_DELAY_S, random=self.random)

    async def _post(self, message: Message, *, uploaded: Callable[[int], None], wait: bool, within_s: float) -> str:
        headers = {
            "content-type": "application/json",
            "content-length": str(len(message.body)),
            "idempotency-key": message.key,
        }
        path = f"{_SEND}&wait=true" if wait else _SEND
        sent = trio.Event()
        body = _pieces(message.body, uploaded, sent)
        try:
            with trio.fail_after(within_s):
                answer = facts_of(await self.rest.request("POST", path, body, headers=headers))
        except trio.TooSlowError:
            if wait and sent.is_set():
                raise _StillWaiting from None
            raise NoAnswer(f"{self.rest.door.url} does not answer") from None
        return text(answer, "id")


class _StillWaiting(ImperviousError):
    """The daemon took the call, and the message has not ended."""


@asynccontextmanager
async def open_calls(
    door: Door,
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
    random: Callable[[], float] = random.random,
) -> AsyncIterator[Calls]:
    """Open a client for as long as the block runs.

    Args:
      door: of the daemon.
      transport: another way to it than TCP.
      random: numbers from 0 to 1, for the back-off.
    """
    async with open_rest(door, transport=transport) as rest:
        yield Calls(rest=rest, random=random)


async def _pieces(  # noqa: ASYNC124 - the client wants an asynchronous iterator
    body: bytes, uploaded: Callable[[int], None], sent: trio.Event
) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        uploaded(start)
        yield body[start : start + PIECE_BYTES]
    uploaded(len(body))
    sent.set()


def _nothing(_uploaded: int) -> None:
    return
