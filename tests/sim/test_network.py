import pytest
import trio
import trio.testing
from tests.sim.reader import pay

from impervious.errors import InvalidArgument, NotFound
from impervious.model import PaymentStatus
from impervious.sim import SimNetwork


async def test_a_line_carries_payments_from_end_to_end(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", "carol", seed=1).open() as network:
        total = network.total()
        payment = await pay(network.node("alice"), network.node("carol").pubkey, 1)
        assert (payment.status, payment.fee) == (PaymentStatus.SUCCEEDED, 1000)
        assert network.total() == total == 2_000_000_000


async def test_a_settlement_takes_its_time_at_every_hop(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", "carol", seed=1, latency_s=(0.2, 0.5)).open() as network:
        for hops, dest in [(1, "bob"), (2, "carol")]:
            start = trio.current_time()
            await pay(network.node("alice"), network.node(dest).pubkey, hops)
            assert 0.2 * hops <= trio.current_time() - start <= 0.5 * hops


async def test_payments_overlap(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", seed=1, latency_s=(1, 1)).open() as network:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(pay, network.node("alice"), network.node("bob").pubkey, number)
        assert trio.current_time() - start == 1


async def test_dates_come_from_the_clock_that_was_given(autojump_clock: trio.testing.MockClock) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob"], latency_s=(0, 0), now=lambda: 1_234_567_890.5)
    async with network.open():
        assert (await pay(network.node("alice"), network.node("bob").pubkey, 1)).created_s == 1_234_567_890
        assert [i.settled_s for i in network.lnd("bob").node.invoices] == [1_234_567_890]


async def test_a_network_without_the_signal_adds_no_record(autojump_clock: trio.testing.MockClock) -> None:
    network = SimNetwork(["alice", "bob"], ["alice-bob"], latency_s=(0, 0), accountable=False)
    async with network.open():
        await pay(network.node("alice"), network.node("bob").pubkey, 1, records={400000: b"x"})
        (invoice,) = network.lnd("bob").node.invoices
        assert set(invoice.htlcs[0].records) == {400000, 5482373484}


def test_keys_come_from_the_seed() -> None:
    one, same, other, random = (SimNetwork.line("alice", seed=seed).node("alice").pubkey for seed in (1, 1, 2, None))
    assert one == same
    assert len({one, other, random}) == 3


def test_a_name_that_is_not_there_is_named() -> None:
    network = SimNetwork.line("alice", "bob")
    for find in (network.node, network.lnd):
        with pytest.raises(NotFound, match="no node carol; it has alice, bob"):
            find("carol")
    assert network.names == ("alice", "bob")


def test_a_description_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        SimNetwork(["alice"], ["alice-bob"])


async def test_cancelled_from_outside_it_runs_until_the_block_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    paid = None
    with trio.move_on_after(1) as scope:
        async with SimNetwork.line("alice", "bob", seed=1, latency_s=(1, 1)).open() as network:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    paid = await pay(network.node("alice"), network.node("bob").pubkey, 1)
    assert scope.cancelled_caught
    assert paid is not None
    assert paid.status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize("error", [ValueError("body"), ExceptionGroup("its own", [KeyError()]), SystemExit(3)])
async def test_what_the_block_raises_comes_out_as_it_went_in(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with SimNetwork.line("alice", "bob", seed=1).open():
            raise error
    assert caught.value is error
