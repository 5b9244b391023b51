"""A mix-in for generated service classes with streaming responses.

betterproto2 turns a server-streaming method into an async generator and iterates it with a bare `async for`. When the
client goes away in the middle, such a generator is left for the garbage collector, which runs its cleanup at an unknown
time and warns about it. With this mix-in it is closed on the spot.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
Sent = TypeVar("Sent", contravariant=True)


class Sender(Protocol[Sent]):
    """What is needed of a server's stream."""

    async def send_message(self, message: Sent) -> None:
        """Send one message."""
        ...


class StreamsClosed:
    """Stands before the generated base: `class Events(StreamsClosed, EventsBase)`."""

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[[In], AsyncGenerator[Out, None]], stream: Sender[Out], request: In
    ) -> None:
        async with aclosing(handler(request)) as responses:
            async for response in responses:
                await stream.send_message(response)
