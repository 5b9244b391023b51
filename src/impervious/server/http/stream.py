"""The event stream over HTTP: websocket, server-sent events, and lines of JSON.

One loop reads a subscription and hands ready bytes to an outlet. Frames are made once and shared (`server.frames`), and
what has come while the client was busy leaves in one write, so the cost of a subscriber is little more than its write.
A client that does not read holds up its own write only: its subscription falls back on the log.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import trio
from grpclib.const import Status

from impervious.events import Subscription
from impervious.server.closing import Closing
from impervious.server.convert import Problem, problem
from impervious.server.feed import BATCH, Feed
from impervious.server.frames import (
    PING,
    SSE_BEGIN,
    SSE_KEEPALIVE,
    Encoder,
    Framing,
    Shape,
    frame_problem,
)
from impervious.server.http.asgi import (
    JSON_HEADERS,
    Headers,
    HttpCall,
    Receive,
    Send,
    body_message,
    frames_message,
    refuse,
    start_message,
)
from impervious.server.options import Query, Watch

IDLE_S: Final = 30.0
"""Silence after which a client is shown that we are still here."""
WRITE_BYTES: Final = 64 << 10
"""Bytes written at a time, unless one frame is larger: bounds what a slow client makes us hold."""
FAREWELL_S: Final = 1.0
"""How long a websocket client has for its half of the closing handshake."""

POSITION: Final = b"impervious-seq"
"""Header of the answer: the `seq` behind which the stream begins. With it a client that asked for live events only, and
has seen none when its connection breaks, can go on where it was."""
EPOCH: Final = b"impervious-epoch"
"""Header of the answer on `v=2` streams: which history the `seq` numbers belong to. Another one than a client knows
says that the database was restored from a backup, and that the client's `seq` may mean another event."""

_GOING_AWAY: Final = 1001
_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
_TRY_AGAIN_LATER: Final = 1013
"""Close codes (RFC 6455, section 7.4.1, and the IANA registry)."""


class Outlet(Protocol):
    """A way to a client."""

    framing: Framing

    async def open(self, position: int | None = None, epoch: str = "") -> None:
        """Tell the client that it is subscribed, behind which `seq`, and in which epoch."""
        ...

    async def send(self, frames: bytes) -> None:
        """Send whole frames."""
        ...

    async def keep_alive(self) -> None:
        """Show that we are still here."""
        ...

    async def fail(self, problem: Problem) -> None:
        """End with an error, also before it was opened."""
        ...

    async def finish(self) -> None:
        """End because the daemon stops."""
        ...


class Streams:
    """`/v1/subscribe`.

    Args:
      feed: what it is made from.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def serve(self, call: HttpCall, receive: Receive, send: Send) -> None:
        """Serve a subscriber until it leaves, the daemon stops, or the stream fails."""
        outlet = _outlet(call, send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave_when_gone, receive, nursery.cancel_scope)
            await self._run(call, outlet)
            nursery.cancel_scope.cancel()

    async def _run(self, call: HttpCall, outlet: Outlet) -> None:
        try:
            feed = self._feed
            feed.config.require_active()
            asked = Watch.of_query(Query(call.query), call.headers, default=call.encoding, known_types=feed.known_types)
            # First the subscription, then the word that it stands: whatever the client causes then is on its stream.
            async with feed.open(asked) as (watch, subscription):
                await outlet.open(subscription.position, subscription.epoch if watch.extended else "")
                if call.method != "HEAD":
                    shape = Shape(outlet.framing, watch.encoding, watch.published, watch.secrets, watch.extended)
                    await Pump(subscription, watch, feed.frames.encoder(shape), outlet).run(feed.closing)
        except Exception as error:  # a subscriber must always be told why its stream ends
            await outlet.fail(problem(error, call.path))
        else:
            await outlet.finish()


class Pump:
    """Carries events from a subscription to a client.

    Args:
      subscription: read by nobody else.
      watch: what the client wants to see.
      encode: gives an event its shape.
      outlet: the way to the client.
    """

    def __init__(self, subscription: Subscription, watch: Watch, encode: Encoder, outlet: Outlet) -> None:
        self._subscription = subscription
        self._shows = watch.shows
        self._encode = encode
        self._outlet = outlet
        self._last = trio.current_time()
        """When the client was last shown that we are here."""

    async def run(self, closing: Closing) -> None:
        """Carry until it is time to end.

        The scope that bounds the waiting is renewed when it has run out, not for each event: most of what an event
        costs would be that.

        Raises:
          OutOfRange: the log was pruned faster than the client reads.
          StoreError: the log cannot be read.

        Cancellation: loses nothing that is being sent, because the server finishes a write that it has begun.
        """
        while not closing.begun:
            with closing.wait(self._last + IDLE_S - trio.current_time()):
                await self._carry()
            if not closing.begun and trio.current_time() >= self._last + IDLE_S:
                await self._outlet.keep_alive()
                self._last = trio.current_time()

    async def _carry(self) -> None:
        while True:
            events = self._subscription.receive_ready(BATCH) or [await self._subscription.receive()]
            for frames in gathered([self._encode(event) for event in events if self._shows(event)]):
                await self._outlet.send(frames)
            self._last = trio.current_time()


def gathered(frames: Sequence[bytes]) -> Iterable[bytes]:
    """Join frames up to what is written at a time."""
    return frames if len(frames) <= 1 else _joined(frames)


def _joined(frames: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for frame in frames:
        if parts and size + len(frame) > WRITE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(frame)
        size += len(frame)
    if parts:
        yield parts[0] if len(parts) == 1 else b"".join(parts)


async def _leave_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Read and ignore what the client sends, and end its stream when it has left."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass
    scope.cancel()


def _outlet(call: HttpCall, send: Send) -> Outlet:
    if call.is_websocket:
        return WebsocketOutlet(send)
    if _takes_events(call.headers.get("accept", "")):
        return SseOutlet(send)
    return LinesOutlet(send)


def _takes_events(accept: str) -> bool:
    """Whether one of the media types that a client lists is that of server-sent events, and not with weight 0."""
    for each in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in each.split(";"))
        if media_type == "text/event-stream":
            return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", parameter) for parameter in parameters)
    return False


# --- Ways to a client -------------------------------------------------------------------------------------------------


class WebsocketOutlet:
    """One text frame an event."""

    framing = Framing.WEBSOCKET

    def __init__(self, send: Send) -> None:
        self._send = send
        self._accepted = False

    async def open(self, position: int | None = None, epoch: str = "") -> None:
        """Upgrade."""
        self._accepted = True
        await self._send(
            {"type": "websocket.accept", "subprotocol": None, "headers": _position_headers(position, epoch)}
        )

    async def send(self, frames: bytes) -> None:
        """Send frames as they are."""
        await self._send(frames_message(frames))

    async def keep_alive(self) -> None:
        """Ping; the pong is read and ignored, but a dead connection shows itself."""
        await self._send(frames_message(PING))

    async def fail(self, problem: Problem) -> None:
        """Upgrade all the same: a browser's page sees frames and close codes, but no HTTP status."""
        if not self._accepted:
            await self.open()
        await self.send(frame_problem(problem, self.framing))
        await self._close(_close_code(problem.code), problem.message)

    async def finish(self) -> None:
        """Close with "going away"."""
        await self._close(_GOING_AWAY, "the daemon is stopping")

    async def _close(self, code: int, reason: str) -> None:
        # A close frame has 125 bytes, two of which are the code.
        short = reason.encode()[:120].decode("utf-8", "ignore")
        await self._send({"type": "websocket.close", "code": code, "reason": short})
        with trio.move_on_after(FAREWELL_S):
            await trio.sleep_forever()  # the client's answer ends all of this


class _BodyOutlet:
    """A response whose body goes on."""

    framing = Framing.LINES
    content_type = b"application/json"

    def __init__(self, send: Send) -> None:
        self._send = send
        self._opened = False

    async def open(self, position: int | None = None, epoch: str = "") -> None:
        """Send the headers at once, so that the client knows."""
        self._opened = True
        headers: Headers = [
            (b"content-type", self.content_type),
            *JSON_HEADERS[1:],
            (b"x-accel-buffering", b"no"),
            *_position_headers(position, epoch),
        ]
        await self._send(start_message(200, headers))

    async def send(self, frames: bytes) -> None:
        """Send frames as they are."""
        await self._send(body_message(frames, more=True))

    async def keep_alive(self) -> None:
        """A line of JSON has no way to say nothing."""
        await trio.lowlevel.checkpoint()

    async def fail(self, problem: Problem) -> None:
        """Answer with the status of the error, or end with it what has begun."""
        if not self._opened:
            await refuse(self._send, problem, is_websocket=False)
            return
        await self.send(frame_problem(problem, self.framing))
        await self.finish()

    async def finish(self) -> None:
        """End the body."""
        await self._send(body_message(b""))


class LinesOutlet(_BodyOutlet):
    """One line of JSON an event."""


class SseOutlet(_BodyOutlet):
    """Server-sent events (HTML standard, section 9.2)."""

    framing = Framing.SSE
    content_type = b"text/event-stream"

    async def open(self, position: int | None = None, epoch: str = "") -> None:
        """Send the headers, how soon to come back, and where to go on then: an id without data is no event."""
        await super().open(position, epoch)
        await self.send(SSE_BEGIN if position is None else SSE_BEGIN + b"id: %d\n\n" % position)

    async def keep_alive(self) -> None:
        """Send a comment."""
        await self.send(SSE_KEEPALIVE)


def _position_headers(position: int | None, epoch: str) -> Headers:
    headers = [] if position is None else [(POSITION, b"%d" % position)]
    return [*headers, (EPOCH, epoch.encode())] if epoch else headers


def _close_code(code: Status) -> int:
    if code in (Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED):
        return _TRY_AGAIN_LATER
    return _INTERNAL_ERROR if code is Status.INTERNAL else _POLICY_VIOLATION
