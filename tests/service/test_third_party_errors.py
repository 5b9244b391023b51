"""Nothing that a third party's code raises ends a node, wherever it is called: SystemExit and KeyboardInterrupt too."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from tests.conftest import Wall
from tests.server.asgi import request
from tests.server.house import config, open_app, open_doors, open_house
from tests.service.toys import EchoService
from tests.walks import detail, everything, stage, take
from trio.testing import MockClock

from impervious.background import leaves
from impervious.config import ServiceConfig
from impervious.errors import ConfigError, NotFound
from impervious.pb.signing import SignRequest, SignResponse
from impervious.rpc import Servable, ServerStream, open_channel
from impervious.service import Effect, Fact, ServiceContext, ServiceTx, VerifiedMessage, command, context
from impervious.supervisor import Node

Raise = Callable[[], BaseException]

ENDINGS: Mapping[str, Raise] = {
    "exit": lambda: SystemExit(3),
    "control-C": KeyboardInterrupt,
    "asyncio's": lambda: type("CancelledError", (BaseException,), {})(),
    "memory": MemoryError,
    "generator": GeneratorExit,
    "group": lambda: BaseExceptionGroup("both", [SystemExit(3), ValueError(), KeyboardInterrupt()]),
}


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> Raise:
    return ENDINGS[request.param]


class Ending(EchoService):
    """Raises, wherever a test wants it."""

    where: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[Raise]

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self.reach("init")

    def reach(self, place: str) -> None:
        if place in self.where:
            raise type(self).what()

    async def run(self) -> None:
        self.ran += 1
        if self.ran == 1:
            self.reach("run")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(self.task)
        finally:
            self.reach("end of run")

    async def task(self) -> None:
        await trio.sleep(1)
        if self.ran == 1:
            self.reach("task")
        await trio.sleep_forever()

    async def handle(self, fact: Fact) -> Effect | None:
        if isinstance(fact, VerifiedMessage) and fact.data == b"bad":
            self.facts.append(fact)
            self.reach("handle")
            return lambda tx: self.reach("effect")
        return await super().handle(fact)

    @command("break")
    async def break_it(self) -> None:
        await trio.lowlevel.checkpoint()
        self.reach("command")

    @command("write")
    async def write(self) -> None:
        await self.context.transaction(lambda tx: self.reach("transaction"))

    def grpc_services(self) -> list[Servable]:
        self.reach("grpc_services")
        return [EndingGrpc(self)]

    def grpc_descriptors(self) -> bytes:
        self.reach("grpc_descriptors")
        return b""


class EndingGrpc:
    def __init__(self, service: Ending) -> None:
        self._service = service

    def __mapping__(self) -> Mapping[str, Handler]:
        return {"/end.End/Now": Handler(self._now, Cardinality.UNARY_UNARY, SignRequest, SignResponse)}

    async def _now(self, stream: ServerStream[SignRequest, SignResponse]) -> None:
        await stream.recv_message()
        self._service.reach("grpc")
        await stream.send_message(SignResponse(signature="fine"))


def at(*places: str, what: Raise) -> type[Ending]:
    return type("Ending", (Ending,), {"where": frozenset(places), "what": staticmethod(what)})


async def told(node: Node) -> list[Any]:
    return [detail(event) for event in await everything(node) if event.data.startswith(b'{"recordId"')]


@pytest.mark.parametrize("place", ["run", "task"])
async def test_in_run(tmp_path: Path, wall: Wall, autojump_clock: MockClock, ending: Raise, place: str) -> None:
    service = at(place, what=ending)
    async with stage(tmp_path, wall) as where, where.node("alice", service) as alice:
        await alice.wait_ready()
        await trio.sleep(60)
        assert alice.service(service).ran == 2
        [broken] = await told(alice)
        assert broken["recordId"] == "BROKEN"


async def test_at_the_end_of_run(tmp_path: Path, wall: Wall, autojump_clock: MockClock, ending: Raise) -> None:
    """It is cancelled at the same moment, and what it raises then is nobody's business any more."""
    service = at("end of run", what=ending)
    async with stage(tmp_path, wall) as where:
        async with where.node("alice", service) as alice:
            await alice.wait_ready()
        with pytest.raises(ValueError, match="body"):
            async with where.node("alice", service):
                raise ValueError("body")
        with trio.move_on_after(1) as scope:
            async with where.node("alice", service):
                await trio.sleep_forever()
        assert scope.cancelled_caught


@pytest.mark.parametrize("place", ["handle", "effect"])
async def test_at_a_fact(tmp_path: Path, wall: Wall, autojump_clock: MockClock, ending: Raise, place: str) -> None:
    service = at(place, what=ending)
    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", service) as carol:
            await carol.wait_ready()
            you = where.network.node("carol").pubkey
            await alice.service(EchoService).say(you, "bad")
            await alice.service(EchoService).say(you, "good")
            await take(carol, 1, service="echo", starting=b"heard good")
            [aside] = await told(carol)
            assert aside["recordId"] == "SET_ASIDE"
            assert len([fact for fact in carol.service(service).facts if isinstance(fact, VerifiedMessage)]) == 5


@pytest.mark.parametrize("place", ["init", "grpc_services", "grpc_descriptors"])
async def test_at_the_start(tmp_path: Path, ending: Raise, place: str) -> None:
    """A node that silently lacked a service would take other people's money for nothing: it says what is broken."""
    service = at(place, what=ending)
    with pytest.raises((ConfigError, ExceptionGroup)) as caught:  # noqa: ASYNC401 - as the house raises it
        async with open_house(config(tmp_path), services=[service]) as house, open_doors(house):
            pass
    [error] = leaves(caught.value)
    assert "the echo service can" in str(error)
    assert "mend its package, remove it, or set its entry in service_list to active: false" in str(error)
    off = ServiceConfig(service_type=service.service_type, active=False)
    given = config(tmp_path)
    async with open_house(replace(given, services=(*given.services, off)), services=[service]) as house:
        async with open_doors(house):
            pass
        if place == "init":
            with pytest.raises(NotFound):
                house.services.get(service)


async def test_in_a_command(tmp_path: Path, ending: Raise) -> None:
    service = at("command", "transaction", what=ending)
    async with open_app(config(tmp_path), services=[service]) as inside:
        for name in ("break", "write"):
            reply = await request(inside.app, "POST", f"/v1/x/echo/{name}", server=inside.http)
            assert reply.status == 500
            assert "incident" in reply.json["message"]
        reply = await request(inside.app, "POST", "/v1/x/echo/heard", server=inside.http)
        assert reply.status == 200


async def test_in_a_grpc_method(tmp_path: Path, ending: Raise) -> None:
    service = at("grpc", what=ending)
    async with open_house(config(tmp_path), services=[service]) as house, open_doors(house) as listeners:
        found = listeners.addresses.grpc
        async with open_channel(found.host, found.port) as channel:
            for _ in range(2):
                with trio.fail_after(10), pytest.raises(GRPCError) as caught:
                    await channel.unary_unary("/end.End/Now", SignRequest(msg="x"), SignResponse)
                assert caught.value.status is Status.INTERNAL
            assert channel.statistics().connections_made == 1


async def test_a_slow_effect_is_named(
    tmp_path: Path,
    wall: Wall,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(context, "perf_counter", lambda: now)

    def take_long(tx: ServiceTx) -> int:
        nonlocal now
        now += 0.25
        return tx.now_ms

    class Slow(EchoService):
        async def handle(self, fact: Fact) -> Effect | None:
            await trio.lowlevel.checkpoint()
            return take_long

    async with stage(tmp_path, wall) as where, where.node("alice", EchoService) as alice:
        async with where.node("carol", Slow) as carol:
            await carol.wait_ready()
            await alice.service(EchoService).say(where.network.node("carol").pubkey, "hello")
            await trio.sleep(10)
            await carol.service(Slow).context.transaction(take_long)
    said = [each.getMessage() for each in caplog.records if "held the database" in each.getMessage()]
    assert len(said) == 2
    assert all("echo: " in each and "take_long held the database for 0.25 s" in each for each in said)
