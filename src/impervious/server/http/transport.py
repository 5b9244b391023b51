"""The bytes of one HTTP connection: read and written with bounds, and ended for certain.

A peer that does not read cannot hold a task for ever, because a write has a deadline. A peer that is gone raises one
exception, `PeerLost`, whatever the socket or TLS calls it.
"""

import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import trio

logger = logging.getLogger(__name__)

STALL_S: Final = 60.0
"""How long one write, of 64 KiB or of one frame, may take: a peer slower than that is cut off. As for gRPC."""
LINGER_S: Final = 2.0
"""How long what a peer still sends is thrown away once it has its last answer: a socket closed on unread bytes would be
reset, and the peer would see that instead of the answer."""
READ_BYTES: Final = 64 << 10

_LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)


class PeerLost(Exception):
    """The connection is no more."""


class Transport:
    """A socket, with or without TLS.

    Args:
      stream: the accepted socket. *Ownership:* the transport closes it.
      context: for TLS; None for plaintext.
    """

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        self.socket = stream.socket
        self.ended = False
        """The peer sends no more."""
        self._tcp = stream
        self._tls = (
            None if context is None else trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        )
        self._write_lock = trio.Lock()
        self.peer = _address(stream.socket.getpeername)
        """Host and port of the far end; None if it has left already."""
        self.own = _address(stream.socket.getsockname)
        """Our own."""

    def __str__(self) -> str:
        return f"{self.peer[0]}:{self.peer[1]}" if self.peer else "a client that has left"

    @property
    def is_tls(self) -> bool:
        """Whether it is encrypted."""
        return self._tls is not None

    async def handshake(self, within_s: float) -> None:
        """Begin TLS, if it is to be spoken.

        Raises:
          PeerLost: the peer does not speak it, or not in time.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._tls is None:
            return
        try:
            with trio.fail_after(within_s):
                await self._tls.do_handshake()
        except (*_LOST, trio.TooSlowError) as error:
            raise PeerLost(f"no TLS: {error.__cause__ or error}") from None

    async def read(self) -> bytes:
        """Read what comes next; nothing when the peer has ended.

        Raises:
          PeerLost: it did not end, it is gone.
        """
        if self.ended:
            await trio.lowlevel.checkpoint()
            return b""
        try:
            data = await (self._tls or self._tcp).receive_some(READ_BYTES)
        except _LOST as error:
            self.ended = True
            raise PeerLost(str(error.__cause__ or error)) from None
        self.ended = not data
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Write all of it. Does not checkpoint where the socket takes everything at once.

        Raises:
          PeerLost: it could not be written.

        Cancellation: the write is finished first, within `STALL_S`, so that no frame is cut in half.
        """
        rest = self._write_now(data)
        if not rest:
            return
        try:
            with trio.fail_after(STALL_S, shield=True):
                async with self._write_lock:
                    await (self._tls or self._tcp).send_all(rest)
        except _LOST as error:
            raise PeerLost(str(error.__cause__ or error)) from None
        except trio.TooSlowError:
            logger.warning("%s: cut off, because it has not read for %g s", self, STALL_S)
            self.cut()
            raise PeerLost("it does not read") from None

    def _write_now(self, data: bytes) -> bytes | memoryview:
        """Write what the socket takes, which is mostly all, at a fraction of the cost of being ready to wait for it."""
        if self._tls is not None or self._write_lock.locked():
            return data
        try:
            written = os.write(self.socket.fileno(), data)
        except OSError:  # it takes nothing now, or it is gone, which the next attempt will tell
            return data
        return memoryview(data)[written:]

    async def linger(self) -> None:
        """Say that nothing more comes, and throw away what the peer still sends, within bounds."""
        with trio.move_on_after(LINGER_S):
            try:
                if self._tls is None:
                    await self._tcp.send_eof()
                while await self.read():
                    pass
            except (PeerLost, *_LOST):
                pass

    async def aclose(self) -> None:
        """Close it, whatever state it is in. Bounded; shielded from cancellation."""
        with trio.move_on_after(LINGER_S, shield=True):
            try:
                if self._tls is not None and not self._write_lock.locked():
                    await self._tls.aclose()  # with TLS's own goodbye
            except _LOST:
                pass
        await trio.aclose_forcefully(self._tcp)

    def cut(self) -> None:
        """Close the socket under everything that still uses it, which ends it at once."""
        self.socket.close()


def _address(name: Callable[[], Sequence[str | int]]) -> tuple[str, int] | None:
    try:
        host, port = name()[:2]
    except OSError:
        return None
    return str(host), int(port)
