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


class Decode(Protocol):
    """How a server reads requests."""

    def __call__(self, message_type: type[M], data: bytes, /) -> M:
        """Read one.

        Raises:
          Exception: whatever it raises, the request is no message of that type. Its text is for the client.
        """
        ...


def plainly(message_type: type[M], data: bytes, /) -> M:
    """Read a request as its class reads it."""
    return message_type.FromString(data)


def parse(message_type: type[M], data: bytes, *, status: Status = Status.INTERNAL) -> M:
    """The message in `data`.

    Raises:
      GRPCError: with that status: it is none. Protobuf libraries raise whatever they like, so whatever they raise
        becomes this.
    """
    try:
        return message_type.FromString(data)
    except Exception as error:
        raise GRPCError(status, f"{len(data)} bytes are no {message_type.__name__}") from error
