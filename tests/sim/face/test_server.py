from pathlib import Path

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.sim.face.serving import Served, keysend, send, served
from tests.sim.reader import preimage_of, until

from impervious.pb import invoicesrpc, lnrpc, routerrpc
from impervious.rpc import Channel
from impervious.sim import SimNetwork
from impervious.sim.engine.answers import WalletState
from impervious.sim.face.answering import Gate
from impervious.sim.face.credentials import Credentials
from impervious.sim.face.invoices import Invoices
from impervious.sim.face.lightning import Lightning
from impervious.sim.face.network import Network
from impervious.sim.face.permissions import OPEN, REQUIRED
from impervious.sim.face.router import Router
from impervious.sim.face.state import State
from impervious.sim.face.versioner import Versioner

STATE = lnrpc.GetStateRequest(), lnrpc.GetStateResponse
INFO = lnrpc.GetInfoRequest(), lnrpc.GetInfoResponse


async def get_info(channel: Channel) -> lnrpc.GetInfoResponse:
    return await channel.unary_unary("/lnrpc.Lightning/GetInfo", *INFO)


async def refusal(channel: Channel) -> tuple[Status, str | None]:
    """How GetInfo is refused."""
    with pytest.raises(GRPCError) as caught:
        await get_info(channel)
    return caught.value.status, caught.value.message


async def eventually_info(channel: Channel) -> lnrpc.GetInfoResponse:
    """GetInfo, once the port is open again."""
    while True:
        try:
            return await get_info(channel)
        except GRPCError as error:
            if error.status is not Status.UNAVAILABLE:
                raise
            await trio.sleep(0.02)


def test_every_method_has_a_permission(tmp_path: Path) -> None:
    lnd = SimNetwork.line("alice").lnd("alice")
    gate = Gate(Credentials(tmp_path / "c", tmp_path / "k", tmp_path / "m", b""))
    rpcs = lnd.rpcs
    services = (
        Lightning(lnd, gate),
        Network(lnd, gate),
        Router(rpcs),
        State(rpcs),
        Invoices(rpcs),
        Versioner(rpcs),
    )
    paths = {path for service in services for path in service.__mapping__()}
    assert paths == set(REQUIRED) | OPEN


# --- who may call ---


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({}, "expected 1 macaroon, got 0"),
        ({"macaroon": "zz"}, "encoding/hex: "),
        ({"macaroon": "00"}, "cannot decode macaroon"),
    ],
)
async def test_without_a_good_macaroon_nothing_is_answered(metadata: dict[str, str], text: str, tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice", metadata) as channel:
        status, message = await refusal(channel)
        assert (status, text in str(message)) == (Status.UNKNOWN, True)


async def test_the_macaroon_of_another_node_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "bob") as world:
        foreign = {"macaroon": world.credentials["bob"].macaroon.read_bytes().hex()}
        async with world.channel("alice", foreign) as channel:
            assert await refusal(channel) == (
                Status.UNKNOWN,
                "verification failed: signature mismatch after caveat verification",
            )


async def test_a_macaroon_may_be_in_capitals(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world:
        macaroon = world.credentials["alice"].macaroon.read_bytes().hex().upper()
        async with world.channel("alice", {"macaroon": macaroon}) as channel:
            assert (await get_info(channel)).alias == "alice"


@pytest.mark.parametrize(
    ("permission", "allowed"),
    [
        (("info", "read"), True),
        (("info", "write"), False),
        (("uri", "/lnrpc.Lightning/GetInfo"), True),
        (("uri", "/lnrpc.Lightning/ListInvoices"), False),
    ],
)
async def test_a_macaroon_opens_what_it_says(permission: tuple[str, str], allowed: bool, tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world:
        async with world.channel("alice", world.baked("alice", permission)) as channel:
            for _ in range(2):  # the second time it is remembered
                if allowed:
                    assert (await get_info(channel)).alias == "alice"
                else:
                    assert await refusal(channel) == (Status.UNKNOWN, "permission denied")


@pytest.mark.parametrize(
    ("permissions", "request_", "answer"),
    [
        ([("info", "read")], {"permissions": [("info", "read")]}, None),
        ([("info", "read")], {"permissions": [("info", "read"), ("offchain", "read")]}, "permission denied"),
        (
            [("uri", "/lnrpc.Lightning/GetInfo")],
            {"full_method": "/lnrpc.Lightning/GetInfo", "check_default_perms_from_full_method": True},
            None,
        ),
        (
            [("info", "read")],
            {"full_method": "/lnrpc.Lightning/SignMessage", "check_default_perms_from_full_method": True},
            "permission denied",
        ),
        (
            [("info", "read")],
            {"full_method": "/lnrpc.Lightning/Nothing", "check_default_perms_from_full_method": True},
            "no permissions found for full method /lnrpc.Lightning/Nothing",
        ),
    ],
)
async def test_a_macaroon_can_be_checked_before_it_is_used(
    permissions: list[tuple[str, str]], request_: dict[str, object], answer: str | None, tmp_path: Path
) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        message = lnrpc.CheckMacPermRequest(macaroon=bytes.fromhex(world.baked("alice", *permissions)["macaroon"]))
        for name, value in request_.items():
            if name == "permissions":
                assert isinstance(value, list)
                value = [lnrpc.MacaroonPermission(entity=e, action=a) for e, a in value]
            setattr(message, name, value)
        call = channel.unary_unary("/lnrpc.Lightning/CheckMacaroonPermissions", message, lnrpc.CheckMacPermResponse)
        if answer is None:
            assert (await call).valid
        else:
            with pytest.raises(GRPCError) as caught:
                await call
            unknown = answer.startswith("no permissions found")
            status = Status.UNKNOWN if unknown else Status.INVALID_ARGUMENT
            assert (caught.value.status, caught.value.message) == (status, answer)


# --- states ---


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (WalletState.WAITING_TO_START, "waiting to start, RPC services not available"),
        (WalletState.LOCKED, "wallet locked, unlock it to enable full RPC access"),
        (
            WalletState.UNLOCKED,
            "the RPC server is in the process of starting up, but not yet ready to accept calls",
        ),
    ],
)
async def test_only_the_state_answers_before_the_wallet_is_open(state: WalletState, text: str, tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world:
        world.lnd("alice").set_state(state)
        async with world.channel("alice", {}) as channel:
            assert (await channel.unary_unary("/lnrpc.State/GetState", *STATE)).state == int(state)
            assert await refusal(channel) == (Status.UNKNOWN, text)


async def test_states_are_streamed_to_the_end(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice", {}) as channel:
        world.lnd("alice").set_state(WalletState.LOCKED)
        request = lnrpc.SubscribeStateRequest()
        async with channel.unary_stream("/lnrpc.State/SubscribeState", request, lnrpc.SubscribeStateResponse) as states:
            assert (await states.__anext__()).state == lnrpc.WalletState.LOCKED
            world.lnd("alice").unlock()
            assert [(await states.__anext__()).state for _ in range(3)] == [2, 3, 4]
            world.lnd("alice").stop()
            with pytest.raises(GRPCError, match="server exiting") as caught:
                await states.__anext__()
            assert caught.value.status is Status.UNKNOWN


async def test_a_stopped_node_is_not_there_and_comes_back_at_the_same_port(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        assert (await get_info(channel)).alias == "alice"
        world.lnd("alice").stop()
        await trio.sleep(0.1)
        assert (await refusal(channel))[0] is Status.UNAVAILABLE
        world.lnd("alice").start()
        assert (await eventually_info(channel)).alias == "alice"


async def test_a_node_that_does_not_run_yet_opens_its_port_when_it_does(tmp_path: Path) -> None:
    async with served(tmp_path) as world:
        world.lnd("alice").stop()
        await world.serve("alice")
        async with world.channel("alice") as channel:
            await trio.sleep(0.05)
            assert (await refusal(channel))[0] is Status.UNAVAILABLE
            world.lnd("alice").start()
            assert (await eventually_info(channel)).alias == "alice"


@pytest.mark.parametrize(
    ("how", "cleanly"), [("stop", True), ("restart", True), ("kill", False), ("drop_connections", False)]
)
async def test_a_stream_ends_as_the_connection_does(how: str, cleanly: bool, tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "bob") as world, world.channel("bob") as channel:
        request = lnrpc.InvoiceSubscription()
        async with channel.unary_stream("/lnrpc.Lightning/SubscribeInvoices", request, lnrpc.Invoice) as events:
            async with world.channel("alice") as sender:
                await send(sender, keysend(world, "bob"))
            assert [(await events.__anext__()).state for _ in range(2)] == [0, 1]
            getattr(world.lnd("bob"), how)()
            if cleanly:
                assert [event async for event in events] == []
            else:
                with pytest.raises(GRPCError) as caught:
                    await events.__anext__()
                assert caught.value.status is Status.UNAVAILABLE
        if how == "kill":
            world.lnd("bob").start()
        if how != "stop":
            assert (await eventually_info(channel)).alias == "bob"


# --- the rest of the wire ---


async def test_info_has_what_a_client_checks(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        info = await get_info(channel)
    assert info.identity_pubkey == world.lnd("alice").pubkey.hex
    assert (info.chains[0].network, info.block_height, info.synced_to_chain) == ("regtest", 850_000, True)
    assert (info.features[55].name, info.features[55].is_known, info.features[55].is_required) == (
        "keysend",
        True,
        False,
    )
    assert (info.num_active_channels, info.num_peers, len(info.block_hash)) == (1, 1, 64)


async def test_a_payment_is_told_as_lnd_tells_it(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        updates = await send(channel, keysend(world, "carol", amt_msat=7000))
        tracked = []
        request = routerrpc.TrackPaymentRequest(payment_hash=preimage_of(1).payment_hash)
        async with channel.unary_stream("/routerrpc.Router/TrackPaymentV2", request, lnrpc.Payment) as stream:
            tracked = [update async for update in stream]
    assert [update.status for update in updates] == [1, 1, 2]
    assert [update.payment_preimage for update in updates[:2]] == ["0" * 64] * 2
    last = updates[-1]
    assert tracked == [last]
    assert (last.payment_hash, last.payment_preimage) == (
        preimage_of(1).payment_hash.hex(),
        preimage_of(1).raw.hex(),
    )
    assert (last.value_msat, last.value_sat, last.fee_msat, last.fee_sat, last.payment_index) == (7000, 7, 1000, 1, 1)
    (attempt,) = last.htlcs
    assert attempt.route is not None
    assert (attempt.status, attempt.preimage, attempt.route.total_amt_msat) == (1, preimage_of(1).raw, 8000)
    assert [hop.pub_key for hop in attempt.route.hops] == [world.lnd("bob").pubkey.hex, world.lnd("carol").pubkey.hex]
    assert [(hop.amt_to_forward_msat, hop.fee_msat) for hop in attempt.route.hops] == [(7000, 1000), (7000, 0)]
    assert set(attempt.route.hops[-1].custom_records) == {5482373484}


async def test_a_failure_comes_twice_and_with_its_reason(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        updates = await send(channel, keysend(world, "dave"))
        quiet = await send(channel, keysend(world, "dave", no_inflight_updates=True))
    assert [(update.status, update.failure_reason) for update in updates[-2:]] == [(1, 4), (3, 4)]
    failure = updates[-1].htlcs[0].failure
    assert failure is not None
    assert (failure.code, failure.failure_source_index) == (1, 2)
    assert [update.status for update in quiet] == [3]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"amt_msat": 0}, Status.UNKNOWN, "amount must be specified"),
        ({"amt": 1}, Status.UNKNOWN, "sat and msat arguments are mutually exclusive"),
        ({"fee_limit_sat": 1}, Status.UNKNOWN, "sat and msat arguments are mutually exclusive"),
        ({"dest": b"\x02"}, Status.UNKNOWN, "invalid vertex length of 1, want 33"),
        ({"payment_hash": b""}, Status.UNKNOWN, "invalid hash length of 0, want 32"),
        ({"dest_custom_records": {65535: b""}}, Status.UNKNOWN, "no custom records with types below 65536 allowed"),
        ({"amp": True}, Status.UNIMPLEMENTED, "the simulated network does not pay AMP"),
        ({"payment_request": "lnbcrt1"}, Status.UNKNOWN, "dest and payment_request cannot appear together"),
    ],
)
async def test_a_bad_order_ends_the_stream_before_any_update(
    change: dict[str, object], status: Status, text: str, tmp_path: Path
) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        with pytest.raises(GRPCError) as caught:
            await send(channel, keysend(world, "bob", 1, **change))
        assert (caught.value.status, caught.value.message) == (status, text)


async def test_a_hash_is_paid_once(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        await send(channel, keysend(world, "bob"))
        with pytest.raises(GRPCError) as caught:
            await send(channel, keysend(world, "bob"))
        assert (caught.value.status, caught.value.message) == (Status.ALREADY_EXISTS, "invoice is already paid")


async def test_leaving_a_cancelable_payment_reaches_the_node(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        world.lnd("bob").hold_keysends(3600)
        request = keysend(world, "bob", cancelable=True)
        async with channel.unary_stream("/routerrpc.Router/SendPaymentV2", request, lnrpc.Payment) as updates:
            await updates.__anext__()
        payments = world.lnd("alice").node.payments
        await until(lambda: payments.lookup(preimage_of(1).payment_hash).canceled)


async def test_an_invoice_looks_as_lnd_shows_it(tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "bob") as world:
        async with world.channel("alice") as sender:
            records = {5482373484: preimage_of(1).raw, 400000: b"hello"}
            await send(sender, keysend(world, "bob", amt_msat=1999, dest_custom_records=records))
        async with world.channel("bob") as channel:
            request = lnrpc.ListInvoiceRequest(num_max_invoices=10)
            page = await channel.unary_unary("/lnrpc.Lightning/ListInvoices", request, lnrpc.ListInvoiceResponse)
            found = await channel.unary_unary(
                "/lnrpc.Lightning/LookupInvoice",
                lnrpc.PaymentHash(r_hash=preimage_of(1).payment_hash),
                lnrpc.Invoice,
            )
            empty = await channel.unary_unary(
                "/lnrpc.Lightning/ListInvoices", lnrpc.ListInvoiceRequest(index_offset=1), lnrpc.ListInvoiceResponse
            )
    assert (page.invoices, page.first_index_offset, page.last_index_offset) == ([found], 1, 1)
    assert (empty.invoices, empty.first_index_offset, empty.last_index_offset) == ([], 0, 0)
    assert (found.r_hash, found.r_preimage) == (preimage_of(1).payment_hash, preimage_of(1).raw)
    assert (found.value, found.value_msat, found.amt_paid_sat, found.amt_paid_msat) == (1, 1999, 1, 1999)
    assert (found.is_keysend, found.payment_request, found.memo, found.payment_addr) == (True, "", "", bytes(32))
    assert (found.cltv_expiry, found.expiry, found.state, found.settle_index) == (19, 0, 1, 1)
    (htlc,) = found.htlcs
    assert htlc.custom_records == {**records, 106823: b"\x00"}
    assert (htlc.state, htlc.amt_msat, htlc.mpp_total_amt_msat, htlc.accept_height) == (1, 1999, 0, 850_000)
    assert htlc.custom_channel_data == bytes.fromhex(
        "fe0001a147 01 00" + "fe00061a80 05 68656c6c6f" + "ff0000000146c6616c 20" + preimage_of(1).raw.hex()
    )


async def test_one_invoice_is_followed_in_every_state(tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "bob") as world, world.channel("bob") as channel:
        world.lnd("bob").hold_keysends(3600)
        request = invoicesrpc.SubscribeSingleInvoiceRequest(r_hash=preimage_of(1).payment_hash)
        path = "/invoicesrpc.Invoices/SubscribeSingleInvoice"
        async with channel.unary_stream(path, request, lnrpc.Invoice) as changes, world.channel("alice") as sender:
            await get_info(channel)  # so that the subscription stands
            world.nursery.start_soon(send, sender, keysend(world, "bob"))
            assert [(await changes.__anext__()).state for _ in range(2)] == [0, 3]
            world.lnd("bob").settle_invoice(preimage_of(1))
            assert [change.state async for change in changes] == [1]
            await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "fee"),
    [
        ({}, 1000),
        ({"amt_msat": 0, "amt": 5}, 1000),
        ({"fee_limit": lnrpc.FeeLimit(fixed=1)}, 1000),
        ({"fee_limit": lnrpc.FeeLimit(fixed_msat=1000)}, 1000),
        ({"fee_limit": lnrpc.FeeLimit(percent=20)}, 1000),
    ],
)
async def test_a_route_is_found_within_its_limit(change: dict[str, object], fee: int, tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        answer = await query(world, channel, **change)
        (route,) = answer.routes
        assert (len(route.hops), route.total_fees_msat, route.total_amt_msat) == (2, fee, 5000 + fee)


async def query(world: Served, channel: Channel, **change: object) -> lnrpc.QueryRoutesResponse:
    request = lnrpc.QueryRoutesRequest(pub_key=world.lnd("carol").pubkey.hex, amt_msat=5000)
    for name, value in change.items():
        setattr(request, name, value)
    return await channel.unary_unary("/lnrpc.Lightning/QueryRoutes", request, lnrpc.QueryRoutesResponse)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fee_limit": lnrpc.FeeLimit(fixed_msat=999)}, "unable to find a path to destination"),
        ({"fee_limit": lnrpc.FeeLimit(fixed=0)}, "unable to find a path to destination"),
        ({"fee_limit": lnrpc.FeeLimit(percent=19)}, "unable to find a path to destination"),
        ({"dest_custom_records": {400000: bytes(1300)}}, "unable to find a path to destination"),
        ({"pub_key": "02" + "00" * 32}, "unable to find a path to destination"),
        ({"pub_key": "02"}, "invalid vertex length of 1, want 33"),
        ({"pub_key": "xx"}, "encoding/hex: "),
        ({"amt": 5}, "sat and msat arguments are mutually exclusive"),
    ],
)
async def test_without_a_route_it_says_why(change: dict[str, object], text: str, tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        with pytest.raises(GRPCError) as caught:
            await query(world, channel, **change)
        assert (caught.value.status, str(caught.value.message)[: len(text)]) == (Status.UNKNOWN, text)


async def test_signatures_travel_as_zbase32(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        request = lnrpc.SignMessageRequest(msg=b"text")
        signed = await channel.unary_unary("/lnrpc.Lightning/SignMessage", request, lnrpc.SignMessageResponse)
        assert len(signed.signature) == 104

        async def verify(signature: str) -> lnrpc.VerifyMessageResponse:
            ask = lnrpc.VerifyMessageRequest(msg=b"text", signature=signature)
            return await channel.unary_unary("/lnrpc.Lightning/VerifyMessage", ask, lnrpc.VerifyMessageResponse)

        answer = await verify(signed.signature)
        assert (answer.valid, answer.pubkey) == (True, world.lnd("alice").pubkey.hex)
        nothing = await verify("y" * 104)
        assert (nothing.valid, nothing.pubkey) == (False, "")
        with pytest.raises(GRPCError, match="failed to decode signature"):
            await verify("not zbase32!")
        with pytest.raises(GRPCError, match="need a message to sign"):
            await channel.unary_unary(
                "/lnrpc.Lightning/SignMessage", lnrpc.SignMessageRequest(), lnrpc.SignMessageResponse
            )


async def test_the_graph_knows_who_has_announced_itself(tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "bob") as world:

        async def ask(asker: str, about: str) -> lnrpc.NodeInfo:
            async with world.channel(asker) as channel:
                request = lnrpc.NodeInfoRequest(pub_key=world.lnd(about).pubkey.hex)
                return await channel.unary_unary("/lnrpc.Lightning/GetNodeInfo", request, lnrpc.NodeInfo)

        carol, erin = (await ask("alice", "carol")).node, (await ask("bob", "erin")).node
        assert carol is not None
        assert erin is not None
        assert (carol.alias, 55 in carol.features, carol.last_update > 0) == ("carol", True, True)
        assert (erin.alias, erin.features, erin.last_update) == ("", {}, 0)
        with pytest.raises(GRPCError) as caught:
            await ask("alice", "erin")
        assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "unable to find node")


async def test_channels_and_balances(tmp_path: Path) -> None:
    async with served(tmp_path, "bob") as world, world.channel("bob") as channel:

        async def listed(**change: object) -> list[str]:
            request = lnrpc.ListChannelsRequest()
            for name, value in change.items():
                setattr(request, name, value)
            answer = await channel.unary_unary("/lnrpc.Lightning/ListChannels", request, lnrpc.ListChannelsResponse)
            names = {world.lnd(name).pubkey.hex: name for name in world.network.names}
            return [names[row.remote_pubkey] for row in answer.channels]

        world.lnd("carol").stop()
        assert await listed() == ["alice", "carol", "dave", "erin"]
        assert await listed(active_only=True) == ["alice", "dave", "erin"]
        assert await listed(inactive_only=True) == ["carol"]
        assert await listed(public_only=True) == ["alice", "carol", "dave"]
        assert await listed(private_only=True) == ["erin"]
        assert await listed(peer=world.lnd("dave").pubkey.raw) == ["dave"]
        answer = await channel.unary_unary(
            "/lnrpc.Lightning/ListChannels", lnrpc.ListChannelsRequest(), lnrpc.ListChannelsResponse
        )
        row = answer.channels[0]
        assert (row.capacity, row.local_balance, row.remote_balance, row.initiator) == (
            1_000_000,
            500_000,
            500_000,
            False,
        )
        assert row.local_constraints is not None
        assert row.local_constraints.chan_reserve_sat == 10_000
        balance = await channel.unary_unary(
            "/lnrpc.Lightning/ChannelBalance", lnrpc.ChannelBalanceRequest(), lnrpc.ChannelBalanceResponse
        )
        assert balance.local_balance is not None
        assert (balance.local_balance.sat, balance.local_balance.msat) == (2_000_000, 2_000_000_000)


async def test_payments_are_listed(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        await send(channel, keysend(world, "dave", 1))
        await send(channel, keysend(world, "bob", 2))
        path = "/lnrpc.Lightning/ListPayments"
        done = await channel.unary_unary(path, lnrpc.ListPaymentsRequest(), lnrpc.ListPaymentsResponse)
        every = await channel.unary_unary(
            path,
            lnrpc.ListPaymentsRequest(include_incomplete=True, count_total_payments=True, omit_hops=True),
            lnrpc.ListPaymentsResponse,
        )
    assert ([payment.status for payment in done.payments], done.first_index_offset, done.last_index_offset) == (
        [2],
        2,
        2,
    )
    assert ([payment.status for payment in every.payments], every.total_num_payments) == ([3, 2], 2)
    assert done.payments[0].htlcs[0].route is not None
    assert every.payments[1].htlcs[0].route is None


async def test_an_invoice_is_made_read_and_paid(tmp_path: Path) -> None:
    asked = lnrpc.Invoice(value_msat=5001, memo="coffee", expiry=600)
    async with served(tmp_path, "alice", "bob") as world, world.channel("bob") as bob:
        added = await bob.unary_unary("/lnrpc.Lightning/AddInvoice", asked, lnrpc.AddInvoiceResponse)
        kept = await bob.unary_unary(
            "/lnrpc.Lightning/LookupInvoice", lnrpc.PaymentHash(r_hash=added.r_hash), lnrpc.Invoice
        )
        async with world.channel("alice") as alice:
            request = lnrpc.PayReqString(pay_req=added.payment_request)
            read = await alice.unary_unary("/lnrpc.Lightning/DecodePayReq", request, lnrpc.PayReq)
            payment = routerrpc.SendPaymentRequest(payment_request=added.payment_request, timeout_seconds=60)
            updates = await send(alice, payment)
    assert (read.destination, read.payment_hash) == (world.lnd("bob").pubkey.hex, added.r_hash.hex())
    assert (read.num_satoshis, read.num_msat, read.description, read.expiry) == (5, 5001, "coffee", 600)
    assert (read.payment_addr, read.cltv_expiry, read.timestamp) == (added.payment_addr, 80, kept.creation_date)
    assert {bit: feature.is_required for bit, feature in read.features.items()} == {8: True, 14: True, 17: False}
    assert (kept.value, kept.value_msat, kept.memo, kept.expiry, kept.cltv_expiry) == (5, 5001, "coffee", 600, 80)
    assert (kept.payment_request, kept.add_index, kept.is_keysend) == (added.payment_request, 1, False)
    assert kept.features == read.features
    assert [update.status for update in updates] == [1, 1, 2]
    assert (updates[-1].payment_request, updates[-1].value_msat) == (added.payment_request, 5001)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lnrpc.Invoice(value=1, value_msat=1), "sat and msat arguments are mutually exclusive"),
        (lnrpc.Invoice(value=-1), "amount cannot be negative"),
        (lnrpc.Invoice(value=100_001 * 10**8), "invoice amount 100001 BTC is too large, max is 100000 BTC"),
        (lnrpc.Invoice(memo="x" * 1025), "memo too large: 1025 bytes (maxsize=1024)"),
        (lnrpc.Invoice(memo="x" * 640), "data length too big to fit within 10 bits: 1024"),
        (lnrpc.Invoice(description_hash=b"short"), "description hash is 5 bytes, must be 32"),
        (
            lnrpc.Invoice(expiry=31_536_001),
            "expiry of 3.1536001e+07 seconds greater than max expiry of 3.1536e+07 seconds",
        ),
    ],
)
async def test_an_invoice_that_cannot_be_is_not_made(asked: lnrpc.Invoice, words: str, tmp_path: Path) -> None:
    async with served(tmp_path, "bob") as world, world.channel("bob") as bob:
        with pytest.raises(GRPCError) as caught:
            await bob.unary_unary("/lnrpc.Lightning/AddInvoice", asked, lnrpc.AddInvoiceResponse)
        page = await bob.unary_unary(
            "/lnrpc.Lightning/ListInvoices", lnrpc.ListInvoiceRequest(), lnrpc.ListInvoiceResponse
        )
    assert (caught.value.status, caught.value.message) == (Status.UNKNOWN, words)
    assert page.invoices == []


async def test_there_are_no_coins_on_the_chain(tmp_path: Path) -> None:
    async with served(tmp_path, "bob") as world, world.channel("bob") as bob:
        request = lnrpc.WalletBalanceRequest()
        balance = await bob.unary_unary("/lnrpc.Lightning/WalletBalance", request, lnrpc.WalletBalanceResponse)
    assert (balance.total_balance, balance.reserved_balance_anchor_chan) == (0, 40_000)


async def test_many_payments_share_a_connection(tmp_path: Path) -> None:
    async with served(tmp_path, "alice") as world, world.channel("alice") as channel:
        ends: list[int] = []

        async def pay(number: int) -> None:
            ends.append((await send(channel, keysend(world, "carol", number)))[-1].status)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(pay, number)
        assert ends == [2] * 100
