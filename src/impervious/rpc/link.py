"""One socket under one gRPC connection: the only place that reads or writes it.

The reader feeds the sans-IO connection and wakes whoever its calls belong to; it waits for nobody. The writer sends
what the connection has queued, one batch at a time, because a send that is cancelled half-way would tear a frame. The
watcher pings a silent peer and gives up on one that does not answer. Everybody else only changes the connection's state
and calls `flush`, which never blocks.
"""

import logging
import math
import os
import ssl
import struct
from collections.abc import Callable, Iterable
from typing import Final, Generic, NoReturn, TypeVar

import trio

from impervious.wire.grpc.connection import Call, Connection
from impervious.wire.grpc.http2 import PeerError

READ_BYTES: Final = 65_536
"""One read; about four of the largest DATA frames that a peer may send us."""
CLEANUP_S: Final = 0.5
"""Bound of the last write to a peer that is being left."""
YIELD_EVERY: Final = 32
"""Messages that are at hand, or fit into the backlog, are passed on without a trip through the scheduler, which would
cost as much as half a message; every so many there is one, so that a fast stream does not starve the rest."""
_CONTROL_FACTOR: Final = 4
"""The reader pauses at this many times the backlog limit. Calls stop at the limit, so the rest is answers to the peer's
own pings, settings and resets, of which it sends more than it reads."""

# hpack logs every header it encodes at level DEBUG, macaroons included; no log level of ours may bring that out.
logging.getLogger("hpack").setLevel(logging.INFO)

C = TypeVar("C", bound=Call)


class PeerSilent(Exception):
    """The peer is connected and does not react."""


TRANSPORT_ERRORS: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, PeerError, PeerSilent)
"""What a network and a peer can do to us. Anything else is a bug."""


def cause(error: BaseException) -> str:
    """The innermost reason of `error`, as a phrase: Trio wraps it, once for each address tried and once for TLS."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(cause(each) for each in error.exceptions))
    if error.__cause__ is not None:
        return cause(error.__cause__)
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)  # Trio's own text repeats the address
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Wakeup:
    """One task waits, anybody wakes it. Cheaper than a trio.Event for each wait.

    It remembers nothing: look at the state first and wait without a checkpoint in between.
    """

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Sleep until the next `wake`.

        Raises:
          trio.BusyResourceError: another task is waiting already.
        """
        if self._task is not None:
            raise trio.BusyResourceError("another task is waiting for this already")
        self._task = trio.lowlevel.current_task()

        def abort(_raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Wake the waiting task, if there is one."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class Link(Generic[C]):
    """A transport and the sans-IO connection on it.

    Args:
      stream: the connected transport. *Ownership:* the link closes it.
      connection: its state.
      wake: called with the calls that changed; must not block.
    """

    def __init__(self, stream: trio.abc.Stream, connection: Connection[C], wake: Callable[[Iterable[C]], None]) -> None:
        self.stream = stream
        self.connection = connection
        self.last_received = trio.current_time()
        self._wake = wake
        self._work = Wakeup()
        self._drained = trio.lowlevel.ParkingLot()
        self._writing = False

    def flush(self) -> None:
        """Have the writer send what is queued."""
        if not self._writing:
            self._work.wake()

    async def write(self, *, stall_s: float = math.inf) -> NoReturn:
        """Send what is queued, for ever.

        Args:
          stall_s: how long the peer may take to accept one batch.

        Raises:
          PeerSilent: the peer did not accept anything for that long.
          trio.BrokenResourceError: the transport is gone.
        """
        connection = self.connection
        while True:
            data = connection.take_outgoing()
            if not data:
                self._drained.unpark_all()
                await self._work.wait()
                continue
            self._wake(connection.take_blocked())
            self._writing = True
            with trio.move_on_after(stall_s) as scope:
                await self.stream.send_all(data)
            if scope.cancelled_caught:
                raise PeerSilent(f"the peer read nothing for {stall_s:g} s")
            self._writing = False

    async def flushed(self) -> None:
        """Wait until everything queued has been handed to the transport."""
        while self._writing or self.connection.backlog_bytes:
            await self._drained.park()

    async def read(self, after: Callable[[], None]) -> None:
        """Take in what the peer sends until it closes.

        Args:
          after: called after every read, when the changed calls have been woken.

        Raises:
          PeerError: the peer broke HTTP/2.
          trio.BrokenResourceError: the transport is gone.
        """
        connection = self.connection
        limit_bytes = _CONTROL_FACTOR * connection.backlog_limit_bytes
        while True:
            data = await self.stream.receive_some(READ_BYTES)
            if not data:
                return
            self.last_received = trio.current_time()
            self._wake(connection.receive(bytes(data), at=self.last_received))
            after()
            if connection.backlog_bytes:
                self.flush()
            while connection.backlog_bytes >= limit_bytes:
                await self._drained.park()

    async def watch(self, *, silence_s: float, answer_s: float, only_with_calls: bool, first_call: Wakeup) -> NoReturn:
        """Ping a peer that has been silent, and give up on it when it does not answer.

        Args:
          silence_s: how long without a byte from the peer before a ping; also the shortest time between two pings.
          answer_s: how long the peer then has to send anything at all.
          only_with_calls: no pings while no call is open (servers count those as an offence).
          first_call: woken when a call opens, for that case.

        Raises:
          PeerSilent: nothing came.
        """
        connection = self.connection
        last_ping = -math.inf
        count = 0
        while True:
            if only_with_calls and not connection.calls:
                await first_call.wait()
            due = max(self.last_received, last_ping) + silence_s
            if trio.current_time() < due:
                await trio.sleep_until(due)
                continue
            count += 1
            last_ping = trio.current_time()
            connection.ping(struct.pack(">Q", count))
            self.flush()
            await trio.sleep(answer_s)
            if self.last_received < last_ping:
                raise PeerSilent(f"the peer did not answer a ping within {answer_s:g} s")

    async def close(self) -> None:
        """Write what is left, then close the transport.

        Cancellation:
          Closes all the same. To be given CLEANUP_S.
        """
        try:
            data = self.connection.take_outgoing()
            if data and not self._writing:
                await self.stream.send_all(data)
        except TRANSPORT_ERRORS:
            pass  # it was a courtesy
        finally:
            await trio.aclose_forcefully(self.stream)
