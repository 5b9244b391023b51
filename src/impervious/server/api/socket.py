"""Sockets: sessions of the UDP relay."""

from dataclasses import asdict
from functools import partial

import trio

from impervious.pb.socket import (
    GetSocketRequest,
    ListSocketsRequest,
    ListSocketsResponse,
    SendSocketRequest,
    SendSocketResponse,
    SocketDropped,
    SocketSession,
    SocketSide,
    StartSocketRequest,
    StartSocketResponse,
    StopSocketRequest,
    StopSocketResponse,
)
from impervious.relay import SessionStatistics, SideStatistics
from impervious.server.operations import CallContext, Operation, operation
from impervious.services.socket import DEFAULT_SESSION, PROTOCOL, SocketService
from impervious.wire.payloads import port_text


def operations(service: SocketService) -> list[Operation]:
    """List the rows of the socket service."""
    config = service.context.config
    return [
        operation(
            "/socket.Socket/SendSocket",
            "POST /v1/socket/sendRequest",
            SendSocketRequest,
            SendSocketResponse,
            partial(send_socket, service),
            service=config,
            keyed=True,
        ),
        operation(
            "/socket.Socket/StartSocket",
            "POST /v1/socket/start",
            StartSocketRequest,
            StartSocketResponse,
            partial(start_socket, service),
            service=config,
        ),
        operation(
            "/socket.Socket/StopSocket",
            "POST /v1/socket/stop",
            StopSocketRequest,
            StopSocketResponse,
            partial(stop_socket, service),
            service=config,
        ),
        operation(
            "/socket.Socket/GetSocket",
            "POST /v1/socket/get",
            GetSocketRequest,
            SocketSession,
            partial(get_socket, service),
            service=config,
        ),
        operation(
            "/socket.Socket/ListSockets",
            "GET /v1/socket/list",
            ListSocketsRequest,
            ListSocketsResponse,
            partial(list_sockets, service),
            service=config,
        ),
    ]


async def send_socket(service: SocketService, request: SendSocketRequest, context: CallContext) -> SendSocketResponse:
    """Tell a node where a session is."""
    sent = await service.send(
        request.pubkey,
        request.session or DEFAULT_SESSION,
        idempotency_key=context.idempotency_key,
        wait=request.wait,
    )
    return SendSocketResponse(id=str(sent))


async def start_socket(service: SocketService, request: StartSocketRequest, _: CallContext) -> StartSocketResponse:
    """Open a session."""
    opened = await service.start(request.session or DEFAULT_SESSION)
    token1, token2 = (token.hex for token in opened.tokens) if opened.tokens else ("", "")
    port1, port2 = map(port_text, opened.ports)
    return StartSocketResponse(
        protocol=PROTOCOL,
        ip=opened.ip,
        port1=port1,
        port2=port2,
        session=opened.session,
        token1=token1,
        token2=token2,
    )


async def stop_socket(service: SocketService, request: StopSocketRequest, _: CallContext) -> StopSocketResponse:
    """Close a session."""
    await service.stop(request.session or DEFAULT_SESSION)
    return StopSocketResponse()


async def get_socket(service: SocketService, request: GetSocketRequest, _: CallContext) -> SocketSession:
    """Show an open session."""
    await trio.lowlevel.checkpoint()
    return _session(service.statistics(request.session or DEFAULT_SESSION), service.ip)


async def list_sockets(service: SocketService, _request: ListSocketsRequest, _: CallContext) -> ListSocketsResponse:
    """Show every open session."""
    await trio.lowlevel.checkpoint()
    return ListSocketsResponse(
        sessions=[_session(each, service.ip) for each in service.sessions()],
        free=len(service.free_pairs()) if service.ip else 0,
    )


def _session(found: SessionStatistics, ip: str) -> SocketSession:
    first, second = found.sides
    return SocketSession(
        session=found.session,
        id=str(found.id),
        protocol=PROTOCOL,
        ip=ip,
        port1=port_text(first.port),
        port2=port_text(second.port),
        age_s=int(found.age_s),
        paired=found.paired,
        side1=_side(first),
        side2=_side(second),
    )


def _side(side: SideStatistics) -> SocketSide:
    return SocketSide(
        endpoint=str(side.endpoint or ""),
        silent_s=int(side.silent_s or 0),
        received_packets=side.received_packets,
        received_bytes=side.received_bytes,
        forwarded_packets=side.forwarded_packets,
        forwarded_bytes=side.forwarded_bytes,
        refusals=side.refusals,
        dropped=SocketDropped(**asdict(side.dropped)),
    )
