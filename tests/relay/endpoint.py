"""The other end of the safe mode, written from docs/relay.md alone, and sockets on this machine."""

import hashlib
import hmac
import socket
from types import TracebackType
from typing import Self

import pytest


def frame(kind: int, middle: bytes, token: bytes) -> bytes:
    """HELLO (1, nonce) or ANSWER (3, cookie)."""
    start = b"IMR1" + bytes([kind]) + middle
    return start + hmac.new(token, start, hashlib.sha256).digest()


def ready(cookie: bytes, token: bytes) -> bytes:
    """The READY that answers an ANSWER."""
    return b"IMR1\x04" + hmac.new(token, b"IMR1\x04" + cookie, hashlib.sha256).digest()


class Endpoint:
    """A UDP socket that talks to one port of a relay, without waiting: loopback delivers at once."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, own_port: int = 0) -> None:
        self.relay = host, port
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((host, own_port))
        self.port: int = self.sock.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.sock.sendto(datagram, self.relay)

    def received(self) -> list[bytes]:
        """Everything that waits, in order."""
        datagrams = []
        while True:
            try:
                datagrams.append(self.sock.recv(65_535))
            except BlockingIOError:
                return datagrams

    def sender(self) -> tuple[str, int]:
        """Where the next datagram comes from."""
        host, port = self.sock.recvfrom(65_535)[1][:2]
        return host, port


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
