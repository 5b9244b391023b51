"""A daemon's HTTP door, from outside: one request, one answer, as any program would make it."""

import json
from collections.abc import Mapping
from typing import Final, NoReturn

import h11
import trio

from impervious.config import Address
from impervious.config.values import Plain
from impervious.errors import ImperviousError

_READ_BYTES: Final = 64 << 10


class DaemonRefused(ImperviousError):
    """A daemon answered with an error.

    Attributes:
      code: its gRPC code; 2 (unknown) when the answer was none of a daemon's.
    """

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


class DaemonAway(ImperviousError):
    """No daemon answers there."""


async def post(address: Address, path: str, body: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """Call a daemon over REST.

    Args:
      address: its `server.http_addr`.
      path: with the query, if there is one.
      body: the request message.

    Returns:
      The response message.

    Raises:
      DaemonRefused: it answered with an error, whose words these are.
      DaemonAway: it cannot be reached, or hung up.
    """
    content = json.dumps(body).encode()
    request = h11.Request(
        method="POST",
        target=path,
        headers=[("Host", str(address)), ("Content-Length", str(len(content))), ("Connection", "close")],
    )
    connection = h11.Connection(h11.CLIENT)
    try:
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            for event in (request, h11.Data(data=content), h11.EndOfMessage()):
                await stream.send_all(connection.send(event) or b"")
            status, answer = await _answer(connection, stream)
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise DaemonAway(f"no daemon answers at {address}: {error}") from error
    return _read(status, answer)


async def _answer(connection: h11.Connection, stream: trio.SocketStream) -> tuple[int, bytes]:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)


def _read(status: int, body: bytes) -> Mapping[str, Plain]:
    try:
        answer = json.loads(body)
    except ValueError:
        _refuse(status, None)
    if status != 200 or not isinstance(answer, dict):
        _refuse(status, answer)
    return answer


def _refuse(status: int, answer: object) -> NoReturn:
    match answer:
        case {"code": int(code), "message": str(message)}:
            raise DaemonRefused(message, code=code)
        case _:
            raise DaemonRefused(f"what answers is no daemon of ours (HTTP status {status})", code=2)
