"""A channel's connection: its socket, its calls, and the slots under the server's stream limit.

It lives until the transport ends, the server stops answering, or a drained connection has no calls left. However it
ends, every call on it ends too, with UNAVAILABLE and the reason.
"""

import math
from collections.abc import Iterable

import trio

from impervious.wire.grpc.client import ClientCall, ClientConnection
from impervious.wire.grpc.headers import Header

from .limits import ChannelLimits
from .link import CLEANUP_S, TRANSPORT_ERRORS, Link, Wakeup, cause
from .raw_stream import RawStream


class ConnectFailed(Exception):
    """The transport came up, but no HTTP/2 connection did."""


class ClientLink:
    """One connection of a channel.

    Args:
      stream: the connected transport. *Ownership:* the link closes it.
      limits: the channel's.
    """

    def __init__(self, stream: trio.abc.Stream, limits: ChannelLimits) -> None:
        self.connection = ClientConnection(limits.tuning())
        self.slots = trio.CapacityLimiter(math.inf)
        self._why = "the channel was closed"  # by cancellation, unless something else is known
        self._limits = limits
        self._link: Link[ClientCall] = Link(stream, self.connection, self._wake)
        self._streams: dict[ClientCall, RawStream] = {}
        self._first_call = Wakeup()
        self._scope = trio.CancelScope()

    @property
    def why(self) -> str:
        """Why this connection takes no calls."""
        goaway = self.connection.goaway
        if goaway is None:
            return self._why
        return f"{self._why} after {goaway}" if self.connection.over else str(goaway)

    # --- For the streams ----------------------------------------------------------------------------------------------

    async def take_slot(self, stream: RawStream) -> None:
        """Wait for a slot under the server's stream limit, first come first served."""
        try:
            self.slots.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await self.slots.acquire_on_behalf_of(stream)

    def give_up_slot(self, stream: RawStream) -> None:
        """Free a slot for which no call was opened."""
        self.slots.release_on_behalf_of(stream)

    def start(self, stream: RawStream, headers: list[Header], *, end: bool) -> ClientCall:
        """Open a call that wakes `stream`, which holds a slot."""
        call = self.connection.open(headers, end=end)
        self._streams[call] = stream
        self._first_call.wake()
        return call

    def flush(self) -> None:
        """Have what is queued sent."""
        self._link.flush()

    def cancel(self, call: ClientCall) -> None:
        """Be done with a call, whatever its state."""
        self.connection.cancel(call)
        self._release(call)
        self._link.flush()
        self._close_if_drained()

    def say_goodbye(self) -> None:
        """Tell the server that we are leaving; sent when the link closes."""
        if not self.connection.over:
            self.connection.say_goodbye()

    # --- Running ------------------------------------------------------------------------------------------------------

    async def run(  # noqa: ASYNC114 - started by its full name
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve the connection until it ends. Started once the server has spoken HTTP/2.

        Raises:
          ConnectFailed: it never did.
        """
        started = False

        def after_read() -> None:
            nonlocal started
            if self.connection.settled:
                self.slots.total_tokens = self.connection.max_calls
                if not started:
                    started = True
                    task_status.started()
            self._close_if_drained()

        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._link.write)
                nursery.start_soon(self._watch)
                try:
                    await self._link.read(after_read)
                finally:
                    self.connection.over = True  # callers get the reason below, once it is known
                self._why = "the server closed the connection"
                nursery.cancel_scope.cancel()
        except* TRANSPORT_ERRORS as group:
            self._why = f"the connection broke: {cause(group)}"
        finally:
            self._lose()
            with trio.move_on_after(CLEANUP_S, shield=True):
                await self._link.close()
        if not started:
            raise ConnectFailed(f"{self.why} before it spoke HTTP/2 (wrong port, or TLS on one side only?)")

    async def _watch(self) -> None:
        limits = self._limits
        await self._link.watch(
            silence_s=limits.keepalive_s,
            answer_s=limits.keepalive_answer_s,
            only_with_calls=True,
            first_call=self._first_call,
        )

    def _wake(self, changed: Iterable[ClientCall]) -> None:
        for call in changed:
            stream = self._streams.get(call)
            if stream is not None:
                stream.wake()
                if call.outcome is not None:
                    self._release(call)

    def _release(self, call: ClientCall) -> None:
        stream = self._streams.pop(call, None)
        if stream is not None:
            self.slots.release_on_behalf_of(stream)

    def _close_if_drained(self) -> None:
        if self.connection.goaway is not None and not self.connection.calls:
            self._scope.cancel()

    def _lose(self) -> None:
        self._wake(self.connection.lose(self.why))
        # Whoever waits for a slot here has to look elsewhere.
        self.slots.total_tokens = math.inf
