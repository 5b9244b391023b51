"""A payment that LND did not even try goes over the best route, once; and hints as LND takes them."""

import pytest
from grpclib.const import Status
from tests.lnd.fake import BOB, FakeLnd, opened, refuses, says
from tests.lnd.updates import FAILED, IN_FLIGHT, PREIMAGE, RECORDS, UNKNOWN, keysend, update

from impervious.errors import AlreadyPaying, NodeUnavailable, PaymentFailure
from impervious.lnd import LndNode, rpcs
from impervious.model import HopHint, PaymentStatus
from impervious.pb.lnrpc import (
    Failure,
    FailureFailureCode,
    FeatureBit,
    FeeLimit,
    Hop,
    HtlcAttempt,
    HtlcAttemptHtlcStatus,
    PaymentPaymentStatus,
    QueryRoutesRequest,
    QueryRoutesResponse,
    Route,
)
from impervious.pb.lnrpc import HopHint as PbHopHint
from impervious.pb.lnrpc import RouteHint as PbRouteHint
from impervious.pb.routerrpc import SendPaymentRequest, SendToRouteRequest
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD

ALL_RECORDS = {**RECORDS, PREIMAGE_RECORD: PREIMAGE.raw}
BEST = Route(total_time_lock=500, hops=[Hop(), Hop(custom_records=ALL_RECORDS)], total_fees_msat=7)
REFUSED = FailureFailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS


def attempt(code: FailureFailureCode, source: int) -> HtlcAttempt:
    failure = Failure(code=code, failure_source_index=source)
    return HtlcAttempt(status=HtlcAttemptHtlcStatus.FAILED, route=BEST, failure=failure)


def fake(answer: object) -> FakeLnd:
    """An LND that tries nothing by itself, knows a way, and answers so when told to go it."""
    made = FakeLnd()
    made.answers[rpcs.SEND_PAYMENT] = says(FAILED)
    made.answers[rpcs.QUERY_ROUTES] = says(QueryRoutesResponse(routes=[BEST, Route()]))
    made.answers[rpcs.SEND_TO_ROUTE] = answer  # type: ignore[assignment]
    return made


async def test_the_best_route_is_tried_with_the_same_preimage_and_limit(autojump_clock: object) -> None:
    done = HtlcAttempt(status=HtlcAttemptHtlcStatus.SUCCEEDED, route=BEST, preimage=PREIMAGE.raw)
    lnd = fake(says(done))
    async with opened(lnd) as node:
        await node.wait_ready()
        paid = await keysend(node)
    assert (paid.status, paid.preimage, paid.fee, paid.amount) == (PaymentStatus.SUCCEEDED, PREIMAGE, 7, 1000)
    [query] = lnd.asked(QueryRoutesRequest)
    assert query == QueryRoutesRequest(
        pub_key=BOB.hex,
        amt_msat=1000,
        fee_limit=FeeLimit(fixed_msat=3000),
        dest_custom_records=ALL_RECORDS,
        use_mission_control=False,
    )
    assert lnd.asked(SendToRouteRequest) == [SendToRouteRequest(payment_hash=PREIMAGE.payment_hash, route=BEST)]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (attempt(REFUSED, 2), PaymentFailure.INCORRECT_PAYMENT_DETAILS),
        (attempt(REFUSED, 1), PaymentFailure.ERROR),
        (attempt(FailureFailureCode.UNKNOWN_NEXT_PEER, 1), PaymentFailure.ERROR),
        (attempt(FailureFailureCode.MPP_TIMEOUT, 2), PaymentFailure.ERROR),
        (HtlcAttempt(status=HtlcAttemptHtlcStatus.FAILED, route=BEST), PaymentFailure.ERROR),
    ],
)
async def test_only_the_receiver_refuses_for_good(
    autojump_clock: object, answer: HtlcAttempt, failure: PaymentFailure
) -> None:
    async with opened(fake(says(answer))) as node:
        await node.wait_ready()
        paid = await keysend(node)
    assert (paid.status, paid.failure, paid.attempts) == (PaymentStatus.FAILED, failure, 1)


async def test_without_a_route_it_stays_as_it_was(autojump_clock: object) -> None:
    lnd = fake(says())
    for answer in (refuses("unable to find a path to destination"), says(QueryRoutesResponse())):
        lnd.answers[rpcs.QUERY_ROUTES] = answer
        async with opened(lnd) as node:
            await node.wait_ready()
            assert (await keysend(node)).failure is PaymentFailure.NO_ROUTE
    assert lnd.asked(SendToRouteRequest) == []


async def test_a_macaroon_of_before_is_good_enough(autojump_clock: object) -> None:
    lnd = fake(refuses("permission denied", Status.PERMISSION_DENIED))
    async with opened(lnd) as node:
        await node.wait_ready()
        for _ in range(3):
            assert (await keysend(node)).failure is PaymentFailure.NO_ROUTE
    assert len(lnd.asked(SendToRouteRequest)) == 1  # it is not asked in vain again


async def refusal(node: LndNode) -> None:
    await node.wait_ready()
    await keysend(node)


async def test_what_is_under_way_is_never_taken_for_refused(autojump_clock: object) -> None:
    async with opened(fake(refuses("payment is in transition", Status.ALREADY_EXISTS))) as node:
        with pytest.raises(AlreadyPaying):
            await refusal(node)
    lnd = fake(refuses("something odd"))
    lnd.answers[rpcs.TRACK_PAYMENT] = says(IN_FLIGHT, then_hang=True)
    async with opened(lnd) as node:
        with pytest.raises(AlreadyPaying):
            await refusal(node)
    lnd.answers[rpcs.TRACK_PAYMENT] = says(update(PaymentPaymentStatus.FAILED, 2))
    async with opened(lnd) as node:
        await node.wait_ready()
        assert (await keysend(node)).failure is PaymentFailure.NO_ROUTE
    lnd.answers[rpcs.TRACK_PAYMENT] = says(UNKNOWN)
    async with opened(lnd) as node:
        await node.wait_ready()
        assert (await keysend(node)).failure is PaymentFailure.NO_ROUTE


@pytest.mark.parametrize("answer", [HtlcAttempt(), refuses("gone", Status.UNAVAILABLE)])
async def test_an_outcome_that_is_not_told_is_unknown(autojump_clock: object, answer: object) -> None:
    async with opened(fake(says(answer) if isinstance(answer, HtlcAttempt) else answer)) as node:
        with pytest.raises(NodeUnavailable):
            await refusal(node)


async def test_hints_go_with_what_the_far_node_understands(autojump_clock: object) -> None:
    lnd = fake(says(attempt(REFUSED, 2)))
    hint = HopHint(pubkey=BOB, chan_id=2**63, base_fee=Msat(1000), fee_ppm=1, cltv_delta=80)
    async with opened(lnd) as node:
        await node.wait_ready()
        await node.send_keysend(BOB, Msat(1000), PREIMAGE, RECORDS, fee_limit=Msat(3000), timeout_s=60, hints=[(hint,)])
    taken = PbRouteHint(
        hop_hints=[
            PbHopHint(
                node_id=BOB.hex,
                chan_id=2**63,
                fee_base_msat=1000,
                fee_proportional_millionths=1,
                cltv_expiry_delta=80,
            )
        ]
    )
    for request in (*lnd.asked(SendPaymentRequest), *lnd.asked(QueryRoutesRequest)):
        assert isinstance(request, SendPaymentRequest | QueryRoutesRequest)
        assert request.route_hints == [taken]
        assert request.dest_features == [FeatureBit.TLV_ONION_OPT]
