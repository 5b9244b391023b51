"""LND's RPCs as values: where each is, what it answers, which permission a macaroon needs for it.

`LndNode.call` and `LndNode.stream` take them; an RPC that is not listed here can be given in the same form, with
messages of any protobuf library.
"""

from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from impervious.pb.lnrpc import (
    AddInvoiceResponse,
    ChannelBalanceResponse,
    ChannelEventUpdate,
    CheckMacPermResponse,
    GetInfoResponse,
    HtlcAttempt,
    Invoice,
    ListChannelsResponse,
    ListInvoiceResponse,
    ListPaymentsResponse,
    NodeInfo,
    Payment,
    PayReq,
    QueryRoutesResponse,
    SignMessageResponse,
    SubscribeStateResponse,
    VerifyMessageResponse,
    WalletBalanceResponse,
)
from impervious.rpc.message import Message

Response = TypeVar("Response", bound=Message)
_Response_co = TypeVar("_Response_co", bound=Message, covariant=True)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[_Response_co]):
    """One method of LND's."""

    path: str
    response: type[_Response_co]
    permission: tuple[str, str] | None = None
    """Entity and action in LND's table; None: needs no macaroon, or is not known here."""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path.rpartition("/")[2]

    @property
    def uri(self) -> str:
        """The permission for it alone, as `lncli bakemacaroon` takes it."""
        return f"uri:{self.path}"


AnyRpc: TypeAlias = Rpc[Message]

SUBSCRIBE_STATE: Final = Rpc("/lnrpc.State/SubscribeState", SubscribeStateResponse)
GET_INFO: Final = Rpc("/lnrpc.Lightning/GetInfo", GetInfoResponse, ("info", "read"))
GET_NODE_INFO: Final = Rpc("/lnrpc.Lightning/GetNodeInfo", NodeInfo, ("info", "read"))
QUERY_ROUTES: Final = Rpc("/lnrpc.Lightning/QueryRoutes", QueryRoutesResponse, ("info", "read"))
ADD_INVOICE: Final = Rpc("/lnrpc.Lightning/AddInvoice", AddInvoiceResponse, ("invoices", "write"))
DECODE_PAY_REQ: Final = Rpc("/lnrpc.Lightning/DecodePayReq", PayReq, ("offchain", "read"))
LOOKUP_INVOICE: Final = Rpc("/lnrpc.Lightning/LookupInvoice", Invoice, ("invoices", "read"))
LIST_INVOICES: Final = Rpc("/lnrpc.Lightning/ListInvoices", ListInvoiceResponse, ("invoices", "read"))
SUBSCRIBE_INVOICES: Final = Rpc("/lnrpc.Lightning/SubscribeInvoices", Invoice, ("invoices", "read"))
LIST_PAYMENTS: Final = Rpc("/lnrpc.Lightning/ListPayments", ListPaymentsResponse, ("offchain", "read"))
SIGN_MESSAGE: Final = Rpc("/lnrpc.Lightning/SignMessage", SignMessageResponse, ("message", "write"))
VERIFY_MESSAGE: Final = Rpc("/lnrpc.Lightning/VerifyMessage", VerifyMessageResponse, ("message", "read"))
CHANNEL_BALANCE: Final = Rpc("/lnrpc.Lightning/ChannelBalance", ChannelBalanceResponse, ("offchain", "read"))
WALLET_BALANCE: Final = Rpc("/lnrpc.Lightning/WalletBalance", WalletBalanceResponse, ("onchain", "read"))
LIST_CHANNELS: Final = Rpc("/lnrpc.Lightning/ListChannels", ListChannelsResponse, ("offchain", "read"))
CHECK_MACAROON: Final = Rpc("/lnrpc.Lightning/CheckMacaroonPermissions", CheckMacPermResponse, ("macaroon", "read"))
SUBSCRIBE_CHANNELS: Final = Rpc("/lnrpc.Lightning/SubscribeChannelEvents", ChannelEventUpdate, ("offchain", "read"))
SEND_TO_ROUTE: Final = Rpc("/routerrpc.Router/SendToRouteV2", HtlcAttempt, ("offchain", "write"))
SEND_PAYMENT: Final = Rpc("/routerrpc.Router/SendPaymentV2", Payment, ("offchain", "write"))
TRACK_PAYMENT: Final = Rpc("/routerrpc.Router/TrackPaymentV2", Payment, ("offchain", "read"))
