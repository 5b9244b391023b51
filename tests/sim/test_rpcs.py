from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from grpclib.const import Status
from tests.sim.reader import preimage_of

from impervious.errors import PaymentFailure
from impervious.model import HtlcState, InvoiceState, PaymentHash
from impervious.sim import ChannelSpec, NodeSpec, SimNetwork
from impervious.sim.engine.answers import LndError, WalletState
from impervious.sim.engine.payments import Order, Stage
from impervious.sim.rpcs import Rpcs
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD


@asynccontextmanager
async def opened(latency_s: float = 0) -> AsyncIterator[SimNetwork]:
    network = SimNetwork(
        ["alice", "bob", NodeSpec(name="carol", accepts_keysend=False)],
        ["alice-bob", ChannelSpec(first="bob", second="carol", private=True)],
        seed=1,
        latency_s=(latency_s, latency_s),
    )
    async with network.open():
        yield network


def order(network: SimNetwork, number: int = 1, *, cancelable: bool = False, amount: int = 1000) -> Order:
    preimage = preimage_of(number)
    return Order(
        dest=network.node("bob").pubkey.raw,
        amount=Msat(amount),
        payment_hash=preimage.payment_hash,
        records={PREIMAGE_RECORD: preimage.raw},
        cancelable=cancelable,
    )


async def pay(network: SimNetwork, number: int = 1) -> list[Stage]:
    async with network.lnd("alice").rpcs.send_payment(order(network, number)) as updates:
        return [payment.stage async for payment in updates]


async def every_unary(rpcs: Rpcs) -> list[LndError]:
    """What each RPC ends with."""
    calls = [
        rpcs.get_info(),
        rpcs.list_payments(),
        rpcs.list_invoices(),
        rpcs.lookup_invoice(bytes(32)),
        rpcs.sign_message(b"x"),
        rpcs.verify_message(b"x", bytes(65)),
        rpcs.get_node_info(bytes(33)),
        rpcs.list_channels(),
        rpcs.channel_balance(),
    ]
    errors = []
    for call in calls:
        with pytest.raises(LndError) as caught:
            await call
        errors.append(caught.value)
    for stream in (
        rpcs.track_payment(bytes(32)),
        rpcs.subscribe_invoices(add_index=0, settle_index=0),
        rpcs.subscribe_single_invoice(bytes(32)),
    ):
        with pytest.raises(LndError) as caught:
            async with stream:
                pass
        errors.append(caught.value)
    return errors


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (WalletState.WAITING_TO_START, "waiting to start, RPC services not available"),
        (WalletState.NON_EXISTING, "wallet not created, create one to enable full RPC access"),
        (WalletState.LOCKED, "wallet locked, unlock it to enable full RPC access"),
        (
            WalletState.UNLOCKED,
            "the RPC server is in the process of starting up, but not yet ready to accept calls",
        ),
    ],
)
async def test_before_it_is_active_every_rpc_says_how_far_it_is(
    state: WalletState, text: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened() as network:
        network.lnd("alice").set_state(state)
        errors = await every_unary(network.lnd("alice").rpcs)
        assert {(error.text, error.status) for error in errors} == {(text, Status.UNKNOWN)}
        assert network.lnd("alice").rpcs.state is state


async def test_a_stopped_process_answers_nothing_not_even_its_state(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        network.lnd("alice").stop()
        errors = await every_unary(network.lnd("alice").rpcs)
        assert {error.status for error in errors} == {Status.UNAVAILABLE}
        with pytest.raises(LndError):
            _ = network.lnd("alice").rpcs.state


async def test_states_are_told_one_after_the_other_and_end_with_a_reason(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as network:
        lnd = network.lnd("alice")
        lnd.lock()
        async with lnd.rpcs.subscribe_state() as states:
            lnd.unlock()
            assert [await states.receive() for _ in range(4)] == [
                WalletState.LOCKED,
                WalletState.UNLOCKED,
                WalletState.RPC_ACTIVE,
                WalletState.SERVER_ACTIVE,
            ]
            lnd.stop()
            with pytest.raises(LndError, match="server exiting"):
                await states.receive()


async def test_info_counts_channels_and_peers(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        network.lnd("carol").stop()
        info = await network.lnd("bob").rpcs.get_info()
        assert (info.active_channels, info.inactive_channels, info.peers) == (1, 1, 1)
        assert (info.alias, info.pubkey, 55 in info.features) == ("bob", network.node("bob").pubkey, True)
        network.lnd("bob").set_accepts_keysend(False)
        assert 55 not in (await network.lnd("bob").rpcs.get_info()).features


async def test_a_payment_is_streamed_to_its_end(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(latency_s=1) as network:
        assert await pay(network) == [Stage.INITIATED, Stage.IN_FLIGHT, Stage.SUCCEEDED]


async def test_tracking_begins_with_the_present(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(latency_s=1) as network:
        rpcs = network.lnd("alice").rpcs
        async with rpcs.send_payment(order(network)):
            pass
        for expected in ([Stage.IN_FLIGHT, Stage.SUCCEEDED], [Stage.SUCCEEDED]):
            async with rpcs.track_payment(preimage_of(1).payment_hash) as updates:
                assert [payment.stage async for payment in updates] == expected


async def test_leaving_a_cancelable_payment_cancels_it(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(latency_s=1) as network:
        rpcs = network.lnd("alice").rpcs
        network.lnd("alice").fail_next_payment(PaymentFailure.ERROR)
        for number, cancelable in [(1, False), (2, True), (3, False)]:
            async with rpcs.send_payment(order(network, number, cancelable=cancelable)):
                pass
        records = [network.lnd("alice").node.payments.lookup(preimage_of(n).payment_hash) for n in (2, 3)]
        assert [payment.canceled for payment in records] == [True, False]


async def test_a_lost_answer_is_lost_once(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        network.lnd("alice").lose_next_answer()
        with pytest.raises(LndError) as caught:
            await pay(network)
        assert caught.value.status is Status.UNAVAILABLE
        assert network.lnd("alice").node.payments.lookup(preimage_of(1).payment_hash).stage is Stage.SUCCEEDED
        assert (await pay(network, 2))[-1] is Stage.SUCCEEDED


async def test_a_list_of_payments_has_what_succeeded(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        rpcs = network.lnd("alice").rpcs
        network.lnd("alice").fail_next_payment(PaymentFailure.ERROR)
        for number in (1, 2, 3):
            await pay(network, number)
        assert [payment.index for payment in await rpcs.list_payments()] == [2, 3]
        assert [p.index for p in await rpcs.list_payments(include_incomplete=True, limit=1, backwards=True)] == [3]
        assert [p.index for p in await rpcs.list_payments(include_incomplete=True, index_offset=1)] == [2, 3]


async def test_without_a_route_it_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        with pytest.raises(LndError, match="insufficient local balance"):
            await network.lnd("alice").rpcs.query_routes(order(network, amount=10**10))
        with pytest.raises(LndError, match="unable to find a path to destination"):
            await network.lnd("alice").rpcs.query_routes(order(network, amount=999))


async def test_a_single_invoice_is_followed_through_every_state(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        lnd = network.lnd("bob")
        lnd.hold_keysends(60)
        async with lnd.rpcs.subscribe_single_invoice(preimage_of(1).payment_hash) as changes:
            async with network.lnd("alice").rpcs.send_payment(order(network)):
                opened_, accepted = await changes.receive(), await changes.receive()
                assert (opened_.state, accepted.state) == (InvoiceState.OPEN, InvoiceState.ACCEPTED)
                assert accepted.htlcs[0].state is HtlcState.ACCEPTED
                lnd.settle_invoice(preimage_of(1))
            assert [invoice.state async for invoice in changes] == [InvoiceState.SETTLED]
        async with lnd.rpcs.subscribe_single_invoice(preimage_of(1).payment_hash) as changes:
            assert [invoice.state async for invoice in changes] == [InvoiceState.SETTLED]


async def test_an_unknown_invoice_is_waited_for_in_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        async with network.lnd("bob").rpcs.subscribe_single_invoice(bytes(32)) as changes:
            with trio.move_on_after(1000) as scope:
                await changes.receive()
            assert scope.cancelled_caught


async def test_a_subscription_hears_open_and_settled_and_ends_cleanly(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        lnd = network.lnd("bob")
        async with lnd.rpcs.subscribe_invoices(add_index=0, settle_index=0) as events:
            await trio.testing.wait_all_tasks_blocked()
            await pay(network)
            lnd.stop()
            assert [(i.state, i.settle_index) async for i in events] == [
                (InvoiceState.OPEN, 0),
                (InvoiceState.SETTLED, 1),
            ]


async def test_what_settles_while_the_backlog_is_read_comes_twice(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        lnd = network.lnd("bob")
        await pay(network, 1)
        lnd.rpcs.backlog_delay_s = 5
        async with lnd.rpcs.subscribe_invoices(add_index=2**62, settle_index=1) as events:
            await trio.sleep(1)
            await pay(network, 2)
            await trio.sleep(10)
            lnd.stop()
            assert [i.settle_index async for i in events] == [2, 2]


async def test_a_subscription_that_takes_effect_late_misses_what_came_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as network:
        lnd = network.lnd("bob")
        lnd.rpcs.registration_delay_s = 5
        async with lnd.rpcs.subscribe_invoices(add_index=0, settle_index=0) as events:
            await pay(network, 1)
            await trio.sleep(10)
            assert lnd.rpcs.invoice_subscribers == 1
            await pay(network, 2)
            lnd.stop()
            assert [i.add_index async for i in events] == [2, 2]
        assert lnd.rpcs.invoice_subscribers == 0


async def test_signatures(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        alice, carol = network.lnd("alice"), network.lnd("carol")
        signature = await alice.rpcs.sign_message(b"text")
        assert await alice.rpcs.verify_message(b"text", signature) == (True, alice.pubkey)
        assert await carol.rpcs.verify_message(b"text", signature) == (True, alice.pubkey)
        hidden = await carol.rpcs.sign_message(b"text")
        assert await alice.rpcs.verify_message(b"text", hidden) == (False, carol.pubkey)
        assert await network.lnd("bob").rpcs.verify_message(b"text", hidden) == (True, carol.pubkey)
        assert await alice.rpcs.verify_message(b"text", bytes(65)) == (False, None)
        with pytest.raises(LndError, match="need a message to sign"):
            await alice.rpcs.sign_message(b"")
        with pytest.raises(LndError, match="need a message to verify"):
            await alice.rpcs.verify_message(b"", signature)


async def test_the_graph_of_a_node(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        bob, carol = network.node("bob").pubkey, network.node("carol").pubkey
        known = await network.lnd("alice").rpcs.get_node_info(bob.raw)
        assert (known.alias, known.announced, len(known.channels), 55 in known.features) == ("bob", True, 1, True)
        shell = await network.lnd("bob").rpcs.get_node_info(carol.raw)
        assert (shell.alias, shell.announced, len(shell.channels), shell.features) == ("", False, 1, frozenset())
        for stranger in (carol.raw, b"\x02" + bytes(32)):
            with pytest.raises(LndError) as caught:
                await network.lnd("alice").rpcs.get_node_info(stranger)
            assert caught.value.status is Status.NOT_FOUND


async def test_balances_know_what_is_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(latency_s=1) as network:
        rpcs = network.lnd("alice").rpcs
        async with rpcs.send_payment(order(network, amount=5000)) as updates:
            under_way = await rpcs.channel_balance()
            assert [payment.stage async for payment in updates][-1] is Stage.SUCCEEDED
        after = await rpcs.channel_balance()
    assert (under_way.local, under_way.remote, under_way.unsettled_remote) == (499_995_000, 500_000_000, 5000)
    assert (after.local, after.remote, after.unsettled_remote) == (499_995_000, 500_005_000, 0)


async def test_channels_are_active_while_both_ends_run(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        rpcs = network.lnd("bob").rpcs
        assert [active for _, active in await rpcs.list_channels()] == [True, True]
        network.lnd("alice").go_offline()
        assert [active for _, active in await rpcs.list_channels()] == [False, True]
        network.lnd("alice").go_online()
        assert [active for _, active in await rpcs.list_channels()] == [True, True]


async def test_an_invoice_is_looked_up_and_listed(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as network:
        await pay(network)
        rpcs = network.lnd("bob").rpcs
        found = await rpcs.lookup_invoice(PaymentHash(preimage_of(1).payment_hash))
        assert (found,) == await rpcs.list_invoices()
        assert await rpcs.list_invoices(pending_only=True) == ()
