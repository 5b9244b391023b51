"""Signing: signatures by the node's identity key."""

from functools import partial

from impervious.pb.signing import SignRequest, SignResponse, VerifyRequest, VerifyResponse
from impervious.server.operations import CallContext, Operation, operation
from impervious.services.sign import SignService


def operations(service: SignService) -> list[Operation]:
    """List the rows of the sign service."""
    config = service.context.config
    return [
        operation(
            "/signing.Signing/SignMessage",
            "POST /v1/sign",
            SignRequest,
            SignResponse,
            partial(sign_message, service),
            service=config,
        ),
        operation(
            "/signing.Signing/VerifySignature",
            "POST /v1/verify",
            VerifyRequest,
            VerifyResponse,
            partial(verify_signature, service),
            service=config,
        ),
    ]


async def sign_message(service: SignService, request: SignRequest, _context: CallContext) -> SignResponse:
    """Sign a text."""
    return SignResponse(signature=await service.sign(request.msg))


async def verify_signature(service: SignService, request: VerifyRequest, _context: CallContext) -> VerifyResponse:
    """Tell who signed a text."""
    claimed = await service.context.resolve(request.pubkey) if request.pubkey else None
    found = await service.verify(request.msg, request.signature, pubkey=claimed)
    return VerifyResponse(result=found.result, pubkey=found.pubkey.hex if found.pubkey else "", in_graph=found.in_graph)
