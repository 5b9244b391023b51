"""The standard health service (grpc.health.v1): Check answers at once, Watch streams every change.

grpclib has one, but its Watch needs asyncio. The empty name stands for the whole server.
"""

from collections.abc import AsyncGenerator, Mapping

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.pb.grpc.health.v1 import (
    HealthBase,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)

from .service import StreamsClosed

ServingStatus = HealthCheckResponseServingStatus


class Health(StreamsClosed, HealthBase):
    """Health of a server and its services, as told with `set`.

    Args:
      services: full name such as "grpc.health.v1.Health" -> whether it serves now; "" is added as serving.
    """

    def __init__(self, services: Mapping[str, bool] | None = None) -> None:
        self._serving: dict[str, bool] = {"": True, **(services or {})}
        self._changed = trio.Event()

    def set(self, service: str, *, serving: bool) -> None:
        """Say whether `service` serves; an unknown name becomes known."""
        if self._serving.get(service) is not serving:
            self._serving[service] = serving
            self._changed.set()
            self._changed = trio.Event()

    async def check(self, message: HealthCheckRequest) -> HealthCheckResponse:
        """The present state.

        Raises:
          GRPCError: NOT_FOUND, there is no service of that name.
        """
        await trio.lowlevel.checkpoint()
        status = self._status(message.service)
        if status is ServingStatus.SERVICE_UNKNOWN:
            raise GRPCError(Status.NOT_FOUND, f"no service {message.service!r} here")
        return HealthCheckResponse(status=status)

    async def watch(self, message: HealthCheckRequest) -> AsyncGenerator[HealthCheckResponse, None]:
        """The present state, then every change; a name that is unknown now may become known (health.proto, Watch)."""
        last: HealthCheckResponseServingStatus | None = None
        while True:
            changed = self._changed
            status = self._status(message.service)
            if status is not last:
                last = status
                yield HealthCheckResponse(status=status)
            await changed.wait()

    def _status(self, service: str) -> HealthCheckResponseServingStatus:
        serving = self._serving.get(service)
        if serving is None:
            return ServingStatus.SERVICE_UNKNOWN
        return ServingStatus.SERVING if serving else ServingStatus.NOT_SERVING
