"""What all services of a simulated LND's port share: errors as gRPC's, requests, macaroons."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError

from impervious.rpc.message import Request as In
from impervious.rpc.message import Response as Out
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.answers import LndError
from impervious.sim.face import macaroon
from impervious.sim.face.caveats import Caller
from impervious.sim.face.credentials import Credentials
from impervious.sim.face.permissions import Permission


@contextmanager
def answering() -> Iterator[None]:
    """LND's errors as gRPC's."""
    try:
        yield
    except LndError as error:
        raise GRPCError(error.status, error.text) from error


async def request_of(stream: ServerStream[In, Out]) -> In:
    """The one message of a call that answers with a stream."""
    request = await stream.recv_message()
    assert request is not None, "a method that takes one message is refused without it"
    return request


def unary(answer: Callable[[In], Awaitable[Out]], request: type[In], response: type[Out]) -> Handler:
    """A method of one message each way, whose function answers in values or raises LndError."""

    async def handle(stream: ServerStream[In, Out]) -> None:
        message = await request_of(stream)
        with answering():
            await stream.send_message(await answer(message))

    return Handler(handle, Cardinality.UNARY_UNARY, request, response)


@dataclass(frozen=True, slots=True)
class Gate:
    """What decides who may call a simulated LND."""

    credentials: Credentials

    def check(self, data: bytes, needed: list[Permission], path: str, caller: Caller) -> bool:
        """See whether a macaroon is ours, its caveats hold, and it allows what is needed.

        Returns:
          Whether the same macaroon may do that again without a check: it has no caveats.

        Raises:
          LndError: in LND's words.
        """
        presented = macaroon.Macaroon.parse(data)
        presented.check(self.credentials.root_key_of(presented.root_key_id), caller)
        if not macaroon.allows(presented.permissions, needed, path):
            raise LndError("permission denied")
        return not presented.caveats
