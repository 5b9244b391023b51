"""The stream that is paid by the second, in virtual time, with real UDP sockets: what each end does then.

The clock may jump only while nothing waits at a socket: loopback delivers at once.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
from examples.paid_stream import GRACE_S, QUIET_S, Till, buy, sell
from tests.conftest import Wall
from tests.relay.endpoint import Endpoint
from tests.services.test_socket import here
from tests.walks import Stage, stage, take
from trio.testing import MockClock

from impervious.services.socket import SocketService
from impervious.store import spending
from impervious.supervisor import Node
from impervious.units import Sat

SOURCE = Path("examples/paid_stream.py")


@dataclass
class Fair:
    """A seller, a buyer, and something that sends to the seller's relay four times a second."""

    where: Stage
    seller: Node
    buyer: Node
    received: list[bytes] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    """What each returned."""
    ended_at: dict[str, float] = field(default_factory=dict)
    source: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def sockets(self) -> SocketService:
        return self.seller.service(SocketService)

    async def sell(self) -> None:
        self.ends["seller"] = await sell(self.seller, (await self.buyer.wait_ready()).pubkey)
        self.ended_at["seller"] = trio.current_time()

    async def buy(self, budget: Sat) -> None:
        [offer] = await take(self.buyer, 1, service="socket")
        me = (await self.seller.wait_ready()).pubkey
        self.ends["buyer"] = await buy(self.buyer, me, offer, budget, self.received.append)
        self.ended_at["buyer"] = trio.current_time()

    async def send(self) -> None:
        with self.source:
            while not self.sockets.sessions():  # noqa: ASYNC110 - the seller does not tell
                await trio.sleep(0.1)
            with Endpoint(self.sockets.sessions()[0].sides[0].port) as source:
                for number in range(10_000):
                    source.send(f"frame {number}".encode())
                    await trio.sleep(0.25)

    def sat(self, end: str) -> int:
        found = re.fullmatch(r".*stopped after (\d+) sat", self.ends[end])
        assert found, self.ends
        return int(found[1])


@asynccontextmanager
async def fair(folder: Path, wall: Wall, *, budget: Sat = Sat(1000), limit: Sat = Sat(100_000)) -> AsyncIterator[Fair]:
    """All of it begun; both ends must have stopped within a minute after the block."""
    async with stage(folder, wall) as where:
        lightning = replace(where.config.lightning, daily_limit_sat=limit)
        where.config = replace(where.config, socket=here(), lightning=lightning)
        async with where.node("alice", Till) as alice, where.node("carol", Till) as carol:
            there = Fair(where, alice, carol)
            await alice.wait_ready()
            await carol.wait_ready()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(there.send)
                nursery.start_soon(there.buy, budget)
                nursery.start_soon(there.sell)
                yield there
                with trio.fail_after(60):
                    while len(there.ends) < 2:  # noqa: ASYNC110 - either may be last
                        await trio.sleep(1)
                nursery.cancel_scope.cancel()
            assert there.sockets.sessions() == ()


def test_it_is_short() -> None:
    assert len(SOURCE.read_text().splitlines()) < 120


async def test_data_is_paid_by_the_second_until_it_stops(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with fair(tmp_path, wall) as there:
        await trio.sleep(60)
        assert there.ends == {}
        there.source.cancel()
        stopped = trio.current_time()
    assert there.ends["seller"].startswith("data stopped")
    assert there.received == [f"frame {number}".encode() for number in range(len(there.received))]
    assert 230 <= len(there.received) <= 240
    assert there.sat("buyer") == there.sat("seller")
    assert 2 * 58 <= there.sat("buyer") <= 2 * 61
    for end in ("seller", "buyer"):
        assert there.ended_at[end] - stopped <= QUIET_S + 2


async def test_who_stops_paying_gets_nothing_more(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with fair(tmp_path, wall, budget=Sat(20)) as there:
        await trio.sleep(60)
        assert set(there.ends) == {"seller", "buyer"}
    assert there.ends["seller"].startswith("payment stopped")
    assert 16 <= there.sat("buyer") == there.sat("seller") <= 20
    assert there.ended_at["seller"] - there.ended_at["buyer"] <= GRACE_S + 2


async def test_the_nodes_own_limit_ends_it(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with fair(tmp_path, wall, limit=Sat(40)) as there:
        await trio.sleep(60)
        assert set(there.ends) == {"seller", "buyer"}
        spent = await there.buyer.messages.context.read(lambda tx: spending.spent(tx._tx))
    assert there.ends["seller"].startswith("payment stopped")
    assert 20 <= there.sat("seller") <= there.sat("buyer")  # what was asked for when the seller ended it is not known
    assert 1000 * there.sat("seller") < spent <= 40_000


async def test_payments_that_fail_end_it_on_both_sides(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with fair(tmp_path, wall) as there:
        await trio.sleep(20)
        there.where.network.lnd("bob").kill()  # between the two
        await trio.sleep(3)
        assert there.ends == {}
        await trio.sleep(20)
        assert there.ends["seller"].startswith("payment stopped")
    assert there.sat("buyer") - 2 * (GRACE_S + 3) <= there.sat("seller") <= there.sat("buyer")  # under way for long
    assert there.sat("seller") > 30
    assert there.ended_at["buyer"] - there.ended_at["seller"] <= GRACE_S + 2


async def test_without_data_nothing_is_paid(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with fair(tmp_path, wall) as there:
        there.source.cancel()
        await trio.sleep(QUIET_S + 10)
        assert set(there.ends) == {"seller", "buyer"}
    assert there.sat("buyer") == there.sat("seller") == 0


async def test_a_seller_that_is_stopped_closes_it(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with stage(tmp_path, wall) as where:
        where.config = replace(where.config, socket=here())
        async with where.node("alice", Till) as alice, where.node("carol", Till) as carol:
            far = (await carol.wait_ready()).pubkey
            await alice.wait_ready()
            with trio.move_on_after(5):
                await sell(alice, far)
            assert alice.service(SocketService).sessions() == ()
