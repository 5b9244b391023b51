"""The class that every service is a subclass of."""

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import trio

from impervious.model import RecordType, ServiceType, Shown
from impervious.rpc import Servable
from impervious.service.context import ServiceContext
from impervious.service.facts import Fact, VerifiedMessage
from impervious.service.transaction import ServiceTx

Effect: TypeAlias = Callable[[ServiceTx], object]


class Service:
    """The base of every service. Subclasses set `service_type` and add their commands.

    One is made for every node, also where the operator has switched it off: making it must do nothing but remember
    what it is given. A service that is switched off is never run, shown a message or handed a fact.

    Args:
      context: everything it is given.

    Raises:
      ConfigError: its entry in `service_list` cannot work; says what to put there.
    """

    service_type: ClassVar[ServiceType]
    """The wire's name, also that of its entry in `service_list`: small letters, digits, dots, dashes, underscores."""
    record_type: ClassVar[RecordType | None] = None
    """Its custom record number where the configuration names none; both ends must use the same."""
    migrations: ClassVar[tuple[str, ...]] = ()
    """SQL that makes its tables, whose names begin with its type and an underscore; applied once each, in order."""
    handles_facts: ClassVar[bool] = False
    """Whether `handle` is to be called."""
    handles_payments: ClassVar[bool] = False
    """Whether `handle` is to be called with every `SettledInvoice` too: payments to this node that are no message of
    anybody, from the day on which a service first wanted them."""

    def __init__(self, context: ServiceContext) -> None:
        self.context = context

    def project(self, message: VerifiedMessage) -> Shown | None:
        """Say what streams show of a message, before it gets its place in the log.

        A pure function: it reads the message, and neither writes nor asks anything. It runs in a thread of its own, one
        message after the other; the messages of its service wait for it, and nothing else does. What depends on the
        database is kept back (`public=False`) and shown by the effect of `handle`, with `ServiceTx.show`.

        Args:
          message: what came; its `seq` is 0.

        Returns:
          What to show; None: nothing, and `handle` never sees it. Such messages are counted.

        Raises:
          Malformed: it is none of this service's; it is dropped and counted. So is one at which anything else is
            raised, with a traceback in the log.
        """
        return Shown(data=message.data)

    async def handle(self, fact: Fact) -> Effect | None:
        """Decide what a fact causes. May be called again for the same fact after a crash.

        Returns:
          A function to run in the transaction that marks the fact as handled, or None.

        Raises:
          NodeUnavailable: the fact is shown again after a while, as after NodeRefused and StoreFull, for ever. So it is
            after any other error, here or in that function, but a few times only: then it is set aside, with an ERROR
            in the log and an event (`recordId` SET_ASIDE), and the next fact comes.
        """
        raise AssertionError(f"{type(self).__name__} says that it handles facts and does not")

    async def run(self) -> None:
        """Do what the service does by itself, for as long as the node runs. Most do nothing.

        One that takes a keyword `task_status` must call `task_status.started()`; until then the doors stay closed.

        Raises:
          NodeUnavailable: it is started again after a while, as after NodeRefused and StoreFull.
          ConfigError: ends the node, with what it says to the operator. Whatever else it raises is a mistake of its
            own: that is logged with a traceback, told as an event (`recordId` BROKEN), and it is started again.

        Cancellation: the node stops.
        """
        await trio.lowlevel.checkpoint()

    def grpc_services(self) -> Sequence[Servable]:
        """Return the gRPC services it answers: objects of classes as grpclib generates them. Most have none."""
        return ()

    def grpc_descriptors(self) -> bytes:
        """Return what describes `grpc_services` to clients that ask for it (gRPC server reflection).

        Returns:
          A descriptor set, as `protoc --descriptor_set_out=... --include_imports` writes it; with
          `--include_source_info` its comments are shown too. Empty: classes of google.protobuf are described all the
          same, classes of betterproto2 are only listed by name.
        """
        return b""


class InTurnService(Service):
    """A service of this package that has to decide in the very transaction in which a message has its turn.

    What it writes there is found by the next message of the same sender, whatever service that is for. Others'
    services have `project` instead.
    """

    def show(self, tx: ServiceTx, message: VerifiedMessage) -> Shown | None:
        """Decide what streams show of a message, as `project`, and write what follows from it.

        It must be quick, because everything that arrives waits for it.
        """
        return Shown(data=message.data)
