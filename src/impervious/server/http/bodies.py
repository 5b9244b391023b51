"""Request bodies while they arrive: bounded in size and time, in all and for each address.

When there is no room for more, the body that has been under way for longest gives way: clients that stall cannot keep
others out. Bodies of loopback are bounded in all only, because everybody behind a proxy comes from there.
"""

import logging
from collections import Counter
from typing import Final

import trio
from grpclib.const import Status

from impervious.log_limit import LimitedLog
from impervious.rpc import client_of, fair_share
from impervious.server.convert import Problem
from impervious.server.http.asgi import HttpCall, Receive

_limited = LimitedLog(logging.getLogger(__name__))

ALL_BYTES: Final = 64 << 20
"""Of all bodies that are arriving: what gRPC is allowed too."""
BODY_S: Final = 60.0
"""How long a body may take to arrive, in seconds."""
PATIENCE_S: Final = 10.0
"""How long a body may take before its rate matters, in seconds."""
SLOWEST_BYTES_PER_S: Final = 8 << 10
"""Slower than this on average is too slow."""
_SHOWN: Final = 40
"""Characters of a header that are repeated."""


class BodyRefused(Exception):
    """A body is not taken.

    Attributes:
      problem: the answer.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Arriving:
    """A body."""

    def __init__(self, client: str | None) -> None:
        self.client = client
        self.data = bytearray()
        self.began = trio.current_time()
        self.scope = trio.CancelScope(deadline=self.began + PATIENCE_S)
        self.gave_way = False

    def extend(self, chunk: bytes) -> None:
        self.data += chunk
        allowed = min(BODY_S, PATIENCE_S + len(self.data) / SLOWEST_BYTES_PER_S)
        self.scope.deadline = self.began + allowed


class Bodies:
    """All bodies that are arriving.

    Args:
      largest: bytes of the largest that is taken.
      all_bytes: of all together.
    """

    def __init__(self, *, largest: int, all_bytes: int = ALL_BYTES) -> None:
        self._largest = largest
        self._all_bytes = max(all_bytes, largest)
        self._client_bytes = max(fair_share(all_bytes), largest)
        self._arriving: dict[_Arriving, None] = {}
        """In the order in which they began."""
        self._used = 0
        self._used_by: Counter[str] = Counter()

    @property
    def used_bytes(self) -> int:
        """What is held at this moment."""
        return self._used

    async def read(self, call: HttpCall, receive: Receive) -> bytes | None:
        """Read a body to its end.

        Returns:
          The body; None: the client has left.

        Raises:
          BodyRefused: it is encoded, too large or too slow, or there is no room.
        """
        host = call.peer.rpartition(":")[0]
        coding = call.headers.get("content-encoding", "")
        if coding.lower() not in ("", "identity"):
            text = f"the body has Content-Encoding {coding[:_SHOWN]!r}: send it without"
            raise self._refused(host, Problem(code=Status.INVALID_ARGUMENT, message=text, status=415))
        declared = call.headers.get("content-length", "")
        if (declared.isdigit() and len(declared) > _DIGITS) or int(declared or 0) > self._largest:
            raise self._refused(host, self._too_large())
        body = _Arriving(client_of(host))
        self._arriving[body] = None
        try:
            with body.scope:
                return await self._read(body, receive, host)
        finally:
            self._forget(body)
        if body.gave_way:
            text = "too many requests are arriving at the same time, and this one has taken longest: try again later"
            raise self._refused(host, Problem(code=Status.UNAVAILABLE, message=text))
        taken = trio.current_time() - body.began
        text = f"the body did not arrive in time: {len(body.data)} bytes in {taken:.0f} s"
        raise self._refused(host, Problem(code=Status.DEADLINE_EXCEEDED, message=text, status=408))

    async def _read(self, body: _Arriving, receive: Receive, host: str) -> bytes | None:
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return None
            chunk = event["body"]
            if len(body.data) + len(chunk) > self._largest:
                raise self._refused(host, self._too_large())
            body.extend(chunk)
            self._make_room(body, len(chunk), host)
            if not event["more_body"]:
                return bytes(body.data)

    def _make_room(self, body: _Arriving, size: int, host: str) -> None:
        self._used += size
        client = body.client
        if client is not None:
            self._used_by[client] += size
            if self._used_by[client] > self._client_bytes:
                text = "too many bytes of requests are arriving from this address: send fewer at the same time"
                raise self._refused(host, Problem(code=Status.RESOURCE_EXHAUSTED, message=text))
        while self._used > self._all_bytes:
            oldest = next(iter(self._arriving))
            oldest.gave_way = True
            self._forget(oldest)
            oldest.scope.cancel()

    def _forget(self, body: _Arriving) -> None:
        if body in self._arriving:
            del self._arriving[body]
            self._used -= len(body.data)
            if body.client is not None:
                self._used_by[body.client] -= len(body.data)
                if not self._used_by[body.client]:
                    del self._used_by[body.client]

    def _too_large(self) -> Problem:
        text = f"the body has more than {self._largest} bytes: send less (message.max_bytes bounds a message)"
        return Problem(code=Status.INVALID_ARGUMENT, message=text, status=413)

    def _refused(self, host: str, found: Problem) -> BodyRefused:
        _limited.warning("%s: a body was refused: %s", host, found.message, kind=str(found.http_status))
        return BodyRefused(found)


_DIGITS: Final = 18
