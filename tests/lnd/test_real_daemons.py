"""Two daemons on two real lnd nodes of a regtest chain: a message crosses, and killing either loses nothing.

Needs btcd, btcctl, lnd and lncli on PATH.
"""

import hashlib
import json
import shutil
import signal
import sqlite3
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.daemons import Daemon, next_event, on_lnd, started
from tests.lnd.regtest import KEYSEND, NO_PASSWORD, Lnd, Regtest, missing_programs, running

_MISSING = missing_programs()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"not on PATH: {', '.join(_MISSING)}"),
]


@pytest.fixture(scope="module")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regtest]:
    nodes = {name: [NO_PASSWORD, KEYSEND] for name in ("alice", "bob", "carol")}
    with running(tmp_path_factory.mktemp("daemons"), nodes) as network:
        network.open_channels(("alice", "bob"), ("bob", "carol"))
        yield network


@asynccontextmanager
async def pair(
    regtest: Regtest, folder: Path, *, federate: bool = False
) -> AsyncIterator[tuple[Daemon, Daemon, trio.Nursery]]:
    """Daemons on alice and carol, who have no channel with each other."""
    daemons = []
    for name in ("alice", "carol"):
        home = folder / name
        home.mkdir()
        daemons.append(on_lnd(name, home, regtest[name].pubkey, regtest[name].config))
        if federate:
            daemons[-1].settings["federate"] = {"imp_id": name}
    async with trio.open_nursery() as nursery:
        try:
            for daemon in daemons:
                await started(daemon, nursery)
            daemons[1].seen = await seen(*daemons)
            yield daemons[0], daemons[1], nursery
        finally:
            for daemon in daemons:
                daemon.kill()


async def seen(sender: Daemon, receiver: Daemon) -> int:
    """Where the receiver's log is once it has read what its node was paid by earlier tests: they share the nodes."""
    marker = await sender.send(receiver, "from here on", wait=True)
    async with receiver.events() as stream:
        while (event := await next_event(stream))["id"] != marker["id"]:
            pass
    return int(event["seq"])


def settled(lnd: Lnd) -> list[str]:
    """The hashes of all that a node was paid, as `lncli` tells it."""
    listed = lnd.call("listinvoices", "--max_invoices=10000")["invoices"]
    return [each["r_hash"] for each in listed if each["state"] == "SETTLED"]


def paid(lnd: Lnd) -> list[str]:
    """The hashes of all that a node has paid, once for each time."""
    listed = lnd.call("listpayments", "--max_payments=10000")["payments"]
    return [each["payment_hash"] for each in listed if each["status"] == "SUCCEEDED"]


async def events_of(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    """What was sent to a daemon since the test began, and nothing of it twice."""
    async with daemon.events(daemon.seen) as stream:
        events: list[dict[str, Any]] = []
        while len(events) < count:
            event = await next_event(stream)
            if event["serviceType"] == "message":
                events.append(event)
    assert len({event["id"] for event in events}) == count
    return events


async def test_messages_cross_and_killing_the_receiver_loses_nothing(regtest: Regtest, tmp_path: Path) -> None:
    async with pair(regtest, tmp_path) as (alice, carol, nursery):
        first = await alice.send(carol, "over real channels", wait=True)
        (event,) = await events_of(carol, 1)
        assert event["id"] == first["id"]
        answer = await carol.send(alice, "and back", wait=True)
        async with alice.events() as stream:
            while (await next_event(stream))["id"] != answer["id"]:
                pass
        await carol.stop(signal.SIGKILL)
        sent = [(await alice.send(carol, f"while away {number}", wait=True))["id"] for number in range(3)]
        await started(carol, nursery)
        assert [each["id"] for each in await events_of(carol, 4)][1:] == sent


async def test_a_restored_backup_pays_nothing_twice(regtest: Regtest, tmp_path: Path) -> None:
    async with pair(regtest, tmp_path) as (alice, carol, nursery):
        path = alice.folder / "imp.db"
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(tmp_path / "backup.db")) as copy:
            live.backup(copy)
        sent = [(await alice.send(carol, f"{number}" * 2000, wait=True))["id"] for number in range(3)]
        await alice.stop(signal.SIGKILL)
        for each in alice.folder.glob("imp.db*"):
            each.unlink()
        shutil.copyfile(tmp_path / "backup.db", path)
        before = paid(regtest["alice"])
        await started(alice, nursery)
        assert "run `impervious db adopt`" in (await alice.send(carol, "0" * 2000))["message"]
        assert (await alice.get("/readyz"))["state"] == "paying_nothing"
        await alice.stop(signal.SIGTERM)
        command = [sys.executable, "-m", "impervious", "db", "adopt", "--json", "--config", str(alice.config)]
        answer = await trio.run_process(command, capture_stdout=True)
        found = json.loads(answer.stdout)
        assert (found["messages"], found["payments"], found["incomplete"]) == (3, 9, 0)
        await started(alice, nursery)
        sent.append((await alice.send(carol, "after", wait=True))["id"])
        assert [each["id"] for each in await events_of(carol, 4)] == sent
        assert len(paid(regtest["alice"])) == len(before) + 1


async def told(daemon: Daemon, service: str) -> dict[str, Any]:
    """The first event of a service, of a test's own daemon; with its data read."""
    async with daemon.events() as stream:
        while (event := await next_event(stream))["serviceType"] != service:
            pass
    return {**event, **json.loads(b64decode(event["data"]))}


async def test_invoices_and_keysends_are_paid(regtest: Regtest, tmp_path: Path) -> None:
    async with pair(regtest, tmp_path) as (alice, carol, _):
        made = await carol.post("/v1/lightning/generateinvoice", {"amount": 1234, "memo": "tea"})
        assert "never tried to pay it" in (await alice.post("/v1/lightning/checkinvoice", made))["message"]
        assert await carol.post("/v1/lightning/checkinvoice", made) == {"paid": False}
        paid_with = await alice.post("/v1/lightning/payinvoice", made)
        assert await alice.post("/v1/lightning/payinvoice", made) == paid_with
        read = await alice.post("/v1/lightning/decodeinvoice", made)
        proof = hashlib.sha256(bytes.fromhex(paid_with["preimage"])).hexdigest()
        assert (read["paymentHash"], read["amountMsat"], read["description"]) == (proof, "1234000", "tea")
        for daemon in (alice, carol):
            assert await daemon.post("/v1/lightning/checkinvoice", made) == {"paid": True}
        event = await told(carol, "lightning")
        assert (event["recordId"], event["paymentHash"], event["amount"]) == ("INVOICE_PAID", proof, "1234")

        own = await alice.post("/v1/lightning/generateinvoice", {"amount": 1})
        assert "own" in (await alice.post("/v1/lightning/payinvoice", own))["message"]

        since = event["seq"]
        records = [{"type": 34349334, "text": "hi"}, {"type": 696969, "value": "00ff"}]
        body = {"pubkey": carol.pubkey.hex, "amount": 7, "records": records}
        keysend = await alice.post("/v1/lightning/keysend", body, {"Idempotency-Key": "once"})
        assert await alice.post("/v1/lightning/keysend", body, {"Idempotency-Key": "once"}) == keysend
        async with carol.events(int(since)) as stream:
            while (arrived := await next_event(stream))["serviceType"] != "lightning":
                pass
        shown = json.loads(b64decode(arrived["data"]))
        assert (shown["recordId"], shown["chat"], arrived["amount"]) == ("KEYSEND", "hi", "7")
        assert {"type": 696969, "value": "00ff"} in shown["tlvRecords"]


async def test_nodes_sign_and_federate(regtest: Regtest, tmp_path: Path) -> None:
    async with pair(regtest, tmp_path, federate=True) as (alice, carol, _):
        signed = {"msg": "aGVsbG8=", **await alice.post("/v1/sign", {"msg": "aGVsbG8="})}
        verdict = await carol.post("/v1/verify", signed)
        assert verdict == {"result": True, "pubkey": alice.pubkey.hex, "inGraph": True}
        assert not (await carol.post("/v1/verify", {**signed, "msg": "aGVsbG9v"}))["result"]
        asked = await alice.post("/v1/federate/request", {"pubkey": carol.pubkey.hex})
        async with alice.events() as stream:
            while (await next_event(stream))["replyToId"] != asked["id"]:
                pass
        for daemon, other in ((alice, carol), (carol, alice)):
            peer = await daemon.post("/v1/federate/peer", {"pubkey": f"@{other.name}"})
            assert peer["pubkey"] == other.pubkey.hex


async def test_a_sender_killed_inside_a_long_message_pays_each_part_once(regtest: Regtest, tmp_path: Path) -> None:
    content = "".join(chr(97 + number % 26) for number in range(300_000))
    async with pair(regtest, tmp_path) as (alice, carol, nursery):
        before = set(settled(regtest["carol"]))
        message = await alice.send(carol, content)
        await trio.sleep(3)
        await alice.stop(signal.SIGKILL)
        half = len(settled(regtest["carol"])) - len(before)
        await started(alice, nursery)
        (event,) = await events_of(carol, 1)
        assert event["id"] == message["id"]
        await trio.sleep(1)
    parts = [each for each in settled(regtest["carol"]) if each not in before]
    assert 0 < half < len(parts) == len(set(parts))
    assert sorted(each for each in paid(regtest["alice"]) if each in parts) == sorted(parts)


async def connected(lnd: Lnd) -> None:
    """Wait until all its channels can be used; peers come back after a pause of theirs."""
    with trio.fail_after(120):
        while not all(channel["active"] for channel in lnd.call("listchannels")["channels"]):  # noqa: ASYNC110
            await trio.sleep(0.5)


async def test_an_lnd_that_restarts_loses_nothing(regtest: Regtest, tmp_path: Path) -> None:
    async with pair(regtest, tmp_path) as (alice, carol, _):
        sent = [(await alice.send(carol, f"before {number}" * 200))["id"] for number in range(5)]
        await trio.to_thread.run_sync(regtest["carol"].stop)
        sent += [(await alice.send(carol, f"while it is away {number}"))["id"] for number in range(2)]
        await trio.to_thread.run_sync(regtest["carol"].start)
        await connected(regtest["bob"])
        # Not in order: the gap may be open for longer than is waited for.
        assert {event["id"] for event in await events_of(carol, len(sent))} == set(sent)
