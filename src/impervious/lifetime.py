"""Whether something can still be used: open once, then closed for good."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Lifetime:
    """What the methods of an object ask before they begin, and wait under.

    Args:
      what: is open, for the error: "the node".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._waiting: set[trio.CancelScope] = set()
        self.closed = False

    def require_open(self) -> None:
        """Refuse what comes too late.

        Raises:
          trio.ClosedResourceError: it is closed.
        """
        if self.closed:
            raise trio.ClosedResourceError(f"{self._what} is closed: open it again")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Run a block that may wait for something that comes only while this is open.

        Raises:
          trio.ClosedResourceError: it is closed, or was closed while the block waited.
        """
        self.require_open()
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            self.require_open()

    def close(self) -> None:
        """Close it, and end every wait. Closing it again changes nothing."""
        self.closed = True
        for scope in self._waiting:
            scope.cancel()
