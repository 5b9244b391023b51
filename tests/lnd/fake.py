"""An LND whose every answer a test decides: our own gRPC server over streams in memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from tests.rpc.pair import MemoryListener, serving

from impervious.lnd import Credentials, LndNode, open_lnd, rpcs
from impervious.lnd.connection import Connection
from impervious.lnd.readiness import PAYMENT_NODE, Requirements
from impervious.lnd.rpcs import AnyRpc
from impervious.model import NodePubkey
from impervious.pb.lnrpc import (
    Chain,
    ChannelBalanceRequest,
    ChannelEventSubscription,
    CheckMacPermRequest,
    CheckMacPermResponse,
    Feature,
    GetInfoRequest,
    GetInfoResponse,
    Invoice,
    InvoiceSubscription,
    ListChannelsRequest,
    ListInvoiceRequest,
    ListPaymentsRequest,
    NodeInfoRequest,
    PaymentHash,
    PayReqString,
    QueryRoutesRequest,
    SignMessageRequest,
    SubscribeStateRequest,
    SubscribeStateResponse,
    VerifyMessageRequest,
    WalletBalanceRequest,
    WalletState,
)
from impervious.pb.routerrpc import SendPaymentRequest, SendToRouteRequest, TrackPaymentRequest
from impervious.rpc import CallInfo, open_channel_over
from impervious.rpc.message import Message
from impervious.rpc.server_stream import ServerStream

ALICE = NodePubkey(bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"))
BOB = NodePubkey(bytes.fromhex("02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"))


def bake(*permissions: tuple[str, str], location: bytes = b"lnd", key: bytes = b"\x11") -> bytes:
    """A macaroon as LND makes them: libmacaroon's version 2 around lnrpc.MacaroonId."""
    ops = b"".join(_field(3, _field(1, entity.encode()) + _field(2, action.encode())) for entity, action in permissions)
    identifier = b"\x03" + _field(1, b"nonce") + _field(2, b"0") + ops
    packet = bytes([1, len(location)]) + location if location else b""
    return b"\x02" + packet + b"\x02" + _varint(len(identifier)) + identifier + b"\0\0" + b"\x06\x20" + key * 32


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


MACAROON = bake()
"""Without any permission of its own: what it allows is what FakeLnd says."""

CREDENTIALS = Credentials(host="lnd", port=10009, certificate=None, macaroon=MACAROON)

Answer = Callable[[Message], AsyncGenerator[Message, None]]

_REQUESTS: Mapping[AnyRpc, type[Message]] = {
    rpcs.SUBSCRIBE_STATE: SubscribeStateRequest,
    rpcs.GET_INFO: GetInfoRequest,
    rpcs.GET_NODE_INFO: NodeInfoRequest,
    rpcs.QUERY_ROUTES: QueryRoutesRequest,
    rpcs.ADD_INVOICE: Invoice,
    rpcs.DECODE_PAY_REQ: PayReqString,
    rpcs.LIST_PAYMENTS: ListPaymentsRequest,
    rpcs.CHANNEL_BALANCE: ChannelBalanceRequest,
    rpcs.WALLET_BALANCE: WalletBalanceRequest,
    rpcs.LOOKUP_INVOICE: PaymentHash,
    rpcs.LIST_INVOICES: ListInvoiceRequest,
    rpcs.SUBSCRIBE_INVOICES: InvoiceSubscription,
    rpcs.SIGN_MESSAGE: SignMessageRequest,
    rpcs.VERIFY_MESSAGE: VerifyMessageRequest,
    rpcs.CHECK_MACAROON: CheckMacPermRequest,
    rpcs.SEND_PAYMENT: SendPaymentRequest,
    rpcs.TRACK_PAYMENT: TrackPaymentRequest,
    rpcs.SEND_TO_ROUTE: SendToRouteRequest,
    rpcs.LIST_CHANNELS: ListChannelsRequest,
    rpcs.SUBSCRIBE_CHANNELS: ChannelEventSubscription,
}
_STREAMS = {
    rpcs.SUBSCRIBE_CHANNELS,
    rpcs.SUBSCRIBE_STATE,
    rpcs.SUBSCRIBE_INVOICES,
    rpcs.SEND_PAYMENT,
    rpcs.TRACK_PAYMENT,
}


def info(**changes: object) -> GetInfoResponse:
    """GetInfo of an LND that has everything."""
    fields: dict[str, object] = {
        "identity_pubkey": ALICE.hex,
        "alias": "alice",
        "version": "0.21.2-beta commit=v0.21.2-beta",
        "chains": [Chain(network="regtest")],
        "features": {55: Feature(name="keysend", is_known=True)},
        "synced_to_chain": True,
        "block_height": 456,
    }
    return GetInfoResponse(**{**fields, **changes})  # type: ignore[arg-type]  # a test's own business


def says(*items: Message | GRPCError, then_hang: bool = False) -> Answer:
    """Answer with these messages; an error among them ends the call."""

    async def answer(_request: Message) -> AsyncGenerator[Message, None]:
        for item in items:
            if isinstance(item, GRPCError):
                raise item
            yield item
        if then_hang:
            await trio.sleep_forever()

    return answer


def refuses(words: str, status: Status = Status.UNKNOWN) -> Answer:
    return says(GRPCError(status, words))


class FakeLnd:
    """Its wallet is active, its macaroon allows everything, and the rest a test puts into `answers`."""

    def __init__(self) -> None:
        self.wallet = WalletState.SERVER_ACTIVE
        self.info = info()
        self.denied: set[str] = set()
        """Names of RPCs that the macaroon does not allow."""
        self.requests: list[Message] = []
        self.calls: list[CallInfo] = []
        self.listener = MemoryListener()
        self.up = True
        self.answers: dict[AnyRpc, Answer] = {
            rpcs.SUBSCRIBE_STATE: self._states,
            rpcs.GET_INFO: self._info,
            rpcs.CHECK_MACAROON: self._check,
        }
        self._changed = trio.Event()
        self._leaving = False

    def become(self, wallet: WalletState) -> None:
        self.wallet = wallet
        self._changed.set()
        self._changed = trio.Event()

    def leave(self) -> None:
        """Shut down, and be there again at once."""
        self._leaving = True
        self.become(self.wallet)

    async def break_connections(self) -> None:
        for end in self.listener.client_ends:
            await trio.aclose_forcefully(end)
        self.listener.client_ends.clear()

    async def dial(self) -> trio.abc.Stream:
        if not self.up:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError(111, "refused")
        return await self.listener.connect()

    def asked(self, request_type: type[Message]) -> list[Message]:
        return [request for request in self.requests if isinstance(request, request_type)]

    # --- What it says by itself ---

    async def _states(self, _request: Message) -> AsyncGenerator[Message, None]:
        while True:
            changed = self._changed
            yield SubscribeStateResponse(state=self.wallet)
            await changed.wait()
            if self._leaving:
                self._leaving = False
                raise GRPCError(Status.UNKNOWN, "server exiting")

    async def _info(self, _request: Message) -> AsyncGenerator[Message, None]:
        yield self.info

    async def _check(self, request: Message) -> AsyncGenerator[Message, None]:
        assert isinstance(request, CheckMacPermRequest)
        assert request.macaroon == MACAROON
        assert request.permissions, "without them old LNDs find that nothing is asked"
        if request.full_method.rpartition("/")[2] in self.denied:
            raise GRPCError(Status.INVALID_ARGUMENT, "permission denied")
        yield CheckMacPermResponse(valid=True)

    # --- Serving ---

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            rpc.path: Handler(
                partial(self._serve, rpc),
                Cardinality.UNARY_STREAM if rpc in _STREAMS else Cardinality.UNARY_UNARY,
                request_type,
                rpc.response,
            )
            for rpc, request_type in _REQUESTS.items()
        }

    async def _serve(self, rpc: AnyRpc, stream: ServerStream[Message, Message]) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.requests.append(request)
        if rpc not in self.answers:
            raise GRPCError(Status.UNIMPLEMENTED, f"no answer for {rpc.name}")
        async with aclosing(self.answers[rpc](request)) as responses:
            async for response in responses:
                await stream.send_message(response)

    @asynccontextmanager
    async def connect(self, credentials: Credentials) -> AsyncIterator[Connection]:
        """`lnd.connection.open_connection`, but over memory."""
        metadata = credentials.metadata()
        async with (
            open_channel_over(self.dial, authority="lnd:10009", metadata=metadata) as calls,
            open_channel_over(self.dial, authority="lnd:10009", metadata=metadata) as invoices,
        ):
            yield Connection(credentials=credentials, calls=calls, invoices=invoices)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        async with serving(self, on_call=self.calls.append) as (_server, listener, _scope):
            self.listener = listener
            yield


@asynccontextmanager
async def opened(
    fake: FakeLnd, credentials: Credentials = CREDENTIALS, requires: Requirements = PAYMENT_NODE
) -> AsyncIterator[LndNode]:
    """A client of a running fake."""
    async with fake.serve():
        async with open_lnd(credentials, requires=requires, connect=fake.connect, random=lambda: 0.0) as node:
            yield node
