"""The two kinds of UDP sockets of a side: its door, which hears everybody, and its link, which hears one endpoint.

The link has the door's port but is connected, so the kernel delivers to it what its endpoint sends and to the door what
anybody else does: the hot path asks no questions, and strangers can still be counted, refused or let in. The link is
bound to the very address that the endpoint wrote to. On a machine with several addresses the kernel would otherwise
answer from any of them, and the endpoint's router would throw the answers away.
"""

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from impervious.config.address import Address
from impervious.errors import FailedPrecondition, ResourceExhausted

from .burst import DATAGRAM_BYTES

BUFFER_BYTES: Final = 4 << 20
"""Asked for each way on a link: about 5000 datagrams, 50 ms of 100,000 a second. Linux grants net.core.rmem_max."""

UNCHECKED: Final = 64
"""More datagrams than a buffer of the least size holds, whatever they are."""

_LEAST_BUFFER_BYTES: Final = 1
"""Linux makes 4.5 KiB of it: nine datagrams at most."""

_ANCILLARY_BYTES: Final = 64
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")
_IP_PKTINFO: Final = 8
"""ip(7). Python names it from 3.14 on."""
_SO_MEMINFO: Final = 55
"""socket(7), Linux since 4.12: nine 32-bit numbers, the last of them datagrams dropped (SK_MEMINFO_DROPS)."""

Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A datagram at a door."""

    payload: bytes
    source: Address
    local: str
    """Our address that it was sent to; empty: unknown."""
    raw_source: tuple[str, int]
    """The source as the door's socket writes it."""
    ancillary: Ancillary
    """How it came: sent back with a reply, it makes the reply leave the same way."""


class Door:
    """The unconnected socket of one port.

    *Ownership:* has a socket; whoever opened it closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.port: int = sock.getsockname()[1]

    @classmethod
    def open(cls, bind: str, port: int) -> Self:
        """Open a port.

        Args:
          bind: a numeric address of this machine; empty: all, IPv6 too where there is any.
          port: 0 lets the system choose.

        Raises:
          FailedPrecondition: the port is taken, or may not be opened by us.
          ResourceExhausted: no more files may be open.
        """
        try:
            return cls(_open_everywhere(port) if not bind else _open(_family(bind), bind, port))
        except OSError as error:
            raise _explained(error, bind, port) from error

    def receive(self) -> Arrival:
        """Take the next datagram.

        Raises:
          BlockingIOError: there is none.
          OSError: the network reported an error for an earlier reply; the next call goes on.
        """
        payload, ancillary, _, raw_source = self.sock.recvmsg(DATAGRAM_BYTES, _ANCILLARY_BYTES)
        return Arrival(
            payload=payload,
            source=Address(host=_plain(raw_source[0]), port=raw_source[1]),
            local=_local(ancillary),
            raw_source=raw_source[:2],
            ancillary=ancillary,
        )

    def reply(self, arrival: Arrival, payload: bytes) -> None:
        """Answer from the address that it was sent to; what cannot be sent is lost, as datagrams may be."""
        try:
            self.sock.sendmsg([payload], arrival.ancillary, 0, arrival.raw_source)
        except OSError:
            return

    def link_to(self, arrival: Arrival, *, instead_of: "Link | None") -> "Link":
        """Open the link to the sender of a datagram.

        Args:
          arrival: the datagram.
          instead_of: the link that will be closed for it.

        Raises:
          OSError: there can be none: the address is not one to send to.
        """
        family = _family(arrival.source.host)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            with _sharing_the_port(self.sock, sock, *([instead_of.sock] if instead_of else [])):
                sock.bind((arrival.local, self.port))
            sock.connect((arrival.source.host, arrival.source.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        except OSError:
            sock.close()
            raise
        return Link(sock, arrival.source)


class Link:
    """The connected socket of one endpoint.

    Attributes:
      unchecked: how many of the next datagrams may be anybody's, because they may have come between bind and connect.
        The receive buffer is kept small until then, so they are few.
      refused: its endpoint's machine has said that nobody listens there, after the endpoint was last heard.
      heard_at: when the endpoint was last heard.

    *Ownership:* has a socket; whoever opened it closes it.
    """

    def __init__(self, sock: socket.socket, endpoint: Address) -> None:
        self.sock = sock
        self.endpoint = endpoint
        self.unchecked = UNCHECKED
        self.refused = False
        self.heard_at = 0.0

    def receive_checked(self) -> tuple[bytes, bool]:
        """Take the next datagram while there are unchecked ones; also says whether it is the endpoint's.

        Raises:
          BlockingIOError: there is none.
          OSError: the network reported an error for an earlier datagram; the next call goes on.
        """
        self.unchecked -= 1
        payload, source = self.sock.recvfrom(DATAGRAM_BYTES)
        return payload, (source[0], source[1]) == (self.endpoint.host, self.endpoint.port)

    def overruns(self) -> int:
        """How many datagrams the kernel dropped because its buffer was full, as far as the system tells."""
        if sys.platform != "linux":
            return 0
        numbers = struct.unpack("=9I", self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))
        return int(numbers[8])


def can_be_endpoint(source: Address) -> bool:
    """Whether a program can have sent from there: a forged source may be any 32 bits and any port.

    A link to port 0 would hear every port of its host and reach none (connect(2) takes port 0 for "unconnected").
    """
    host = ipaddress.ip_address(source.host)
    return source.port != 0 and not (host.is_unspecified or host.is_multicast or host == _BROADCAST)


def is_ours(host: str) -> bool:
    """Whether a numeric address is one of this machine's."""
    with socket.socket(_family(host), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _open_everywhere(port: int) -> socket.socket:
    """Open a port for both families, or for IPv4 where there is no IPv6."""
    try:
        return _open(socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}:
            raise
    return _open(socket.AF_INET, "0.0.0.0", port)


def _open(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if sys.platform == "linux":
            _ask_for_our_address(sock)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _ask_for_our_address(sock: socket.socket) -> None:
    """Have each datagram say which of our addresses it was sent to. Elsewhere than on Linux links do without."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)  # mapped addresses included
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


@contextmanager
def _sharing_the_port(*socks: socket.socket) -> Iterator[None]:
    """Let several sockets have one port: only while the link is bound, so that no other program slips in."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _explained(error: OSError, bind: str, port: int) -> FailedPrecondition | ResourceExhausted:
    where = f"UDP port {port}" + (f" of {bind}" if bind else "")
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return ResourceExhausted(f"{where} cannot be opened: too many files are open (ulimit -n)")
    says = {
        errno.EADDRINUSE: "is taken by another program (`ss -lunp` names it): stop that one, or choose another port",
        errno.EACCES: "may not be opened by this user: ports below 1024 need special rights, choose a higher one",
        errno.EADDRNOTAVAIL: "cannot be opened: this machine does not have that address",
    }
    return FailedPrecondition(f"{where} {says.get(error.errno or 0, f'cannot be opened: {error.strerror}')}")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _plain(host: str) -> str:
    """Write an IPv4 address that came through an IPv6 socket as what it is (RFC 4291, section 2.5.5.2)."""
    address = ipaddress.ip_address(host)
    return str(address.ipv4_mapped) if address.version == 6 and address.ipv4_mapped else host


def _local(ancillary: Ancillary) -> str:
    """Find our own address in struct in6_pktinfo (ipv6(7)) or in_pktinfo (ip(7))."""
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            address, interface = ipaddress.IPv6Address(value[:16]), int.from_bytes(value[16:20], sys.byteorder)
            scope = f"%{interface}" if address.is_link_local else ""
            return _plain(f"{address}{scope}")
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return str(ipaddress.IPv4Address(value[4:8]))
    return ""
