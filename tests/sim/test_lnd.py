import pytest
import trio
import trio.testing
from tests.sim.reader import pay, preimage_of

from impervious.errors import NodeUnavailable, PaymentFailure
from impervious.model import InvoiceState, NodeState, PaymentStatus
from impervious.sim import SimNetwork
from impervious.sim.engine.invoices import Backend
from impervious.units import Msat


async def test_a_lock_lasts_until_it_is_opened(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, lnd = network.node("alice"), network.lnd("alice")
        lnd.lock()
        assert (alice.status.state, alice.status.reason != "") == (NodeState.LOCKED, True)
        with pytest.raises(NodeUnavailable, match="locked"):
            await pay(alice, network.node("bob").pubkey, 1)
        lnd.unlock()
        assert alice.status.ready


async def test_a_chain_that_is_behind_is_not_ready(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice").open() as network:
        network.lnd("alice").set_synced(False)
        assert network.node("alice").status.state is NodeState.SYNCING
        with trio.move_on_after(10) as scope:
            await network.node("alice").wait_ready()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.node("alice").wait_ready)
            await trio.sleep(1)
            network.lnd("alice").set_synced(True)


async def test_a_delay_keeps_htlcs_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        network.lnd("bob").delay_arrivals(100)
        start = trio.current_time()
        payment = await pay(network.node("alice"), network.node("bob").pubkey, 1)
        assert (payment.status, trio.current_time() - start) == (PaymentStatus.SUCCEEDED, 100)


async def test_a_node_offline_keeps_its_rpcs_and_loses_its_peers(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, bob = network.node("alice"), network.node("bob")
        network.lnd("bob").go_offline()
        assert bob.status.ready
        assert (await pay(alice, bob.pubkey, 1)).failure is PaymentFailure.INSUFFICIENT_BALANCE
        network.lnd("bob").go_online()
        assert (await pay(alice, bob.pubkey, 1)).status is PaymentStatus.SUCCEEDED


async def test_a_migration_is_a_restart_that_counts_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        lnd = network.lnd("bob")
        for number in (1, 2):
            await pay(network.node("alice"), lnd.pubkey, number)
        async with lnd.rpcs.subscribe_invoices(add_index=0, settle_index=1) as events:
            lnd.renumber()
            assert [event.settle_index async for event in events] in ([], [2])
        await pay(network.node("alice"), lnd.pubkey, 3)
        assert [(i.add_index, i.settle_index) for i in lnd.node.invoices] == [(1, 1), (2, 2), (3, 1)]
        assert lnd.node.invoices.backend is Backend.SQL


async def test_a_stopped_node_migrates_and_stays_stopped(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        lnd = network.lnd("bob")
        lnd.stop()
        lnd.renumber()
        assert (network.node("bob").status.state, lnd.node.invoices.backend) == (NodeState.AWAY, Backend.SQL)


async def test_a_cancelled_invoice_cannot_be_paid(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        lnd = network.lnd("bob")
        invoice = lnd.add_invoice(Msat(1000))
        lnd.cancel_invoice(invoice.payment_hash)
        assert [i.state for i in lnd.node.invoices] == [InvoiceState.CANCELED]


async def test_a_held_keysend_waits_for_its_operator(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        lnd = network.lnd("bob")
        lnd.hold_keysends(100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pay, network.node("alice"), lnd.pubkey, 1)
            await trio.sleep(50)
            lnd.cancel_invoice(preimage_of(1).payment_hash)
            await trio.sleep(1)
        payment = await network.node("alice").track(preimage_of(1).payment_hash)
        assert payment.failure is PaymentFailure.INCORRECT_PAYMENT_DETAILS


def test_an_operator_can_be_asked_who_it_is() -> None:
    network = SimNetwork.line("alice", "bob")
    assert network.lnd("alice").name == "alice"
    assert network.lnd("alice").pubkey == network.node("alice").pubkey


async def test_payments_of_a_node_that_is_killed_may_stay_in_flight_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with SimNetwork.line("alice", "bob").open() as network:
        alice, lnd = network.node("alice"), network.lnd("alice")
        before = [list(channel.balances) for channel in network.channels]
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(NodeUnavailable):
                    await pay(alice, network.node("bob").pubkey, 1)

            nursery.start_soon(send)
            await trio.sleep(0.01)
            lnd.kill(strands=True)
        lnd.start()
        await trio.sleep(80_000)
        payment = await alice.lookup_payment(preimage_of(1).payment_hash)
        assert (payment.status, payment.attempts) == (PaymentStatus.IN_FLIGHT, 1)
        assert [list(channel.balances) for channel in network.channels] == before
        assert not any(channel.htlcs for channel in network.channels)


async def test_one_payment_can_be_stranded(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, bob = network.node("alice"), network.node("bob").pubkey
        network.lnd("alice").strand_next_payment()
        with trio.move_on_after(80_000) as scope:
            await pay(alice, bob, 1)
        assert scope.cancelled_caught
        network.lnd("alice").restart()
        assert (await alice.lookup_payment(preimage_of(1).payment_hash)).status is PaymentStatus.IN_FLIGHT
        assert (await pay(alice, bob, 2)).status is PaymentStatus.SUCCEEDED


async def test_who_goes_away_for_a_time_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, bob = network.lnd("alice"), network.lnd("bob")
        async with alice.rpcs.subscribe_channel_events() as events:
            bob.go_offline(10)
            assert not (await events.receive()).active
            start = trio.current_time()
            assert (await events.receive()).active
            assert trio.current_time() - start == 10
            alice.disconnect(bob, 5)
            assert [(await events.receive()).active for _ in range(2)] == [False, True]
            bob.lock(7)
            assert not (await events.receive()).active
            assert network.node("bob").status.state is NodeState.LOCKED
            assert (await events.receive()).active
            assert network.node("bob").status.ready
            alice.disconnect(bob)
            alice.connect(bob)
            assert [(await events.receive()).active for _ in range(2)] == [False, True]
        bob.lock(5)
        bob.stop()
        await trio.sleep(10)
        assert network.node("bob").status.state is NodeState.AWAY


async def test_mission_control_refuses_without_an_attempt_until_it_is_reset(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with SimNetwork.line("alice", "bob", "carol", latency_s=(0, 0)).open() as network:
        alice, carol = network.node("alice"), network.node("carol").pubkey
        network.lnd("carol").lock(15)
        assert (await pay(alice, carol, 1)).failure is PaymentFailure.NO_ROUTE
        await trio.sleep(60)
        invoice = await alice.decode_invoice(network.lnd("carol").add_invoice(Msat(1000)).payment_request)
        refused = await alice.pay_invoice(invoice, fee_limit=Msat(5000), timeout_s=60)
        assert (refused.failure, refused.attempts) == (PaymentFailure.NO_ROUTE, 0)
        network.lnd("alice").reset_mission_control()
        paid = await alice.pay_invoice(invoice, fee_limit=Msat(5000), timeout_s=60)
        assert paid.status is PaymentStatus.SUCCEEDED
