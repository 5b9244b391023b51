"""h2, set up for gRPC and kept from four things that it does otherwise.

It closes its state machine on any GOAWAY, while gRPC servers send one to say "finish what you have": here the machine
stays open and the frame is reported. It collects a frame before it finds it too long. It uses as large a compression
table as the peer offers. It takes any number of frames without content. Private parts of h2 are used here
and nowhere else, hence the pin in pyproject.toml, and tests of what h2 does with and without.
"""

import math
from dataclasses import dataclass
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame

ALL_STREAMS: Final = 2**31 - 1
"""The highest stream id there is; as last id in a GOAWAY it means "not yet decided" (RFC 9113, 6.8)."""

_DEFAULT_WINDOW_BYTES: Final = 65_535
"""Where every window starts (RFC 9113, 6.9.2)."""

_COMPRESSION_TABLE_BYTES: Final = 4096
"""Where every compression table starts (SETTINGS_HEADER_TABLE_SIZE, RFC 9113, 6.5.2)."""


_CRUMB_BYTES: Final = 64
"""A DATA frame below this that ends nothing counts as one without content."""


class PeerError(Exception):
    """The peer broke HTTP/2. The connection is over; what `take_outgoing` still holds tells the peer why."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """A GOAWAY frame from the peer."""

    last_stream_id: int
    """No call above this id was or will be handled."""
    code: ErrorCodes | int
    reason: str
    """Debug text of the peer, such as grpc-go's "too_many_pings"."""

    def __str__(self) -> str:
        name = self.code.name if isinstance(self.code, ErrorCodes) else str(self.code)
        return f"GOAWAY {name} ({self.reason})" if self.reason else f"GOAWAY {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes of one connection."""

    message_bytes: int
    """Longest message accepted; checked on its prefix, before it is collected."""
    stream_window_bytes: int
    """How much a peer may send on a call that nobody reads."""
    connection_window_bytes: int
    """The same for all calls together. Larger than one stream's, or one unread call would stop all others."""
    header_list_bytes: int
    """Longest header list accepted, uncompressed (SETTINGS_MAX_HEADER_LIST_SIZE)."""
    backlog_bytes: int
    """Bytes waiting to be written beyond which calls get no room to send."""

    def __post_init__(self) -> None:
        if not _DEFAULT_WINDOW_BYTES <= self.stream_window_bytes < self.connection_window_bytes < 2**31:
            raise ValueError("windows must satisfy 65535 <= stream window < connection window < 2**31")


class PeerFlood(PeerError):
    """The peer sends more frames without content than any client needs."""


class TooManyControlFrames(ProtocolError):
    """As above, in h2's terms: it makes h2 send GOAWAY with this code."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Http2(H2Connection):
    """h2, but GOAWAY does not end the connection, no frame is collected that will be refused, and floods end.

    Attributes:
      control_left: how many frames without content may still come.
    """

    control_left: float = math.inf

    MAX_CLOSED_STREAMS = 8192
    """Streams remembered after their end, so that late frames for them are no offence: more than can be under way. h2's
    own number, eight times that, costs 5 MB for each connection that lives long."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = ErrorCodes(frame.error_code) if frame.error_code in list(ErrorCodes) else frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """Count what costs us work and brings nothing: settings, pings, windows, priorities, resets, crumbs of data."""
        if not _carries_something(frame):
            self.control_left -= 1
            if self.control_left < 0:
                raise TooManyControlFrames("too many frames without content")
        return super()._receive_frame(frame)

    def limit_compression_table(self) -> None:
        """Use no larger table than the default, whatever the peer offers: it would be ours to fill and to search."""
        if self.encoder.header_table_size > _COMPRESSION_TABLE_BYTES:
            self.encoder.header_table_size = _COMPRESSION_TABLE_BYTES

    def refuse_overlong_frame(self) -> None:
        """Look at the length of a frame as soon as it is known; h2 first collects up to 16 MiB of it.

        Raises:
          FrameTooLargeError: the frame is longer than we allow, or the peer speaks something else than HTTP/2.
        """
        head = self.incoming_buffer._data[:3]
        if len(head) == 3 and int.from_bytes(head, "big") > self.max_inbound_frame_size:
            self._terminate_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError("a frame is longer than allowed, or this is not HTTP/2")


def _carries_something(frame: Frame) -> bool:
    if isinstance(frame, DataFrame):
        return len(frame.data) >= _CRUMB_BYTES or "END_STREAM" in frame.flags
    return isinstance(frame, HeadersFrame)  # a request, or the end of one; an error otherwise


def open_http2(tuning: Tuning, *, client_side: bool, max_calls: int | None) -> Http2:
    """h2 as we use it, with the preface ready to be sent.

    Args:
      tuning: sizes.
      client_side: which end we are.
      max_calls: how many streams the peer may have open at once; None for a client, as servers open none.
    """
    h2 = Http2(
        H2Configuration(
            client_side=client_side,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=not client_side,
            normalize_inbound_headers=False,
        )
    )
    settings = h2.local_settings
    settings[SettingCodes.INITIAL_WINDOW_SIZE] = tuning.stream_window_bytes
    settings[SettingCodes.MAX_HEADER_LIST_SIZE] = tuning.header_list_bytes
    if client_side:
        settings[SettingCodes.ENABLE_PUSH] = 0
    if max_calls is not None:
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] = max_calls
    # In force at once: a peer that has not read it yet keeps to the protocol's defaults, which are below ours.
    settings.acknowledge()
    h2.decoder.max_header_list_size = tuning.header_list_bytes
    h2.initiate_connection()
    if max_calls is not None:
        # h2 ends the whole connection over one stream too many. We refuse that stream instead (RFC 9113, 5.1.2).
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] = ALL_STREAMS
        settings.acknowledge()
    h2.increment_flow_control_window(tuning.connection_window_bytes - _DEFAULT_WINDOW_BYTES)
    return h2
