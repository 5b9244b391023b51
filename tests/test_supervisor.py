"""The end of a node: in which order it stops, what comes out of its block, and what is left of it afterwards."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from inspect import Parameter, getmembers, iscoroutinefunction, signature
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
import trio
from tests.conftest import Wall, inline
from tests.server.house import ANY_PORT
from tests.service.test_running import MachineService
from tests.service.toys import EchoService
from tests.walks import Stage, everything, stage, take
from trio.testing import MockClock, wait_all_tasks_blocked

from impervious.config import Address, ServerConfig
from impervious.errors import ConfigError, NodeMisconfigured
from impervious.model import NodePubkey
from impervious.service import Service, ServiceContext
from impervious.services.built_in import BUILT_IN
from impervious.services.lightning import LightningService
from impervious.supervisor import Node, Surroundings, open_node


@asynccontextmanager
async def open_doors(where: Stage, wall: Wall) -> AsyncIterator[Node]:
    config = replace(where.config_of("alice"), server=ServerConfig(grpc_addr=ANY_PORT, http_addr=ANY_PORT))
    surroundings = Surroundings(now_ms=wall, run_sync=inline)
    lightning = where.network.node("alice")
    async with open_node(config, lightning=lightning, doors=True, surroundings=surroundings) as node:
        await node.wait_ready()
        yield node


def http_of(node: Node) -> Address:
    assert node.addresses
    return node.addresses.http


async def post(address: Address, path: str, body: Mapping[str, object]) -> tuple[int, Any]:
    raw = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", f"Host: {address}", "Connection: close", f"Content-Length: {len(raw)}"]
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all("\r\n".join(head).encode() + b"\r\n\r\n" + raw)
        answer = b"".join([chunk async for chunk in stream])
    head_bytes, _, data = answer.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), json.loads(data)


# --- In which order it stops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_request_in_flight_is_answered(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, cancelled: bool
) -> None:
    """The order is the same, whoever ends the block: the database is closed behind the doors, not before them."""
    answers: list[tuple[int, float]] = []

    async def send(where: Stage, address: Address) -> None:
        message = {"pubkey": where.network.node("carol").pubkey.hex, "text": "hello"}
        status, _ = await post(address, "/v1/message/send?wait=true", message)
        answers.append((status, trio.current_time()))

    async with stage(tmp_path, wall) as where, where.node("carol") as carol, trio.open_nursery() as nursery:
        await carol.wait_ready()
        where.network.lnd("carol").delay_arrivals(1)
        with trio.CancelScope() as scope:
            async with open_doors(where, wall) as alice:
                nursery.start_soon(send, where, http_of(alice))  # noqa: ASYNC111 - it outlives the node's block
                await trio.sleep(0.5)
                began = trio.current_time()
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        stopped_after = trio.current_time() - began
        assert scope.cancelled_caught is cancelled
        [message] = await everything(carol)
        assert message.data == b"hello"
        async with where.node("alice") as alice:
            [outcome] = await take(alice, 1)
            assert json.loads(outcome.data)["state"] == "delivered"
    [(status, at)] = answers
    assert status == 200
    assert 0 <= began + stopped_after - at < 0.1, "nothing was waited for once it was answered"


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_request_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, cancelled: bool
) -> None:
    statuses: list[int] = []

    async def send(where: Stage, address: Address) -> None:
        message = {"pubkey": where.network.node("carol").pubkey.hex, "text": "hello"}
        status, _ = await post(address, "/v1/message/send?wait=true", message)
        statuses.append(status)

    async with stage(tmp_path, wall) as where, where.node("carol"), trio.open_nursery() as nursery:
        where.network.lnd("carol").delay_arrivals(60)
        with trio.CancelScope() as scope:
            async with open_doors(where, wall) as alice:
                nursery.start_soon(send, where, http_of(alice))  # noqa: ASYNC111 - it outlives the node's block
                await trio.sleep(0.5)
                began = trio.current_time()
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        assert trio.current_time() - began < 5
        await wait_all_tasks_blocked()
        assert statuses == [503]


# --- What comes out of its block --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("body"), ExceptionGroup("its own", [KeyError()]), SystemExit(3)])
async def test_what_the_block_raises_comes_out_as_it_went_in(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, error: BaseException
) -> None:
    async with stage(tmp_path, wall) as where:
        with pytest.raises(type(error)) as caught:
            async with open_doors(where, wall):
                raise error
        assert caught.value is error


async def test_what_ends_the_node_comes_out_alone(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    class Wrong(EchoService):
        async def run(self) -> None:
            await trio.sleep(1)
            raise ConfigError("echo: put a price")

    async with stage(tmp_path, wall) as where:
        with pytest.raises(ConfigError, match="put a price"):
            async with where.node("alice", Wrong):
                await trio.sleep_forever()
        (tmp_path / "alice.db").rename(tmp_path / "carol.db")
        with pytest.raises(NodeMisconfigured, match="belongs to node"):
            async with where.node("carol"):
                await trio.sleep_forever()


async def test_of_two_errors_the_blocks_comes_out(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    class Wrong(EchoService):
        async def run(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ConfigError("echo: put a price")

    async with stage(tmp_path, wall) as where:
        with pytest.raises(ValueError, match="body") as caught:
            async with where.node("alice", Wrong):
                raise ValueError("body")
    assert caught.value.__notes__ == ["besides: impervious.errors.ConfigError: echo: put a price"]


# --- What is left of it -----------------------------------------------------------------------------------------------

PUBKEY: Final = NodePubkey(bytes.fromhex("02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"))
VALUES: Final[Mapping[str, object]] = {
    "amount": 5,
    "data": b"data",
    "effect": lambda tx: tx.now_ms,
    "key": "key",
    "message_id": UUID(int=1),
    "recipient": PUBKEY,
    "node": PUBKEY,
    "nonce": "nonce",
    "payload": b"payload",
    "request": b"request",
    "send": lambda tx, far: tx.send(far, b"data"),
    "signature": "y" * 104,
    "size": 5,
    "text": "lnbcrt1",
    "work": lambda tx: tx.now_ms,
}
"""What goes into a parameter of that name; into another one, a number."""


def calls(thing: object) -> Mapping[str, Callable[[], Any]]:
    """Every public coroutine of an object, with arguments that are no reason to refuse it."""
    found: dict[str, Callable[[], Any]] = {}
    for name, method in getmembers(type(thing), iscoroutinefunction):
        if name.startswith("_") or name in ("handle", "serve"):
            continue
        parameters = [each for each in signature(method).parameters.values() if each.name != "self"]
        needed = {each.name: VALUES.get(each.name, 1) for each in parameters if each.default is Parameter.empty}
        found[f"{type(thing).__name__}.{name}"] = partial(getattr(thing, name), **needed)
    return found


async def test_whatever_is_called_after_its_end_says_so(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        async with where.node("alice", MachineService) as alice:
            await alice.wait_ready()
            context = alice.messages.context
        services = {name: call for each in alice.services for name, call in calls(each).items()}
        everywhere = {**calls(alice), **services, **calls(context), **calls(context._store)}
        assert len(everywhere) > 50
        does_nothing = {"Store.end", *(f"{each.__name__}.run" for each in BUILT_IN if each.run is Service.run)}
        for name, call in everywhere.items():
            with trio.fail_after(5):
                if name in does_nothing:
                    await call()
                    continue
                with pytest.raises(trio.ClosedResourceError, match="closed: open it again"):
                    await call()
        for look in (
            alice.events,
            partial(alice.messages.minimum, 5),
            context.require_node,
            context.alarm().__enter__,
            lambda: context.node,
            lambda: alice.service(LightningService).running,
        ):
            with pytest.raises(trio.ClosedResourceError, match="closed: open it again"):
                look()


async def test_whatever_waits_at_its_end_stops_waiting(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    """Other tasks than the one whose block ends may be in the middle of something."""
    ended: list[str] = []

    async def closed(name: str, call: Callable[[], Awaitable[object]]) -> None:
        with trio.fail_after(60), pytest.raises(trio.ClosedResourceError):
            await call()
        ended.append(name)

    async def follow(node: Node, *, since: int | None) -> None:
        async with node.events(since=since) as events:
            async for _ in events:
                pass

    async def sleep(context: ServiceContext) -> None:
        with context.alarm() as alarm:
            await alarm.sleep_until(None)

    async with stage(tmp_path, wall) as where, trio.open_nursery() as nursery:
        carol = where.network.node("carol").pubkey
        where.network.lnd("carol").delay_arrivals(3600)
        where.network.lnd("alice").stop()
        async with where.node("alice") as alice:
            nursery.start_soon(closed, "ready", alice.wait_ready)  # noqa: ASYNC111 - that is the point
            await trio.sleep(1)
        where.network.lnd("alice").start()
        async with where.node("alice") as alice:
            await alice.wait_ready()
            waiting: dict[str, Callable[[], Awaitable[object]]] = {
                "events": partial(follow, alice, since=None),
                "old events": partial(follow, alice, since=0),
                "message": partial(alice.messages.send, carol, b"hello", wait=True),
                "alarm": partial(sleep, alice.messages.context),
            }
            for name, call in waiting.items():
                nursery.start_soon(closed, name, call)
            await trio.sleep(1)
    assert sorted(ended) == ["alarm", "events", "message", "old events", "ready"]
