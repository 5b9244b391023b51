"""What a server-streaming RPC of a simulated LND gives: values, then an end that is clean, refused or broken."""

import math
from typing import Generic, TypeVar

import trio

from impervious.sim.engine.answers import LndError

T = TypeVar("T")


class LiveStream(trio.abc.ReceiveChannel[T], Generic[T]):
    """A stream of values for one client.

    Its queue has no bound, as LND's have none: LND never loses an event of a slow client, it only grows.
    """

    def __init__(self) -> None:
        self._values_in, self._values_out = trio.open_memory_channel[T](math.inf)
        self._error: LndError | None = None
        self._broken = False

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more."""
        return self._values_in.statistics().open_send_channels == 0

    def put(self, value: T) -> None:
        """Send a value, unless the stream has ended."""
        if not self.ended:
            self._values_in.send_nowait(value)

    def end(self, error: LndError | None = None) -> None:
        """End after what has been sent: with status OK, or with an error."""
        if not self.ended:
            self._error = error
            self._values_in.close()

    def tear(self, error: LndError) -> None:
        """Break the connection: what has not been received yet is lost."""
        self._broken = not self.ended
        self.end(error)

    async def receive(self) -> T:
        """Wait for the next value.

        Raises:
          trio.EndOfChannel: LND has ended the stream with status OK.
          LndError: it ended in another way.

        Cancellation: loses nothing.
        """
        if not self._broken:
            try:
                return await self._values_out.receive()
            except trio.EndOfChannel:
                if self._error is None:
                    raise
        await trio.lowlevel.checkpoint()
        assert self._error is not None
        raise LndError(self._error.text, self._error.status)

    async def aclose(self) -> None:
        """Stop listening."""
        self._values_in.close()
        self._values_out.close()
        await trio.lowlevel.checkpoint()
