"""What the stream and the log are told of a message that has not ended: why it waits, once for each reason."""

import json
import logging
from dataclasses import dataclass, field
from typing import Final

from impervious.model import STATUS, EventKind, NewEvent, NodePubkey
from impervious.store import Tx, outbox
from impervious.store.outbox import Stored
from impervious.units import Msat

logger = logging.getLogger(__name__)

RETRYING: Final = "retrying"
PENDING: Final = "pending"
QUIET_MS: Final = 10_000
"""Reasons that take turns are not told more often than this; each is looked at again with the next attempt."""
MAX_REASON_CHARS: Final = 500


@dataclass(slots=True)
class Progress:
    """What was told of one message. Made from what is stored, so that a restart repeats nothing."""

    stored: Stored
    reason: str = ""
    """Why the last attempt failed; empty: none has."""
    next_try_ms: int = 0
    """When the next attempt begins; 0: none is planned."""
    _told: dict[str, str] = field(default_factory=dict)
    """State -> reason, as last told."""
    _told_ms: int = 0

    def __post_init__(self) -> None:
        if self.stored.progress:
            told = json.loads(self.stored.progress)
            self._told[told["state"]] = told["reason"]

    def retrying(self, reason: str, *, now_ms: int, next_try_ms: int) -> str | None:
        """Note that an attempt failed and another one follows.

        Returns:
          What is to be told (JSON); None: it has been.
        """
        self.reason, self.next_try_ms = reason[:MAX_REASON_CHARS], next_try_ms
        if self._told.get(RETRYING) == self.reason or now_ms - self._told_ms < QUIET_MS:
            return None
        self._told_ms = now_ms
        return self._tell(RETRYING, {"next_try_ms": next_try_ms, "until_ms": self.stored.deadline_ms})

    def pending(self, reason: str, parts_in_flight: int) -> str | None:
        """Note that its time is over while payments are under way.

        Returns:
          What is to be told (JSON); None: it has been.
        """
        return None if PENDING in self._told else self._tell(PENDING, {"parts_in_flight": parts_in_flight}, reason)

    def _tell(self, state: str, facts: dict[str, object], reason: str | None = None) -> str:
        self._told[state] = self.reason if reason is None else reason
        return json.dumps(
            {
                "state": state,
                "service": self.stored.message.service_type,
                "reason": self._told[state],
                **{name: value for name, value in facts.items() if value is not None},
            }
        )


def tell(tx: Tx, stored: Stored, local: NodePubkey | None, progress: str) -> None:
    """Put what is told (JSON) on the stream, and beside the message."""
    message = stored.message
    outbox.set_progress(tx, message.id, progress)
    tx.emit(
        NewEvent(
            kind=EventKind.PROGRESS,
            id=message.id,
            reply_to=None,
            sender=local,
            service_type=STATUS,
            topic=message.service_type,
            data=progress.encode(),
            amount=Msat(0),
            sent_at_ms=tx.now_ms,
            verified=True,
        )
    )
