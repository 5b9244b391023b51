import random
from collections.abc import Callable

import trio
import trio.testing
from tests.sim.engine.network import preimage_of

from impervious.background import background
from impervious.sim.driver import Driver, TrioTime
from impervious.sim.engine.engine import Engine
from impervious.sim.engine.payments import Order
from impervious.sim.engine.topology import Topology
from impervious.sim.engine.world import News, PaymentChanged, Touched, World
from impervious.units import Msat, Sat
from impervious.wire.keysend import PREIMAGE_RECORD


class Log:
    """A saver that notes what came when."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str]] = []

    def save(self, world: World, touched: list[Touched]) -> None:
        self.entries.append((trio.current_time(), "saved"))

    def hear(self, news: News) -> None:
        if isinstance(news, PaymentChanged):
            self.entries.append((trio.current_time(), news.payment.stage.value))


def order(driver: Driver, number: int = 1) -> Order:
    preimage = preimage_of(number)
    return Order(
        dest=driver.engine.world.pubkeys["bob"].raw,
        amount=Msat(1000),
        payment_hash=preimage.payment_hash,
        records={PREIMAGE_RECORD: preimage.raw},
    )


def driven(log: Log, latency_s: float, now: Callable[[], float] | None = None) -> Driver:
    engine = Engine(
        World(time=TrioTime(now, start=lambda: 1000.0), chance=random.Random(1), latency_s=(latency_s, latency_s))
    )
    engine.build(Topology.line(("alice", "bob"), Sat(1_000_000)))
    engine.take_touched()
    driver = Driver(engine, log)
    driver.listen("alice", log.hear)
    driver.listen("bob", log.hear)
    return driver


async def test_things_happen_when_they_are_due_and_are_saved_before_they_are_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = Log()
    driver = driven(log, latency_s=4)
    async with background(driver.run):
        await trio.sleep(10)
        driver.engine.pay("alice", order(driver))
        driver.step()
        await trio.sleep(60)
    assert log.entries == [
        (10, "saved"),
        (10, "initiated"),
        (10, "in_flight"),
        (12, "saved"),
        (14, "saved"),
        (14, "succeeded"),
    ]


async def test_what_is_due_sooner_wakes_the_task_earlier(autojump_clock: trio.testing.MockClock) -> None:
    log = Log()
    driver = driven(log, latency_s=1000)
    async with background(driver.run):
        driver.engine.pay("alice", order(driver, 1))
        driver.step()
        await trio.sleep(1)
        driver.engine.world.latency_s = (2, 2)
        driver.engine.pay("alice", order(driver, 2))
        driver.step()
        await trio.sleep(5)
    assert (3, "succeeded") in log.entries


async def test_without_latency_a_step_is_enough() -> None:
    await trio.lowlevel.checkpoint()
    log = Log()
    driver = driven(log, latency_s=0)
    driver.engine.pay("alice", order(driver))
    driver.step()
    assert [what for _, what in log.entries] == ["saved", "initiated", "in_flight", "succeeded"]


async def test_the_wall_clock_goes_with_the_virtual_one(autojump_clock: trio.testing.MockClock) -> None:
    time = TrioTime(None, start=lambda: 1000.0)
    assert time.wall_s() == 1000
    await trio.sleep(50)
    assert time.wall_s() == 1050
    assert TrioTime(lambda: 7.5).wall_s() == 7.5
