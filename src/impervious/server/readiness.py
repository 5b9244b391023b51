"""Whether the daemon can do its work now, in one sentence: for /readyz, and for gRPC's health service."""

import json
from dataclasses import dataclass
from typing import Final, Protocol

from impervious.model import NodeState, NodeStatus

DISK_FULL: Final = "the disk is full"
"""How a problem begins that room cures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether calls can be served."""

    state: str
    """`ready`, what the Lightning node lacks (model.NodeState), `disk_full`, or `database`: its file was replaced."""
    reason: str
    """What is missing and what cures it; empty when ready."""

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return self.state == NodeState.READY.value

    @property
    def body(self) -> bytes:
        """As JSON."""
        return json.dumps({"ready": self.ready, "state": self.state, "reason": self.reason}).encode()


class Judged(Protocol):
    """What can be asked whether it is ready."""

    @property
    def status(self) -> NodeStatus:
        """Of the Lightning node."""
        ...

    @property
    def disk_problem(self) -> str | None:
        """Why nothing can be stored; None: it can."""
        ...


def readiness(node: Judged) -> Readiness:
    """Ask the Lightning node, then the disk."""
    status = node.status
    if not status.ready:
        return Readiness(state=status.state.value, reason=status.reason)
    disk = node.disk_problem
    if disk is not None:
        return Readiness(state="disk_full" if disk.startswith(DISK_FULL) else "database", reason=disk)
    return Readiness(state=status.state.value, reason="")
