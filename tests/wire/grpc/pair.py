"""A client and a server connection without I/O, and bytes carried between them."""

from dataclasses import dataclass, field, replace

from impervious.wire.grpc.client import ClientCall, ClientConnection
from impervious.wire.grpc.framing import Budget, frame_message
from impervious.wire.grpc.headers import Header
from impervious.wire.grpc.http2 import Tuning
from impervious.wire.grpc.server import ServerCall, ServerConnection
from impervious.wire.grpc.status import OK, Outcome

TUNING = Tuning(
    message_bytes=1 << 20,
    stream_window_bytes=100_000,
    connection_window_bytes=1_000_000,
    header_list_bytes=8192,
    backlog_bytes=1 << 20,
)

REQUEST: list[Header] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test.Play/Unary"),
    (b":authority", b"memory"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


def request(*more: Header, **changed: bytes | None) -> list[Header]:
    """REQUEST with headers added, replaced (`method=b"GET"` for `:method`) or, with None, left out."""
    names = {
        b":" + name.encode() if name in ("method", "path") else name.replace("_", "-").encode(): value
        for name, value in changed.items()
    }
    kept = [(name, names.get(name, value)) for name, value in REQUEST]
    return [(name, value) for name, value in kept if value is not None] + list(more)


@dataclass
class Pair:
    """Both ends. `pump` carries bytes until nobody has any more to say."""

    client: ClientConnection = field(default_factory=lambda: ClientConnection(TUNING))
    server: ServerConnection = field(default_factory=lambda: ServerConnection(TUNING, Budget(1 << 20), max_calls=10))
    changed: set[ClientCall | ServerCall] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pump()

    def pump(self, step: int | None = None) -> None:
        """Carry what both have to say, `step` bytes at a time."""
        while True:
            to_server, to_client = self.client.take_outgoing(), self.server.take_outgoing()
            if not to_server and not to_client:
                return
            for data, end in ((to_server, self.server), (to_client, self.client)):
                for start in range(0, len(data), step or max(1, len(data))):
                    self.changed.update(end.receive(data[start : start + (step or len(data))]))

    def open(
        self, *messages: bytes, end: bool = True, headers: list[Header] | None = None
    ) -> tuple[ClientCall, ServerCall]:
        """A call with these messages under way, seen from both ends."""
        call = self.client.open(headers or REQUEST, end=end and not messages)
        for number, message in enumerate(messages, start=1):
            frame = frame_message(message)
            assert self.client.send(call, frame, end=end and number == len(messages)) == len(frame)
        self.pump()
        [opened] = self.server.take_opened()
        return call, opened

    def answer(self, call: ServerCall, *messages: bytes, outcome: Outcome = OK) -> None:
        """Answer a call and carry the answer over."""
        for message in messages:
            self.server.send_initial_metadata(call)
            frame = frame_message(message)
            assert self.server.send(call, frame) == len(frame)
        self.server.finish(call, outcome)
        self.pump()


def tuned(**changed: int) -> Tuning:
    """TUNING with other sizes."""
    return replace(TUNING, **changed)
