"""One call as its handler sees it, in the shape of grpclib.server.Stream."""

import logging
import math
import time
from dataclasses import dataclass
from typing import Final, Generic, Self

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError
from grpclib.metadata import Deadline

from impervious.log_limit import LimitedLog
from impervious.wire.grpc.framing import frame_message
from impervious.wire.grpc.headers import MetadataLike
from impervious.wire.grpc.server import ServerCall, ServerConnection
from impervious.wire.grpc.status import Outcome

from .link import YIELD_EVERY, Link, Wakeup
from .message import Decode, Request, Response, plainly

_limited = LimitedLog(logging.getLogger(__name__))

_SHOWN: Final = 200
"""Characters of an error that the log repeats."""


class TrioDeadline(Deadline):
    """grpclib's Deadline on Trio's clock."""

    def __init__(self, at: float) -> None:
        super().__init__(_timestamp=time.monotonic() + at - trio.current_time())
        self.at = at
        """In Trio time."""

    def time_remaining(self) -> float:
        """Seconds left, not below 0."""
        return max(0.0, self.at - trio.current_time())


@dataclass(frozen=True, slots=True)
class Peer:
    """Who called; the shape of grpclib.protocol.Peer."""

    address: tuple[str, int] | None
    certificate: dict[str, object] | None = None

    def addr(self) -> tuple[str, int] | None:
        """Host and port, or None if the transport has none."""
        return self.address

    def cert(self) -> dict[str, object] | None:
        """The client's certificate as ssl.SSLSocket.getpeercert gives it, if there is one."""
        return self.certificate


class ServerStream(Generic[Request, Response]):
    """A call to be answered.

    One task may receive while another sends; two tasks doing the same get trio.BusyResourceError.

    Attributes:
      metadata: what the client sent along.
      deadline: until when it waits, or None.
      peer: who it is.
      user_agent: with what.
    """

    def __init__(
        self,
        call: ServerCall,
        link: Link[ServerCall],
        connection: ServerConnection,
        handler: Handler,
        peer: Peer,
        decode: Decode = plainly,
        request_s: float = math.inf,
    ) -> None:
        self.call = call
        self.scope = trio.CancelScope()
        self.deadline: Deadline | None = None
        if call.timeout_s is not None:
            self.scope.deadline = trio.current_time() + call.timeout_s
            self.deadline = TrioDeadline(self.scope.deadline)
        self.metadata = call.metadata
        self.peer = peer
        self.user_agent = call.user_agent
        self.path = call.path
        self._handler = handler
        self._decode = decode
        self._opened_at = trio.current_time()
        self._due_at = math.inf if self._cardinality.client_streaming else self._opened_at + request_s
        self._link = link
        self._connection = connection
        self._readable = Wakeup()
        self._writable = Wakeup()
        self._received = 0
        self._sent = 0
        self._passed = 0
        self._sending = False

    @property
    def waiting_since(self) -> float | None:
        """Since when the client owes its first message; None once it came."""
        return None if self._received or self.call.peer_ended else self._opened_at

    def wake(self) -> None:
        """Something changed about the call."""
        self._readable.wake()
        self._writable.wake()

    # --- Receiving ----------------------------------------------------------------------------------------------------

    async def recv_message(self) -> Request | None:
        """The next message of the client, or None after its last.

        Raises:
          GRPCError: there is none as the method needs it; let it through to the client.
        """
        call, connection = self.call, self._connection
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            data = self._read()
            if data is not None:
                self._received += 1
                if not waited:
                    await self._passed_one()
                return self._parse(data)
            if call.peer_ended or call.closed:
                self._check_end()
                return None
            if connection.backlog_bytes:
                self._link.flush()
            with trio.move_on_at(self._due_at) as scope:
                await self._readable.wait()
            if scope.cancelled_caught:
                text = f"the request did not arrive within {self._due_at - self._opened_at:g} s"
                raise GRPCError(Status.DEADLINE_EXCEEDED, text)
            waited = True

    def _read(self) -> bytes | None:
        try:
            return self._connection.read(self.call)
        except GRPCError as error:
            if error.status is not Status.INTERNAL:
                raise
            raise self._unreadable(error.message or "") from None  # such as a message that is not the gzip it claims

    def _parse(self, data: bytes) -> Request:
        request_type: type[Request] = self._handler.request_type
        try:
            return self._decode(request_type, data)
        except Exception as error:  # parsers raise whatever they like, and the bytes are the client's
            text = f"{len(data)} bytes are no {request_type.__name__}"
            raise self._unreadable(str(error) if self._decode is not plainly else text) from error

    def _unreadable(self, text: str) -> GRPCError:
        peer = self.peer.address[0] if self.peer.address else "a client"
        _limited.warning("%s: %s: a request cannot be read: %s", peer, self.path, text[:_SHOWN])
        return GRPCError(Status.INVALID_ARGUMENT, text)

    def _check_end(self) -> None:
        if self.call.inbox.torn:
            raise self._unreadable("the request ended in the middle of a message")
        if not self._cardinality.client_streaming and not self._received:
            raise GRPCError(Status.UNIMPLEMENTED, "the request ended without the one message that this method takes")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    # --- Sending ------------------------------------------------------------------------------------------------------

    async def send_initial_metadata(self, *, metadata: MetadataLike | None = None) -> None:
        """Begin the answer; otherwise the first message does.

        Raises:
          ProtocolError: it has begun.
          ValueError: metadata that gRPC does not allow.
        """
        if self.call.responded:
            raise ProtocolError(f"{self.path}: initial metadata has been sent already")
        self._connection.send_initial_metadata(self.call, metadata)
        self._link.flush()
        await trio.lowlevel.checkpoint()

    async def send_message(self, message: Response) -> None:
        """Send a message; waits while the client does not keep up.

        Raises:
          ProtocolError: a second message in a unary answer, or one after the status.
        """
        call, connection = self.call, self._connection
        if self.call.finished and not call.abandoned:
            raise ProtocolError(f"{self.path}: the status has been sent already")
        if self._sent and not self._cardinality.server_streaming:
            raise ProtocolError(f"{self.path}: a unary answer has one message")
        if self._sending:
            raise trio.BusyResourceError(f"{self.path}: another task is sending on this call")
        frame: bytes | memoryview = frame_message(message.SerializeToString())
        await trio.lowlevel.checkpoint_if_cancelled()
        connection.send_initial_metadata(call)
        self._sending = True
        try:
            while not call.closed:
                sent = connection.send(call, frame)
                self._link.flush()
                if sent == len(frame):
                    break
                frame = memoryview(frame)[sent:]
                await self._writable.wait()
        finally:
            self._sending = False
        self._sent += 1
        await self._passed_one()

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: object = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """End the answer; otherwise the end of the handler does.

        Raises:
          ProtocolError: it has ended, or it would be a unary answer with OK and no message.
          ValueError: metadata that gRPC does not allow.
        """
        if self.call.finished and not self.call.abandoned:
            raise ProtocolError(f"{self.path}: the status has been sent already")
        if status is Status.OK and not self.answered:
            raise ProtocolError(f"{self.path}: a unary answer with OK needs its message first")
        self._connection.finish(self.call, Outcome(status, status_message, details_bytes(status_details)), metadata)
        self._link.flush()
        await trio.lowlevel.checkpoint()

    async def cancel(self) -> None:
        """End the call without a status (RST_STREAM)."""
        self._connection.abort(self.call)
        self._link.flush()
        await trio.lowlevel.checkpoint()

    @property
    def answered(self) -> bool:
        """Whether an OK now would be a proper end."""
        return self._cardinality.server_streaming or self._sent > 0

    @property
    def _cardinality(self) -> Cardinality:
        cardinality: Cardinality = self._handler.cardinality
        return cardinality

    async def _passed_one(self) -> None:
        self._passed += 1
        if self._passed % YIELD_EVERY == 0:
            await trio.lowlevel.cancel_shielded_checkpoint()


def details_bytes(details: object) -> bytes | None:
    """What `grpc-status-details-bin` is to carry: bytes, or a message (google.rpc.Status) to be serialized."""
    if details is None or isinstance(details, bytes):
        return details
    serialize = getattr(details, "SerializeToString", None)
    serialized = serialize() if callable(serialize) else None
    return serialized if isinstance(serialized, bytes) else None
