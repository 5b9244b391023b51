"""Protobuf messages as both betterproto2 and google.protobuf spell them."""

from typing import Protocol, Self, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError


class Message(Protocol):
    """What a request or a response can do."""

    def SerializeToString(self) -> bytes:
        """Its wire form."""
        ...

    @classmethod
    def FromString(cls, data: bytes, /) -> Self:
        """The message with that wire form."""
        ...


Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
M = TypeVar("M", bound=Message)


def parse(message_type: type[M], data: bytes) -> M:
    """The message in `data`.

    Raises:
      GRPCError: INTERNAL, it is none. Protobuf libraries raise whatever they like, so whatever they raise becomes this.
    """
    try:
        return message_type.FromString(data)
    except Exception as error:
        raise GRPCError(Status.INTERNAL, f"{len(data)} bytes are no {message_type.__name__}") from error
