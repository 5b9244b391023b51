"""Sizes, numbers and times of both roles. Every default is a choice; the reason stands beside it."""

from dataclasses import dataclass

from impervious.wire.grpc.http2 import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """Limits of a client channel. The defaults suit LND."""

    message_bytes: int = 200 << 20
    """Longest response. LND's own limit is 200 MiB, and ListInvoices uses it."""
    stream_window_bytes: int = 1 << 20
    """What a call may hold of messages that nobody has asked for yet."""
    connection_window_bytes: int = 64 << 20
    """The same for all calls together: 64 calls may be left unread before they hold up the others."""
    header_list_bytes: int = 64 << 10
    """Longest response header list, uncompressed."""
    backlog_bytes: int = 256 << 10
    """Bytes waiting for the socket beyond which senders wait."""
    connect_s: float = 20.0
    """For the TCP connection, TLS and the first HTTP/2 frames together."""
    keepalive_s: float = 30.0
    """Silence after which a connection with open calls is pinged. LND takes offence below 5 s."""
    keepalive_answer_s: float = 10.0
    """How long the answer may take."""

    def tuning(self) -> Tuning:
        """The sizes, for the connection."""
        return _tuning(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of a server, most of them against clients that mean harm."""

    message_bytes: int = 4 << 20
    """Longest request; what gRPC servers usually allow."""
    unfinished_bytes: int = 64 << 20
    """What all connections together may hold of requests that are not complete yet."""
    stream_window_bytes: int = 256 << 10
    """What a call may hold of requests that its handler has not asked for yet."""
    connection_window_bytes: int = 4 << 20
    """The same for all calls of a connection together."""
    header_list_bytes: int = 16 << 10
    """Longest request header list, uncompressed; a macaroon takes about 1 KiB of it."""
    backlog_bytes: int = 256 << 10
    """Bytes waiting for a socket beyond which its handlers wait before they send more."""
    calls: int = 1000
    """Calls a connection may have open at once: one front end with many subscribers uses one connection."""
    connections: int = 1000
    """Connections open at once; beyond, new ones are closed at once."""
    connections_per_client: int = 0
    """The same from one address, or one IPv6 network of 64 bits; 0 for no limit. Loopback never has one."""
    request_s: float = 60.0
    """How long the one message of a request may take to arrive."""
    resets: int = 1000
    """Calls that a client may take back in one go before it is disconnected (rapid reset, CVE-2023-44487)."""
    resets_per_s: float = 100.0
    """How fast that allowance grows back."""
    failures: int = 1000
    """Calls to unknown methods, malformed ones and others that fail by the client's fault, in one go, before it is
    disconnected: they cost about as much as calls that succeed, and a program that goes on with them is broken."""
    failures_per_s: float = 100.0
    """How fast that allowance grows back."""
    control_frames: int = 1000
    """Settings, pings, windows, priorities and other frames without content that a client may send in one go, beside
    two for each frame of ours, before it is disconnected (CVE-2019-9512 and its kin)."""
    control_frames_per_s: float = 100.0
    """How fast that allowance grows back."""
    handshake_s: float = 10.0
    """For TLS and the first HTTP/2 frames together."""
    idle_s: float = 300.0
    """A connection without calls for this long, at most twice this long, is asked to leave."""
    keepalive_s: float = 60.0
    """Silence after which a client is pinged."""
    keepalive_answer_s: float = 20.0
    """How long the answer may take."""
    slow_reader_s: float = 60.0
    """How long a client may leave the socket unread while something waits to be sent."""

    def tuning(self) -> Tuning:
        """The sizes, for a connection."""
        return _tuning(self)


def _tuning(limits: ChannelLimits | ServerLimits) -> Tuning:
    return Tuning(
        message_bytes=limits.message_bytes,
        stream_window_bytes=limits.stream_window_bytes,
        connection_window_bytes=limits.connection_window_bytes,
        header_list_bytes=limits.header_list_bytes,
        backlog_bytes=limits.backlog_bytes,
    )
