"""Follows a daemon's events over a websocket, on Trio; a disconnect loses nothing and repeats nothing.

    python websocket_tail.py ws://127.0.0.1:8882 [SEQ]

Each event has a `seq`. After a disconnect the stream is asked for what came behind the last one, so the daemon may be
restarted, or the network be gone for a day. A program that must not forget across its own restarts stores `seq` with
the effect of the event, and starts with it as SEQ.
"""

import json
import sys
from base64 import b64decode
from contextlib import suppress
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

LARGEST_BYTES = 16 << 20  # the library's own limit is 1 MiB; a message may have 8, and base64 adds a third
LONGEST_DELAY_S = 15.0


class Tail:
    """A stream and how far it was read."""

    def __init__(self, url: str, since: int | None) -> None:
        self.url = url
        self.since = since
        self.delay_s = 0.5

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            since = "" if self.since is None else f"&since={self.since}"
            try:
                async with open_websocket_url(
                    f"{self.url}/v1/subscribe?encoding=base64&v=2{since}", max_message_size=LARGEST_BYTES
                ) as connection:
                    await self.read(connection)
            except (HandshakeError, ConnectionClosed) as error:
                print(f"away ({type(error).__name__}), back in {self.delay_s:g} s", file=sys.stderr, flush=True)
            await trio.sleep(self.delay_s)
            self.delay_s = min(LONGEST_DELAY_S, 2 * self.delay_s)

    async def read(self, connection: WebSocketConnection) -> None:
        """Show events until the connection ends."""
        if self.since is None:  # live: the daemon says where that is, in case we lose it before the first event
            self.since = int(dict(connection.handshake_headers)[b"impervious-seq"])
        while True:
            frame = json.loads(await connection.get_message())
            if "error" in frame:
                print(frame["error"]["message"], file=sys.stderr, flush=True)
                continue  # the connection ends now
            self.show(frame["result"])
            self.since, self.delay_s = int(frame["result"]["seq"]), 0.5

    def show(self, event: dict[str, Any]) -> None:
        """Print an event."""
        data = b64decode(event["data"]).decode(errors="backslashreplace")
        print(event["seq"], event["serviceType"], event["fromPubkey"][:10], data, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(Tail(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None).run)
