"""The daemon as a process: what its users see of it, and that killing it loses nothing and pays nothing twice."""

import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.daemons import Town, next_event, town

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


async def settled(there: Town, name: str) -> list[bytes]:
    """The hashes of what a node has paid."""
    payments = await there.network.lnd(name).rpcs.list_payments(limit=10_000)
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
