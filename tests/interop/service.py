"""The service of interop.proto as a grpclib service class, for grpclib's server on asyncio and for ours on Trio."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

ONE, DOWN, UP, BOTH = (
    Cardinality.UNARY_UNARY,
    Cardinality.UNARY_STREAM,
    Cardinality.STREAM_UNARY,
    Cardinality.STREAM_STREAM,
)
METHODS: Mapping[str, Cardinality] = {
    "Unary": ONE,
    "List": DOWN,
    "Count": UP,
    "Chat": BOTH,
    "Fail": ONE,
    "Sleep": DOWN,
    "Cancelled": ONE,
    "Metadata": ONE,
    "Slow": ONE,
}
NASTY = "käse\r\n100% %41 \U0001f4a9 \x00 end "
"""Everything that has to be escaped in a status message."""


def path(method: str) -> str:
    return f"/interop.Peer/{method}"


class Peer:
    """See interop.proto.

    Args:
      payload: the message class.
      sleep: of the event loop that this runs on.
    """

    def __init__(self, payload: Any, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.payload = payload
        self.sleep = sleep
        self.cancelled = 0

    async def _unary(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def _list(self, stream: Any) -> None:
        request = await stream.recv_message()
        for number in range(request.number):
            await stream.send_message(self.payload(number=number, data=request.data))

    async def _count(self, stream: Any) -> None:
        sizes = [len(request.data) async for request in stream]
        await stream.send_message(self.payload(number=len(sizes), text=str(sum(sizes))))

    async def _chat(self, stream: Any) -> None:
        async for request in stream:
            await stream.send_message(request)

    async def _fail(self, stream: Any) -> None:
        request = await stream.recv_message()
        raise GRPCError(Status(request.number), request.text)

    async def _sleep(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(self.payload(text="asleep"))
        try:
            await self.sleep(3600)
        finally:
            self.cancelled += 1

    async def _cancelled(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(self.payload(number=self.cancelled))

    async def _metadata(self, stream: Any) -> None:
        await stream.recv_message()
        echo = [(key, value) for key, value in stream.metadata.items() if key in ("echo", "echo-bin")]
        await stream.send_initial_metadata(metadata=echo)
        await stream.send_message(self.payload())
        await stream.send_trailing_metadata(metadata=echo)

    async def _slow(self, stream: Any) -> None:
        request = await stream.recv_message()
        await self.sleep(request.number / 1000)
        await stream.send_message(request)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            path(name): Handler(getattr(self, f"_{name.lower()}"), cardinality, self.payload, self.payload)
            for name, cardinality in METHODS.items()
        }
