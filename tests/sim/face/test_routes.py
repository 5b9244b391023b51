"""Routes of the caller's choice, hints, and mission control, over the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.sim.face.serving import Served, keysend, send, served
from tests.sim.reader import preimage_of

from impervious.pb import lnrpc, routerrpc
from impervious.rpc import Channel
from impervious.wire.keysend import PREIMAGE_RECORD

SUCCEEDED, FAILED = lnrpc.HtlcAttemptHtlcStatus.SUCCEEDED, lnrpc.HtlcAttemptHtlcStatus.FAILED
NO_ROUTE = lnrpc.PaymentFailureReason.FAILURE_REASON_NO_ROUTE


@asynccontextmanager
async def alice(folder: Path) -> AsyncIterator[tuple[Served, Channel]]:
    async with served(folder, "alice") as world, world.channel("alice") as channel:
        yield world, channel


async def query(
    world: Served, channel: Channel, to: str = "carol", *, use_mission_control: bool = False, number: int = 1
) -> lnrpc.Route:
    request = lnrpc.QueryRoutesRequest(
        pub_key=world.lnd(to).pubkey.hex,
        amt_msat=1000,
        fee_limit=lnrpc.FeeLimit(fixed_msat=5000),
        dest_custom_records={PREIMAGE_RECORD: preimage_of(number).raw},
        use_mission_control=use_mission_control,
    )
    answer = await channel.unary_unary("/lnrpc.Lightning/QueryRoutes", request, lnrpc.QueryRoutesResponse)
    return answer.routes[0]


async def send_to_route(channel: Channel, route: lnrpc.Route | None, number: int = 1) -> lnrpc.HtlcAttempt:
    request = routerrpc.SendToRouteRequest(payment_hash=preimage_of(number).payment_hash, route=route)
    return await channel.unary_unary("/routerrpc.Router/SendToRouteV2", request, lnrpc.HtlcAttempt)


async def refused(channel: Channel, route: lnrpc.Route | None, number: int = 1) -> tuple[Status, str | None]:
    with pytest.raises(GRPCError) as error:
        await send_to_route(channel, route, number)
    return error.value.status, error.value.message


async def test_a_named_route_is_tried_once_and_answers_with_its_end(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        attempt = await send_to_route(channel, await query(world, channel))
        assert (attempt.status, attempt.preimage, attempt.failure) == (SUCCEEDED, preimage_of(1).raw, None)
        request = lnrpc.ListPaymentsRequest()
        listed = await channel.unary_unary("/lnrpc.Lightning/ListPayments", request, lnrpc.ListPaymentsResponse)
        assert [(p.value_msat, p.fee_msat, p.status) for p in listed.payments] == [
            (1000, 1000, lnrpc.PaymentPaymentStatus.SUCCEEDED)
        ]
        again = await refused(channel, await query(world, channel))
        assert again == (Status.ALREADY_EXISTS, "invoice is already paid")


async def test_a_named_route_that_fails_says_where(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        route = await query(world, channel)
        world.lnd("carol").go_offline()
        attempt = await send_to_route(channel, route)
        assert attempt.failure is not None
        assert (attempt.status, attempt.failure.code, attempt.failure.failure_source_index) == (
            FAILED,
            lnrpc.FailureFailureCode.UNKNOWN_NEXT_PEER,
            1,
        )
        world.lnd("carol").go_online()
        assert (await send_to_route(channel, route)).status is SUCCEEDED


async def test_a_route_needs_no_keys_of_its_hops(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        route = await query(world, channel)
        for hop in route.hops:
            hop.pub_key = ""
        assert (await send_to_route(channel, route)).status is SUCCEEDED
        route.hops[0].chan_id = 7
        assert await refused(channel, route, 2) == (Status.UNKNOWN, "edge not found")
        route.hops[0].chan_id = route.hops[1].chan_id
        assert await refused(channel, route, 2) == (Status.UNKNOWN, "channel edge does not match expected node")


async def test_what_is_no_route_is_refused_in_lnds_words(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        assert await refused(channel, None) == (Status.UNKNOWN, "unable to send, no routes provided")
        route = await query(world, channel)
        route.hops[0].pub_key = "xyz"
        assert await refused(channel, route) == (Status.UNKNOWN, "cannot decode pubkey xyz")
        route = await query(world, channel)
        for record, text in (
            (lnrpc.MppRecord(), "missing total_msat and payment_addr"),
            (lnrpc.MppRecord(total_amt_msat=1), "missing payment_addr"),
            (lnrpc.MppRecord(payment_addr=bytes(32)), "missing total_msat"),
        ):
            route.hops[-1].mpp_record = record
            assert await refused(channel, route) == (Status.UNKNOWN, text)


async def test_a_channel_that_nobody_knows_fails_at_once(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        route = await query(world, channel)
        route.hops[0].chan_id = 7
        attempt = await send_to_route(channel, route)
        assert attempt.failure is not None
        assert attempt.failure.failure_source_index == 0


async def test_an_invoice_is_paid_over_a_named_route(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        invoice = world.lnd("carol").add_invoice(1000)  # type: ignore[arg-type]  # Msat
        route = await query(world, channel)
        route.hops[-1].custom_records = {}
        request = routerrpc.SendToRouteRequest(payment_hash=invoice.payment_hash, route=route)
        path = "/routerrpc.Router/SendToRouteV2"
        without = await channel.unary_unary(path, request, lnrpc.HtlcAttempt)
        assert without.status is FAILED
        route.hops[-1].mpp_record = lnrpc.MppRecord(total_amt_msat=1000, payment_addr=invoice.payment_addr)
        assert (await channel.unary_unary(path, request, lnrpc.HtlcAttempt)).status is SUCCEEDED


async def test_a_payment_is_refused_without_an_attempt_until_something_gets_through(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        world.lnd("carol").go_offline()
        assert (await send(channel, keysend(world, "carol", 1)))[-1].failure_reason is NO_ROUTE
        world.lnd("carol").go_online()
        updates = await send(channel, keysend(world, "carol", 2))
        assert (updates[-1].failure_reason, [u.htlcs for u in updates]) == (NO_ROUTE, [[], []])
        with pytest.raises(GRPCError, match="unable to find a path"):
            await query(world, channel, use_mission_control=True)
        assert (await send_to_route(channel, await query(world, channel, number=3), 3)).status is SUCCEEDED
        assert (await send(channel, keysend(world, "carol", 2)))[-1].status is lnrpc.PaymentPaymentStatus.SUCCEEDED


async def test_resetting_mission_control_forgets_failures(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        world.lnd("carol").go_offline()
        await send(channel, keysend(world, "carol", 1))
        world.lnd("carol").go_online()
        await channel.unary_unary(
            "/routerrpc.Router/ResetMissionControl",
            routerrpc.ResetMissionControlRequest(),
            routerrpc.ResetMissionControlResponse,
        )
        assert (await send(channel, keysend(world, "carol", 2)))[-1].status is lnrpc.PaymentPaymentStatus.SUCCEEDED


async def test_hints_lead_to_a_node_that_has_announced_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, "alice", "erin") as world:
        async with world.channel("erin") as erin:
            made = await erin.unary_unary(
                "/lnrpc.Lightning/AddInvoice", lnrpc.Invoice(value=2, private=True), lnrpc.AddInvoiceResponse
            )
        async with world.channel("alice") as channel:
            request = lnrpc.PayReqString(pay_req=made.payment_request)
            read = await channel.unary_unary("/lnrpc.Lightning/DecodePayReq", request, lnrpc.PayReq)
            assert [hop.node_id for hint in read.route_hints for hop in hint.hop_hints] == [world.lnd("bob").pubkey.hex]
            with_hints = keysend(world, "erin", 1, route_hints=read.route_hints)
            assert (await send(channel, with_hints))[-1].status is lnrpc.PaymentPaymentStatus.SUCCEEDED
            assert (await send(channel, keysend(world, "erin", 2)))[-1].failure_reason is NO_ROUTE
            paid = routerrpc.SendPaymentRequest(
                payment_request=made.payment_request, timeout_seconds=5, fee_limit_msat=5000
            )
            assert (await send(channel, paid))[-1].status is lnrpc.PaymentPaymentStatus.SUCCEEDED
            hinted = lnrpc.QueryRoutesRequest(pub_key=world.lnd("erin").pubkey.hex, amt=1, route_hints=read.route_hints)
            found = await channel.unary_unary("/lnrpc.Lightning/QueryRoutes", hinted, lnrpc.QueryRoutesResponse)
            assert len(found.routes[0].hops) == 2
            with pytest.raises(GRPCError, match="unable to find node"):
                await channel.unary_unary(
                    "/lnrpc.Lightning/GetNodeInfo",
                    lnrpc.NodeInfoRequest(pub_key=world.lnd("erin").pubkey.hex),
                    lnrpc.NodeInfo,
                )


async def test_channels_that_come_and_go_are_told(tmp_path: Path) -> None:
    async with alice(tmp_path) as (world, channel):
        request = lnrpc.ChannelEventSubscription()
        path = "/lnrpc.Lightning/SubscribeChannelEvents"
        async with channel.unary_stream(path, request, lnrpc.ChannelEventUpdate) as events:
            await world.channel_subscribed("alice")
            world.lnd("bob").go_offline()
            world.lnd("bob").go_online()
            gone, back = await anext(events), await anext(events)
        listed = await channel.unary_unary(
            "/lnrpc.Lightning/ListChannels", lnrpc.ListChannelsRequest(), lnrpc.ListChannelsResponse
        )
        kind = lnrpc.ChannelEventUpdateUpdateType
        assert (gone.type, back.type) == (kind.INACTIVE_CHANNEL, kind.ACTIVE_CHANNEL)
        for point in (gone.inactive_channel, back.active_channel):
            assert point is not None
            assert point.funding_txid_bytes is not None
            txid = point.funding_txid_bytes[::-1].hex()
            assert f"{txid}:{point.output_index}" == listed.channels[0].channel_point
