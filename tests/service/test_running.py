"""Services that keep something running, as third parties write them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.conftest import Wall
from tests.walks import stage
from trio.testing import MockClock

from impervious.background import Tasks, open_tasks
from impervious.config import ServiceConfig
from impervious.errors import NodeUnavailable, Unsupported
from impervious.model import ServiceType
from impervious.service import RunningService, ServiceContext, command


class Machine:
    """Runs one job after another."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.open = True

    async def work(self) -> None:
        await trio.sleep(5)
        raise ZeroDivisionError("nobody foresaw this")


class MachineService(RunningService[Machine]):
    service_type = ServiceType("machine")

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self.machines: list[Machine] = []
        self.at_close: list[str] = []

    @asynccontextmanager
    async def open_running(self) -> AsyncIterator[Machine]:
        await trio.sleep(2)
        async with open_tasks() as tasks:
            self.machines.append(Machine(tasks))
            try:
                yield self.machines[-1]
            finally:
                self.machines[-1].open = False
                try:
                    _ = self.running
                except NodeUnavailable as error:
                    self.at_close.append(str(error))

    @command("work")
    async def work(self) -> None:
        await trio.lowlevel.checkpoint()
        self.running.tasks.start_soon(self.running.work)


class Counting(MachineService):
    """Does something by itself, and is then done."""

    async def serve(self, running: Machine) -> None:
        await trio.sleep(3)


RESTARTING = "the machine service is restarting: call again"


async def test_what_runs_is_had_only_while_it_runs(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with stage(tmp_path, wall) as where:
        async with where.node("alice", MachineService) as alice:
            service = alice.service(MachineService)
            assert trio.current_time() - began == 2  # the node waited for it
            for number in range(1, 4):
                assert service.running is service.machines[-1]
                assert service.running.open
                await service.work()
                await trio.sleep(5.01)
                with pytest.raises(NodeUnavailable, match=RESTARTING):
                    await service.work()
                assert [each.open for each in service.machines] == [False] * number
                await trio.sleep(30)
                assert len(service.machines) == number + 1
        assert service.at_close == [RESTARTING] * 4
        assert not service.machines[-1].open


async def test_what_has_done_its_work_is_closed(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where, where.node("alice", Counting) as alice:
        await trio.sleep(100)
        [machine] = alice.service(Counting).machines
        assert not machine.open
        with pytest.raises(NodeUnavailable):
            await alice.service(Counting).work()


async def test_nothing_runs_where_it_is_switched_off(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        off = ServiceConfig(service_type=ServiceType("machine"), active=False)
        where.config = replace(where.config, services=(*where.config.services, off))
        async with where.node("alice", MachineService) as alice:
            with pytest.raises(Unsupported, match="switched off"):
                await alice.service(MachineService).work()
            assert alice.service(MachineService).machines == []


async def test_one_that_does_not_say_what_runs_says_so(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Vague(RunningService[int]):
        service_type = ServiceType("vague")

    async with stage(tmp_path, wall) as where, where.node("alice", Vague):
        assert "Vague does not say what runs: define open_running" in caplog.text
