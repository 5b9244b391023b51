"""How the doors tell what is open at them that it is to end.

Cancelling a stream from outside would cut it in the middle of a frame. Instead a stream marks where it merely waits;
`begin` ends the waiting, and the stream takes its leave by itself.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Closing:
    """Something that will end, and those who wait until then."""

    def __init__(self) -> None:
        self._waiting: set[trio.CancelScope] = set()
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether it is time to end."""
        return self._begun

    def begin(self) -> None:
        """End every wait, those to come included."""
        self._begun = True
        for scope in self._waiting:
            scope.cancel()

    @contextmanager
    def wait(self, seconds: float = math.inf) -> Iterator[trio.CancelScope]:
        """Run a block that ends early when it is time, or when `seconds` have passed."""
        with trio.move_on_after(seconds) as scope:
            if self._begun:
                scope.cancel()
            self._waiting.add(scope)
            try:
                yield scope
            finally:
                self._waiting.discard(scope)
