"""`LndPayments`: a payment of any kind is sent once, and found again whatever happened to the answer.

What an RPC leaves open when it fails is asked for with another one, so that no caller has to interpret LND's words.
"""

import logging
from collections.abc import Sequence
from typing import Final

from grpclib.const import Status

from impervious.errors import AlreadyPaying, NodeRefused, NodeUnavailable, PaymentNotFound
from impervious.lnd import convert
from impervious.lnd.client import LndClient
from impervious.lnd.connection import LndStream
from impervious.lnd.faults import LndRefused
from impervious.lnd.rpcs import LIST_PAYMENTS, QUERY_ROUTES, SEND_PAYMENT, SEND_TO_ROUTE, TRACK_PAYMENT, Rpc
from impervious.model import NodePubkey, Payment, PaymentHash, PaymentPage, PaymentStatus, Records, RouteHint
from impervious.pb.lnrpc import FeatureBit, FeeLimit, ListPaymentsRequest, QueryRoutesRequest
from impervious.pb.lnrpc import Payment as PbPayment
from impervious.pb.routerrpc import SendPaymentRequest, SendToRouteRequest, TrackPaymentRequest
from impervious.rpc.message import Message
from impervious.units import Msat

logger = logging.getLogger(__name__)

_ENDED: Final = frozenset({PaymentStatus.SUCCEEDED, PaymentStatus.FAILED})


def features_beside(hints: Sequence[RouteHint]) -> list[FeatureBit]:
    """Say what a node behind hints understands: of a node that its graph does not hold, LND assumes not even TLV."""
    return [FeatureBit.TLV_ONION_OPT] if hints else []


def route_query(
    dest: NodePubkey, amount: Msat, records: Records, *, fee_limit: Msat, hints: Sequence[RouteHint]
) -> QueryRoutesRequest:
    """Ask for the best route of a keysend, whatever failed lately: LND's mission control is for its own attempts."""
    return QueryRoutesRequest(
        pub_key=dest.hex,
        amt_msat=amount,
        fee_limit=FeeLimit(fixed_msat=fee_limit),  # unset is 5 % of the amount, or all of it when that is small
        dest_custom_records=dict(records),
        route_hints=list(map(convert.route_hint, hints)),
        dest_features=features_beside(hints),
        use_mission_control=False,
    )


class LndPayments(LndClient):
    """An LND's outgoing payments (`node.PaymentNode` and `node.InvoiceNode`)."""

    async def _send(self, request: SendPaymentRequest, payment_hash: PaymentHash) -> Payment:
        """Have LND pay, and wait for the end. The request's updates, and what hanging up does, are seen to here.

        Args:
          request: what to pay, and how.
          payment_hash: of what it pays.

        Raises:
          AlreadyPaying: LND has a payment for this hash, in flight or settled.
          NodeUnavailable: the outcome is unknown: `track` it.
          LndRefused: nothing was sent.
        """
        request.no_inflight_updates = True  # only the end counts
        request.cancelable = False  # hanging up must not stop the payment: its caller tracks it
        try:
            return await self._state(SEND_PAYMENT, request, _ENDED)
        except LndRefused as error:
            if error.status is Status.ALREADY_EXISTS:
                raise AlreadyPaying(str(error)) from error
            refusal = error
        await self._see_nothing_begun(payment_hash, refusal)
        raise refusal

    async def _see_nothing_begun(self, payment_hash: PaymentHash, refusal: LndRefused) -> None:
        """Make sure that a refused payment is not under way all the same: LND's words do not tell when they fell.

        Raises:
          AlreadyPaying: it is, or was paid.
          NodeUnavailable: nobody can say.
        """
        try:
            payment = await self.lookup_payment(payment_hash)
        except PaymentNotFound:
            return
        except (LndRefused, NodeUnavailable) as error:
            raise NodeUnavailable(f"{refusal}; and when asked what became of the payment: {error}") from error
        if payment.status is not PaymentStatus.FAILED:  # that would be an earlier attempt, with nothing in flight
            raise AlreadyPaying(f"{refusal}, but it has such a payment") from refusal

    async def _send_over_best_route(self, query: QueryRoutesRequest, payment_hash: PaymentHash) -> Payment | None:
        """Try the best route once, whatever failed before, after a payment that LND did not even try.

        LND holds this hash to the same rule as in SendPaymentV2: only what is unknown or has failed is begun.

        Args:
          query: what to carry, and where to.
          payment_hash: of the payment.

        Returns:
          None: it was not begun, as there is no route, or the macaroon does not allow it.

        Raises:
          AlreadyPaying: LND has a payment for this hash, in flight or settled.
          NodeUnavailable: the outcome is unknown: `track` it.
        """
        try:
            with self._if_allowed(SEND_TO_ROUTE):
                found = await self.call(QUERY_ROUTES, query)
                if not found.routes:
                    return None
                request = SendToRouteRequest(payment_hash=payment_hash, route=found.routes[0])
                attempt = await self.call(SEND_TO_ROUTE, request)
        except LndRefused as error:
            if error.status is Status.ALREADY_EXISTS:
                raise AlreadyPaying(str(error)) from error
            if error.no_route:
                return None
            refusal = error
        except NodeRefused as error:  # not allowed: before anything was begun
            logger.debug("LND: %s", error)
            return None
        else:
            payment = convert.attempt(attempt, payment_hash, Msat(query.amt_msat))
            if payment.status is PaymentStatus.IN_FLIGHT:
                raise NodeUnavailable("LND did not say how the payment ended: track it")
            return payment
        await self._see_nothing_begun(payment_hash, refusal)
        return None

    async def track(self, payment_hash: PaymentHash) -> Payment:
        """Wait for the end of a payment that was sent earlier.

        Raises:
          PaymentNotFound: LND has no record of it: it was never asked to pay it, or told to forget it.
        """
        return await self._tracked(TrackPaymentRequest(payment_hash=payment_hash, no_inflight_updates=True), _ENDED)

    async def lookup_payment(self, payment_hash: PaymentHash) -> Payment:
        """Say what has become of a payment so far.

        Raises:
          PaymentNotFound: LND has no record of it.
        """
        # TrackPaymentV2 and not ListPayments, which cannot be asked for a hash: with updates in flight, its first
        # message is the present state and comes at once.
        request = TrackPaymentRequest(payment_hash=payment_hash, no_inflight_updates=False)
        return await self._tracked(request, frozenset(PaymentStatus))

    async def list_payments(
        self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False, records: bool = False
    ) -> PaymentPage:
        """Read a page of what LND has paid or tried to (`node.InvoiceNode.list_payments`)."""
        request = ListPaymentsRequest(
            include_incomplete=True,  # those that failed are news, too
            index_offset=index_offset,  # a payment_index, exclusive
            max_payments=limit,
            reversed=backwards,
            omit_hops=not records,  # not known to lnd before 0.21, which then sends them
        )
        return convert.payment_page(await self.call(LIST_PAYMENTS, request))

    async def _tracked(self, request: TrackPaymentRequest, wanted: frozenset[PaymentStatus]) -> Payment:
        try:
            return await self._state(TRACK_PAYMENT, request, wanted)
        except LndRefused as error:
            if error.status is Status.NOT_FOUND:
                raise PaymentNotFound(str(error)) from error
            raise

    async def _state(self, rpc: Rpc[PbPayment], request: Message, wanted: frozenset[PaymentStatus]) -> Payment:
        """Wait until a payment is in one of these states."""
        connection = self._ready()
        host = connection.credentials.host
        with self._doubting(connection):
            stream = LndStream(connection.calls, rpc, request, convert.payment, host=host, noticing=connection.noticing)
            async with stream as states:
                async for payment in states:
                    if payment.status in wanted:
                        return payment
            raise NodeUnavailable("LND left before it told how the payment ended: track it")
