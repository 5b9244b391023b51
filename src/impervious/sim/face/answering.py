"""What all services of a simulated LND's port share: errors as gRPC's, requests, macaroons."""

from collections.abc import Iterator
from contextlib import contextmanager

from grpclib.exceptions import GRPCError

from impervious.rpc.message import Request as In
from impervious.rpc.message import Response as Out
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.answers import LndError
from impervious.sim.face import macaroon
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


def check_macaroon(data: bytes, root_key: bytes, needed: list[Permission], path: str) -> None:
    """See whether a macaroon is ours and allows what is needed.

    Raises:
      LndError: in LND's words.
    """
    presented = macaroon.Macaroon.parse(data)
    presented.check(root_key)
    if not macaroon.allows(presented.permissions, needed, path):
        raise LndError("permission denied")
