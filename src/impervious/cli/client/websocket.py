"""One websocket to a daemon, on trio-websocket.

Made from a stream rather than a URL: so a name, an IPv6 address and a test's memory stream go the same way, and the
Host header is right for each (trio-websocket 0.12 leaves the brackets of IPv6 out of it, which the daemon refuses).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast

import trio
from trio_websocket import HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from impervious.cli.client.door import Door

CONNECT_S: Final = 10.0
CLOSE_S: Final = 1.0
"""How long the daemon has for its half of the closing handshake."""
LARGEST_BYTES: Final = 32 << 20
"""Of a frame: message.max_bytes goes up to 8 MiB, base64 makes that 11."""
QUEUE: Final = 16
"""Messages received ahead of their reader: a pong behind a few of them is still found in time."""

BROKEN: Final = (OSError, trio.BrokenResourceError, trio.TooSlowError, ProtocolError)
"""How a connection that cannot be made, or does not work, shows itself."""

Dial: TypeAlias = "Callable[[Door], Awaitable[trio.abc.Stream]]"
"""Makes the stream to a door."""


async def dial(door: Door) -> trio.abc.Stream:
    """Connect by TCP, and TLS where the door has it.

    Raises:
      OSError: nobody listens there.
    """
    stream = await trio.open_tcp_stream(door.address.host, door.address.port)
    if door.tls is None:
        return stream
    return trio.SSLStream(stream, door.tls, server_hostname=door.address.host, https_compatible=True)


@asynccontextmanager
async def open_websocket(door: Door, resource: str, *, dial: Dial = dial) -> AsyncIterator[WebSocketConnection]:
    """Open a websocket for as long as the block runs.

    Args:
      door: of the daemon.
      resource: path and query, from /v1 on.
      dial: how to reach it.

    Raises:
      HandshakeError: the daemon refused (trio-websocket's ConnectionRejected).
      OSError, trio.BrokenResourceError, trio.TooSlowError, ProtocolError: it cannot be opened.
      They come ungrouped, and so does what the block raises.
    """
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_S):
                # The library's annotation asks for a socket; it uses what every stream has.
                stream = cast("trio.SocketStream", await dial(door))
                connection = await wrap_client_stream(
                    nursery,
                    stream,
                    str(door.address),
                    door.path + resource,
                    message_queue_size=QUEUE,
                    max_message_size=LARGEST_BYTES,
                    receive_buffer_size=None,
                )
            try:
                yield connection
            except Exception as error:
                failure = error
            finally:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await connection.aclose()
            nursery.cancel_scope.cancel()
    except* (HandshakeError, *BROKEN) as group:
        failure = failure or _first(group)
    if failure is not None:
        raise failure


def _first(error: BaseException) -> Exception:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
