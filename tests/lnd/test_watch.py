"""From connecting to ready and back, whatever LND and the network do."""

import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.lnd.fake import ALICE, CREDENTIALS, MACAROON, FakeLnd, bake, info, opened, refuses, says
from tests.rpc.certificates import make_certificate

from impervious.config import LndConfig
from impervious.errors import NodeUnavailable
from impervious.lnd import NOTHING, PAYMENT_NODE, Credentials, LndNode, open_lnd, rpcs
from impervious.lnd.watch import READY_POLL_S, Watch
from impervious.model import InvoiceCursor, NodeState, NodeStatus, Preimage
from impervious.pb.lnrpc import (
    GetInfoRequest,
    ListInvoiceResponse,
    SignMessageResponse,
    SubscribeStateRequest,
    SubscribeStateResponse,
)
from impervious.pb.lnrpc import WalletState as Wallet
from impervious.rpc.message import Message
from impervious.units import Sat, msat


async def becomes(node: LndNode, state: NodeState) -> NodeStatus:
    """Wait until the node is in `state`."""
    with trio.fail_after(120):
        status = node.status
        while status.state is not state:
            status = await node.status_after(status)
    return status


async def test_a_node_that_has_everything_becomes_ready(autojump_clock: object) -> None:
    async with opened(FakeLnd()) as node:
        assert node.status.state is NodeState.AWAY
        assert node.status.reason == "connecting to LND at lnd:10009"
        with trio.fail_after(10):
            who = await node.wait_ready()
        assert (who.pubkey, who.alias, who.network, who.block_height) == (ALICE, "alice", "regtest", 456)
        assert node.status == NodeStatus(state=NodeState.READY, reason="")


async def test_every_call_carries_the_macaroon(autojump_clock: object) -> None:
    fake = FakeLnd()
    async with opened(fake) as node:
        await node.wait_ready()
    assert {call.metadata["macaroon"] for call in fake.calls} == {MACAROON.hex()}


async def test_a_wallet_is_followed_through_all_its_states(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.wallet = Wallet.WAITING_TO_START
    async with opened(fake) as node:
        assert "another LND of its cluster" in (await becomes(node, NodeState.STARTING)).reason
        fake.become(Wallet.NON_EXISTING)
        assert "lncli create" in (await becomes(node, NodeState.LOCKED)).reason
        fake.become(Wallet.LOCKED)
        assert "lncli unlock" in (await node.status_after(node.status)).reason
        assert not fake.asked(GetInfoRequest), "a locked LND has no answer"
        fake.become(Wallet.UNLOCKED)
        assert (await becomes(node, NodeState.STARTING)).reason.startswith("LND is starting")
        fake.become(Wallet.RPC_ACTIVE)
        assert "catches up with its chain" in (await node.status_after(node.status)).reason
        fake.become(Wallet.SERVER_ACTIVE)
        await becomes(node, NodeState.READY)


async def test_a_state_of_the_future_counts_as_starting(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.wallet = Wallet(77)
    async with opened(fake) as node:
        assert "(77)" in (await becomes(node, NodeState.STARTING)).reason


async def test_an_lnd_that_never_says_server_active_is_ready_with_its_rpcs(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.wallet, fake.info = Wallet.RPC_ACTIVE, info(version="0.13.4-beta commit=v0.13.4-beta")
    async with opened(fake, requires=NOTHING) as node:
        await becomes(node, NodeState.READY)


async def test_a_chain_that_is_behind_is_looked_at_until_it_has_caught_up(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(synced_to_chain=False, block_height=100)
    async with opened(fake) as node:
        assert "at block 100" in (await becomes(node, NodeState.SYNCING)).reason
        fake.info = info(synced_to_chain=False, block_height=101)
        assert "at block 101" in (await node.status_after(node.status)).reason
        fake.info = info()
        await becomes(node, NodeState.READY)


@pytest.mark.parametrize("words", ["verification failed: macaroon has expired", "permission denied"])
@pytest.mark.parametrize("rpc", [rpcs.SIGN_MESSAGE, rpcs.SEND_PAYMENT, rpcs.LIST_INVOICES, rpcs.SUBSCRIBE_INVOICES])
async def test_a_macaroon_that_is_refused_for_any_call_is_looked_at_at_once(
    rpc: rpcs.AnyRpc, words: str, autojump_clock: object
) -> None:
    fake = FakeLnd()
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        start = trio.current_time()
        fake.answers[rpcs.LIST_INVOICES] = says(ListInvoiceResponse())
        for each in (rpc, rpcs.GET_INFO, rpcs.CHECK_MACAROON):
            fake.answers[each] = refuses(words)
        with suppress(NodeUnavailable):
            if rpc is rpcs.SIGN_MESSAGE:
                await node.sign(b"text")
            elif rpc is rpcs.SEND_PAYMENT:
                await node.send_keysend(
                    ALICE, msat(Sat(1)), Preimage(bytes(32)), {}, fee_limit=msat(Sat(0)), timeout_s=1
                )
            else:
                async with node.settled_invoices(InvoiceCursor()) as news:
                    async for _ in news:
                        pass
        assert "macaroon" in (await becomes(node, NodeState.REFUSING)).reason
        assert trio.current_time() - start < READY_POLL_S / 2


async def test_a_call_that_the_macaroon_does_not_allow_is_no_outage(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SIGN_MESSAGE] = refuses("permission denied")
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        for _ in range(3):
            with pytest.raises(NodeUnavailable):
                await node.sign(b"text")
            await trio.sleep(1)
            assert node.status.ready


async def test_a_ready_node_that_falls_behind_is_noticed(autojump_clock: object) -> None:
    fake = FakeLnd()
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        start = trio.current_time()
        fake.info = info(synced_to_chain=False)
        await becomes(node, NodeState.SYNCING)
        assert trio.current_time() - start <= READY_POLL_S


async def test_calls_are_refused_with_the_reason_until_it_is_ready(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.wallet = Wallet.LOCKED
    fake.answers[rpcs.SIGN_MESSAGE] = says(SignMessageResponse(signature="y" * 104))
    async with opened(fake) as node:
        with pytest.raises(NodeUnavailable, match="connecting to LND at lnd:10009"):
            await node.sign(b"text")
        await becomes(node, NodeState.LOCKED)
        with pytest.raises(NodeUnavailable, match="lncli unlock"):
            await node.sign(b"text")
        fake.become(Wallet.SERVER_ACTIVE)
        await becomes(node, NodeState.READY)
        assert await node.sign(b"text") == bytes(65)


# --- Leaving and coming back ------------------------------------------------------------------------------------------


async def test_a_broken_connection_is_made_anew(autojump_clock: object) -> None:
    fake = FakeLnd()
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        await fake.break_connections()
        assert (await becomes(node, NodeState.AWAY)).reason.startswith("LND is away: the connection broke")
        await becomes(node, NodeState.READY)


async def test_an_lnd_that_is_gone_is_tried_more_and_more_rarely(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.up = False
    async with opened(fake) as node:
        status = await node.status_after(node.status)
        assert status.state is NodeState.AWAY
        assert "Connection refused; start LND" in status.reason
        await trio.sleep(3600)
        fake.up = True
        start = trio.current_time()
        await becomes(node, NodeState.READY)
        assert trio.current_time() - start <= 10


async def test_an_lnd_that_shuts_down_and_comes_back_locked(autojump_clock: object) -> None:
    fake = FakeLnd()
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        fake.leave()
        assert (await becomes(node, NodeState.AWAY)).reason == "LND: server exiting"
        fake.wallet = Wallet.LOCKED
        await becomes(node, NodeState.LOCKED)
        fake.become(Wallet.SERVER_ACTIVE)
        await becomes(node, NodeState.READY)


async def test_a_state_stream_that_ends_well_means_that_lnd_leaves(autojump_clock: object) -> None:
    fake = FakeLnd()
    usual = fake.answers[rpcs.SUBSCRIBE_STATE]
    end = trio.Event()

    async def until_told(_request: Message) -> AsyncGenerator[Message, None]:
        yield SubscribeStateResponse(state=Wallet.SERVER_ACTIVE)
        await end.wait()

    fake.answers[rpcs.SUBSCRIBE_STATE] = until_told
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        fake.answers[rpcs.SUBSCRIBE_STATE] = usual
        end.set()
        assert (await becomes(node, NodeState.AWAY)).reason == "LND has ended the connection"
        await becomes(node, NodeState.READY)


async def test_an_lnd_that_always_leaves_at_once_is_not_run_after(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SUBSCRIBE_STATE] = says(SubscribeStateResponse(state=Wallet.SERVER_ACTIVE))
    async with opened(fake):
        await trio.sleep(1000)
    assert len(fake.asked(SubscribeStateRequest)) < 110, "one in ten seconds, and some more at the beginning"


async def test_a_proxy_that_cuts_streams_disturbs_nobody(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeLnd()
    cut = GRPCError(Status.UNAVAILABLE, "upstream request timeout")
    fake.answers[rpcs.SUBSCRIBE_STATE] = says(SubscribeStateResponse(state=Wallet.SERVER_ACTIVE), cut)
    async with opened(fake) as node:
        await becomes(node, NodeState.READY)
        caplog.clear()
        with trio.move_on_after(60):
            await node.status_after(node.status)
            pytest.fail("the status changed")
        assert len(fake.asked(SubscribeStateRequest)) > 10
        assert fake.listener.client_ends == fake.listener.client_ends[:2], "one connection for calls, none anew"
        assert not caplog.records


async def test_an_lnd_without_the_state_service_is_refused(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SUBSCRIBE_STATE] = refuses("unknown service lnrpc.State", Status.UNIMPLEMENTED)
    async with opened(fake) as node:
        assert "0.13 or later" in (await becomes(node, NodeState.REFUSING)).reason


async def test_an_lnd_that_does_not_tell_its_state(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.SUBSCRIBE_STATE] = says(then_hang=True)
    async with opened(fake) as node:
        status = await node.status_after(node.status)
        assert "did not tell its state within 20 s" in status.reason


async def test_an_lnd_that_does_not_say_who_it_is(autojump_clock: object) -> None:
    fake = FakeLnd()
    usual = fake.answers[rpcs.GET_INFO]
    fake.answers[rpcs.GET_INFO] = says(then_hang=True)
    async with opened(fake) as node:
        status = await node.status_after(node.status)
        assert (status.state, "did not say who it is within 20 s" in status.reason) == (NodeState.AWAY, True)
        fake.answers[rpcs.GET_INFO] = usual
        await becomes(node, NodeState.READY)


async def test_each_change_is_logged_once(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "impervious")
    fake = FakeLnd()
    fake.wallet = Wallet.LOCKED
    async with opened(fake) as node:
        await becomes(node, NodeState.LOCKED)
        await trio.sleep(300)
        fake.info = info(synced_to_chain=False, block_height=1)
        fake.become(Wallet.SERVER_ACTIVE)
        for height in range(2, 20):
            await trio.sleep(2)
            fake.info = info(synced_to_chain=False, block_height=height)
        fake.info = info()
        await becomes(node, NodeState.READY)
    messages = [record.message for record in caplog.records]
    assert [message.split(":")[0] for message in messages] == [
        "LND's wallet is locked",
        "LND's chain is behind, at block 1",
        "LND at lnd",
    ]
    assert messages[2] == "LND at lnd:10009: ready: alice, 0.21.2-beta commit=v0.21.2-beta"
    assert MACAROON.hex() not in caplog.text


# --- Files ------------------------------------------------------------------------------------------------------------


async def test_files_are_read_again_for_each_connection(autojump_clock: object, tmp_path: Path) -> None:
    file = tmp_path / "admin.macaroon"
    file.write_bytes(MACAROON)
    fake = FakeLnd()
    config = LndConfig(host="lnd", macaroon=file)
    async with fake.serve(), open_lnd(config, connect=fake.connect, random=lambda: 0.0) as node:
        await becomes(node, NodeState.READY)
        file.unlink()
        await fake.break_connections()
        await becomes(node, NodeState.AWAY)
        await trio.sleep(5)
        assert "lightning.lnd_node.admin_macaroon: cannot read" in node.status.reason
        fake.calls.clear()
        fake.answers[rpcs.CHECK_MACAROON] = refuses("not asked", Status.INTERNAL)
        other = bake(key=b"\x22")
        file.write_bytes(other)
        status = await becomes(node, NodeState.REFUSING)
        assert "the macaroon does not allow GetInfo" in status.reason
        assert {call.metadata["macaroon"] for call in fake.calls} == {other.hex()}


async def test_nothing_that_a_file_holds_ends_it(autojump_clock: object, tmp_path: Path) -> None:
    """A comment in another alphabet, a byte order mark, torn bytes, a folder: LND is away, and the reason says why."""
    certificate, macaroon = tmp_path / "tls.cert", tmp_path / "admin.macaroon"
    (tmp_path / "made").mkdir()
    good = make_certificate(tmp_path / "made").pem.encode()
    certificate.write_bytes(good)
    macaroon.write_bytes(MACAROON)
    fake = FakeLnd()
    config = LndConfig(host="lnd", macaroon=macaroon, tls_cert=certificate)
    async with fake.serve(), open_lnd(config, connect=fake.connect, random=lambda: 0.0) as node:
        await becomes(node, NodeState.READY)
        for content in (good[:100], good[:60] + b"\xff" + good[61:], b"\xff\xfe", b"", good.replace(b"-", b"\xd0")):
            certificate.write_bytes(content)
            await fake.break_connections()
            await becomes(node, NodeState.AWAY)
            await trio.sleep(30)
            assert "lightning.lnd_node.tls_cert" in node.status.reason
            certificate.write_bytes("# Zertifikat für 証明\n".encode() + good)
            await becomes(node, NodeState.READY)


async def test_an_error_of_a_parser_does_not_end_it(autojump_clock: object) -> None:
    for error in (RecursionError(), MemoryError(), UnicodeError(), AssertionError(), TypeError("cadata")):
        broken = [True]

        def source(error: Exception = error, broken: list[bool] = broken) -> Credentials:
            if broken:
                broken.clear()
                raise error
            return CREDENTIALS

        fake = FakeLnd()
        async with fake.serve(), trio.open_nursery() as nursery:
            watch = Watch(source, CREDENTIALS, PAYMENT_NODE, connect=fake.connect, random=lambda: 0.0)
            nursery.start_soon(watch.run)
            node = LndNode(watch)
            await becomes(node, NodeState.READY)
            await fake.break_connections()
            await becomes(node, NodeState.AWAY)
            await becomes(node, NodeState.READY)
            assert not broken
            nursery.cancel_scope.cancel()


async def test_a_node_that_is_refused_is_tried_again_with_new_files(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.denied = {"SendPaymentV2"}
    async with opened(fake) as node:
        await becomes(node, NodeState.REFUSING)
        connections = len(fake.listener.client_ends)
        fake.denied = set()
        await becomes(node, NodeState.READY)
        assert len(fake.listener.client_ends) > connections


async def test_waiting_and_following_can_be_cancelled(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.up = False
    with trio.move_on_after(30) as scope:
        async with opened(fake, CREDENTIALS) as node:
            await node.wait_ready()
    assert scope.cancelled_caught
