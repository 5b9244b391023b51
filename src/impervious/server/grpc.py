"""The gRPC door's services: the table of operations, and the event stream.

Both are service objects as grpclib's and our own server take them: a mapping of paths to handlers, here made from the
table instead of by a compiler. A deadline, or a client that leaves, is a cancelled handler.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import betterproto2 as proto
from grpclib.const import Cardinality, Handler
from multidict import MultiDict

from impervious.config import ServiceConfig
from impervious.errors import ImperviousError, InvalidArgument
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse
from impervious.rpc import CallInfo, Servable
from impervious.rpc.server_stream import ServerStream
from impervious.server.convert import STOPPING, problem
from impervious.server.feed import BATCH, Feed
from impervious.server.frames import Framing, Shape
from impervious.server.guard import Authorizer, CallFacts, caller
from impervious.server.operations import CallContext, Door, Operation
from impervious.server.options import Watch, is_extended
from impervious.service.faults import answered

SUBSCRIBE: Final = "/websocket.Websocket/Subscribe"

_SINGLE: Final = frozenset({"authorization", "idempotency-key", "v"})
"""Metadata that are no lists."""

Call = ServerStream[proto.Message, proto.Message]
"""A call of the table."""
Metadata = MultiDict[str | bytes]


class Ready:
    """A message that is bytes already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        """Its wire form."""
        return self._data

    @classmethod
    def FromString(cls, data: bytes, /) -> "Ready":
        """The message with that wire form."""
        return cls(data)


Subscriber = ServerStream[SubscribeRequest, Ready]


def asks(authorizer: Authorizer) -> Callable[[CallInfo], Awaitable[None]]:
    """Have the server ask `authorizer` about each call, whatever service it is for."""

    async def on_call(info: CallInfo) -> None:
        try:
            metadata = texts(info.metadata)
            caller.set(await authorizer(CallFacts(path=info.path, peer=_peer(info.peer.addr()), metadata=metadata)))
        except ImperviousError as error:
            raise problem(error, info.path).grpc_error from None

    return on_call


class TableService:
    """Every operation of the table.

    Args:
      operations: the table.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations

    def __mapping__(self) -> Mapping[str, Handler]:
        """Path -> handler."""
        return {
            each.path: Handler(partial(_answer, each), Cardinality.UNARY_UNARY, each.request_type, each.response_type)
            for each in self._operations
        }


async def _answer(operation: Operation, call: Call) -> None:
    try:
        request = await call.recv_message()
        assert request is not None  # a unary call without a message is refused by recv_message
        response = await operation.call(request, context_of(call.metadata, call.peer.addr()))
    except Exception as error:  # the outermost boundary of a call: whatever it is, the caller is told a code
        raise problem(error, operation.path).grpc_error from error
    await call.send_message(response)


class HostedService:
    """A gRPC service that a service brings: its own handlers, behind our switch and with our errors.

    Args:
      config: of the service that brings it.
      inner: as grpclib generates it.
    """

    def __init__(self, config: ServiceConfig, inner: Servable) -> None:
        self._config = config
        self._handlers = inner.__mapping__()

    @property
    def names(self) -> set[str]:
        """The gRPC services it answers, such as "kv.KeyValue"."""
        return {path.split("/")[1] for path in self._handlers}

    def __mapping__(self) -> Mapping[str, Handler]:
        """Path -> handler."""
        return {
            path: Handler(partial(self._answer, path, handler), *handler[1:])
            for path, handler in self._handlers.items()
        }

    async def _answer(self, path: str, handler: Handler, call: Call) -> None:
        try:
            self._config.require_active()
            await answered(self._config.service_type, partial(handler.func, call))
        except Exception as error:  # the outermost boundary of a call, as below
            raise problem(error, path).grpc_error from error


class StreamService:
    """`Websocket.Subscribe`.

    Args:
      feed: what it is made from.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __mapping__(self) -> Mapping[str, Handler]:
        """Path -> handler."""
        stream = Cardinality.UNARY_STREAM
        return {SUBSCRIBE: Handler(self._subscribe, stream, SubscribeRequest, SubscribeResponse)}

    async def _subscribe(self, call: Subscriber) -> None:
        try:
            request = await call.recv_message()
            assert request is not None  # as above
            await self._stream(call, request)
        except Exception as error:  # as above
            raise problem(error, SUBSCRIBE).grpc_error from error
        raise STOPPING.grpc_error

    async def _stream(self, call: Subscriber, request: SubscribeRequest) -> None:
        self._feed.config.require_active()
        extended = context_of(call.metadata, call.peer.addr()).extended
        asked = Watch.of_request(request, extended=extended, known_types=self._feed.known_types)
        async with self._feed.open(asked) as (watch, subscription):
            encode = self._feed.frames.encoder(Shape(Framing.GRPC, secrets=watch.secrets, extended=watch.extended))
            epoch = {"impervious-epoch": subscription.epoch} if watch.extended else None
            await call.send_initial_metadata(metadata=epoch)  # the word that the subscription stands
            while not self._feed.closing.begun:
                events = subscription.receive_ready(BATCH)
                if not events:
                    with self._feed.closing.wait():
                        events = [await subscription.receive()]
                for event in events:
                    if watch.shows(event):
                        await call.send_message(Ready(encode(event)))


def context_of(metadata: Metadata, address: tuple[str, int] | None) -> CallContext:
    """Gather what a call brings besides its request.

    Raises:
      InvalidArgument: `v` names no version.
    """
    given = texts(metadata)
    return CallContext(
        door=Door.GRPC,
        principal=caller.get(),
        peer=_peer(address),
        metadata=given,
        idempotency_key=given.get("idempotency-key"),
        extended=is_extended(given.get("v"), "v in the metadata"),
    )


def texts(metadata: Metadata) -> dict[str, str]:
    """Take the text values; several of one name are one list, as in HTTP.

    Raises:
      InvalidArgument: one is given twice that is no list.
    """
    found: dict[str, str] = {}
    for name, value in metadata.items():
        if not isinstance(value, str):
            continue
        if name in found and name in _SINGLE:
            raise InvalidArgument(f"{name} is given twice in the metadata: give it once")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _peer(address: tuple[str, int] | None) -> str:
    return f"{address[0]}:{address[1]}" if address else ""
