"""routerrpc.Router over the RPCs of a simulated node."""

from collections.abc import Mapping

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from impervious.pb import lnrpc, routerrpc, simnet
from impervious.rpc.message import Request as In
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.payments import SimPayment
from impervious.sim.engine.route import BLOCK_PADDING
from impervious.sim.face import convert, requests
from impervious.sim.face.answering import answering, request_of, unary
from impervious.sim.rpcs import Rpcs
from impervious.sim.streams import LiveStream
from impervious.units import sat_credited


class Router:
    """routerrpc.Router: a payment, told from its beginning to its end."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/routerrpc.Router/SendToRouteV2": unary(
                self._send_to_route, routerrpc.SendToRouteRequest, lnrpc.HtlcAttempt
            ),
            "/routerrpc.Router/ResetMissionControl": unary(
                self._reset, routerrpc.ResetMissionControlRequest, routerrpc.ResetMissionControlResponse
            ),
            "/routerrpc.Router/QueryMissionControl": unary(
                self._query_mission_control, simnet.QueryMissionControlRequest, simnet.QueryMissionControlResponse
            ),
            "/routerrpc.Router/EstimateRouteFee": unary(
                self._estimate, simnet.RouteFeeRequest, simnet.RouteFeeResponse
            ),
            "/routerrpc.Router/SendPaymentV2": Handler(
                self._send, Cardinality.UNARY_STREAM, routerrpc.SendPaymentRequest, lnrpc.Payment
            ),
            "/routerrpc.Router/TrackPaymentV2": Handler(
                self._track, Cardinality.UNARY_STREAM, routerrpc.TrackPaymentRequest, lnrpc.Payment
            ),
        }

    async def _send(self, stream: ServerStream[routerrpc.SendPaymentRequest, lnrpc.Payment]) -> None:
        request = await request_of(stream)
        if request.amp:
            raise GRPCError(Status.UNIMPLEMENTED, "the simulated network does not pay AMP")
        with answering():
            async with self._rpcs.send_payment(requests.order(request)) as updates:
                await _tell(stream, updates, terminal_only=request.no_inflight_updates)

    async def _send_to_route(self, request: routerrpc.SendToRouteRequest) -> lnrpc.HtlcAttempt:
        route = requests.given_route(request, self._rpcs)
        payment, attempt = await self._rpcs.send_to_route(
            route.order, route.path, total=route.total, goes_on=request.skip_temp_err
        )
        return convert.attempt(attempt, payment)

    async def _reset(self, request: routerrpc.ResetMissionControlRequest) -> routerrpc.ResetMissionControlResponse:
        await self._rpcs.reset_mission_control()
        return routerrpc.ResetMissionControlResponse()

    async def _query_mission_control(
        self, request: simnet.QueryMissionControlRequest
    ) -> simnet.QueryMissionControlResponse:
        learnt = await self._rpcs.mission_control()
        return simnet.QueryMissionControlResponse(
            pairs=[
                simnet.PairHistory(
                    node_from=self._rpcs.pubkey_of(sender),
                    node_to=self._rpcs.pubkey_of(to),
                    history=simnet.PairData(
                        fail_time=self._rpcs.wall_s(result.fail_s),
                        fail_amt_sat=sat_credited(result.fail_amount),
                        fail_amt_msat=result.fail_amount,
                        success_time=self._rpcs.wall_s(result.success_s),
                        success_amt_sat=sat_credited(result.success_amount),
                        success_amt_msat=result.success_amount,
                    ),
                )
                for (sender, to), result in learnt
            ]
        )

    async def _estimate(self, request: simnet.RouteFeeRequest) -> simnet.RouteFeeResponse:
        order = requests.estimate(request, now_s=self._rpcs.now_exactly_s)
        path = await self._rpcs.query_routes(order, mission_control=True)
        return simnet.RouteFeeResponse(routing_fee_msat=path.fee, time_lock_delay=path.time_lock + BLOCK_PADDING)

    async def _track(self, stream: ServerStream[routerrpc.TrackPaymentRequest, lnrpc.Payment]) -> None:
        request = await request_of(stream)
        with answering():
            async with self._rpcs.track_payment(request.payment_hash) as updates:
                await _tell(stream, updates, terminal_only=request.no_inflight_updates)


async def _tell(
    stream: ServerStream[In, lnrpc.Payment], updates: LiveStream[SimPayment], *, terminal_only: bool
) -> None:
    async for payment in updates:
        if payment.terminal or not terminal_only:
            await stream.send_message(convert.payment(payment))
