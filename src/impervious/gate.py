"""Whether this node may pay now: asked before every payment, closed by those who know a reason against it."""

from collections.abc import Awaitable, Callable

import trio

from impervious.errors import FailedPrecondition, NodeUnavailable

STARTING = "start"
"""The cause that ends by itself, and soon."""


class PaymentGate:
    """Open unless somebody has closed it; each cause is closed and opened by one task."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self.look: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Finds out what is not known yet, and closes or opens accordingly."""

    @property
    def reason(self) -> str:
        """Why nothing may be paid, and what cures it; empty: it may. Messages wait as long as there is one."""
        return next(iter(self._reasons.values()), "")

    def is_closed(self, cause: str) -> bool:
        """Whether nothing may be paid for this cause."""
        return cause in self._reasons

    def close(self, cause: str, reason: str) -> None:
        """Let nothing be paid, for this reason."""
        self._reasons[cause] = reason

    def open(self, cause: str) -> None:
        """Take a reason back."""
        self._reasons.pop(cause, None)

    async def require(self) -> None:
        """Refuse to pay, if there is a reason to. Raises: as `check`."""
        await self.look()
        self.check()

    def check(self) -> None:
        """Refuse to pay, if a reason against it is known.

        Raises:
          FailedPrecondition: the operator must do something; says what.
          NodeUnavailable: it will be known soon.
        """
        for cause, reason in self._reasons.items():
            if cause == STARTING:
                raise NodeUnavailable(reason)
            raise FailedPrecondition(reason)
