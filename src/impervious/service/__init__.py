"""What a service is, and everything it is given: ours and third parties' alike.

A service has commands, which are coroutines of its own, and may handle facts: messages from other nodes, the ends of
its own calls. Facts come from the log through a durable cursor of the service's own, one at a time and in order.
Handling one returns an *effect*, a function that runs in the transaction that also moves the cursor: so it happens
exactly once, whatever crashes, and a slow handler holds up nobody but itself.
"""

from impervious.model import Peer, SettledInvoice, Shown
from impervious.service.command import command
from impervious.service.context import ServiceContext
from impervious.service.contract import Effect, Service
from impervious.service.facts import Fact, Outcome, VerifiedMessage
from impervious.service.running import RunningService
from impervious.service.transaction import ServiceTx

__all__ = [
    "Effect",
    "Fact",
    "Outcome",
    "Peer",
    "RunningService",
    "Service",
    "ServiceContext",
    "ServiceTx",
    "SettledInvoice",
    "Shown",
    "VerifiedMessage",
    "command",
]
