"""The client's side of a gRPC connection: open calls, follow them to their Outcome.

A ClientCall gets its Outcome the moment the connection knows it, whatever the reason; messages that came before stay
readable. From then on the call takes no slot of the server's stream limit.
"""

from collections.abc import Collection, Sequence
from typing import Final

from grpclib.const import Status
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from .connection import UNLIMITED, Call, Connection
from .framing import IDENTITY, Inbox
from .headers import Header, Metadata, decode_metadata
from .http2 import ALL_STREAMS, Tuning
from .status import Outcome, outcome_of_http, outcome_of_reset, outcome_of_trailers

_GRPC: Final = b"application/grpc"
_MANY_STREAMS: Final = ALL_STREAMS - 1
"""h2 can open no stream above; a new connection is due."""

CANCELLED: Final = Outcome(Status.CANCELLED, "the call was cancelled by its caller")


class ClientCall(Call):
    """One call as its caller sees it."""

    __slots__ = ("_initial", "_trailing", "outcome")

    def __init__(self, stream_id: int, inbox: Inbox) -> None:
        super().__init__(stream_id, inbox)
        self.outcome: Outcome | None = None
        """How the call ended; None while it is open."""
        self._initial: Sequence[tuple[bytes, bytes]] | None = None
        self._trailing: Sequence[tuple[bytes, bytes]] = ()

    @property
    def answered(self) -> bool:
        """The server has sent initial metadata, or ended the call."""
        return self._initial is not None or self.outcome is not None

    def initial_metadata(self) -> Metadata:
        """What came before the first message; empty in a trailers-only answer.

        Raises:
          ValueError: binary metadata that is not base64.
        """
        return decode_metadata(self._initial or ())

    def trailing_metadata(self) -> Metadata:
        """What came with the status.

        Raises:
          ValueError: binary metadata that is not base64.
        """
        return decode_metadata(self._trailing)


class ClientConnection(Connection[ClientCall]):
    """One connection to a server."""

    def __init__(self, tuning: Tuning) -> None:
        super().__init__(tuning, UNLIMITED, client_side=True, max_calls=None)

    def accepts_calls(self) -> bool:
        """Whether `open` may be called, stream limit aside."""
        return self.goaway is None and not self.over and self._h2.highest_outbound_stream_id < _MANY_STREAMS

    @property
    def max_calls(self) -> int:
        """How many calls the server lets us have open at once."""
        return self._h2.remote_settings.max_concurrent_streams

    def open(self, headers: Sequence[Header], *, end: bool = False) -> ClientCall:
        """Start a call.

        Args:
          headers: the whole request header list, pseudo-headers first.
          end: whether the request ends with them.
        """
        stream_id = self._h2.get_next_available_stream_id()
        self._send_headers(stream_id, headers, end=end)
        call = ClientCall(stream_id, Inbox(self._tuning.message_bytes, self._budget))
        call.local_ended = end
        self.calls[stream_id] = call
        return call

    def end(self, call: ClientCall) -> None:
        """Say that the request is complete."""
        if not (call.local_ended or call.closed or self.over):
            call.local_ended = True
            self._h2.end_stream(call.stream_id)
            self._drain_h2()

    def cancel(self, call: ClientCall, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Have nothing more to do with a call. Never fails, and may be called again."""
        if call.outcome is None:
            self._settle(call, CANCELLED, code)
            self._changed.pop(call, None)
        self.discard_unread(call)

    def lose(self, why: str) -> Collection[ClientCall]:
        """The transport is gone: no call will be answered any more.

        Returns:
          The calls that ended by this.
        """
        self.over = True
        ended = list(self.calls.values())
        for call in ended:
            call.closed = True
            self._settle(call, Outcome(Status.UNAVAILABLE, why), ErrorCodes.CANCEL)
        return ended

    def say_goodbye(self) -> None:
        """Queue a GOAWAY: we are leaving."""
        self._send_goaway(0)

    # --- Events -------------------------------------------------------------------------------------------------------

    def _settle(self, call: ClientCall, outcome: Outcome, code: ErrorCodes) -> None:
        call.outcome = outcome
        self._forget(call)
        if call.peer_ended and call.local_ended:
            call.closed = True
        self._reset(call, code)

    def _on_headers(self, event: RequestReceived | ResponseReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            return
        self._changed[call] = None
        http_status = content_type = grpc_status = None
        encoding = IDENTITY
        for name, value in event.headers:
            if name == b":status":
                http_status = value
            elif name == b"content-type":
                content_type = value
            elif name == b"grpc-status":
                grpc_status = value
            elif name == b"grpc-encoding":
                encoding = value
        # END_STREAM follows as an event of its own, for a call that is forgotten by then.
        call.peer_ended = event.stream_ended is not None
        is_grpc = http_status == b"200" and content_type is not None and content_type.startswith(_GRPC)
        if grpc_status is not None or (is_grpc and call.peer_ended):
            # Trailers-only. A gRPC status counts for more than what HTTP says; grpclib sends it without a content type.
            call._trailing = event.headers
            self._settle(call, outcome_of_trailers(event.headers), ErrorCodes.NO_ERROR)
        elif not is_grpc:
            self._settle(call, outcome_of_http(http_status or b"none", content_type), ErrorCodes.CANCEL)
        else:
            call._initial = event.headers
            call.inbox.encoding = encoding

    def _on_trailers(self, event: TrailersReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._changed[call] = None
            call._trailing = event.headers
            call.peer_ended = True
            self._settle(call, outcome_of_trailers(event.headers), ErrorCodes.NO_ERROR)

    def _on_stream_ended(self, event: StreamEnded) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._changed[call] = None
            call.peer_ended = True
            self._settle(call, outcome_of_trailers(()), ErrorCodes.NO_ERROR)

    def _on_stream_reset(self, event: StreamReset) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._changed[call] = None
            call.closed = True
            self._settle(call, outcome_of_reset(event.error_code, by_peer=event.remote_reset), ErrorCodes.CANCEL)

    def _on_goaway(self, event: ConnectionTerminated) -> None:
        super()._on_goaway(event)
        unseen = Outcome(Status.UNAVAILABLE, f"not handled by the server: {self.goaway}")
        for call in list(self.calls.values()):
            if call.stream_id > (event.last_stream_id or 0):
                # The server promises that it never looked at these.
                self._changed[call] = None
                self._settle(call, unseen, ErrorCodes.CANCEL)
