"""What both roles of a gRPC connection share: flow control, the backlog of bytes to write, and GOAWAY.

`receive` takes bytes and returns the calls for which something changed; methods change state and leave bytes to be
taken with `take_outgoing`. Windows are handed back when a message is consumed, never on arrival, so unread calls fill
their own windows and nothing more.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from .framing import Budget, Inbox
from .headers import Header
from .http2 import GoAway, PeerError, PeerFlood, TooManyControlFrames, Tuning, open_http2

ANSWERS_PER_FRAME: Final = 2
"""What we send may be answered by so many frames without content: a window for the stream and one for all."""


class Call:
    """One call on one connection: what came in and what may still go out."""

    __slots__ = ("_credit_bytes", "closed", "inbox", "local_ended", "mid_message", "peer_ended", "stream_id")

    def __init__(self, stream_id: int, inbox: Inbox) -> None:
        self.stream_id = stream_id
        self.inbox = inbox
        self.peer_ended = False
        """The peer has sent all it will."""
        self.local_ended = False
        """We have sent all we will."""
        self.closed = False
        """The stream is gone; nothing can be sent on it any more."""
        self.mid_message = False
        """A message went out in part."""
        self._credit_bytes = 0


C = TypeVar("C", bound=Call)


class Connection(ABC, Generic[C]):
    """One HTTP/2 connection and its calls.

    Attributes:
      calls: stream id -> call, for every call that is not over.
      goaway: the latest GOAWAY of the peer.
      pongs: how many of our pings the peer has answered.
    """

    def __init__(self, tuning: Tuning, budget: Budget, *, client_side: bool, max_calls: int | None) -> None:
        self.calls: dict[int, C] = {}
        self.goaway: GoAway | None = None
        self.settled = False
        """The peer's SETTINGS have arrived: it speaks HTTP/2 and we know its limits."""
        self.over = False
        """The transport is gone or the peer broke HTTP/2: h2 takes no more, and what is sent goes nowhere."""
        self.pongs = 0
        self._tuning = tuning
        self._budget = budget
        self._credit_bytes = 0
        self._changed: dict[C, None] = {}
        self._blocked: dict[C, None] = {}
        self._outgoing = bytearray()
        self._h2 = open_http2(tuning, client_side=client_side, max_calls=max_calls)
        self._stream_step = tuning.stream_window_bytes // 4
        self._connection_step = tuning.connection_window_bytes // 4
        self._drain_h2()

    # --- Bytes in, bytes out ------------------------------------------------------------------------------------------

    def receive(self, data: bytes, *, at: float = 0.0) -> Collection[C]:
        """Take in what the transport read.

        Args:
          data: what it read.
          at: when, in seconds of any clock; a server counts by it what the peer may send.

        Returns:
          The calls that changed: something to read, room to send, an end.

        Raises:
          PeerError: the peer broke HTTP/2.
          PeerFlood: or it sends too many frames without content.
        """
        try:
            events = self._h2.receive_data(data)
            self._h2.refuse_overlong_frame()
        except Exception as error:  # h2, hpack and hyperframe raise what they like, and the bytes are the peer's
            self._drain_h2()
            self.over = True
            kind = PeerFlood if isinstance(error, TooManyControlFrames) else PeerError
            raise kind(f"{type(error).__name__}: {error}") from error
        for event in events:
            self._handle(event)
        self._drain_h2()
        changed, self._changed = self._changed, {}
        return changed

    @property
    def backlog_limit_bytes(self) -> int:
        """From which backlog on calls get no room to send."""
        return self._tuning.backlog_bytes

    @property
    def backlog_bytes(self) -> int:
        """How much waits to be written."""
        return len(self._outgoing)

    def take_outgoing(self) -> bytes:
        """What is to be written now, in this order, by the one writer of the connection."""
        outgoing, self._outgoing = self._outgoing, bytearray()
        return bytes(outgoing)

    def take_blocked(self) -> Collection[C]:
        """Calls that found no room to send; to be woken after a take_outgoing, to try again in this order."""
        blocked, self._blocked = self._blocked, {}
        return blocked

    def ping(self, opaque: bytes) -> None:
        """Ask for a sign of life; `pongs` counts the answers. `opaque` is 8 bytes."""
        if not self.over:
            self._h2.ping(opaque)
            self._drain_h2()

    def _drain_h2(self) -> None:
        self._outgoing += self._h2.data_to_send()

    def _send_goaway(self, last_stream_id: int, code: ErrorCodes = ErrorCodes.NO_ERROR, reason: bytes = b"") -> None:
        """Write GOAWAY without h2, whose own would close its state machine."""
        frame = GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code, additional_data=reason)
        self._outgoing += frame.serialize()

    # --- Sending ------------------------------------------------------------------------------------------------------

    def send(self, call: C, data: bytes | memoryview, *, end: bool = False) -> int:
        """Queue as much of a framed message as windows and backlog allow.

        Args:
          call: an open call whose sending side has not ended.
          data: what is left of the frame; never empty.
          end: whether our side ends with the last byte of it.

        Returns:
          How many bytes were queued. Fewer than given: wait until the call changes, then go on with the rest.
        """
        h2, stream_id, size = self._h2, call.stream_id, len(data)
        if self.over or self.backlog_bytes >= self._tuning.backlog_bytes:
            room = 0
        else:
            room = min(h2.local_flow_control_window(stream_id), size)
        sent = 0
        while sent < room:
            step = min(room - sent, h2.max_outbound_frame_size)
            last = sent + step == size
            h2.send_data(stream_id, data if step == size else data[sent : sent + step], end_stream=end and last)
            sent += step
            h2.control_left += ANSWERS_PER_FRAME
            self._drain_h2()
            if self.backlog_bytes >= self._tuning.backlog_bytes:
                break
        if sent == size:
            call.mid_message = False
            call.local_ended = call.local_ended or end
        else:
            call.mid_message = call.mid_message or sent > 0
            self._blocked[call] = None
        return sent

    def _send_headers(self, stream_id: int, headers: Sequence[Header], *, end: bool) -> None:
        if self.over:
            return
        # h2 has seen all that was received, its events reach us one by one: the stream may be reset already.
        with suppress(StreamClosedError, StreamIDTooLowError):
            self._h2.send_headers(stream_id, headers, end_stream=end)
            self._h2.control_left += ANSWERS_PER_FRAME
        self._drain_h2()

    def _reset(self, call: C, code: ErrorCodes) -> None:
        """Send RST_STREAM unless the stream is closed already."""
        if not call.closed and not self.over:
            call.closed = True
            with suppress(StreamClosedError):  # as above
                self._h2.reset_stream(call.stream_id, code)
            self._drain_h2()

    # --- Receiving ----------------------------------------------------------------------------------------------------

    def read(self, call: C) -> bytes | None:
        """The next whole message of a call, or None until it changes again. Hands back the windows of what it consumed.

        Raises:
          GRPCError: see `Inbox.next_message`. The call has to be ended then.
        """
        inbox = call.inbox
        before = inbox.unread_bytes
        if not before:
            return inbox.next_message() if inbox.torn else None
        try:
            return inbox.next_message()
        finally:
            self._give_back(call, before - inbox.unread_bytes)

    def discard_unread(self, call: C) -> None:
        """Throw away what came in for a call, for the benefit of the others on the connection."""
        self._credit_connection(call.inbox.discard())

    def _give_back(self, call: C, consumed_bytes: int) -> None:
        self._credit_connection(consumed_bytes)
        call._credit_bytes += consumed_bytes
        if call._credit_bytes >= self._stream_step and not (call.peer_ended or call.closed or self.over):
            self._h2.increment_flow_control_window(call._credit_bytes, call.stream_id)
            call._credit_bytes = 0
            self._drain_h2()

    def _credit_connection(self, consumed_bytes: int) -> None:
        self._credit_bytes += consumed_bytes
        if self.over or not self._credit_bytes:
            return
        # Saved up, but not while unread calls take up most of the window: the others then live from hand to mouth.
        if (
            max(self._credit_bytes, self._connection_step - self._h2.inbound_flow_control_window)
            >= self._connection_step
        ):
            self._h2.increment_flow_control_window(self._credit_bytes)
            self._credit_bytes = 0
            self._drain_h2()

    def _handle(self, event: Event) -> None:
        """React to one event of h2. What is not listed is h2's own business, or none of ours."""
        if isinstance(event, DataReceived):
            self._on_data(event)
        elif isinstance(event, RequestReceived | ResponseReceived):
            self._on_headers(event)
        elif isinstance(event, TrailersReceived):
            self._on_trailers(event)
        elif isinstance(event, StreamEnded):
            self._on_stream_ended(event)
        elif isinstance(event, WindowUpdated):
            self._on_window_updated(event)
        elif isinstance(event, StreamReset):
            self._on_stream_reset(event)
        elif isinstance(event, RemoteSettingsChanged):
            self._on_settings(event)
        elif isinstance(event, PingAckReceived):
            self._on_pong(event)
        elif isinstance(event, ConnectionTerminated):
            self._on_goaway(event)

    @abstractmethod
    def _on_headers(self, event: RequestReceived | ResponseReceived) -> None:
        """The first header list of a call."""

    def _on_data(self, event: DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            # The call is over on our side; the peer did not know yet.
            self._credit_connection(event.flow_controlled_length)
        else:
            call.inbox.feed(event.data, event.flow_controlled_length)
            self._changed[call] = None

    @abstractmethod
    def _on_trailers(self, event: TrailersReceived) -> None:
        """The second, and last."""

    @abstractmethod
    def _on_stream_ended(self, event: StreamEnded) -> None:
        """The peer has sent all it will."""

    @abstractmethod
    def _on_stream_reset(self, event: StreamReset) -> None:
        """The peer, or h2 for its sake, has ended a call."""

    def _on_window_updated(self, event: WindowUpdated) -> None:
        if event.stream_id == 0:
            self._unblock_all()
        else:
            call = self.calls.get(event.stream_id)
            if call in self._blocked:
                del self._blocked[call]
                self._changed[call] = None

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        self.settled = True
        self._h2.limit_compression_table()
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            self._unblock_all()

    def _unblock_all(self) -> None:
        self._changed.update(self._blocked)
        self._blocked.clear()

    def _on_goaway(self, event: ConnectionTerminated) -> None:
        reason = (event.additional_data or b"")[:200].decode("ascii", "replace")
        code = ErrorCodes.NO_ERROR if event.error_code is None else event.error_code
        self.goaway = GoAway(event.last_stream_id or 0, code, reason)

    def _on_pong(self, event: PingAckReceived) -> None:
        self.pongs += 1

    def _forget(self, call: C) -> None:
        self.calls.pop(call.stream_id, None)
        self._blocked.pop(call, None)


UNLIMITED: Final = Budget(math.inf)
"""For the client: its calls are its own, and each is bounded by the message limit."""
