"""The examples that talk to a daemon, each in a process of its own, beside daemons on a simulated network."""

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.cli.processes import started
from tests.daemons import Daemon, next_event, town

from impervious.sim import SimNetwork

pytestmark = pytest.mark.slow


@asynccontextmanager
async def two_daemons(folder: Path) -> AsyncIterator[tuple[Daemon, Daemon, trio.Nursery]]:
    network = SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))
    async with town(folder, "alice", "bob", network=network) as there:
        yield await there.start("alice"), await there.start("bob"), there.nursery


async def test_grpclib_on_asyncio(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with two_daemons(tmp_path) as (alice, bob, _):
        command = [sys.executable, "examples/grpclib_client.py", alice.grpc, bob.pubkey.hex, "hello"]
        async with started(command) as client, bob.events() as arriving:
            sent = (await client.line()).removeprefix("sent ")
            event = await next_event(arriving)
            assert event["id"] == sent
            assert (await client.line()).startswith('1 our message: {"state": "delivered"')
            await bob.send(alice, "an answer", reply_to_id=event["id"])
            assert await client.line() == "2 the answer: an answer"
            assert await client.stop(signal.SIGINT) == 0
        command[3] = "02ab"
        async with started(command) as client:
            assert await client.ended() == 1
        assert "INVALID_ARGUMENT: pubkey has 4 characters" in capfd.readouterr().err


async def test_a_websocket_across_a_crash(tmp_path: Path) -> None:
    async with two_daemons(tmp_path) as (alice, bob, nursery):
        async with started([sys.executable, "examples/websocket_tail.py", f"ws://{bob.http}", "0"]) as shown:
            await alice.send(bob, "one", wait=True)
            assert await shown.line() == f"1 message {alice.pubkey.hex[:10]} one"
            await bob.stop(signal.SIGKILL)
            await alice.send(bob, "two", wait=True)
            bob.settings["server"]["http_addr"] = bob.http
            await nursery.start(bob.run)
            await alice.send(bob, "three", wait=True)
            lines = [await shown.line() for _ in range(2)]
            assert [line.rpartition(" ")[2] for line in lines] == ["two", "three"]
            assert await shown.stop(signal.SIGINT) == 0


async def test_curl(tmp_path: Path) -> None:
    async with two_daemons(tmp_path) as (alice, bob, _):
        text = 'a "quoted" \\ word'
        async with started(["sh", "examples/curl.sh", f"http://{alice.http}", bob.pubkey.hex, text]) as script:
            assert json.loads(await script.line())["ready"] is True
            sent = json.loads(await script.line())["id"]
            outcome = json.loads(await script.line())["result"]
            assert (outcome["id"], outcome["serviceType"]) == (sent, "status")
            assert json.loads(outcome["data"])["state"] == "delivered"
        async with bob.events() as arriving:
            assert (await next_event(arriving))["id"] == sent
        async with bob.events() as arriving:
            event = await next_event(arriving)
        assert event["data"] == "YSAicXVvdGVkIiBcIHdvcmQ="
