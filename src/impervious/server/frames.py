"""Events as bytes, made once for all subscribers that see them in the same shape.

Most subscribers want the same bytes of the same event at nearly the same time: for each shape the newest frames are
kept, and whoever comes for one that is gone has it made again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from impervious.model import Event
from impervious.server.convert import Problem, event_message
from impervious.wire.json import Encoding, encode

KEPT_BYTES: Final = 2 << 20
"""Of each shape: a few of the largest messages, or thousands of short ones."""

_FIN_TEXT: Final = 0x81
_FIN_PING: Final = 0x89
_SMALL: Final = 125
_MEDIUM: Final = 0xFFFF

PING: Final = bytes((_FIN_PING, 0))
"""A websocket ping without data (RFC 6455, section 5.5.2)."""
SSE_KEEPALIVE: Final = b":\n\n"
SSE_BEGIN: Final = b"retry: 2000\n\n"
"""Milliseconds after which a browser connects again."""


class Framing(Enum):
    """How events are set apart from each other."""

    WEBSOCKET = "websocket"
    SSE = "server-sent events"
    LINES = "JSON lines"
    GRPC = "gRPC"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the bytes of an event depend on besides the event."""

    framing: Framing
    encoding: Encoding = Encoding.BASE64
    published: bool = False
    """Only the fields of 2021."""
    secrets: bool = False
    """With what is kept from others."""
    extended: bool = False
    """With what only streams with `v=2` show."""


Encoder = Callable[[Event], bytes]


class Frames:
    """The frames made lately, by shape."""

    def __init__(self, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._encoders: dict[Shape, Encoder] = {}

    def encoder(self, shape: Shape) -> Encoder:
        """Return the function that gives events in that shape."""
        encoder = self._encoders.get(shape)
        if encoder is None:
            encoder = self._encoders[shape] = _Kept(shape, self._kept_bytes)
        return encoder


class _Kept:
    def __init__(self, shape: Shape, kept_bytes: int) -> None:
        self._shape = shape
        self._frames: dict[int, bytes] = {}
        self._room = kept_bytes

    def __call__(self, event: Event) -> bytes:
        frame = self._frames.get(event.seq)
        if frame is None:
            frame = self._frames[event.seq] = frame_event(event, self._shape)
            self._room -= len(frame)
            while self._room < 0:  # the first in is the oldest
                self._room += len(self._frames.pop(next(iter(self._frames))))
        return frame


def frame_event(event: Event, shape: Shape) -> bytes:
    """Write an event with everything that sets it apart from the next."""
    message = event_message(event, secrets=shape.secrets, extended=shape.extended)
    if shape.framing is Framing.GRPC:
        return bytes(message)
    line = b'{"result":' + encode(message, encoding=shape.encoding, published=shape.published) + b"}"
    if shape.framing is Framing.SSE:
        return b"id: %d\ndata: %b\n\n" % (event.seq, line)
    return frame_line(line, shape.framing)


def frame_problem(problem: Problem, framing: Framing) -> bytes:
    """Write the error that ends a stream."""
    return frame_line(b'{"error":' + problem.body + b"}", framing)


def frame_line(line: bytes, framing: Framing) -> bytes:
    """Set one line of JSON apart from the next; a line has no line ends in it."""
    match framing:
        case Framing.WEBSOCKET:
            return websocket_frame(line)
        case Framing.SSE:
            return b"data: " + line + b"\n\n"
        case Framing.LINES:
            return line + b"\n"
        case Framing.GRPC:
            raise AssertionError("gRPC carries no JSON")


def websocket_frame(text: bytes) -> bytes:
    """Write an unfragmented, unmasked text frame, as a server sends it (RFC 6455, section 5.2)."""
    size = len(text)
    if size <= _SMALL:
        return bytes((_FIN_TEXT, size)) + text
    if size <= _MEDIUM:
        return bytes((_FIN_TEXT, 126)) + size.to_bytes(2) + text
    return bytes((_FIN_TEXT, 127)) + size.to_bytes(8) + text
