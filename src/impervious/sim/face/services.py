"""LND's services over the RPCs of a simulated node."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from impervious.errors import Malformed
from impervious.pb import invoicesrpc, lnrpc, routerrpc
from impervious.rpc.message import Request as In
from impervious.rpc.message import Response as Out
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.answers import LndError
from impervious.sim.engine.payments import SimPayment
from impervious.sim.face import convert, macaroon
from impervious.sim.face.permissions import REQUIRED, Permission
from impervious.sim.lnd import SimLnd
from impervious.sim.rpcs import Rpcs
from impervious.sim.streams import LiveStream
from impervious.wire import zbase32


@contextmanager
def answering() -> Iterator[None]:
    """LND's errors as gRPC's."""
    try:
        yield
    except LndError as error:
        raise GRPCError(error.status, error.text) from error


class Lightning(lnrpc.LightningBase):
    """lnrpc.Lightning."""

    def __init__(self, lnd: SimLnd, root_key: bytes) -> None:
        self._lnd = lnd
        self._rpcs = lnd.rpcs
        self._root_key = root_key

    async def get_info(self, message: lnrpc.GetInfoRequest) -> lnrpc.GetInfoResponse:
        """Who it is."""
        with answering():
            return convert.info(await self._rpcs.get_info(), now_s=self._rpcs.now_s)

    async def get_node_info(self, message: lnrpc.NodeInfoRequest) -> lnrpc.NodeInfo:
        """What the graph says of a node."""
        with answering():
            return convert.node_info(
                await self._rpcs.get_node_info(convert.pubkey(message.pub_key)), now_s=self._rpcs.now_s
            )

    async def query_routes(self, message: lnrpc.QueryRoutesRequest) -> lnrpc.QueryRoutesResponse:
        """The best route."""
        with answering():
            order = convert.query(message)
            path = await self._rpcs.query_routes(order)
            return lnrpc.QueryRoutesResponse(routes=[convert.route(path, order.records)], success_prob=0.95)

    async def add_invoice(self, message: lnrpc.Invoice) -> lnrpc.AddInvoiceResponse:
        """A new invoice."""
        with answering():
            invoice = await self._rpcs.add_invoice(
                convert.either(message.value, message.value_msat),
                preimage=message.r_preimage,
                memo=message.memo,
                description_hash=message.description_hash,
                expiry_s=message.expiry,
            )
            return convert.added_invoice(invoice)

    async def decode_pay_req(self, message: lnrpc.PayReqString) -> lnrpc.PayReq:
        """What a payment request says."""
        with answering():
            return convert.pay_req(await self._rpcs.decode_pay_req(message.pay_req))

    async def lookup_invoice(self, message: lnrpc.PaymentHash) -> lnrpc.Invoice:
        """One invoice."""
        with answering():
            return convert.invoice(await self._rpcs.lookup_invoice(message.r_hash))

    async def list_invoices(self, message: lnrpc.ListInvoiceRequest) -> lnrpc.ListInvoiceResponse:
        """A page of invoices."""
        with answering():
            rows = await self._rpcs.list_invoices(
                index_offset=message.index_offset,
                limit=message.num_max_invoices,
                backwards=message.reversed,
                pending_only=message.pending_only,
                created_from_s=message.creation_date_start,
                created_to_s=message.creation_date_end,
            )
        return lnrpc.ListInvoiceResponse(
            invoices=[convert.invoice(row) for row in rows],
            first_index_offset=rows[0].add_index if rows else 0,
            last_index_offset=rows[-1].add_index if rows else 0,
        )

    def __mapping__(self) -> dict[str, Handler]:
        """Every method; those that are not written here answer UNIMPLEMENTED."""
        # Handled without the generated generator, which would have to yield inside the subscription.
        subscribe = Handler(
            self._subscribe_invoices, Cardinality.UNARY_STREAM, lnrpc.InvoiceSubscription, lnrpc.Invoice
        )
        return {**super().__mapping__(), "/lnrpc.Lightning/SubscribeInvoices": subscribe}

    async def _subscribe_invoices(self, stream: ServerStream[lnrpc.InvoiceSubscription, lnrpc.Invoice]) -> None:
        request = await _request(stream)
        with answering():
            async with self._rpcs.subscribe_invoices(
                add_index=request.add_index, settle_index=request.settle_index
            ) as events:
                async for invoice in events:
                    await stream.send_message(convert.invoice(invoice))

    async def list_payments(self, message: lnrpc.ListPaymentsRequest) -> lnrpc.ListPaymentsResponse:
        """A page of payments."""
        with answering():
            rows = await self._rpcs.list_payments(
                include_incomplete=message.include_incomplete,
                index_offset=message.index_offset,
                limit=message.max_payments,
                backwards=message.reversed,
            )
            payments = [convert.payment(row) for row in rows]
            total = 0
            if message.count_total_payments:
                total = len(await self._rpcs.list_payments(include_incomplete=True, limit=2**63))
        if message.omit_hops:
            for attempt in (attempt for payment in payments for attempt in payment.htlcs):
                attempt.route = None
        return lnrpc.ListPaymentsResponse(
            payments=payments,
            first_index_offset=rows[0].index if rows else 0,
            last_index_offset=rows[-1].index if rows else 0,
            total_num_payments=total,
        )

    async def sign_message(self, message: lnrpc.SignMessageRequest) -> lnrpc.SignMessageResponse:
        """A signature of the node."""
        with answering():
            if message.single_hash:
                raise LndError("single_hash is not simulated", Status.UNIMPLEMENTED)
            return lnrpc.SignMessageResponse(signature=zbase32.encode(await self._rpcs.sign_message(message.msg)))

    async def verify_message(self, message: lnrpc.VerifyMessageRequest) -> lnrpc.VerifyMessageResponse:
        """Who made a signature, and whether the graph knows it."""
        with answering():
            try:
                signature = zbase32.decode(message.signature)
            except Malformed as error:
                raise LndError(f"failed to decode signature: {error}") from error
            valid, signer = await self._rpcs.verify_message(message.msg, signature)
        return lnrpc.VerifyMessageResponse(valid=valid, pubkey="" if signer is None else signer.hex)

    async def channel_balance(self, message: lnrpc.ChannelBalanceRequest) -> lnrpc.ChannelBalanceResponse:
        """What is in all channels together."""
        with answering():
            return convert.balances(await self._rpcs.channel_balance())

    async def wallet_balance(self, message: lnrpc.WalletBalanceRequest) -> lnrpc.WalletBalanceResponse:
        """What is on the chain: the simulated network has channels, but no coins."""
        with answering():
            await self._rpcs.channel_balance()  # refused as every call is while the wallet is not open
        return lnrpc.WalletBalanceResponse()

    async def list_channels(self, message: lnrpc.ListChannelsRequest) -> lnrpc.ListChannelsResponse:
        """The payment channels."""
        name, channels = self._lnd.name, []
        with answering():
            for channel, active in await self._rpcs.list_channels():
                peer = await self._rpcs.get_node_info(self._lnd.peer_pubkey(channel).raw)
                channels.append(convert.channel(channel, name, peer.pubkey.hex, active=active))
        return lnrpc.ListChannelsResponse(channels=[channel for channel in channels if _wanted(channel, message)])

    async def check_macaroon_permissions(self, message: lnrpc.CheckMacPermRequest) -> lnrpc.CheckMacPermResponse:
        """Whether a macaroon suffices."""
        needed = [Permission(permission.entity, permission.action) for permission in message.permissions]
        if message.check_default_perms_from_full_method:
            if message.full_method not in REQUIRED:
                text = f"no permissions found for full method {message.full_method}"
                raise GRPCError(Status.INVALID_ARGUMENT, text)
            needed = [REQUIRED[message.full_method]]
        try:
            check_macaroon(message.macaroon, self._root_key, needed, message.full_method)
        except LndError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, error.text) from error
        return lnrpc.CheckMacPermResponse(valid=True)


class Router:
    """routerrpc.Router: a payment, told from its beginning to its end."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/routerrpc.Router/SendPaymentV2": Handler(
                self._send, Cardinality.UNARY_STREAM, routerrpc.SendPaymentRequest, lnrpc.Payment
            ),
            "/routerrpc.Router/TrackPaymentV2": Handler(
                self._track, Cardinality.UNARY_STREAM, routerrpc.TrackPaymentRequest, lnrpc.Payment
            ),
        }

    async def _send(self, stream: ServerStream[routerrpc.SendPaymentRequest, lnrpc.Payment]) -> None:
        request = await _request(stream)
        if request.amp:
            raise GRPCError(Status.UNIMPLEMENTED, "the simulated network does not pay AMP")
        with answering():
            async with self._rpcs.send_payment(convert.order(request)) as updates:
                await _tell(stream, updates, terminal_only=request.no_inflight_updates)

    async def _track(self, stream: ServerStream[routerrpc.TrackPaymentRequest, lnrpc.Payment]) -> None:
        request = await _request(stream)
        with answering():
            async with self._rpcs.track_payment(request.payment_hash) as updates:
                await _tell(stream, updates, terminal_only=request.no_inflight_updates)


async def _tell(
    stream: ServerStream[In, lnrpc.Payment], updates: LiveStream[SimPayment], *, terminal_only: bool
) -> None:
    async for payment in updates:
        if payment.terminal or not terminal_only:
            await stream.send_message(convert.payment(payment))


class State:
    """lnrpc.State: the one service that answers in every state."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/lnrpc.State/GetState": Handler(
                self._get, Cardinality.UNARY_UNARY, lnrpc.GetStateRequest, lnrpc.GetStateResponse
            ),
            "/lnrpc.State/SubscribeState": Handler(
                self._subscribe, Cardinality.UNARY_STREAM, lnrpc.SubscribeStateRequest, lnrpc.SubscribeStateResponse
            ),
        }

    async def _get(self, stream: ServerStream[lnrpc.GetStateRequest, lnrpc.GetStateResponse]) -> None:
        await _request(stream)
        with answering():
            await stream.send_message(lnrpc.GetStateResponse(state=lnrpc.WalletState(int(self._rpcs.state))))

    async def _subscribe(self, stream: ServerStream[lnrpc.SubscribeStateRequest, lnrpc.SubscribeStateResponse]) -> None:
        await _request(stream)
        with answering():
            async with self._rpcs.subscribe_state() as states:
                async for state in states:
                    await stream.send_message(lnrpc.SubscribeStateResponse(state=lnrpc.WalletState(int(state))))


class Invoices:
    """invoicesrpc.Invoices: one invoice in every state."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/invoicesrpc.Invoices/SubscribeSingleInvoice": Handler(
                self._subscribe,
                Cardinality.UNARY_STREAM,
                invoicesrpc.SubscribeSingleInvoiceRequest,
                lnrpc.Invoice,
            )
        }

    async def _subscribe(self, stream: ServerStream[invoicesrpc.SubscribeSingleInvoiceRequest, lnrpc.Invoice]) -> None:
        request = await _request(stream)
        with answering():
            async with self._rpcs.subscribe_single_invoice(request.r_hash) as changes:
                async for invoice in changes:
                    await stream.send_message(convert.invoice(invoice))


async def _request(stream: ServerStream[In, Out]) -> In:
    request = await stream.recv_message()
    assert request is not None, "a method that takes one message is refused without it"
    return request


def check_macaroon(data: bytes, root_key: bytes, needed: list[Permission], path: str) -> None:
    """See whether a macaroon is ours and allows what is needed.

    Raises:
      LndError: in LND's words.
    """
    presented = macaroon.Macaroon.parse(data)
    presented.check(root_key)
    if not macaroon.allows(presented.permissions, needed, path):
        raise LndError("permission denied")


def _wanted(channel: lnrpc.Channel, request: lnrpc.ListChannelsRequest) -> bool:
    return not (
        (request.active_only and not channel.active)
        or (request.inactive_only and channel.active)
        or (request.public_only and channel.private)
        or (request.private_only and not channel.private)
        or (request.peer and request.peer.hex() != channel.remote_pubkey)
    )
