"""lnrpc.Lightning over the RPCs of a simulated node."""

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from impervious.pb import lnrpc
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.answers import LndError, from_hex
from impervious.sim.face import convert, graph, requests
from impervious.sim.face.answering import Gate, answering, request_of
from impervious.sim.face.caveats import Caller
from impervious.sim.face.permissions import REQUIRED, Permission
from impervious.sim.lnd import SimLnd
from impervious.wire import zbase32


class Lightning(lnrpc.LightningBase):
    """lnrpc.Lightning."""

    def __init__(self, lnd: SimLnd, gate: Gate) -> None:
        self._lnd = lnd
        self._rpcs = lnd.rpcs
        self._gate = gate

    async def get_info(self, message: lnrpc.GetInfoRequest) -> lnrpc.GetInfoResponse:
        """Who it is."""
        with answering():
            return convert.info(await self._rpcs.get_info(), now_s=self._rpcs.now_s)

    async def get_node_info(self, message: lnrpc.NodeInfoRequest) -> lnrpc.NodeInfo:
        """What the graph says of a node."""
        with answering():
            known = await self._rpcs.get_node_info(requests.vertex(message.pub_key))
            view = await self._rpcs.view()
            return graph.node_info(known, view, now_s=self._rpcs.now_s, with_channels=message.include_channels)

    async def query_routes(self, message: lnrpc.QueryRoutesRequest) -> lnrpc.QueryRoutesResponse:
        """The best route."""
        with answering():
            order = requests.query(message)
            path = await self._rpcs.query_routes(order, mission_control=message.use_mission_control)
            route = convert.route(path, order)
            return lnrpc.QueryRoutesResponse(routes=[route], success_prob=path.probability)

    async def add_invoice(self, message: lnrpc.Invoice) -> lnrpc.AddInvoiceResponse:
        """A new invoice."""
        with answering():
            return convert.added_invoice(await self._rpcs.add_invoice(requests.ask(message)))

    async def decode_pay_req(self, message: lnrpc.PayReqString) -> lnrpc.PayReq:
        """What a payment request says."""
        with answering():
            return convert.pay_req(await self._rpcs.decode_pay_req(message.pay_req))

    async def lookup_invoice(self, message: lnrpc.PaymentHash) -> lnrpc.Invoice:
        """One invoice."""
        with answering():
            key = from_hex(message.r_hash_str) if message.r_hash_str else message.r_hash
            return convert.invoice(await self._rpcs.lookup_invoice(key))

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
        channels = Handler(
            self._subscribe_channel_events,
            Cardinality.UNARY_STREAM,
            lnrpc.ChannelEventSubscription,
            lnrpc.ChannelEventUpdate,
        )
        return {
            **super().__mapping__(),
            "/lnrpc.Lightning/SubscribeInvoices": subscribe,
            "/lnrpc.Lightning/SubscribeChannelEvents": channels,
        }

    async def _subscribe_invoices(self, stream: ServerStream[lnrpc.InvoiceSubscription, lnrpc.Invoice]) -> None:
        request = await request_of(stream)
        with answering():
            async with self._rpcs.subscribe_invoices(
                add_index=request.add_index, settle_index=request.settle_index
            ) as events:
                async for invoice in events:
                    await stream.send_message(convert.invoice(invoice))

    async def _subscribe_channel_events(
        self, stream: ServerStream[lnrpc.ChannelEventSubscription, lnrpc.ChannelEventUpdate]
    ) -> None:
        await request_of(stream)
        with answering():
            async with self._rpcs.subscribe_channel_events() as events:
                async for event in events:
                    await stream.send_message(convert.channel_event(event))

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
            signature = await self._rpcs.sign_message(message.msg, single_hash=message.single_hash)
            return lnrpc.SignMessageResponse(signature=zbase32.encode(signature))

    async def verify_message(self, message: lnrpc.VerifyMessageRequest) -> lnrpc.VerifyMessageResponse:
        """Who made a signature, and whether the graph knows it."""
        with answering():
            signature = requests.signature(message.signature)
            valid, signer = await self._rpcs.verify_message(message.msg, signature)
        return lnrpc.VerifyMessageResponse(valid=valid, pubkey="" if signer is None else signer.hex)

    async def channel_balance(self, message: lnrpc.ChannelBalanceRequest) -> lnrpc.ChannelBalanceResponse:
        """What is in all channels together."""
        with answering():
            return convert.balances(await self._rpcs.channel_balance())

    async def wallet_balance(self, message: lnrpc.WalletBalanceRequest) -> lnrpc.WalletBalanceResponse:
        """What is on the chain: the simulated network has channels, but no coins."""
        with answering():
            return convert.wallet(len(await self._rpcs.list_channels()))

    async def list_channels(self, message: lnrpc.ListChannelsRequest) -> lnrpc.ListChannelsResponse:
        """The payment channels."""
        name, channels = self._lnd.name, []
        with answering():
            if message.peer and len(message.peer) != 33:
                raise LndError(f"invalid `peer` key: invalid vertex length of {len(message.peer)}, want 33")
            for channel, active in await self._rpcs.list_channels():
                row = convert.channel(
                    channel,
                    name,
                    self._lnd.peer_pubkey(channel).hex,
                    active=active,
                    lifetime_s=self._rpcs.running_s,
                    alias=message.peer_alias_lookup,
                )
                channels.append(row)
        return lnrpc.ListChannelsResponse(channels=[channel for channel in channels if _wanted(channel, message)])

    async def check_macaroon_permissions(self, message: lnrpc.CheckMacPermRequest) -> lnrpc.CheckMacPermResponse:
        """Whether a macaroon suffices."""
        needed = [Permission(permission.entity, permission.action) for permission in message.permissions]
        if message.check_default_perms_from_full_method:
            with answering():
                needed = [_default(message)]
        try:
            caller = Caller(host="", now_s=self._rpcs.now_exactly_s)
            self._gate.check(message.macaroon, needed, message.full_method, caller)
        except LndError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, error.text) from error
        return lnrpc.CheckMacPermResponse(valid=True)


def _default(message: lnrpc.CheckMacPermRequest) -> Permission:
    begin = "cannot check default permissions from full method"
    if message.permissions:
        raise LndError(f"{begin} and from provided permission list at the same time")
    if not message.full_method:
        raise LndError(f"{begin} without providing the full method name")
    if message.full_method not in REQUIRED:
        raise LndError(f"no permissions found for full method {message.full_method}")
    return REQUIRED[message.full_method]


def _wanted(channel: lnrpc.Channel, request: lnrpc.ListChannelsRequest) -> bool:
    return not (
        (request.active_only and not channel.active)
        or (request.inactive_only and channel.active)
        or (request.public_only and channel.private)
        or (request.private_only and not channel.private)
        or (request.peer and request.peer.hex() != channel.remote_pubkey)
    )
