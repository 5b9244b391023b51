"""The UDP relay: two endpoints that cannot reach each other send to two ports of this node (docs/relay.md).

`open_relay` gives a `Relay`; its `open` a `Session`; what happens comes out of `Relay.facts`.
"""

from .session import Session
from .sessions import Relay, open_relay
from .values import (
    Closed,
    CloseReason,
    Dropped,
    Fact,
    Moved,
    Opened,
    Paired,
    SessionOptions,
    SessionStatistics,
    SideStatistics,
    Token,
)

__all__ = (
    "CloseReason",
    "Closed",
    "Dropped",
    "Fact",
    "Moved",
    "Opened",
    "Paired",
    "Relay",
    "Session",
    "SessionOptions",
    "SessionStatistics",
    "SideStatistics",
    "Token",
    "open_relay",
)
