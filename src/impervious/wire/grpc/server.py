"""The server's side of a gRPC connection: requests in, answers out, and leaving without losing any.

What is no gRPC request never becomes a call: it is answered here. `drain` follows RFC 9113, 6.8: a first GOAWAY that
promises nothing yet and a ping; when the ping comes back no request can be under way any more, and a second GOAWAY
names the last one that will be handled. Calls that the peer takes back before they are answered are counted in
`early_ends`, for whoever holds the clock to judge (rapid reset, CVE-2023-44487).
"""

import math
from collections.abc import Collection, Sequence
from typing import Final

from grpclib.const import Status
from h2.errors import ErrorCodes
from h2.events import PingAckReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from hpack import NeverIndexedHeaderTuple

from .connection import Call, Connection
from .framing import ACCEPTED_ENCODINGS, GZIP, IDENTITY, Budget, Inbox
from .headers import (
    Header,
    Metadata,
    MetadataLike,
    decode_metadata,
    decode_timeout,
    encode_binary,
    encode_message,
    encode_metadata,
)
from .http2 import ALL_STREAMS, Tuning
from .status import STATUS_DETAILS, Outcome

_CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
_ANSWER: Final[tuple[Header, ...]] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
FRAMES_PER_CALL: Final = 4
"""A request may bring so many frames without content."""
MOST_EARNED: Final = 20_000.0
"""Frames without content, of those that our answers allow, for which the peer may be behind."""
_DRAIN_PING: Final = b"draining"


class ServerCall(Call):
    """One request as its handler sees it."""

    __slots__ = ("abandoned", "finished", "metadata", "path", "responded", "timeout_s", "user_agent")

    def __init__(self, stream_id: int, inbox: Inbox, path: str, metadata: Metadata) -> None:
        super().__init__(stream_id, inbox)
        self.path = path
        self.metadata = metadata
        self.timeout_s: float | None = None
        """What the client still allows for it, in seconds, counted from its arrival."""
        self.user_agent: str | None = None
        self.abandoned = False
        """The client took the call back; nobody waits for an answer."""
        self.responded = False
        """Initial metadata has been sent."""
        self.finished = False
        """The status has been sent, or need not be."""


class ServerConnection(Connection[ServerCall]):
    """One connection from a client.

    Args:
      tuning: sizes.
      budget: for unfinished requests.
      max_calls: open at once.
      control_burst: how many frames without content may come in one go, besides those that answer ours.
      control_per_s: how fast that allowance grows back.

    Attributes:
      early_ends: calls that the peer took back, or that were refused, since the connection began.
      draining: `drain` was called. From the second GOAWAY on `refusing` is true as well.
    """

    def __init__(
        self,
        tuning: Tuning,
        budget: Budget,
        *,
        max_calls: int,
        control_burst: float = math.inf,
        control_per_s: float = math.inf,
    ) -> None:
        super().__init__(tuning, budget, client_side=False, max_calls=max_calls)
        self._h2.control_left = self._control_burst = control_burst
        self._control_per_s = control_per_s
        self._last_at: float | None = None
        self._opened: list[ServerCall] = []
        self.early_ends = 0
        self._refused = 0
        self.draining = False
        self.refusing = False

    def receive(self, data: bytes, *, at: float = 0.0) -> Collection[ServerCall]:
        """Take in what the transport read; see `Connection.receive`."""
        since = at if self._last_at is None else self._last_at
        self._last_at = at
        left = self._h2.control_left
        if left < self._control_burst:
            self._h2.control_left = min(self._control_burst, left + (at - since) * self._control_per_s)
        else:  # earned by our answers: kept up to a point, because a client with many streams is behind by many
            self._h2.control_left = min(left, max(self._control_burst, MOST_EARNED))
        return super().receive(data, at=at)

    def take_opened(self) -> list[ServerCall]:
        """Requests that arrived since the last take, oldest first."""
        opened, self._opened = self._opened, []
        return opened

    def take_refused(self) -> int:
        """Count the requests since the last take that were answered with an error because of their headers."""
        refused, self._refused = self._refused, 0
        return refused

    # --- Answers ------------------------------------------------------------------------------------------------------

    def send_initial_metadata(self, call: ServerCall, metadata: MetadataLike | None = None) -> None:
        """Begin the answer. Nothing happens if it began or nobody waits for it."""
        if call.responded or call.closed:
            return
        headers = [*_ANSWER, *encode_metadata(metadata)] if metadata else _ANSWER
        call.responded = True
        self._send_headers(call.stream_id, headers, end=False)

    def finish(self, call: ServerCall, outcome: Outcome, metadata: MetadataLike | None = None) -> None:
        """End the answer with a status. Nothing happens if it ended or nobody waits for it."""
        if call.finished:
            return
        trailers: list[Header] = [] if call.responded else [*_ANSWER]
        trailers.append((b"grpc-status", b"%d" % outcome.status.value))
        if outcome.message:
            trailers.append(NeverIndexedHeaderTuple(b"grpc-message", encode_message(outcome.message)))
        if outcome.details:
            trailers.append(NeverIndexedHeaderTuple(STATUS_DETAILS, encode_binary(outcome.details)))
        trailers += encode_metadata(metadata)
        call.finished = True
        self._forget(call)
        self.discard_unread(call)
        if call.mid_message:
            # Trailers after half a message would not be gRPC.
            self._reset(call, ErrorCodes.CANCEL)
            return
        self._send_headers(call.stream_id, trailers, end=True)
        self._end_exchange(call)

    def abort(self, call: ServerCall, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End a call without a status."""
        call.finished = True
        self._forget(call)
        self.discard_unread(call)
        self._reset(call, code)

    def refuse(self, call: ServerCall) -> None:
        """Send a call back unseen; the client may try it elsewhere."""
        self.early_ends += 1
        self.abort(call, ErrorCodes.REFUSED_STREAM)

    def _end_exchange(self, call: ServerCall) -> None:
        """After a complete answer: tell a client that still sends that it can stop (RFC 9113, 8.1)."""
        if not call.peer_ended:
            self._reset(call, ErrorCodes.NO_ERROR)
        call.closed = True

    # --- Leaving ------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Ask the client to go elsewhere with new calls. Calls that it has sent already are still taken."""
        if not self.draining:
            self.draining = True
            self._send_goaway(ALL_STREAMS)
            self.ping(_DRAIN_PING)

    def expel(self, reason: str) -> None:
        """Tell the client why it is disconnected; the transport is to be closed after this is written."""
        self.draining = self.refusing = True
        self._send_goaway(self._h2.highest_inbound_stream_id, ErrorCodes.ENHANCE_YOUR_CALM, reason.encode())

    @property
    def done(self) -> bool:
        """Whether nothing more can happen here that anybody needs."""
        return not self.calls and (self.refusing or self.goaway is not None)

    def lose(self) -> Collection[ServerCall]:
        """The transport is gone: nobody waits for any answer.

        Returns:
          The calls that this concerns.
        """
        self.over = True
        abandoned = list(self.calls.values())
        for call in abandoned:
            self._abandon(call)
        return abandoned

    # --- Events -------------------------------------------------------------------------------------------------------

    def _on_headers(self, event: RequestReceived | ResponseReceived) -> None:
        ended = event.stream_ended is not None
        try:
            call, refusal = self._admit(event.stream_id, event.headers)
        except ValueError as error:
            call, refusal = None, _trailers_only(Status.INVALID_ARGUMENT, str(error))
        if refusal is None and call is not None and not self.refusing:
            call.peer_ended = ended
            self._h2.control_left += FRAMES_PER_CALL
            self.calls[event.stream_id] = call
            self._opened.append(call)
            return
        stray = ServerCall(event.stream_id, Inbox(0, self._budget), "", Metadata())
        stray.peer_ended = ended
        if refusal is None:
            self.refuse(stray)
        else:
            self._refused += 1
            self._send_headers(event.stream_id, refusal, end=True)
            self._end_exchange(stray)

    def _admit(
        self, stream_id: int, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[ServerCall | None, Sequence[Header] | None]:
        """Read a request: a call, or the header list that answers it.

        Raises:
          ValueError: metadata or grpc-timeout are malformed.
        """
        known: dict[bytes, bytes] = {}
        for name, value in headers:
            known.setdefault(name, value)
        if known.get(b":method") != b"POST":
            return None, ((b":status", b"405"), (b"allow", b"POST"))
        if known.get(b"content-type", b"").partition(b";")[0].strip() not in _CONTENT_TYPES:
            return None, ((b":status", b"415"), (b"accept-post", b"application/grpc"))
        encoding = known.get(b"grpc-encoding", IDENTITY)
        if encoding not in (IDENTITY, GZIP):
            refusal = _trailers_only(Status.UNIMPLEMENTED, "only gzip and identity are understood as grpc-encoding")
            return None, [*refusal, (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)]
        inbox = Inbox(self._tuning.message_bytes, self._budget, encoding)
        path = known.get(b":path", b"").decode("ascii", "replace")
        call = ServerCall(stream_id, inbox, path, decode_metadata(headers))
        timeout = known.get(b"grpc-timeout")
        call.timeout_s = None if timeout is None else decode_timeout(timeout)
        agent = known.get(b"user-agent")
        call.user_agent = None if agent is None else agent.decode("ascii", "replace")
        return call, None

    def _on_trailers(self, event: TrailersReceived) -> None:
        """Clients send none in gRPC; should one do so, its end counts and its content does not."""

    def _on_stream_ended(self, event: StreamEnded) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.peer_ended = True
            self._changed[call] = None

    def _on_stream_reset(self, event: StreamReset) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            self.early_ends += 1
            self._abandon(call)

    def _abandon(self, call: ServerCall) -> None:
        call.closed = call.abandoned = call.finished = True
        self._forget(call)
        self.discard_unread(call)
        self._changed[call] = None

    def _on_pong(self, event: PingAckReceived) -> None:
        super()._on_pong(event)
        if event.ping_data == _DRAIN_PING and self.draining and not self.refusing:
            self.refusing = True
            self._send_goaway(self._h2.highest_inbound_stream_id)


def _trailers_only(status: Status, message: str) -> list[Header]:
    return [
        *_ANSWER,
        (b"grpc-status", b"%d" % status.value),
        NeverIndexedHeaderTuple(b"grpc-message", encode_message(message)),
    ]
