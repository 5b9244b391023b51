"""Services that keep something running: a connection, sockets, tasks.

What runs is an object that an async context manager yields. Commands reach it through one slot, which is filled for as
long as it runs and no longer: nobody can hold on to something that has ended.
"""

from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import trio

from impervious.errors import NodeUnavailable
from impervious.service.contract import Service

Running = TypeVar("Running")


class RunningService(Service, Generic[Running]):
    """The base of services whose commands work on something that runs. Subclasses define `open_running`."""

    _running: Running | None = None

    def open_running(self) -> AbstractAsyncContextManager[Running]:
        """Return the block in which it runs: an async context manager that yields it.

        It is entered when the node starts, and again after a while when it or `serve` has raised; errors as `run`.
        Whatever it holds (tasks, sockets, files) has to be given back when the block is left, however that happens:
        `impervious.background.open_tasks` helps with tasks.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what runs: define open_running")

    async def serve(self, running: Running) -> None:
        """Do what the service does by itself while it runs; it is closed when this returns.

        Args:
          running: what `open_running` yields.

        Cancellation: the node stops, or what runs has failed.
        """
        await trio.sleep_forever()

    @property
    def running(self) -> Running:
        """What runs. Take it anew in each command, and after each wait.

        Raises:
          Unsupported: the service is switched off.
          NodeUnavailable: it is starting again after an error.
          trio.ClosedResourceError: the node is closed.
        """
        self.context.require_open()
        self.context.config.require_active()
        if self._running is None:
            raise NodeUnavailable(f"the {self.service_type} service is restarting: call again")
        return self._running

    async def run(  # noqa: ASYNC114 - started by its full name
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep it running. Started when commands can use it."""
        self.context.require_open()
        async with self.open_running() as self._running:
            try:
                task_status.started()
                await self.serve(self._running)
            finally:
                self._running = None
