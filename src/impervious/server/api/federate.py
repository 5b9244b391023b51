"""Federation: who knows whom, and for how long."""

from functools import partial

from impervious import model
from impervious.pb.federate import (
    AcceptFederationRequest,
    AcceptFederationResponse,
    FederationRequest,
    GetPeerRequest,
    LeaveFederationRequest,
    LeaveFederationResponse,
    ListPeersRequest,
    ListPeersResponse,
    ListRequestsRequest,
    ListRequestsResponse,
    Peer,
    RejectFederationRequest,
    RejectFederationResponse,
    RequestFederateRequest,
    RequestFederateResponse,
)
from impervious.server.operations import CallContext, Operation, operation
from impervious.services.federate import FederateService


def operations(service: FederateService) -> list[Operation]:
    """List the rows of the federate service."""
    config = service.context.config
    return [
        operation(
            "/federate.Federate/RequestFederate",
            "POST /v1/federate/request",
            RequestFederateRequest,
            RequestFederateResponse,
            partial(request_federate, service),
            service=config,
            keyed=True,
        ),
        operation(
            "/federate.Federate/LeaveFederation",
            "POST /v1/federate/leave",
            LeaveFederationRequest,
            LeaveFederationResponse,
            partial(leave_federation, service),
            service=config,
            keyed=True,
        ),
        operation(
            "/federate.Federate/ListPeers",
            "GET /v1/federate/peers",
            ListPeersRequest,
            ListPeersResponse,
            partial(list_peers, service),
            service=config,
        ),
        operation(
            "/federate.Federate/GetPeer",
            "POST /v1/federate/peer",
            GetPeerRequest,
            Peer,
            partial(get_peer, service),
            service=config,
        ),
        operation(
            "/federate.Federate/ListRequests",
            "GET /v1/federate/requests",
            ListRequestsRequest,
            ListRequestsResponse,
            partial(list_requests, service),
            service=config,
        ),
        operation(
            "/federate.Federate/AcceptFederation",
            "POST /v1/federate/accept",
            AcceptFederationRequest,
            AcceptFederationResponse,
            partial(accept_federation, service),
            service=config,
            keyed=True,
        ),
        operation(
            "/federate.Federate/RejectFederation",
            "POST /v1/federate/reject",
            RejectFederationRequest,
            RejectFederationResponse,
            partial(reject_federation, service),
            service=config,
            keyed=True,
        ),
    ]


async def request_federate(
    service: FederateService, request: RequestFederateRequest, context: CallContext
) -> RequestFederateResponse:
    """Ask a node to remember us."""
    identifier = await service.request(request.pubkey, idempotency_key=context.idempotency_key, wait=request.wait)
    return RequestFederateResponse(id=str(identifier))


async def leave_federation(
    service: FederateService, request: LeaveFederationRequest, context: CallContext
) -> LeaveFederationResponse:
    """Forget a peer."""
    identifier = await service.leave(request.pubkey, idempotency_key=context.idempotency_key, wait=request.wait)
    return LeaveFederationResponse(id=str(identifier))


async def list_peers(service: FederateService, _request: ListPeersRequest, _context: CallContext) -> ListPeersResponse:
    """List the peers."""
    return ListPeersResponse(peers=[_shown(peer) for peer in await service.peers()])


async def get_peer(service: FederateService, request: GetPeerRequest, _context: CallContext) -> Peer:
    """Look one peer up."""
    return _shown(await service.peer(request.pubkey))


async def list_requests(
    service: FederateService, _request: ListRequestsRequest, _context: CallContext
) -> ListRequestsResponse:
    """List who waits for a word."""
    return ListRequestsResponse(
        requests=[
            FederationRequest(
                id=str(each.id),
                pubkey=each.pubkey.hex,
                imp_id=each.imp_id,
                ttl_s=each.ttl_s,
                services=list(each.services),
                asked_at_ms=each.asked_at_ms,
                expires_ms=each.expires_ms,
            )
            for each in await service.requests()
        ]
    )


async def accept_federation(
    service: FederateService, request: AcceptFederationRequest, context: CallContext
) -> AcceptFederationResponse:
    """Remember a node that asked for it."""
    identifier = await service.accept(request.pubkey, idempotency_key=context.idempotency_key)
    return AcceptFederationResponse(id=str(identifier))


async def reject_federation(
    service: FederateService, request: RejectFederationRequest, context: CallContext
) -> RejectFederationResponse:
    """Refuse a node that asked to be remembered."""
    identifier = await service.reject(request.pubkey, idempotency_key=context.idempotency_key)
    return RejectFederationResponse(id=str(identifier))


def _shown(peer: model.Peer) -> Peer:
    return Peer(
        imp_id=peer.imp_id,
        pubkey=peer.pubkey.hex,
        since_ms=peer.since_ms,
        expires_ms=peer.expires_ms,
        services=list(peer.services),
    )
