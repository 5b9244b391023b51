"""`LndNode` and real lnd nodes on a regtest chain: what spec and simulation say of LND, asked of LND itself.

Runs where btcd, btcctl, lnd and lncli are on PATH. alice-bob-carol in a line; dave takes no keysends, erin holds them.
"""

import os
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import betterproto2
import pytest
import trio
from tests.lnd.regtest import KEYSEND, Lnd, Regtest, missing_programs

from impervious.errors import (
    AlreadyPaying,
    NodeMisconfigured,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.lnd import NOTHING, LndNode, Rpc, open_lnd, read_credentials, rpcs
from impervious.lnd.connection import call, open_connection
from impervious.lnd.permissions import bake_command
from impervious.lnd.readiness import PAYMENT_NODE
from impervious.model import (
    InvoiceCursor,
    InvoiceNews,
    InvoiceState,
    KeysendSupport,
    NodeState,
    NodeStatus,
    Payment,
    PaymentStatus,
    Preimage,
    Records,
    SettledInvoice,
    Verdict,
)
from impervious.pb.lnrpc import GetInfoRequest, SubscribeStateRequest, WalletBalanceRequest, WalletState
from impervious.units import Msat
from impervious.wire import lnd_signature, onion
from impervious.wire.keysend import ACCOUNTABLE_RECORD, PREIMAGE_RECORD

pytestmark = [
    pytest.mark.lnd,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not on PATH: {', '.join(missing_programs())}"),
]

PASSWORD = b"test-password"
BOLD = 400_000
"""A record of ours."""


@pytest.fixture
def network(regtest: Regtest) -> Regtest:
    return regtest


@asynccontextmanager
async def ready(lnd: Lnd) -> AsyncIterator[LndNode]:
    """A client of a node, ready."""
    async with open_lnd(lnd.config) as node:
        with trio.fail_after(30):
            await node.wait_ready()
        yield node


async def becomes(node: LndNode, state: NodeState) -> NodeStatus:
    with trio.fail_after(60):
        status = node.status
        while status.state is not state:
            status = await node.status_after(status)
    return status


def random_preimage() -> Preimage:
    return Preimage(os.urandom(32))


async def pay(
    node: LndNode,
    to: Lnd,
    preimage: Preimage | None = None,
    *,
    amount: int = 1000,
    records: Records | None = None,
    fee_limit: int = 5000,
) -> Payment:
    with trio.fail_after(60):
        return await node.send_keysend(
            to.pubkey,
            Msat(amount),
            preimage or random_preimage(),
            {} if records is None else records,
            fee_limit=Msat(fee_limit),
            timeout_s=30,
        )


async def next_invoice(news: trio.MemoryReceiveChannel[InvoiceNews]) -> SettledInvoice:
    with trio.fail_after(30):
        async for item in news:
            if item.invoice is not None:
                return item.invoice
    raise AssertionError("the feed ended")


async def catch_up(news: trio.MemoryReceiveChannel[InvoiceNews]) -> InvoiceCursor:
    """Skip what is old."""
    with trio.fail_after(30):
        async for item in news:
            if item.invoice is None:
                return item.cursor
    raise AssertionError("the feed ended")


# --- What our own protobuf classes leave out --------------------------------------------------------------------------


@dataclass
class GenSeedRequest(betterproto2.Message):
    """lnrpc: not among our own messages; any protobuf class will do for `Rpc`."""


@dataclass
class GenSeedResponse(betterproto2.Message):
    cipher_seed_mnemonic: "list[str]" = betterproto2.field(1, betterproto2.TYPE_STRING, repeated=True)


@dataclass
class InitWalletRequest(betterproto2.Message):
    wallet_password: "bytes" = betterproto2.field(1, betterproto2.TYPE_BYTES)
    cipher_seed_mnemonic: "list[str]" = betterproto2.field(2, betterproto2.TYPE_STRING, repeated=True)


@dataclass
class UnlockWalletRequest(betterproto2.Message):
    wallet_password: "bytes" = betterproto2.field(1, betterproto2.TYPE_BYTES)


@dataclass
class SettleInvoiceMsg(betterproto2.Message):
    preimage: "bytes" = betterproto2.field(1, betterproto2.TYPE_BYTES)


@dataclass
class AddHoldInvoiceRequest(betterproto2.Message):
    hash: "bytes" = betterproto2.field(2, betterproto2.TYPE_BYTES)
    value_msat: "int" = betterproto2.field(10, betterproto2.TYPE_INT64)


@dataclass
class AddHoldInvoiceResp(betterproto2.Message):
    payment_request: "str" = betterproto2.field(1, betterproto2.TYPE_STRING)


@dataclass
class Empty(betterproto2.Message):
    pass


GEN_SEED = Rpc("/lnrpc.WalletUnlocker/GenSeed", GenSeedResponse)
INIT_WALLET = Rpc("/lnrpc.WalletUnlocker/InitWallet", Empty)
UNLOCK_WALLET = Rpc("/lnrpc.WalletUnlocker/UnlockWallet", Empty)
ADD_HOLD_INVOICE = Rpc("/invoicesrpc.Invoices/AddHoldInvoice", AddHoldInvoiceResp)
SETTLE_INVOICE = Rpc("/invoicesrpc.Invoices/SettleInvoice", Empty)


async def settle(lnd: Lnd, preimage: Preimage) -> None:
    """Let a node that holds keysends take this one."""
    async with open_connection(read_credentials(lnd.config)) as connection:
        await call(connection.calls, SETTLE_INVOICE, SettleInvoiceMsg(preimage.raw), host=lnd.name)


# --- Who it is --------------------------------------------------------------------------------------------------------


async def test_a_ready_node_says_who_it_is(network: Regtest) -> None:
    async with open_lnd(replace(network["alice"].config, pubkey=network["alice"].pubkey.hex)) as node:
        with trio.fail_after(5):
            info = await node.wait_ready()
    assert (info.pubkey, info.alias, info.network) == (network["alice"].pubkey, "alice", "regtest")
    assert info.synced_to_chain
    assert info.block_height >= 450
    assert 55 in info.features


async def test_another_nodes_key_is_refused(network: Regtest) -> None:
    async with open_lnd(replace(network["alice"].config, pubkey=network["bob"].pubkey.hex)) as node:
        with pytest.raises(NodeMisconfigured, match=f"is node {network['alice'].pubkey}.*says {network['bob'].pubkey}"):
            await node.wait_ready()


async def test_an_lnd_without_keysend_says_so_and_is_waited_for(network: Regtest) -> None:
    async with open_lnd(network["dave"].config) as node:
        assert "accept-keysend=true" in (await becomes(node, NodeState.REFUSING)).reason


async def test_an_lnd_that_is_only_looked_at_needs_no_keysend(network: Regtest) -> None:
    async with open_lnd(network["dave"].config, requires=NOTHING) as node:
        with trio.fail_after(5):
            await node.wait_ready()
        balance = await node.call(rpcs.WALLET_BALANCE, WalletBalanceRequest())
    assert balance.confirmed_balance >= 0


async def test_a_host_by_name_works_and_one_that_the_certificate_does_not_name_is_told(network: Regtest) -> None:
    async with open_lnd(replace(network["alice"].config, host="localhost")) as node:
        with trio.fail_after(5):
            await node.wait_ready()
    other = network["bob"].config.tls_cert
    async with open_lnd(replace(network["alice"].config, tls_cert=other)) as node:
        assert "not one that we trust" in (await node.status_after(node.status)).reason


# --- Macaroons --------------------------------------------------------------------------------------------------------


def bake(lnd: Lnd, file: Path, command: str) -> Path:
    """Run what the error message says, at that node."""
    at = f"lncli --lnddir={lnd.folder} --network=regtest --rpcserver=127.0.0.1:{lnd.rpc_port}"
    there = command.replace("lncli", at, 1).replace("=impervious.macaroon", f"={file}")
    subprocess.run(shlex.split(there), check=True, capture_output=True)
    return file


async def test_the_command_that_is_printed_bakes_a_macaroon_that_suffices(network: Regtest, tmp_path: Path) -> None:
    alice = network["alice"]
    readonly = alice.macaroon.with_name("readonly.macaroon")
    async with open_lnd(replace(alice.config, macaroon=readonly)) as node:
        status = await becomes(node, NodeState.REFUSING)
    assert "does not allow SignMessage, SendPaymentV2: " in status.reason
    command = status.reason.split("`")[1]
    file = bake(alice, tmp_path / "impervious.macaroon", command)
    async with ready(alice) as admin, open_lnd(replace(alice.config, macaroon=file)) as node:
        with trio.fail_after(5):
            await node.wait_ready()
        assert (await pay(node, network["bob"])).status is PaymentStatus.SUCCEEDED
        assert (await node.keysend_support(network["bob"].pubkey)) is KeysendSupport.YES
        assert len(await node.sign(b"text")) == 65
        async with node.settled_invoices(InvoiceCursor()) as news:
            await catch_up(news)
        with pytest.raises(NodeUnavailable, match="permission denied"):
            await node.call(rpcs.WALLET_BALANCE, WalletBalanceRequest())
        assert admin.status.ready


@pytest.mark.parametrize("left_out", [rpcs.SEND_PAYMENT, rpcs.SUBSCRIBE_INVOICES])
@pytest.mark.parametrize("may_ask", [True, False])
async def test_a_single_missing_permission_is_named(
    network: Regtest, tmp_path: Path, left_out: rpcs.AnyRpc, may_ask: bool
) -> None:
    given = [rpc for rpc in PAYMENT_NODE.rpcs if rpc != left_out and (may_ask or rpc != rpcs.CHECK_MACAROON)]
    file = bake(network["alice"], tmp_path / "some.macaroon", bake_command(given))
    missing = left_out.name if may_ask else f"CheckMacaroonPermissions, {left_out.name}"
    if left_out == rpcs.SUBSCRIBE_INVOICES and not may_ask:
        missing = f"{left_out.name}, CheckMacaroonPermissions"
    async with open_lnd(replace(network["alice"].config, macaroon=file)) as node:
        assert f"does not allow {missing}: " in (await becomes(node, NodeState.REFUSING)).reason


async def test_a_macaroon_of_another_node_is_refused(network: Regtest) -> None:
    async with open_lnd(replace(network["alice"].config, macaroon=network["bob"].macaroon)) as node:
        assert "signature mismatch" in (await becomes(node, NodeState.REFUSING)).reason


async def test_an_invoice_macaroon_is_told_what_it_lacks(network: Regtest) -> None:
    invoice = network["alice"].macaroon.with_name("invoice.macaroon")
    async with open_lnd(replace(network["alice"].config, macaroon=invoice)) as node:
        reason = (await becomes(node, NodeState.REFUSING)).reason
    assert "does not allow GetInfo, " in reason
    assert ", SendPaymentV2, TrackPaymentV2: " in reason


# --- Signatures, routes, the graph ------------------------------------------------------------------------------------


async def test_signatures(network: Regtest) -> None:
    async with ready(network["alice"]) as node:
        signature = await node.sign(b"text")
        assert lnd_signature.recover(b"text", signature) == network["alice"].pubkey
        assert await node.verify(b"text", signature) == Verdict(valid=True, pubkey=network["alice"].pubkey)
        assert not (await node.verify(b"other", signature)).valid
        with pytest.raises(NodeRefused, match="need a message to sign"):
            await node.sign(b"")


async def test_routes(network: Regtest) -> None:
    async with ready(network["alice"]) as node:
        direct = await node.find_route(network["bob"].pubkey, Msat(5000), {}, fee_limit=Msat(0))
        assert (direct.hops, direct.fee, direct.total_amount) == (1, 0, 5000)
        far = await node.find_route(network["carol"].pubkey, Msat(5000), {}, fee_limit=Msat(5000))
        assert (far.hops, far.fee, far.total_amount) == (2, 1000, 6000)
        for amount, records, fee_limit in ((5000, {}, 999), (5000, {BOLD: bytes(1300)}, 5000), (10**10, {}, 10**9)):
            with pytest.raises(NoRoute):
                await node.find_route(network["carol"].pubkey, Msat(amount), records, fee_limit=Msat(fee_limit))


async def test_the_graph_says_who_accepts_keysend(network: Regtest) -> None:
    async with ready(network["alice"]) as node:
        assert await node.keysend_support(network["carol"].pubkey) is KeysendSupport.YES
        assert await node.keysend_support(network["dave"].pubkey) is KeysendSupport.NO
        stranger = lnd_signature.recover(b"nobody", b"\x1f" + b"\x01" * 64)
        assert await node.keysend_support(stranger) is KeysendSupport.UNKNOWN


# --- Payments ---------------------------------------------------------------------------------------------------------


async def test_keysends_with_records_both_ways(network: Regtest) -> None:
    async with ready(network["alice"]) as alice, ready(network["carol"]) as carol:
        for sender, receiver, to in ((alice, carol, "carol"), (carol, alice, "alice")):
            async with receiver.settled_invoices(InvoiceCursor()) as news:
                await catch_up(news)
                preimage = random_preimage()
                records = {BOLD: b"\x00hello", 2**64 - 1: b"", 65_536: b"low"}
                payment = await pay(sender, network[to], preimage, amount=7000, records=records)
                assert payment == Payment(
                    payment_hash=preimage.payment_hash,
                    status=PaymentStatus.SUCCEEDED,
                    amount=Msat(7000),
                    fee=Msat(1000),
                    attempts=1,
                    preimage=preimage,
                    created_s=payment.created_s,
                )
                invoice = await next_invoice(news)
            assert (invoice.payment_hash, invoice.amount, invoice.is_keysend) == (preimage.payment_hash, 7000, True)
            expected = {**records, PREIMAGE_RECORD: preimage.raw, ACCOUNTABLE_RECORD: b"\x00"}
            assert invoice.records == expected
            assert abs(invoice.settled_s - payment.created_s) < 10


@pytest.mark.parametrize("to", ["bob", "carol"])
async def test_the_onions_arithmetic_is_lnds(network: Regtest, to: str) -> None:
    async with ready(network["alice"]) as node:
        route = await node.find_route(network[to].pubkey, Msat(5000), {}, fee_limit=Msat(5000))
        room = onion.room_bytes(
            BOLD,
            hops=route.hops,
            amount=Msat(5000),
            total_amount=route.total_amount,
            height=route.height,
            records={PREIMAGE_RECORD: bytes(32)},
        )
        fits = await pay(node, network[to], amount=5000, records={BOLD: bytes(room)})
        assert fits.status is PaymentStatus.SUCCEEDED
        too_large = await pay(node, network[to], amount=5000, records={BOLD: bytes(room + 1)})
        assert (too_large.failure, too_large.attempts) == (PaymentFailure.NO_ROUTE, 0)
        with pytest.raises(NoRoute):
            await node.find_route(network[to].pubkey, Msat(5000), {BOLD: bytes(room + 1)}, fee_limit=Msat(5000))


@pytest.mark.parametrize(
    ("to", "amount", "fee_limit", "failure", "attempts"),
    [
        ("carol", 5000, 0, PaymentFailure.NO_ROUTE, 0),
        ("carol", 5000, 999, PaymentFailure.NO_ROUTE, 0),
        ("bob", 999, 5000, PaymentFailure.NO_ROUTE, 0),
        ("bob", 4_000_000_000, 5000, PaymentFailure.INSUFFICIENT_BALANCE, 0),
        ("dave", 5000, 5000, PaymentFailure.INCORRECT_PAYMENT_DETAILS, 1),
    ],
)
async def test_failures(
    network: Regtest, to: str, amount: int, fee_limit: int, failure: PaymentFailure, attempts: int
) -> None:
    preimage = random_preimage()
    async with ready(network["alice"]) as node:
        payment = await pay(node, network[to], preimage, amount=amount, fee_limit=fee_limit)
        assert (payment.status, payment.failure) == (PaymentStatus.FAILED, failure)
        assert (payment.attempts, payment.fee, payment.preimage) == (attempts, 0, None)
        tracked = await node.track(preimage.payment_hash)
        assert (tracked.status, tracked.failure) == (PaymentStatus.FAILED, failure)
        assert tracked.attempts <= attempts  # lnd forgets those that failed, but a little later


async def test_a_failed_payment_can_be_sent_again_and_a_settled_one_cannot(network: Regtest) -> None:
    preimage = random_preimage()
    async with ready(network["alice"]) as node:
        assert (await pay(node, network["carol"], preimage, fee_limit=0)).status is PaymentStatus.FAILED
        assert (await pay(node, network["carol"], preimage)).status is PaymentStatus.SUCCEEDED
        with pytest.raises(AlreadyPaying, match="already paid"):
            await pay(node, network["carol"], preimage)
        assert (await node.track(preimage.payment_hash)).preimage == preimage


@pytest.mark.parametrize(
    ("to", "amount", "records"),
    [("bob", 0, {}), ("bob", -1, {}), ("bob", 1000, {65_535: b""}), ("alice", 1000, {})],
)
async def test_what_cannot_be_paid_is_refused_and_leaves_nothing(
    network: Regtest, to: str, amount: int, records: Records
) -> None:
    preimage = random_preimage()
    async with ready(network["alice"]) as node:
        with pytest.raises(NodeRefused):
            await pay(node, network[to], preimage, amount=amount, records=records)
        with pytest.raises(PaymentNotFound):
            await node.track(preimage.payment_hash)


async def test_leaving_stops_waiting_and_not_paying(network: Regtest) -> None:
    preimage = random_preimage()
    async with ready(network["alice"]) as node:
        with trio.move_on_after(1) as scope:
            await pay(node, network["erin"], preimage)
        assert scope.cancelled_caught
        with pytest.raises(AlreadyPaying, match="in transition"):
            await pay(node, network["erin"], preimage)
        with trio.move_on_after(0.5) as scope:
            await node.track(preimage.payment_hash)
        assert scope.cancelled_caught, "it is held"
        await settle(network["erin"], preimage)
        with trio.fail_after(30):
            assert (await node.track(preimage.payment_hash)).preimage == preimage


@pytest.mark.parametrize("how", ["leave", "kill"])
async def test_an_invoice_whose_payment_is_held_is_found_in_flight_and_not_paid_again(
    network: Regtest, how: str
) -> None:
    preimage = random_preimage()
    request = AddHoldInvoiceRequest(hash=preimage.payment_hash, value_msat=7001)
    async with ready(network["alice"]) as alice, ready(network["carol"]) as carol:
        added = await carol.call(ADD_HOLD_INVOICE, request)
        invoice = await alice.decode_invoice(added.payment_request)

        async def pay_it() -> None:
            await alice.pay_invoice(invoice, fee_limit=Msat(5000), timeout_s=30)

        before = await alice.balance()
        with trio.move_on_after(1):
            await pay_it()
        assert (await carol.lookup_invoice(preimage.payment_hash)).state is InvoiceState.ACCEPTED
        held = await alice.balance()
        assert (held.local, held.unsettled_local, held.unsettled_remote) == (before.local - 8001, 0, 8001)
        if how == "kill":
            network["alice"].kill()
            await becomes(alice, NodeState.AWAY)
            network["alice"].start(wait=False)
            await becomes(alice, NodeState.READY)
        assert (await alice.lookup_payment(preimage.payment_hash)).status is PaymentStatus.IN_FLIGHT
        with pytest.raises(AlreadyPaying, match="in transition"):
            await pay_it()
        await settle(network["carol"], preimage)
        with trio.fail_after(60):
            assert (await alice.track(preimage.payment_hash)).amount == 7001
        assert (await carol.lookup_invoice(preimage.payment_hash)).amount_paid == 7001


async def test_many_keysends_at_once(network: Regtest) -> None:
    count = 60
    told: list[SettledInvoice] = []
    async with ready(network["alice"]) as alice, ready(network["carol"]) as carol:
        async with carol.settled_invoices(InvoiceCursor()) as news:
            await catch_up(news)
            preimages = {random_preimage() for _ in range(count)}
            async with trio.open_nursery() as nursery:
                for preimage in preimages:
                    nursery.start_soon(pay_all_right, alice, network["carol"], preimage)
                while len(told) < count:
                    told.append(await next_invoice(news))
    assert {invoice.payment_hash for invoice in told} == {preimage.payment_hash for preimage in preimages}
    indexes = [invoice.settle_index for invoice in told]
    assert sorted(indexes) == indexes


async def pay_all_right(node: LndNode, to: Lnd, preimage: Preimage) -> None:
    payment = await pay(node, to, preimage, records={BOLD: os.urandom(900)})
    assert payment.status is PaymentStatus.SUCCEEDED


# --- Coming and going -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_payment_outlives_its_senders_lnd(network: Regtest, how: str) -> None:
    alice, preimage = network["alice"], random_preimage()
    errors: list[str] = []

    async def interrupted(node: LndNode) -> None:
        with pytest.raises(NodeUnavailable) as caught:
            await pay(node, network["erin"], preimage)
        errors.append(str(caught.value))

    async with ready(alice) as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted, node)
            await trio.sleep(1)  # until it is held
            await trio.to_thread.run_sync(getattr(alice, how))
        assert errors
        assert (await becomes(node, NodeState.AWAY)).reason
        alice.start(wait=False)
        await becomes(node, NodeState.READY)
        with trio.move_on_after(0.5) as scope:
            await node.track(preimage.payment_hash)
        assert scope.cancelled_caught, "it is held still"
        await settle(network["erin"], preimage)
        with trio.fail_after(60):
            assert (await node.track(preimage.payment_hash)).preimage == preimage


@dataclass
class Reader:
    """What inbound does: reads until the feed ends, opens it again where it stopped, and drops what it knows."""

    node: LndNode
    cursor: InvoiceCursor = InvoiceCursor()
    known: set[bytes] = field(default_factory=set)
    twice: int = 0

    async def run(self) -> None:
        while True:
            try:
                await self.node.wait_ready()
                async with self.node.settled_invoices(self.cursor) as news:
                    async for item in news:
                        self.cursor = item.cursor
                        if item.invoice is not None:
                            self.twice += item.invoice.payment_hash in self.known
                            self.known.add(item.invoice.payment_hash)
            except NodeUnavailable:
                await trio.sleep(0.1)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_nothing_is_lost_when_the_receivers_lnd_goes(network: Regtest, how: str) -> None:
    carol = network["carol"]
    preimages = [random_preimage() for _ in range(30)]

    async with ready(network["alice"]) as alice, ready(carol) as node:
        reader = Reader(node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run)
            async with trio.open_nursery() as payments:
                for preimage in preimages:
                    payments.start_soon(until_paid, alice, carol, preimage)
                await trio.sleep(0.7)  # some are settled, some are on their way
                await trio.to_thread.run_sync(getattr(carol, how))
                await becomes(node, NodeState.AWAY)
                carol.start(wait=False)
                await becomes(node, NodeState.READY)
                await trio.to_thread.run_sync(network["bob"].connect, carol)
            expected = {preimage.payment_hash for preimage in preimages}
            with trio.fail_after(60):
                while not expected <= reader.known:  # noqa: ASYNC110 - looks every now and then
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def until_paid(node: LndNode, to: Lnd, preimage: Preimage) -> None:
    """Send the same payment again and again until it has succeeded, as outbound does."""
    with trio.fail_after(120):
        while (await pay(node, to, preimage)).status is not PaymentStatus.SUCCEEDED:  # noqa: ASYNC110
            await trio.sleep(0.5)


# --- A wallet with a password -----------------------------------------------------------------------------------------


async def test_a_wallet_that_is_made_locked_and_unlocked(network: Regtest, tmp_path: Path) -> None:
    frank = Lnd("frank", tmp_path / "frank", network.chain, [KEYSEND])
    frank.start(wait=False)
    try:
        with trio.fail_after(30):
            while not frank.certificate.exists() or not frank.state():  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        config = replace(frank.config, macaroon=None, macaroon_hex=None)
        async with open_lnd(config) as node:
            assert "lncli create" in (await becomes(node, NodeState.LOCKED)).reason
            async with open_connection(read_credentials(config)) as connection:
                seed = await call(connection.calls, GEN_SEED, GenSeedRequest(), host="frank")
                request = InitWalletRequest(PASSWORD, seed.cipher_seed_mnemonic)
                await call(connection.calls, INIT_WALLET, request, host="frank")
            with trio.fail_after(30):
                while frank.state() != "SERVER_ACTIVE":  # noqa: ASYNC110 - another process
                    await trio.sleep(0.1)
            status = await becomes(node, NodeState.REFUSING)  # it has no macaroon
            assert "expected 1 macaroon" in status.reason
        async with open_lnd(frank.config) as node:
            with trio.fail_after(30):
                await node.wait_ready()
            await trio.to_thread.run_sync(frank.stop)
            await becomes(node, NodeState.AWAY)
            frank.start(wait=False)
            assert "lncli unlock" in (await becomes(node, NodeState.LOCKED)).reason
            with pytest.raises(NodeUnavailable, match="lncli unlock"):
                await node.sign(b"text")
            async with open_connection(read_credentials(frank.config)) as connection:
                with pytest.raises(NodeUnavailable, match="wallet locked"):
                    await call(connection.calls, rpcs.GET_INFO, GetInfoRequest(), host="frank")
                await call(connection.calls, UNLOCK_WALLET, UnlockWalletRequest(PASSWORD), host="frank")
            await becomes(node, NodeState.READY)
            assert len(await node.sign(b"text")) == 65
    finally:
        frank.stop()


async def test_the_states_have_the_numbers_we_think(network: Regtest) -> None:
    async with ready(network["alice"]) as node:
        async with node.stream(rpcs.SUBSCRIBE_STATE, SubscribeStateRequest()) as states:
            assert (await states.receive()).state is WalletState.SERVER_ACTIVE
