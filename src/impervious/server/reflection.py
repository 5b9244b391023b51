"""gRPC's reflection service, made at the first question: what it stands on takes 10 MB that most daemons never need.

Until then it is two paths that pass bytes on; `server.reflected` knows the answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, Self

from grpclib.const import Cardinality, Handler, Status

from impervious.rpc import Servable, ServerStream
from impervious.rpc.message import Message, parse

PATHS: Final = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


@dataclass(frozen=True, slots=True)
class Unread:
    """A message that nobody has read yet."""

    data: bytes

    def SerializeToString(self) -> bytes:
        """Its wire form."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Any bytes are one."""
        return cls(data)


class Reflection:
    """Both versions of the service.

    Args:
      services: all others.
      described: descriptor sets of services that bring them, each with a name for the log.
    """

    def __init__(self, services: Sequence[Servable], described: Iterable[tuple[str, bytes]] = ()) -> None:
        self._services = services
        self._described = tuple(described)

    def __mapping__(self) -> Mapping[str, Handler]:
        return {path: Handler(partial(self._answer, path), Cardinality.STREAM_STREAM, Unread, Unread) for path in PATHS}

    async def _answer(self, path: str, stream: ServerStream[Unread, Unread]) -> None:
        handler = self._handlers[path]
        await handler.func(_Read(stream, handler.request_type))

    @cached_property
    def _handlers(self) -> Mapping[str, Handler]:
        from impervious.server.reflected import with_reflection

        made = with_reflection(self._services, self._described)[-len(PATHS) :]
        return {path: handler for each in made for path, handler in each.__mapping__().items()}


class _Read:
    """The stream as the service expects it."""

    def __init__(self, stream: ServerStream[Unread, Unread], request_type: type[Message]) -> None:
        self._stream = stream
        self._request_type = request_type

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message = await self._stream.recv_message()
        if message is None:
            raise StopAsyncIteration
        return parse(self._request_type, message.data, status=Status.INVALID_ARGUMENT)

    async def send_message(self, message: Message) -> None:
        await self._stream.send_message(Unread(message.SerializeToString()))
