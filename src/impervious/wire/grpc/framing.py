"""Length-prefixed messages: one byte for compression, four of length, then the message (PROTOCOL-HTTP2, "Data Frames").

An Inbox holds what came in for one call. DATA frames wait in it untouched until somebody asks for a message; only then
are they opened and counted as consumed, so that flow control can be acknowledged on consumption and a call that nobody
reads never holds more than its window. The size limit is checked on the prefix, before the message is collected.
"""

import struct
import zlib
from collections import deque
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

PREFIX_BYTES: Final = 5
_PREFIX: Final = struct.Struct(">BI")
_GZIP: Final = 16 + zlib.MAX_WBITS
"""zlib's way to say: gzip, and nothing else."""

IDENTITY: Final = b"identity"
GZIP: Final = b"gzip"
ACCEPTED_ENCODINGS: Final = b"identity,gzip"


def frame_message(message: bytes) -> bytes:
    """A message with its prefix, uncompressed.

    Raises:
      GRPCError: RESOURCE_EXHAUSTED, the message is longer than the prefix can say (4 GiB).
    """
    try:
        return _PREFIX.pack(0, len(message)) + message
    except struct.error as error:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {len(message)} bytes cannot be sent") from error


class Budget:
    """How many bytes of unfinished messages may be held at once by all calls that share this budget."""

    __slots__ = ("_within", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: float, *, within: "Budget | None" = None) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._within = within
        """A wider budget that this one is a part of."""

    def take(self, size: int) -> bool:
        """Use some up; False if there is not enough left, here or in the wider one."""
        if self.used_bytes + size > self.limit_bytes or not (self._within is None or self._within.take(size)):
            return False
        self.used_bytes += size
        return True

    def give_back(self, size: int) -> None:
        """Free some."""
        self.used_bytes -= size
        if self._within is not None:
            self._within.give_back(size)


class Inbox:
    """The messages of one call, one direction, as they arrive.

    Attributes:
      encoding: how the peer compresses messages that it flags as compressed.
      unread_bytes: flow-controlled bytes fed and not yet consumed.
    """

    __slots__ = ("_budget", "_chunks", "_limit_bytes", "_need", "_partial", "encoding", "unread_bytes")

    def __init__(self, limit_bytes: int, budget: Budget, encoding: bytes = IDENTITY) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._partial = bytearray()
        self._need = PREFIX_BYTES
        self.encoding = encoding
        self.unread_bytes = 0

    def feed(self, data: bytes, flow_bytes: int) -> None:
        """Keep one DATA frame. `flow_bytes` is its size for flow control, padding included."""
        self._chunks.append((data, flow_bytes))
        self.unread_bytes += flow_bytes

    def next_message(self) -> bytes | None:
        """The next whole message, or None until more is fed.

        Raises:
          GRPCError: the message is too long (RESOURCE_EXHAUSTED) or cannot be decompressed. Discard the inbox then.
        """
        chunks = self._chunks
        if chunks and not self._partial:
            # One message in one frame is what nearly everybody sends; it needs no collecting.
            data, flow_bytes = chunks[0]
            if len(data) >= PREFIX_BYTES:
                flag, size = _PREFIX.unpack_from(data)
                if len(data) == PREFIX_BYTES + size and size <= self._limit_bytes:
                    chunks.popleft()
                    self.unread_bytes -= flow_bytes
                    return data[PREFIX_BYTES:] if not flag else self._decompressed(flag, data[PREFIX_BYTES:])
        return self._collect()

    def _collect(self) -> bytes | None:
        partial = self._partial
        while True:
            while len(partial) < self._need:
                if not self._chunks:
                    return None
                self._take_chunk()
            flag, size = _PREFIX.unpack_from(partial)
            if size > self._limit_bytes:
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {self._limit_bytes}"
                )
            self._need = PREFIX_BYTES + size
            if len(partial) >= self._need:
                return self._cut(flag)

    def _take_chunk(self) -> None:
        data, flow_bytes = self._chunks.popleft()
        self.unread_bytes -= flow_bytes
        if not self._budget.take(len(data)):
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many unfinished messages are held already; try again later")
        self._partial += data

    def _cut(self, flag: int) -> bytes:
        partial, end = self._partial, self._need
        message = bytes(memoryview(partial)[PREFIX_BYTES:end])
        del partial[:end]
        self._budget.give_back(end)
        self._need = PREFIX_BYTES
        return message if not flag else self._decompressed(flag, message)

    def _decompressed(self, flag: int, message: bytes) -> bytes:
        if flag != 1 or self.encoding != GZIP:
            raise GRPCError(Status.INTERNAL, "a message is flagged as compressed, but no grpc-encoding says how")
        inflater = zlib.decompressobj(_GZIP)
        try:
            # One byte over the limit is enough to know; a bomb is never inflated.
            inflated = inflater.decompress(message, self._limit_bytes + 1)
        except zlib.error as error:
            raise GRPCError(Status.INTERNAL, "a message is not the gzip that it claims to be") from error
        if len(inflated) > self._limit_bytes:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"a message inflates to more than the limit of {self._limit_bytes} bytes"
            )
        if not inflater.eof or inflater.unused_data:
            raise GRPCError(Status.INTERNAL, "a message is not one whole gzip stream")
        return inflated

    @property
    def torn(self) -> bool:
        """Whether a message has begun and is not whole. Meaningful once `next_message` returned None."""
        return bool(self._partial)

    def discard(self) -> int:
        """Throw everything away; returns how many unread bytes that were."""
        unread = self.unread_bytes
        self._chunks.clear()
        self._budget.give_back(len(self._partial))
        self._partial.clear()
        self._need = PREFIX_BYTES
        self.unread_bytes = 0
        return unread
