from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.reader import Reader, pay, pay_invoice, settled_at

from impervious.errors import NodeUnavailable
from impervious.invoice_feed import FeedPace, settled
from impervious.model import (
    HtlcState,
    InvoiceCursor,
    InvoiceHtlc,
    InvoiceState,
    NodeInvoice,
    PaymentHash,
)
from impervious.sim import SimNetwork
from impervious.sim.engine.answers import WalletState
from impervious.sim.engine.invoices import Invoice
from impervious.sim.streams import LiveStream
from impervious.units import Msat

SMALL = FeedPace(page=3, newest=4, backlog=6, held_back=4, remembered=8)
"""So small that a handful of invoices meets every limit."""


class Bench:
    """Alice pays bob, and a reader reads bob."""

    def __init__(self, network: SimNetwork, pace: FeedPace) -> None:
        self.network = network
        self.alice, self.bob = network.node("alice"), network.node("bob")
        self.lnd = network.lnd("bob")
        self.bob.pace = pace
        self.reader = Reader(self.bob)
        self.number = 0

    async def pay(self, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            await pay(self.alice, self.bob.pubkey, self.number)

    async def read_for(self, seconds: float) -> None:
        """Let the reader run, open again when told to, then crash it."""
        with trio.move_on_after(seconds):
            await self.reader.read_forever()

    def missed(self) -> set[PaymentHash]:
        return settled_at(self.network, "bob") - set(self.reader.processed)


@asynccontextmanager
async def bench(pace: FeedPace = SMALL) -> AsyncIterator[Bench]:
    network = SimNetwork(["alice", "bob"], ["alice-bob:10000000"], seed=1, latency_s=(0, 0))
    async with network.open():
        yield Bench(network, pace)


# --- catching up and following ---


async def test_a_long_history_is_read_page_by_page(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace(page=10)) as b:
        await b.pay(100)
        offsets = []
        true = b.lnd.rpcs.list_invoices

        async def spy(**arguments: int) -> tuple[Invoice, ...]:
            offsets.append(arguments["index_offset"])
            return await true(**arguments)  # type: ignore[arg-type]  # as it came

        b.lnd.rpcs.list_invoices = spy  # type: ignore[method-assign]  # on this node only
        await b.read_for(1)
        assert offsets == [0, *range(0, 101, 10)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 30])
async def test_what_settled_before_is_told_in_order_then_that_it_was_all(
    count: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with bench() as b:
        await b.pay(count)
        async with b.bob.settled_invoices(InvoiceCursor()) as news:
            told = [await news.receive() for _ in range(count + 1)]
        assert [item.invoice.add_index if item.invoice else None for item in told] == [*range(1, count + 1), None]


async def test_what_settles_while_reading_is_told_at_once_and_once(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b, trio.open_nursery() as nursery:
        nursery.start_soon(b.reader.read_forever)
        for _ in range(20):
            await trio.sleep(1)
            await b.pay()
            await trio.testing.wait_all_tasks_blocked()
            assert not b.missed()
        assert (b.reader.told, b.reader.passes) == (20, 2)  # at once, and once more after the seam
        await trio.sleep(120)
        assert (b.reader.cursor.settle_index, b.reader.cursor.add_index) == (20, 20)
        nursery.cancel_scope.cancel()


async def test_an_old_invoice_is_told_when_it_is_paid_at_last(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b, trio.open_nursery() as nursery:
        old = b.lnd.add_invoice(Msat(5000), memo="coffee")
        await b.pay(10)
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(1)
        await pay_invoice(b.network, "alice", "bob", old)
        await trio.sleep(1)
        told = b.reader.processed[old.payment_hash]
        assert (told.amount, told.memo, told.is_keysend) == (5000, "coffee", False)
        nursery.cancel_scope.cancel()


async def test_a_reader_that_has_it_all_is_told_little_again(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace(newest=4)) as b:
        await b.pay(50)
        await b.read_for(300)
        await b.pay(1)
        await b.read_for(300)
        assert b.reader.told == 51 + 3  # the newest are shown again, so that a node that counts anew is found out
        for _ in range(3):
            await b.read_for(300)
        assert b.reader.told == 54 + 3 * 4


async def test_a_stop_of_the_node_ends_the_channel(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        async with b.bob.settled_invoices(InvoiceCursor()) as news:
            await news.receive()
            await trio.sleep(1)
            b.lnd.stop()
            with pytest.raises(trio.EndOfChannel):
                await news.receive()


async def test_a_broken_connection_ends_the_channel(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        async with b.bob.settled_invoices(InvoiceCursor()) as news:
            await news.receive()
            await trio.sleep(1)
            b.lnd.drop_connections()
            with pytest.raises(trio.EndOfChannel):
                await news.receive()


async def test_a_node_that_goes_away_between_two_passes_ends_the_channel(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as b:
        async with b.bob.settled_invoices(InvoiceCursor()) as news:
            await news.receive()
            await trio.sleep(1)
            b.lnd.node.state = WalletState.LOCKED  # its stream does not notice
            with pytest.raises(trio.EndOfChannel):
                await news.receive()


async def test_a_node_that_cannot_be_asked_is_an_error_before_the_channel_is_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as b:
        b.lnd.stop()
        with pytest.raises(NodeUnavailable):
            async with b.bob.settled_invoices(InvoiceCursor()):
                pass


async def test_what_the_reader_raises_comes_out_as_it_went_in(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        with pytest.raises(KeyError):
            async with b.bob.settled_invoices(InvoiceCursor()):
                raise KeyError


async def test_a_slow_reader_misses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        async with b.bob.settled_invoices(InvoiceCursor()) as news:
            await b.pay(200)
            await trio.sleep(1000)
            told = set[PaymentHash]()
            while len(told) < 200:
                item = await news.receive()
                if item.invoice is not None:
                    told.add(item.invoice.payment_hash)
        assert told == settled_at(b.network, "bob")


# --- crashes ---


@pytest.mark.parametrize("crash_after", range(14))
async def test_a_crash_after_any_step_loses_nothing(crash_after: int, autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        await b.pay(4)
        b.lnd.add_invoice(Msat(1000))
        late = b.lnd.add_invoice(Msat(1000))
        await b.pay(6)
        with trio.move_on_after(500):
            await b.reader.read(steps=crash_after)
        await pay_invoice(b.network, "alice", "bob", late)
        await b.pay(2)
        await b.read_for(500)
        assert not b.missed()


async def test_a_reader_that_crashes_all_the_time_still_gets_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench() as b:
        for _ in range(25):
            await b.pay()
            await trio.sleep(1)
        for _ in range(9):
            with trio.move_on_after(500):
                await b.reader.read(steps=3)
        assert not b.missed()
        assert not caplog.records  # nothing looks like a node that counts anew


@pytest.mark.parametrize("backwards", [False, True])
async def test_a_crash_in_the_middle_of_a_backlog_skips_nothing(
    backwards: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Native SQL sends a backlog in the order of addition: the highest settle_index may come first."""
    async with bench(FeedPace(page=3, newest=4, backlog=100, held_back=1)) as b:
        b.lnd.renumber()
        await b.pay(3)
        old = [b.lnd.add_invoice(Msat(1000)) for _ in range(8)]
        await b.pay(20)
        await b.read_for(500)
        await b.pay(1)
        await b.read_for(500)
        assert b.reader.cursor.add_index > old[-1].add_index
        for invoice in reversed(old) if backwards else old:
            await pay_invoice(b.network, "alice", "bob", invoice)
        for steps in range(20):
            with trio.move_on_after(500):
                await b.reader.read(steps=steps)
        assert not b.missed()


async def test_invoices_open_for_long_are_found_by_their_settlement(autojump_clock: trio.testing.MockClock) -> None:
    """The watermark has let go of them: only the settle_index can bring them."""
    async with bench(FeedPace(page=3, newest=2, backlog=100, held_back=2)) as b:
        await b.pay(2)
        old = b.lnd.add_invoice(Msat(1000))
        await b.pay(10)
        await b.read_for(500)
        assert b.reader.cursor.add_index > old.add_index
        await b.pay(1)
        await pay_invoice(b.network, "alice", "bob", old)
        await b.pay(10)
        await b.read_for(500)
        assert not b.missed()


async def test_more_than_a_backlog_may_hold_is_listed_instead(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace(page=3, newest=2, backlog=5, held_back=2)) as b:
        await b.pay(2)
        old = b.lnd.add_invoice(Msat(1000))
        await b.pay(10)
        await b.read_for(500)
        stored = b.reader.cursor
        await pay_invoice(b.network, "alice", "bob", old)
        await b.pay(10)
        starts = spy_on_subscriptions(b)
        await b.read_for(500)
        assert not b.missed()
        assert starts[0][1] - stored.settle_index > 5  # so LND had nothing to read that it would stop for


async def test_a_crash_before_the_backlog_has_come_does_not_forget_it(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace(page=3, newest=2, held_back=2)) as b:
        await b.pay(2)
        old = b.lnd.add_invoice(Msat(1000))
        await b.pay(10)
        await b.read_for(500)
        await b.pay(1)
        await pay_invoice(b.network, "alice", "bob", old)
        await b.pay(10)
        b.lnd.rpcs.backlog_delay_s = 200
        await b.read_for(150)  # in which two passes tell all that is listed, with higher numbers
        assert b.missed() == {old.payment_hash}
        b.lnd.rpcs.backlog_delay_s = 0
        await b.read_for(10)
        assert not b.missed()


async def test_what_is_listed_proves_nothing_about_what_the_subscription_has_yet_to_say(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench(FeedPace(page=3, newest=2, held_back=2, reconcile_s=10)) as b:
        await b.pay(2)
        old = b.lnd.add_invoice(Msat(1000))
        await b.pay(10)
        speaking = slow_down(b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.reader.read_forever)
            await trio.sleep(5)
            await b.pay(1)
            await trio.sleep(5)
            speaking.value = False
            await b.pay(1)  # the reader waits already, and hears its OPEN
            await pay_invoice(b.network, "alice", "bob", old)
            await b.pay(5)
            await trio.sleep(50)  # in which several passes tell the keysends
            assert b.missed() == {old.payment_hash}
            nursery.cancel_scope.cancel()
        speaking.value = True
        await b.read_for(10)
        assert not b.missed()


async def test_an_open_keysend_holds_the_watermark_back(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace()) as b, trio.open_nursery() as nursery:
        silence(b)
        await b.pay(1)
        b.lnd.pause_between_open_and_settled(100)
        nursery.start_soon(b.pay)
        await trio.sleep(1)
        b.lnd.pause_between_open_and_settled(0)
        b.number = 100
        await b.pay(3)
        await b.read_for(10)
        assert b.reader.cursor.add_index == 1
        await trio.sleep(100)
        await b.read_for(1)
        assert not b.missed()


# --- the seam between listing and following ---


async def test_what_settles_before_the_subscription_takes_effect_is_found_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench(FeedPace()) as b, trio.open_nursery() as nursery:
        b.lnd.rpcs.registration_delay_s = 1
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(0.5)
        await b.pay(3)
        await trio.sleep(4)
        assert not b.missed()
        nursery.cancel_scope.cancel()


async def test_what_comes_twice_at_the_seam_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace()) as b, trio.open_nursery() as nursery:
        await b.pay(3)
        await b.read_for(500)
        told = b.reader.told
        b.lnd.rpcs.backlog_delay_s = 1
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(0.5)
        await b.pay(5)
        await trio.sleep(500)
        assert (b.reader.told - told, b.missed()) == (3 + 5, set())
        nursery.cancel_scope.cancel()


async def test_a_restart_between_open_and_settled_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b, trio.open_nursery() as nursery:
        b.lnd.pause_between_open_and_settled(10)
        nursery.start_soon(b.reader.read_forever)
        nursery.start_soon(b.pay)
        await trio.sleep(5)
        assert [i.state for i in b.lnd.node.invoices] == [InvoiceState.OPEN]
        b.lnd.restart()
        await trio.sleep(15)
        assert settled_at(b.network, "bob") == set(b.reader.processed) != set()
        nursery.cancel_scope.cancel()


async def test_a_keysend_that_stays_open_below_the_watermark_is_looked_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench(FeedPace(page=3, newest=2, held_back=2, reconcile_s=60)) as b, trio.open_nursery() as nursery:
        b.lnd.pause_between_open_and_settled(1000)
        nursery.start_soon(b.pay)
        await trio.sleep(1)
        b.lnd.pause_between_open_and_settled(0)
        b.number = 100
        await b.pay(10)
        silence(b)
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(500)
        assert len(b.reader.processed) == 10
        await trio.sleep(600)
        assert not b.missed()
        nursery.cancel_scope.cancel()


# --- a node that counts anew ---


@pytest.mark.parametrize("before", [1, 5, 40])
@pytest.mark.parametrize("after", [1, 5, 40])
async def test_a_migration_while_away_loses_nothing(
    before: int, after: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with bench() as b, trio.open_nursery() as nursery:
        await b.pay(before)
        await b.read_for(300)
        await trio.sleep(2)
        b.lnd.renumber()
        await b.pay(after)
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(1)
        assert not b.missed()
        await trio.sleep(2)
        await b.pay(after)
        await trio.sleep(5)
        assert not b.missed()
        nursery.cancel_scope.cancel()


async def test_a_migration_that_nothing_has_shown_yet_delays_messages_by_seconds_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The cursor is above the node's counter: LND suppresses what settles, and only its OPEN is heard."""
    async with bench(FeedPace()) as b, trio.open_nursery() as nursery:
        await b.pay(40)
        await b.read_for(300)
        await trio.sleep(2)
        b.lnd.renumber()
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(100)
        await b.pay(1)
        await trio.sleep(3)
        assert not b.missed()
        await b.pay(1)
        await trio.testing.wait_all_tasks_blocked()
        assert not b.missed()  # the node's own numbers are known by now
        nursery.cancel_scope.cancel()


async def test_the_first_start_on_a_migrated_node_is_not_deaf(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace()) as b, trio.open_nursery() as nursery:
        await b.pay(40)
        b.lnd.renumber()
        await trio.sleep(2)
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(100)
        await b.pay(2)
        await trio.sleep(3)
        assert not b.missed()
        await b.pay(2)
        await trio.testing.wait_all_tasks_blocked()
        assert not b.missed()
        nursery.cancel_scope.cancel()


async def test_the_newest_settlement_says_how_the_node_counts_not_the_highest_number(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench(FeedPace()) as b, trio.open_nursery() as nursery:
        await b.pay(40)
        b.lnd.renumber()
        await trio.sleep(2)
        await b.pay(1)
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(1)
        await b.pay(2)
        await trio.testing.wait_all_tasks_blocked()
        assert not b.missed()
        nursery.cancel_scope.cancel()


async def test_after_a_migration_the_cursor_follows_the_new_numbers(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        await b.pay(6)
        await b.read_for(300)
        assert b.reader.cursor.settle_index == 6
        await trio.sleep(2)
        b.lnd.renumber()
        await b.pay(3)
        await b.read_for(300)
        await b.pay(1)
        await b.read_for(300)
        assert 3 <= b.reader.cursor.settle_index <= 4
        await b.pay(5)
        await b.read_for(300)
        assert not b.missed()


async def test_after_a_migration_a_long_history_is_neither_asked_for_nor_told_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its numbers are above the new ones, so every backlog would bring all of it."""
    async with bench() as b:
        await b.pay(40)
        old = b.lnd.add_invoice(Msat(1000), expiry_s=30 * 86_400)
        await b.pay(10)
        await b.read_for(300)
        await trio.sleep(2 * 86_400)
        b.lnd.renumber()
        await b.pay(1)
        await b.read_for(300)
        starts = spy_on_subscriptions(b)
        for _ in range(3):
            await trio.sleep(2 * 86_400)
            told = b.reader.told
            await b.pay(2)
            await b.read_for(300)
            assert not b.missed()
            assert b.reader.told <= told + 2 + b.bob.pace.newest
        await pay_invoice(b.network, "alice", "bob", old)
        await b.pay(10)
        await b.read_for(300)
        assert not b.missed()
        assert {settle_index for _, settle_index in starts} == {0}


async def test_a_rescan_reads_everything_whatever_the_cursor_says(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as b:
        await b.pay(12)
        await trio.sleep(300 * 86_400)  # an invoice may be valid for a year
        await b.pay(1)
        now_s = max(invoice.created_s for invoice in b.lnd.node.invoices)
        b.reader.cursor = InvoiceCursor(settle_index=99, add_index=99, newest_s=now_s)
        with trio.move_on_after(100):
            await b.reader.read(rescan=True)
        assert not b.missed()


async def test_a_node_with_fewer_invoices_than_the_cursor_has_read_is_read_from_the_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as b:
        await b.pay(5)
        now_s = max(invoice.created_s for invoice in b.lnd.node.invoices)
        b.reader.cursor = InvoiceCursor(settle_index=500, add_index=700, newest_s=now_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.reader.read_forever)
            await trio.sleep(1)
            assert not b.missed()
            await b.pay(1)
            await trio.testing.wait_all_tasks_blocked()
            assert not b.missed()
            nursery.cancel_scope.cancel()


# --- what asks too much of LND ---


def spy_on_subscriptions(b: Bench) -> list[tuple[int, int]]:
    """(add_index, settle_index) of every subscription from now on."""
    starts: list[tuple[int, int]] = []
    true = b.lnd.rpcs.subscribe_invoices

    @asynccontextmanager
    async def spy(*, add_index: int, settle_index: int) -> AsyncIterator[LiveStream[Invoice]]:
        starts.append((add_index, settle_index))
        async with true(add_index=add_index, settle_index=settle_index) as stream:
            yield stream

    b.lnd.rpcs.subscribe_invoices = spy  # type: ignore[method-assign]  # on this node only
    return starts


@dataclass
class Switch:
    value: bool = True


def slow_down(b: Bench) -> Switch:
    """Let its subscriptions say nothing while the switch is off."""
    on, true = Switch(), b.lnd.rpcs.subscribe_invoices

    class Slow(LiveStream[Invoice]):
        def __init__(self, stream: LiveStream[Invoice]) -> None:
            super().__init__()
            self._stream = stream

        async def receive(self) -> Invoice:
            if not on.value:
                await trio.sleep_forever()
            return await self._stream.receive()

    @asynccontextmanager
    async def slow(*, add_index: int, settle_index: int) -> AsyncIterator[LiveStream[Invoice]]:
        async with true(add_index=add_index, settle_index=settle_index) as stream:
            yield Slow(stream)

    b.lnd.rpcs.subscribe_invoices = slow  # type: ignore[method-assign]  # on this node only
    return on


def silence(b: Bench) -> None:
    """Let its subscriptions never say anything, which LND's never do: then only listing is left."""

    @asynccontextmanager
    async def silent(*, add_index: int, settle_index: int) -> AsyncIterator[LiveStream[Invoice]]:
        yield LiveStream()

    b.lnd.rpcs.subscribe_invoices = silent  # type: ignore[method-assign]  # on this node only


async def test_no_start_is_ever_invented(autojump_clock: trio.testing.MockClock) -> None:
    """LND's old back end skips an entry when it is given an index that nothing has."""
    async with bench(FeedPace(page=3, newest=2, backlog=5, held_back=2)) as b:
        starts = spy_on_subscriptions(b)
        for count in (3, 1, 12, 1, 2):
            b.lnd.skip_indexes(added=count, settled=2 * count)
            await b.pay(count)
            await b.read_for(130)
        given = {0, *(invoice.settle_index for invoice in b.lnd.node.invoices)}
        assert {settle for _, settle in starts} <= given
        assert {add for add, _ in starts} == {0}
        assert not b.missed()


async def test_what_the_subscription_never_says_is_found_by_listing(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(FeedPace(reconcile_s=60)) as b, trio.open_nursery() as nursery:
        silence(b)
        nursery.start_soon(b.reader.read_forever)
        await trio.sleep(10)
        await b.pay(5)
        await trio.sleep(60)
        assert not b.missed()
        nursery.cancel_scope.cancel()


# --- anything at all ---


ACTIONS = st.one_of(
    st.tuples(st.just("pay"), st.integers(1, 12)),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 3, 130])),
    st.tuples(st.just("crash"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("drop"), st.just(0)),
    st.tuples(st.just("invoice"), st.integers(1, 3)),
    st.tuples(st.just("pay_invoice"), st.integers(0, 50)),
    st.tuples(st.just("skip"), st.integers(1, 5)),
    st.tuples(st.just("renumber"), st.just(0)),
    st.tuples(st.just("seam"), st.sampled_from([0, 1])),
)


async def live(actions: list[tuple[str, int]], held_back: int) -> None:
    pace = FeedPace(page=3, newest=3, backlog=8, held_back=held_back, remembered=6)
    async with bench(pace) as b:
        waiting = []
        while actions:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(b.reader.read_forever)
                while actions:
                    what, number = actions.pop()
                    if what == "pay":
                        await b.pay(number)
                    elif what == "wait":
                        await trio.sleep(number)
                    elif what == "crash":
                        break
                    elif what == "restart":
                        b.lnd.restart()
                    elif what == "drop":
                        b.lnd.drop_connections()
                    elif what == "invoice":
                        waiting += [b.lnd.add_invoice(Msat(1000), expiry_s=30 * 86_400) for _ in range(number)]
                    elif what == "pay_invoice" and waiting:
                        await pay_invoice(b.network, "alice", "bob", waiting.pop(number % len(waiting)))
                    elif what == "skip":
                        b.lnd.skip_indexes(added=number, settled=number)
                    elif what == "renumber":
                        await trio.sleep(2)  # it takes a node longer than that
                        b.lnd.renumber()
                        if held_back < 1000:
                            waiting.clear()
                    elif what == "seam":
                        b.lnd.rpcs.registration_delay_s = b.lnd.rpcs.backlog_delay_s = number
                nursery.cancel_scope.cancel()
        await b.read_for(500)
        assert not b.missed()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25), held_back=st.sampled_from([2, 1000]))
def test_whatever_happens_every_settled_invoice_is_told(actions: list[tuple[str, int]], held_back: int) -> None:
    """With one exception: an invoice let go of, and then the very first that a node settles when it counts anew."""
    trio.run(live, actions, held_back, clock=trio.testing.MockClock(autojump_threshold=0))


# --- what is believed of an invoice ---


def invoice(*htlcs: InvoiceHtlc, is_keysend: bool = True) -> NodeInvoice:
    return NodeInvoice(
        payment_hash=PaymentHash(bytes(32)),
        state=InvoiceState.SETTLED,
        add_index=1,
        settle_index=1,
        created_s=1,
        settled_s=2,
        is_keysend=is_keysend,
        amount_paid=Msat(sum(htlc.amount for htlc in htlcs)),
        htlcs=htlcs,
    )


def htlc(accepted_s: int, index: int, state: HtlcState = HtlcState.SETTLED) -> InvoiceHtlc:
    return InvoiceHtlc(
        state=state, amount=Msat(1000 + index), accepted_s=accepted_s, index=index, records={70000: b"%d" % index}
    )


def test_of_a_keysend_only_the_first_accepted_htlc_counts() -> None:
    told = settled(invoice(htlc(50, 0), htlc(20, 7), htlc(20, 9), htlc(10, 3, HtlcState.CANCELED)))
    assert (told.amount, told.records) == (1007, {70000: b"7"})


def test_of_a_payment_request_all_parts_count() -> None:
    told = settled(invoice(htlc(50, 0), htlc(20, 7), is_keysend=False))
    assert (told.amount, told.records) == (2007, {70000: b"7"})


def test_an_invoice_older_than_htlc_records_is_told_without_them() -> None:
    assert (settled(invoice()).amount, settled(invoice()).records) == (0, {})
