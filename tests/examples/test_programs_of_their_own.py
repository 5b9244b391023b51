"""The examples that need no daemon: a bot that runs a node, and a client of LND."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from tests.cli.processes import PATIENCE_S, Running, started
from tests.daemons import Daemon, next_event, town
from tests.relay.endpoint import Endpoint
from tests.services.test_socket import free_pairs
from trio_websocket import WebSocketConnection

from impervious.model import NodePubkey, Preimage
from impervious.sim import SimLnd, SimNetwork
from impervious.units import Msat

pytestmark = pytest.mark.slow


def network() -> SimNetwork:
    return SimNetwork(["alice", "bob"], ["alice-bob:2000000"], seed=3, latency_s=(0, 0))


def configured(daemon: Daemon) -> Path:
    """The configuration of a daemon that is not started."""
    daemon.config.write_text(yaml.safe_dump(daemon.settings))
    return daemon.config


async def test_a_bot_answers_who_pays_once(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "bob", network=network()) as there:
        alice = await there.start("alice")
        bob = there.daemons["bob"]
        command = [sys.executable, "examples/echo_bot.py", str(configured(bob))]
        async with alice.events() as arriving:
            async with started(command) as bot:
                assert await bot.line() == f"send 10 sat and a text to {bob.pubkey}"
                cheap = await alice.send(bob, "cheap", amount=9, wait=True)
                assert await bot.line() == f"too little for {cheap['id']}"
                paid = await alice.send(bob, "hello", amount=10, wait=True)
                assert await bot.line() == f"answered {paid['id']}"
                assert await bot.stop(signal.SIGKILL) == -signal.SIGKILL
            # As after a kill between the answer and the note: everything is looked at again, and nothing sent twice.
            (bob.folder / "echo.seq").unlink()
            async with started(command) as bot:
                await bot.line()
                assert await bot.line() == f"too little for {cheap['id']}"
                assert await bot.line() == f"answered {paid['id']}"
                last = await alice.send(bob, "more", amount=10, wait=True)
                assert await bot.line() == f"answered {last['id']}"
                answers = [await next_message(arriving) for _ in range(2)]
                assert await bot.stop(signal.SIGINT) == 0
        assert [(each["data"], each["replyToId"]) for each in answers] == [
            ("SEVMTE8=", paid["id"]),
            ("TU9SRQ==", last["id"]),
        ]


async def next_message(arriving: WebSocketConnection) -> dict[str, Any]:
    while True:
        event = await next_event(arriving)
        if event["serviceType"] == "message":
            return event


async def test_a_bot_without_a_configuration(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with started([sys.executable, "examples/echo_bot.py", str(tmp_path / "gone.yml")]) as bot:
        assert await bot.ended() == 1
    assert "there is no such file" in capfd.readouterr().err


async def test_looking_at_an_lnd(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "bob", network=network()) as there:
        lnd = there.daemons["bob"].settings["lightning"]["lnd_node"]
        where = (f"127.0.0.1:{lnd['port']}", lnd["tls_cert"], lnd["admin_macaroon"])
        bob = there.network.lnd("bob")
        async with started([sys.executable, "examples/lnd_client.py", *where]) as client:
            assert await client.line() == f"bob {bob.pubkey}"
            assert await client.line() == "can send 1000000 sat, can receive 1000000 sat"
            assert (await first_line(client, bob)).endswith(" 21000 msat, two beers")
            await keysend(there.network, bob.pubkey)
            while not (line := await client.line()).startswith("settled"):
                assert line.startswith("open")
            assert line.endswith(" 7000 msat, keysend")
            bob.restart()
            assert await client.line() == f"bob {bob.pubkey}"
            assert await client.line() == "can send 1000007 sat, can receive 999993 sat"
            assert await client.stop(signal.SIGINT) == 0


async def first_line(client: Running, lnd: SimLnd) -> str:
    """Make invoices until the client shows one: nobody says when its subscription stands."""

    async def add() -> None:
        for _ in range(1000):
            lnd.add_invoice(Msat(21_000), memo="two beers")
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add)
        line = await client.line()
        nursery.cancel_scope.cancel()
    return line


async def keysend(network: SimNetwork, dest: NodePubkey) -> None:
    await network.node("alice").send_keysend(dest, Msat(7000), Preimage(bytes(32)), {}, fee_limit=Msat(0), timeout_s=60)


async def test_a_stream_is_sold_from_one_program_to_another(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "bob", network=network()) as there:
        alice, bob = there.daemons["alice"], there.daemons["bob"]
        [(first, second)] = free_pairs(1)
        alice.settings["socket"] = {"server_ip": "127.0.0.1", "ports": [[first, second]]}
        program = [sys.executable, "examples/paid_stream.py"]
        async with started([*program, "buy", str(configured(bob)), alice.pubkey.hex]) as buyer:
            async with started([*program, "sell", str(configured(alice)), bob.pubkey.hex]) as seller:
                assert await seller.line() == f"send to port {first}"
                with Endpoint(first) as source:
                    with trio.fail_after(PATIENCE_S):
                        while not await there.network.lnd("bob").rpcs.list_payments(limit=1):
                            source.send(b"data\n")
                            await trio.sleep(0.1)
                    assert await buyer.line() == "data"
                    await buyer.stop(signal.SIGKILL)
                    with trio.fail_after(PATIENCE_S):
                        while seller.process.poll() is None:
                            source.send(b"data\n")
                            await trio.sleep(0.1)
                assert (await seller.rest()).startswith(("payment stopped after ", "data stopped after "))
                assert seller.process.returncode == 0
