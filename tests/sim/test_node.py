from functools import partial

import pytest
import trio
import trio.testing
from tests.sim.reader import pay, preimage_of

from impervious.errors import NodeRefused, NodeUnavailable
from impervious.model import InvoiceCursor, InvoiceTerms, NodeState
from impervious.node import LightningNode
from impervious.sim import SimNetwork
from impervious.sim.engine.answers import WalletState
from impervious.units import Msat


def test_a_simulated_node_is_a_lightning_node() -> None:
    node: LightningNode = SimNetwork.line("alice").node("alice")
    assert node.status.ready


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (WalletState.NON_EXISTING, NodeState.LOCKED),
        (WalletState.WAITING_TO_START, NodeState.STARTING),
        (WalletState.SERVER_ACTIVE, NodeState.READY),
    ],
)
async def test_every_wallet_state_has_a_meaning(
    state: WalletState, seen: NodeState, autojump_clock: trio.testing.MockClock
) -> None:
    async with SimNetwork.line("alice").open() as network:
        network.lnd("alice").set_state(state)
        assert network.node("alice").status.state is seen
        assert (network.node("alice").status.reason == "") is (seen is NodeState.READY)


async def test_every_call_lets_others_run(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, bob = network.node("alice"), network.node("bob").pubkey
        signature = await alice.sign(b"x")
        for call in (
            partial(alice.sign, b"x"),
            partial(alice.verify, b"x", signature),
            partial(pay, alice, bob, 1),
            partial(alice.find_route, bob, Msat(1000), {}, fee_limit=Msat(0)),
            partial(alice.keysend_support, bob),
            alice.wait_ready,
        ):
            with trio.testing.assert_checkpoints():
                await call()


async def test_every_call_about_invoices_lets_others_run(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, bob = network.node("alice"), network.node("bob")
        added = await bob.add_invoice(InvoiceTerms(amount=Msat(1000)))
        invoice = await alice.decode_invoice(added.payment_request)
        for call in (
            partial(alice.pay_invoice, invoice, fee_limit=Msat(0), timeout_s=60),
            partial(alice.lookup_payment, added.payment_hash),
            partial(bob.lookup_invoice, added.payment_hash),
            partial(bob.add_invoice, InvoiceTerms(amount=Msat(1000))),
            partial(alice.decode_invoice, added.payment_request),
            bob.list_invoices,
            alice.list_payments,
            alice.balance,
        ):
            with trio.testing.assert_checkpoints():
                await call()


async def test_an_error_nobody_expects_is_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        alice, bob = network.node("alice"), network.node("bob").pubkey
        with pytest.raises(NodeRefused, match="amount must be specified"):
            await alice.send_keysend(bob, Msat(0), preimage_of(1), {}, fee_limit=Msat(0), timeout_s=5)


async def test_a_node_that_is_not_ready_still_lets_its_invoices_be_read_when_it_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with SimNetwork.line("alice", "bob", latency_s=(0, 0)).open() as network:
        await pay(network.node("alice"), network.node("bob").pubkey, 1)
        network.lnd("bob").set_synced(False)
        async with network.node("bob").settled_invoices(InvoiceCursor()) as news:
            assert (await news.receive()).invoice is not None
        network.lnd("bob").lock()
        with pytest.raises(NodeUnavailable):
            async with network.node("bob").settled_invoices(InvoiceCursor()):
                pass
