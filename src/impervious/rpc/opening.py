"""How a channel comes to be: over TCP, with or without TLS, or over any stream."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from impervious.background import open_tasks
from impervious.wire.grpc.headers import encode_metadata

from .channel import Channel, Dial
from .limits import ChannelLimits
from .tls import require_http2


@asynccontextmanager
async def open_channel(
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    limits: ChannelLimits | None = None,
) -> AsyncIterator[Channel]:
    """A channel to a server, usable inside the block. Nothing is dialled before the first call.

    Args:
      host: name or address.
      port: TCP port.
      ssl_context: for TLS (see `client_context`); ALPN h2 and TLS 1.2 are set on it. None for plaintext.
      server_hostname: name that the certificate must carry, if it is not `host`.
      metadata: sent with every call.
      limits: sizes and times.

    Raises:
      ValueError: metadata that gRPC does not allow.

    Cancellation: ends the block, whose calls go on until it has ended; those of other tasks then fail. A call that
      comes later raises `ChannelClosed`, which is a `trio.ClosedResourceError` and a GRPCError.
    """
    if ssl_context is not None:
        require_http2(ssl_context)

    async def dial() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(host, port)
        if ssl_context is None:
            return stream
        name = server_hostname or host
        return await _handshake(trio.SSLStream(stream, ssl_context, server_hostname=name, https_compatible=True))

    name = server_hostname or host
    authority = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    scheme = "http" if ssl_context is None else "https"
    async with open_channel_over(dial, authority=authority, scheme=scheme, metadata=metadata, limits=limits) as channel:
        yield channel


async def _handshake(stream: "trio.SSLStream[trio.SocketStream]") -> trio.abc.Stream:
    try:
        await stream.do_handshake()
        if stream.selected_alpn_protocol() != "h2":
            raise ssl.SSLError("the server does not offer HTTP/2 (ALPN h2)")
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@asynccontextmanager
async def open_channel_over(
    dial: Dial,
    *,
    authority: str,
    scheme: str = "http",
    metadata: Mapping[str, str | bytes] | None = None,
    limits: ChannelLimits | None = None,
) -> AsyncIterator[Channel]:
    """A channel over any byte stream: a Unix socket, a tunnel, a pair of streams in memory. See `open_channel`.

    Args:
      dial: makes a new connected transport each time it is called.
      authority: what the server is called in requests and errors.
      scheme: "http" or "https", as the server is to see it.
      metadata: sent with every call.
      limits: sizes and times.
    """
    headers = encode_metadata(metadata)
    limits = limits or ChannelLimits()
    async with open_tasks() as tasks:
        channel = Channel(tasks, dial, authority=authority, scheme=scheme, metadata=headers, limits=limits)
        try:
            yield channel
        finally:
            channel.close()
