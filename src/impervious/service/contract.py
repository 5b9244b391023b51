"""The class that every service is a subclass of."""

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import trio

from impervious.model import RecordType, ServiceType
from impervious.rpc import Servable
from impervious.service.context import ServiceContext
from impervious.service.facts import Fact
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
    handles_facts: ClassVar[bool] = False
    """Whether `handle` is to be called."""

    def __init__(self, context: ServiceContext) -> None:
        self.context = context

    async def handle(self, fact: Fact) -> Effect | None:
        """Decide what a fact causes. May be called again for the same fact after a crash.

        Returns:
          A function to run in the transaction that marks the fact as handled, or None.
        """
        raise AssertionError(f"{type(self).__name__} says that it handles facts and does not")

    async def run(self) -> None:
        """Do what the service does by itself, for as long as the node runs. Most do nothing.

        Raises:
          NodeUnavailable: it is started again after a while, as after NodeRefused and StoreFull. Whatever else it
            raises ends the node.

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
