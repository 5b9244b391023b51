"""Who may call what: LND's permission of each RPC (rpcserver.go, MainRPCServerPermissions)."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """An operation on an entity, such as offchain:write; or the entity `uri` with the path of one RPC."""

    entity: str
    action: str


URI: Final = "uri"
"""The entity of permissions that name one RPC."""

_LIGHTNING: Final = {
    "GetInfo": ("info", "read"),
    "GetNodeInfo": ("info", "read"),
    "QueryRoutes": ("info", "read"),
    "AddInvoice": ("invoices", "write"),
    "LookupInvoice": ("invoices", "read"),
    "ListInvoices": ("invoices", "read"),
    "SubscribeInvoices": ("invoices", "read"),
    "DecodePayReq": ("offchain", "read"),
    "ListPayments": ("offchain", "read"),
    "SignMessage": ("message", "write"),
    "VerifyMessage": ("message", "read"),
    "ChannelBalance": ("offchain", "read"),
    "WalletBalance": ("onchain", "read"),
    "ListChannels": ("offchain", "read"),
    "SubscribeChannelEvents": ("offchain", "read"),
    "ListPeers": ("peers", "read"),
    "DescribeGraph": ("info", "read"),
    "GetChanInfo": ("info", "read"),
    "GetNetworkInfo": ("info", "read"),
    "FeeReport": ("offchain", "read"),
    "ForwardingHistory": ("offchain", "read"),
    "NewAddress": ("address", "write"),
    "PendingChannels": ("offchain", "read"),
    "ClosedChannels": ("offchain", "read"),
    "BakeMacaroon": ("macaroon", "generate"),
    "CheckMacaroonPermissions": ("macaroon", "read"),
}

REQUIRED: Final = {
    **{f"/lnrpc.Lightning/{name}": Permission(*needed) for name, needed in _LIGHTNING.items()},
    "/routerrpc.Router/SendPaymentV2": Permission("offchain", "write"),
    "/routerrpc.Router/SendToRouteV2": Permission("offchain", "write"),
    "/routerrpc.Router/ResetMissionControl": Permission("offchain", "write"),
    "/routerrpc.Router/TrackPaymentV2": Permission("offchain", "read"),
    "/routerrpc.Router/QueryMissionControl": Permission("offchain", "read"),
    "/routerrpc.Router/EstimateRouteFee": Permission("offchain", "read"),
    "/invoicesrpc.Invoices/SubscribeSingleInvoice": Permission("invoices", "read"),
    "/invoicesrpc.Invoices/AddHoldInvoice": Permission("invoices", "write"),
    "/invoicesrpc.Invoices/SettleInvoice": Permission("invoices", "write"),
    "/invoicesrpc.Invoices/CancelInvoice": Permission("invoices", "write"),
    "/invoicesrpc.Invoices/LookupInvoiceV2": Permission("invoices", "write"),
    "/verrpc.Versioner/GetVersion": Permission("info", "read"),
}
"""Path -> what it takes. A path that is not here takes nothing: State's two."""

ACTIONS: Final = ("read", "write", "generate")
ENTITIES: Final = (
    *("onchain", "offchain", "address", "message", "remotesigner", "peers", "info", "invoices", "signer", "macaroon"),
    URI,
)
"""What BakeMacaroon takes, in LND's order."""

OPEN: Final = frozenset({"/lnrpc.State/GetState", "/lnrpc.State/SubscribeState"})
"""What answers without a macaroon, whatever state the wallet is in."""

ADMIN: Final = frozenset(
    {
        *(
            Permission(entity, action)
            for entity in (
                "onchain",
                "offchain",
                "address",
                "message",
                "peers",
                "info",
                "invoices",
                "signer",
                "macaroon",
            )
            for action in ("read", "write")
        ),
        Permission("signer", "generate"),
        Permission("macaroon", "generate"),
    }
)
"""What admin.macaroon may do: everything."""
