"""routerrpc.Router over the RPCs of a simulated node."""

from collections.abc import Mapping

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from impervious.pb import lnrpc, routerrpc
from impervious.rpc.message import Request as In
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.payments import SimPayment
from impervious.sim.face import convert, requests
from impervious.sim.face.answering import answering, request_of
from impervious.sim.rpcs import Rpcs
from impervious.sim.streams import LiveStream


class Router:
    """routerrpc.Router: a payment, told from its beginning to its end."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/routerrpc.Router/SendToRouteV2": Handler(
                self._send_to_route, Cardinality.UNARY_UNARY, routerrpc.SendToRouteRequest, lnrpc.HtlcAttempt
            ),
            "/routerrpc.Router/ResetMissionControl": Handler(
                self._reset,
                Cardinality.UNARY_UNARY,
                routerrpc.ResetMissionControlRequest,
                routerrpc.ResetMissionControlResponse,
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

    async def _send_to_route(self, stream: ServerStream[routerrpc.SendToRouteRequest, lnrpc.HtlcAttempt]) -> None:
        request = await request_of(stream)
        with answering():
            route = requests.given_route(request, self._rpcs)
            payment, attempt = await self._rpcs.send_to_route(
                route.order, route.path, total=route.total, goes_on=request.skip_temp_err
            )
            await stream.send_message(convert.attempt(attempt, payment))

    async def _reset(
        self, stream: ServerStream[routerrpc.ResetMissionControlRequest, routerrpc.ResetMissionControlResponse]
    ) -> None:
        await request_of(stream)
        with answering():
            await self._rpcs.reset_mission_control()
            await stream.send_message(routerrpc.ResetMissionControlResponse())

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
