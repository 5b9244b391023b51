"""The daemon as a process: what its users see of it, and that killing it loses nothing and pays nothing twice."""

import base64
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.daemons import Daemon, Town, next_event, town

from impervious.sim import SimNetwork

pytestmark = pytest.mark.slow


def network(latency_s: tuple[float, float] = (0.001, 0.004)) -> SimNetwork:
    return SimNetwork(
        ["alice", "bob", "carol"],
        ["alice-bob:2000000", "bob-carol:2000000"],
        seed=3,
        latency_s=latency_s,
    )


async def texts(there: Town, name: str, count: int) -> list[dict[str, Any]]:
    """The first events of messages that a daemon shows from the beginning of its log, and none that came twice."""
    async with there.daemons[name].events() as stream:
        events = [await next_event(stream) for _ in range(count)]
    assert len({event["id"] for event in events}) == count
    return events


async def settled(there: Town, name: str, *, under_way: bool = False) -> list[bytes]:
    """The hashes of what a node has paid, or is paying."""
    payments = await there.network.lnd(name).rpcs.list_payments(limit=10_000, include_incomplete=under_way)
    return [payment.payment_hash for payment in payments]


async def test_a_message_crosses_and_a_signal_stops_it(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "carol", network=network()) as there:
        alice, carol = await there.start("alice"), await there.start("carol")
        async with carol.events() as stream:
            answer = await alice.send(carol, "hello", wait=True)
            event = await next_event(stream)
        assert event["id"] == answer["id"]
        assert (await alice.stop(signal.SIGTERM), await carol.stop(signal.SIGINT)) == (0, 0)
        assert [line["msg"] for line in carol.lines][-1] == "stopped"
        assert not alice.warnings
        received = next(line for line in carol.lines if line["msg"] == "message received")
        assert {"level", "ts", "caller"} <= set(received)
        assert "hello" not in str(carol.lines)


async def test_what_came_while_the_receiver_was_killed_arrives_once(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "carol", network=network()) as there:
        alice, carol = await there.start("alice"), await there.start("carol")
        await alice.send(carol, "before", wait=True)
        await carol.stop(signal.SIGKILL)
        sent = [(await alice.send(carol, f"while away {number}", wait=True))["id"] for number in range(3)]
        await there.start("carol")
        events = await texts(there, "carol", 4)
        assert [event["id"] for event in events[1:]] == sent
        await alice.send(carol, "after", wait=True)
        assert len(await texts(there, "carol", 5)) == 5


@pytest.mark.parametrize("part", [3, 150])
async def test_a_sender_killed_inside_a_long_message_pays_each_part_once(tmp_path: Path, part: int) -> None:
    content = "".join(chr(97 + number % 26) for number in range(300_000))
    async with town(tmp_path, "alice", "carol", network=network()) as there:
        alice, carol = await there.start("alice"), await there.start("carol")
        answer = await alice.send(carol, content)
        with trio.fail_after(60):
            while len(await settled(there, "alice")) < part:  # noqa: ASYNC110 - another process pays
                await trio.sleep(0.005)
        await alice.stop(signal.SIGKILL)
        paid_before = len(await settled(there, "alice"))
        await there.start("alice")
        (event,) = await texts(there, "carol", 1)
        assert event["id"] == answer["id"]
        assert event["data"]
        await trio.sleep(0.5)
        paid = await settled(there, "alice")
        assert part <= paid_before < len(paid)
        assert len(paid) == len(set(paid)) == len(await received(there, "carol"))


async def received(there: Town, name: str) -> list[bytes]:
    """The hashes of what a node was paid."""
    invoices = await there.network.lnd(name).rpcs.list_invoices(limit=10_000)
    return [invoice.payment_hash for invoice in invoices if invoice.amount_paid]


async def test_both_killed_again_and_again(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "carol", network=network()) as there:
        alice, carol = await there.start("alice"), await there.start("carol")
        sent = []
        for turn in range(4):
            answers = [await alice.send(carol, f"{turn}.{number}" * 400) for number in range(5)]
            sent += [answer["id"] for answer in answers]
            victim = ("alice", "carol")[turn % 2]
            await there.daemons[victim].stop(signal.SIGKILL)
            await there.start(victim)
        events = await texts(there, "carol", len(sent))
        assert [event["id"] for event in events] == sent


async def test_the_end_of_a_payment_that_nobody_could_be_told_is_an_event(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "carol", network=network()) as there:
        alice, carol = await there.start("alice"), await there.start("carol")
        invoices = [
            (await carol.post("/v1/lightning/generateinvoice", {"amount": amount}))["invoice"] for amount in (5, 6, 7)
        ]
        await alice.post("/v1/lightning/payinvoice", {"invoice": invoices[0]})
        there.network.lnd("carol").delay_arrivals(3)
        leaver = await hanging(alice, invoices[1])
        with trio.fail_after(60):
            while len(await settled(there, "alice", under_way=True)) < 2:  # noqa: ASYNC110 - another process pays
                await trio.sleep(0.005)
        await leaver.aclose()
        async with alice.events() as stream:
            left = await next_event(stream)
        there.network.lnd("carol").delay_arrivals(3)
        cut_off = await hanging(alice, invoices[2])
        with trio.fail_after(60):
            while len(await settled(there, "alice", under_way=True)) < 3:  # noqa: ASYNC110 - as above
                await trio.sleep(0.005)
        await alice.stop(signal.SIGKILL)
        await cut_off.aclose()
        await there.start("alice")
        async with alice.events(since=int(left["seq"])) as stream:
            killed = await next_event(stream)
        for event, invoice, amount in ((left, invoices[1], 6000), (killed, invoices[2], 7000)):
            told = json.loads(base64.b64decode(event["data"]))
            assert (event["serviceType"], event["fromPubkey"]) == ("lightning", alice.pubkey.hex)
            assert (told["recordId"], told["state"], told["invoice"]) == ("PAYMENT", "paid", invoice)
            assert (told["amountMsat"], "preimage" in told) == (amount, False)
        assert len(await settled(there, "alice")) == 3


async def hanging(daemon: Daemon, invoice: str) -> trio.SocketStream:
    """Ask a daemon to pay, and do not wait for it."""
    host, port = daemon.http.rsplit(":", 1)
    stream = await trio.open_tcp_stream(host, int(port))
    body = json.dumps({"invoice": invoice}).encode()
    head = f"POST /v1/lightning/payinvoice HTTP/1.1\r\nHost: {daemon.http}\r\nContent-Length: {len(body)}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    return stream


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", network=network()) as there:
        alice = await there.start("alice")
        assert alice.process is not None
        alice.process.send_signal(signal.SIGTERM)
        alice.process.send_signal(signal.SIGTERM)
        assert await alice.stop(signal.SIGTERM) in (0, -signal.SIGTERM)


async def test_the_key_of_another_node_ends_it(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", network=network()) as there:
        alice = there.daemons["alice"]
        alice.settings["lightning"]["lnd_node"]["pub_key"] = there.network.lnd("bob").pubkey.hex
        with trio.fail_after(30):
            await alice.run()
        assert alice.process is not None
        assert alice.process.returncode == 2
        last = alice.lines[-1]["msg"]
        assert there.network.lnd("alice").pubkey.hex in last
        assert there.network.lnd("bob").pubkey.hex in last


async def test_without_a_key_it_tells_which_one_to_put(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", network=network()) as there:
        alice = there.daemons["alice"]
        del alice.settings["lightning"]["lnd_node"]["pub_key"]
        await there.start("alice")
        with trio.fail_after(30):
            while not alice.warnings:  # noqa: ASYNC110 - another process warns
                await trio.sleep(0.01)
        assert there.network.lnd("alice").pubkey.hex in alice.warnings[0]


async def test_one_database_has_one_daemon(tmp_path: Path) -> None:
    async with town(tmp_path, "alice", "carol", network=network()) as there:
        await there.start("alice")
        other = there.daemons["carol"]
        other.settings["sqlite3"] = there.daemons["alice"].settings["sqlite3"]
        with trio.fail_after(30):
            await other.run()
        assert other.process is not None
        assert other.process.returncode == 2, other.lines
