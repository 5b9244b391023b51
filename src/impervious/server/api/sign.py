"""Signing: signatures by the node's identity key."""

from functools import partial
from typing import Final

from impervious.pb.signing import SignRequest, SignResponse, VerifyRequest, VerifyResponse
from impervious.server.convert import one_of
from impervious.server.operations import CallContext, Operation, operation
from impervious.services.sign import SignService

EXAMPLE_SIGNATURE: Final = (
    "rnrphcjswusbacjnmmmrynh9pqip7sy5cx695h6mfu64iac6qmcmsd8xnsyczwmpqp9shqkth3h4jmkgyqu5z47jfn1q7gpxtaqpx4xg"
)
"""For the documentation: of "hi", by 02de60d194e1ca5947b59fe8e2efd6aadeabfb67f2e89e13ae1a799c1e08e4a43b."""


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
            example=SignRequest(msg="hello"),
        ),
        operation(
            "/signing.Signing/VerifySignature",
            "POST /v1/verify",
            VerifyRequest,
            VerifyResponse,
            partial(verify_signature, service),
            service=config,
            example=VerifyRequest(msg="hi", signature=EXAMPLE_SIGNATURE),
            needs=["signature"],
        ),
    ]


async def sign_message(service: SignService, request: SignRequest, _context: CallContext) -> SignResponse:
    """Sign a text, or bytes."""
    what = one_of({"msg": request.msg.encode(), "text": request.text.encode(), "data": request.data})
    return SignResponse(signature=await service.sign(what))


async def verify_signature(service: SignService, request: VerifyRequest, _context: CallContext) -> VerifyResponse:
    """Tell who signed a text, or bytes."""
    what = one_of({"msg": request.msg.encode(), "text": request.text.encode(), "data": request.data})
    claimed = await service.context.resolve(request.pubkey) if request.pubkey else None
    found = await service.verify(what, request.signature, pubkey=claimed)
    return VerifyResponse(result=found.result, pubkey=found.pubkey.hex if found.pubkey else "", in_graph=found.in_graph)
