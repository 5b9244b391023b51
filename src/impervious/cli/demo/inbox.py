"""What a daemon shows on its websocket, from outside: told as it comes, and waited for by the steps of the tour."""

import json
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from impervious.errors import ImperviousError

KEPT: Final = 16
"""Events; a step waits for the newest ones only."""
STATUS: Final = "status"


class StreamEnded(ImperviousError):
    """A daemon closed its websocket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An event as the websocket carries it (websocket.SubscribeResponse)."""

    id: str
    reply_to: str
    from_pubkey: str
    service: str
    data: bytes
    amount_sat: int

    @classmethod
    def read(cls, frame: str | bytes) -> "Arrival":
        """Read a frame.

        Raises:
          StreamEnded: it is the error that ends a stream.
        """
        message = json.loads(frame)
        if "result" not in message:
            raise StreamEnded(f"the stream ended: {message['error']['message']}")
        event = message["result"]
        return cls(
            id=event["id"],
            reply_to=event["replyToId"],
            from_pubkey=event["fromPubkey"],
            service=event["serviceType"],
            data=b64decode(event["data"]),
            amount_sat=int(event["amount"]),
        )


class Inbox:
    """The newest events of a daemon.

    Args:
      hear: told each event as it comes.
    """

    def __init__(self, hear: Callable[[Arrival], None]) -> None:
        self._hear = hear
        self._seen: deque[Arrival] = deque(maxlen=KEPT)
        self._news = trio.Event()

    async def watch(self, websocket: WebSocketConnection) -> None:
        """Read a websocket for as long as it is open.

        Raises:
          StreamEnded: the daemon closed it.
        """
        try:
            while True:
                self.add(Arrival.read(await websocket.get_message()))
        except ConnectionClosed as closed:
            reason = closed.reason.reason if closed.reason else None
            raise StreamEnded(f"the websocket was closed: {reason or 'no reason was given'}") from closed

    def add(self, arrival: Arrival) -> None:
        """Take an event, and tell who listens and who waits."""
        self._seen.append(arrival)
        self._hear(arrival)
        self._news.set()
        self._news = trio.Event()

    def latest(self, service: str) -> Arrival | None:
        """The newest event of a service that is still kept."""
        return next((arrival for arrival in reversed(self._seen) if arrival.service == service), None)

    async def wait_for(self, wanted: Callable[[Arrival], bool]) -> Arrival:
        """Wait for an event; one that came shortly before counts."""
        while True:
            news = self._news
            for arrival in self._seen:
                if wanted(arrival):
                    await trio.lowlevel.checkpoint()
                    return arrival
            await news.wait()
