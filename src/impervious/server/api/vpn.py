"""Tunnels: bought from other nodes, and sold."""

from functools import partial
from typing import Final

from impervious.errors import InvalidArgument
from impervious.pb.vpn import (
    AcceptContractRequest,
    AcceptContractResponse,
    CancelContractRequest,
    CancelContractResponse,
    Contract,
    GetConfigRequest,
    GetConfigResponse,
    GetContractRequest,
    ListContractsRequest,
    ListContractsResponse,
    RefreshContractRequest,
    RefreshContractResponse,
    RenewContractRequest,
    RenewContractResponse,
    RequestQuoteRequest,
    RequestQuoteResponse,
)
from impervious.server.operations import EXAMPLE_PUBKEY, CallContext, Operation, operation
from impervious.services.vpn.contract import SECOND_MS, Sold
from impervious.services.vpn.purchase import Bought
from impervious.services.vpn.service import VpnService
from impervious.services.vpn.told import Role
from impervious.units import Sat, sat_charged, sat_credited
from impervious.wireguard import interface_name

_MAX_SAT: Final = Sat(21 * 10**14)
"""All there are; more would not fit once it is in msat."""
_NONCE: Final = "8c1f0b7e4d2a96535c0e7fb1a2d84693"
"""For the documentation."""


def operations(service: VpnService) -> list[Operation]:
    """List the rows of the vpn service."""
    config = service.context.config
    return [
        operation(
            "/vpn.VPN/RequestQuote",
            "POST /v1/vpn/quote",
            RequestQuoteRequest,
            RequestQuoteResponse,
            partial(request_quote, service),
            service=config,
            keyed=True,
        ),
        operation(
            "/vpn.VPN/AcceptContract",
            "POST /v1/vpn/contract",
            AcceptContractRequest,
            AcceptContractResponse,
            partial(accept_contract, service),
            service=config,
            example=AcceptContractRequest(pubkey=EXAMPLE_PUBKEY, nonce=_NONCE, price="100"),
            needs=["nonce", "price"],
            keyed=True,
        ),
        operation(
            "/vpn.VPN/RefreshContract",
            "POST /v1/vpn/refresh",
            RefreshContractRequest,
            RefreshContractResponse,
            partial(refresh_contract, service),
            service=config,
            example=RefreshContractRequest(pubkey=EXAMPLE_PUBKEY, nonce=_NONCE, price="100"),
            needs=["nonce", "price"],
            keyed=True,
        ),
        operation(
            "/vpn.VPN/ListContracts",
            "GET /v1/vpn/contracts",
            ListContractsRequest,
            ListContractsResponse,
            partial(list_contracts, service),
            service=config,
        ),
        operation(
            "/vpn.VPN/GetContract",
            "POST /v1/vpn/get",
            GetContractRequest,
            Contract,
            partial(get_contract, service),
            service=config,
            example=GetContractRequest(nonce=_NONCE),
            needs=["nonce"],
        ),
        operation(
            "/vpn.VPN/GetConfig",
            "POST /v1/vpn/config",
            GetConfigRequest,
            GetConfigResponse,
            partial(get_config, service),
            service=config,
            example=GetConfigRequest(nonce=_NONCE),
            needs=["nonce"],
        ),
        operation(
            "/vpn.VPN/CancelContract",
            "POST /v1/vpn/cancel",
            CancelContractRequest,
            CancelContractResponse,
            partial(cancel_contract, service),
            service=config,
            example=CancelContractRequest(nonce=_NONCE),
            needs=["nonce"],
        ),
        operation(
            "/vpn.VPN/RenewContract",
            "POST /v1/vpn/renew",
            RenewContractRequest,
            RenewContractResponse,
            partial(renew_contract, service),
            service=config,
            example=RenewContractRequest(pubkey=EXAMPLE_PUBKEY, nonce=_NONCE, budget=1000),
            needs=["nonce"],
        ),
    ]


async def request_quote(
    service: VpnService, request: RequestQuoteRequest, context: CallContext
) -> RequestQuoteResponse:
    """Ask for a price."""
    key = context.idempotency_key
    identifier = await service.request_quote(request.pubkey, request.hours or 1, idempotency_key=key, wait=request.wait)
    return RequestQuoteResponse(id=str(identifier))


async def accept_contract(
    service: VpnService, request: AcceptContractRequest, context: CallContext
) -> AcceptContractResponse:
    """Pay a quote."""
    most, renewals = _price(request.price), _sat(request.renewals, "renewals")
    identifier = await service.accept(
        request.pubkey,
        request.nonce,
        most,
        renewals=renewals,
        idempotency_key=context.idempotency_key,
        wait=request.wait,
    )
    return AcceptContractResponse(id=str(identifier))


async def refresh_contract(
    service: VpnService, request: RefreshContractRequest, context: CallContext
) -> RefreshContractResponse:
    """Buy more time."""
    identifier = await service.refresh(
        request.pubkey,
        request.nonce,
        _price(request.price),
        idempotency_key=context.idempotency_key,
        wait=request.wait,
    )
    return RefreshContractResponse(id=str(identifier))


async def list_contracts(
    service: VpnService, request: ListContractsRequest, _context: CallContext
) -> ListContractsResponse:
    """List what was sold and bought."""
    roles = {each.value for each in Role}
    if request.role not in {"", *roles}:
        raise InvalidArgument(f"role must be {' or '.join(sorted(roles))}, or empty for both")
    contracts = [_sold(each) for each in await service.sold()] + [_bought(each) for each in await service.bought()]
    return ListContractsResponse(contracts=[each for each in contracts if request.role in ("", each.role)])


async def get_contract(service: VpnService, request: GetContractRequest, _context: CallContext) -> Contract:
    """Look one up."""
    return _shown(await service.contract(request.nonce, request.pubkey))


async def get_config(service: VpnService, request: GetConfigRequest, _context: CallContext) -> GetConfigResponse:
    """Give a tunnel's file."""
    found = await service.bought_one(request.nonce, request.pubkey)
    return GetConfigResponse(
        config=await service.config(request.nonce, found.seller),
        interface=interface_name(f"{found.seller.hex} {found.nonce}"),
    )


async def cancel_contract(
    service: VpnService, request: CancelContractRequest, _context: CallContext
) -> CancelContractResponse:
    """End a contract early."""
    return CancelContractResponse(refunded=sat_credited(await service.cancel(request.nonce, request.reason)))


async def renew_contract(
    service: VpnService, request: RenewContractRequest, _context: CallContext
) -> RenewContractResponse:
    """Say what a contract may spend by itself."""
    await service.renew_itself(request.pubkey, request.nonce, _sat(request.budget, "budget"))
    return RenewContractResponse()


def _price(text: str) -> Sat:
    """Read a price: the published field is a text."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_SAT))):
        raise InvalidArgument('price must be whole satoshis in digits, such as "100"')
    return _sat(int(text), "price")


def _sat(number: int, name: str) -> Sat:
    if number > _MAX_SAT:
        raise InvalidArgument(f"{name} is more than there are satoshis")
    return Sat(number)


def _shown(contract: Sold | Bought) -> Contract:
    return _sold(contract) if isinstance(contract, Sold) else _bought(contract)


def _sold(contract: Sold) -> Contract:
    return Contract(
        role=Role.SELLER.value,
        pubkey=contract.buyer.hex,
        nonce=contract.nonce,
        state=contract.phase.value,
        price=sat_credited(contract.price),
        hours=contract.hours,
        expires_at=contract.term.expires_ms // SECOND_MS,
        address=str(contract.address),
        reason=contract.reason,
        received_bytes=contract.traffic.received_bytes,
        sent_bytes=contract.traffic.sent_bytes,
    )


def _bought(contract: Bought) -> Contract:
    return Contract(
        role=Role.BUYER.value,
        pubkey=contract.seller.hex,
        nonce=contract.nonce,
        state=contract.stage.value,
        price=sat_charged(contract.price),
        hours=contract.hours,
        expires_at=contract.term.expires_ms // SECOND_MS if contract.term else 0,
        address=str(contract.config.address) if contract.config else "",
        endpoint=str(contract.config.endpoint) if contract.config else "",
        reason=contract.reason,
        renewals=sat_credited(contract.budget),
        renewed=sat_charged(contract.renewals),
        returned=sat_credited(contract.returned),
    )
