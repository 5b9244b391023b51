"""Up to 64 datagrams at a time between the kernel and one buffer: a system call each way for the whole burst.

On Linux these are recvmmsg(2) and sendmmsg(2), which the standard library does not offer, called through ctypes:
Python's work then is that of one datagram, not of 64. Elsewhere the same interface makes a call for each datagram.
The buffer has a slot for each datagram; nothing is copied between receiving and sending. Sockets must not block.
"""

import ctypes
import mmap
import os
import socket
from array import array
from typing import Final, Protocol

BURST: Final = 64
"""Datagrams in one burst: beyond it a system call's own cost no longer matters (measured: 32, 64 and 128)."""

DATAGRAM_BYTES: Final = 65_535
"""No UDP payload is longer (RFC 768; 65,507 over IPv4, 65,527 over IPv6)."""

_SLOT_BYTES: Final = 65_536 + 320
"""Not a power of two: slots 64 KiB apart would all compete for the same lines of the processor's caches."""


class Burst(Protocol):
    """A buffer of `BURST` datagrams."""

    def receive(self, sock: socket.socket) -> list[int]:
        """Fill the slots from the first on with what waits on a connected socket.

        Returns:
          The sizes in bytes; at least one, fewer than `BURST` when nothing more waits.

        Raises:
          BlockingIOError: nothing waits.
          OSError: the network reported an error for a datagram sent earlier; the next call goes on.
        """

    def send(self, sock: socket.socket, first: int, count: int) -> int:
        """Send `count` slots, beginning with slot `first`, as they were filled.

        Returns:
          How many the kernel took, at least one.

        Raises:
          OSError: it did not take the first of them; BlockingIOError when its buffer is full.
        """

    def load(self, datagram: bytes) -> None:
        """Fill the first slot."""

    def datagram(self, slot: int) -> bytes:
        """Copy what is in a slot."""


class PlainBurst:
    """One system call for each datagram: works everywhere."""

    def __init__(self) -> None:
        slots = memoryview(_buffer())
        self._slots = [slots[at * _SLOT_BYTES :][:DATAGRAM_BYTES] for at in range(BURST)]
        self._filled = [slot[:0] for slot in self._slots]

    def receive(self, sock: socket.socket) -> list[int]:
        """See `Burst.receive`."""
        sizes: list[int] = []
        for slot in self._slots:
            try:
                size = sock.recv_into(slot)
            except OSError:
                if not sizes:
                    raise
                break  # an error of the network is lost here, as it may be in recvmmsg; it concerned the past
            self._filled[len(sizes)] = slot[:size]
            sizes.append(size)
        return sizes

    def send(self, sock: socket.socket, first: int, count: int) -> int:
        """See `Burst.send`."""
        sock.send(self._filled[first])
        for sent, datagram in enumerate(self._filled[first + 1 : first + count], start=1):
            try:
                sock.send(datagram)
            except OSError:
                return sent  # the caller tries that one again and hears the reason
        return count

    def load(self, datagram: bytes) -> None:
        """See `Burst.load`."""
        self._filled[0] = self._slots[0][: len(datagram)]
        self._filled[0][:] = datagram

    def datagram(self, slot: int) -> bytes:
        """See `Burst.datagram`."""
        return bytes(self._filled[slot])


class _Piece(ctypes.Structure):
    """struct iovec (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr (recvmsg(2)), as the kernel and glibc have it."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2)): a message, and how long it turned out to be."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


class LinuxBurst:
    """One system call for the whole burst.

    Raises:
      AttributeError: this system has no recvmmsg.
    """

    def __init__(self) -> None:
        # PyDLL keeps the interpreter lock during the call. The calls never block, so others wait for microseconds;
        # giving the lock away would cost us up to 5 ms (sys.getswitchinterval) whenever another thread computes.
        system = ctypes.PyDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = system.recvmmsg, system.sendmmsg
        self._recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
        self._sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._data = _buffer()
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        self._inbound = _Headers(base)
        self._outbound = _Headers(base)

    def receive(self, sock: socket.socket) -> list[int]:
        """See `Burst.receive`."""
        count: int = self._recvmmsg(sock.fileno(), self._inbound.address, BURST, socket.MSG_DONTWAIT, None)
        if count < 0:
            raise _error()
        sizes = self._inbound.lengths[:count].tolist()
        self._outbound.sizes[:count] = memoryview(array("L", sizes))
        return sizes

    def send(self, sock: socket.socket, first: int, count: int) -> int:
        """See `Burst.send`."""
        address = self._outbound.address + first * ctypes.sizeof(_Header)
        sent: int = self._sendmmsg(sock.fileno(), address, count, socket.MSG_DONTWAIT)
        if sent < 0:
            raise _error()
        return sent

    def load(self, datagram: bytes) -> None:
        """See `Burst.load`."""
        self._data[: len(datagram)] = datagram
        self._outbound.sizes[0] = len(datagram)

    def datagram(self, slot: int) -> bytes:
        """See `Burst.datagram`."""
        start = slot * _SLOT_BYTES
        return bytes(self._data[start : start + self._outbound.sizes[slot]])


class _Headers:
    """An array of struct mmsghdr over the slots, for one direction.

    Attributes:
      address: where it is.
      lengths: `msg_len` of each: what the kernel received.
      sizes: `iov_len` of each: what it may receive, or shall send.
    """

    def __init__(self, base: int) -> None:
        self._pieces = (_Piece * BURST)()
        self._headers = (_Header * BURST)()
        self.address = ctypes.addressof(self._headers)
        for at, (piece, header) in enumerate(zip(self._pieces, self._headers, strict=True)):
            piece.base, piece.length = base + at * _SLOT_BYTES, DATAGRAM_BYTES
            header.message.pieces, header.message.piece_count = ctypes.addressof(piece), 1
        self.lengths = _column(self._headers, "I", _Header.length.offset)
        self.sizes = _column(self._pieces, "L", _Piece.length.offset)


def _buffer() -> mmap.mmap:
    """Reserve the slots: memory that is taken when a datagram first uses it, where a bytearray takes 4 MiB at once."""
    return mmap.mmap(-1, BURST * _SLOT_BYTES)


def _column(structures: "ctypes.Array[_Header] | ctypes.Array[_Piece]", code: str, offset: int) -> "memoryview[int]":
    """View one field of all structures of an array; size_t is as wide as unsigned long wherever Linux runs."""
    cells: memoryview[int] = memoryview(structures).cast("B").cast(code)  # type: ignore[call-overload]
    return cells[offset // cells.itemsize :: ctypes.sizeof(structures) // len(structures) // cells.itemsize]


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))  # which makes it a BlockingIOError where it is one


def open_burst() -> Burst:
    """Make the fastest one that this system has."""
    try:
        return LinuxBurst()
    except AttributeError:
        return PlainBurst()
