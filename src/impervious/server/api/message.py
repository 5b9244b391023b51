"""Messaging: sending application bytes to another node."""

from functools import partial
from typing import Final

from impervious.errors import InvalidArgument
from impervious.pb.messaging import GetMessageRequest, GetMessageResponse, SendMessageRequest, SendMessageResponse
from impervious.server.convert import message_id, one_of
from impervious.server.operations import EXAMPLE_PUBKEY, CallContext, Operation, operation
from impervious.services.message import MessageService
from impervious.units import Sat

LENIENT_SAT: Final = Sat(10)
"""In text mode an amount below the minimum is raised to it while that is at most this: a program of 2021 sends packets
of 905 bytes, which need 2 sat, with 1."""


def operations(service: MessageService) -> list[Operation]:
    """List the rows of the message service."""
    return [
        operation(
            "/messaging.Messaging/SendMessage",
            "POST /v1/message/send",
            SendMessageRequest,
            SendMessageResponse,
            partial(send_message, service),
            service=service.context.config,
            example=SendMessageRequest(msg=b"hello", pubkey=EXAMPLE_PUBKEY, amount=10),
            needs=["pubkey"],
            keyed=True,
        ),
        operation(
            "/messaging.Messaging/GetMessage",
            "GET /v1/message/get",
            GetMessageRequest,
            GetMessageResponse,
            partial(get_message, service),
            service=service.context.config,
            example=GetMessageRequest(id="7e0e1cc2-1d7f-4a34-9f4f-3ac4a1ad2a4b"),
            needs=["id"],
        ),
    ]


async def send_message(
    service: MessageService, request: SendMessageRequest, context: CallContext
) -> SendMessageResponse:
    """Send bytes, or text, to a node."""
    data = one_of({"msg": request.msg, "text": request.text.encode(), "data": request.data})
    sent = await service.send(
        request.pubkey,
        data,
        amount=_amount(service, len(data), Sat(request.amount), context),
        reply_to=message_id(request.reply_to_id, "reply_to_id"),
        idempotency_key=context.idempotency_key,
        wait=request.wait,
    )
    return SendMessageResponse(id=str(sent))


async def get_message(service: MessageService, request: GetMessageRequest, _context: CallContext) -> GetMessageResponse:
    """Say how far a message is."""
    wanted = message_id(request.id, "id")
    if wanted is None:
        raise InvalidArgument("id is missing: give the one that the call answered which sent the message")
    found = await service.get(wanted)
    return GetMessageResponse(
        id=str(found.id),
        pubkey=found.recipient.hex,
        service_type=found.service_type,
        state=found.state,
        reason=found.reason,
        retryable=found.retryable,
        parts=found.parts,
        parts_settled=found.parts_settled,
        parts_in_flight=found.parts_in_flight,
        amount_msat=found.amount,
        fee_msat=found.fee,
        accepted_at_ms=found.accepted_at_ms,
        until_ms=found.deadline_ms or 0,
        next_try_ms=found.next_try_ms,
    )


def _amount(service: MessageService, size: int, given: Sat, context: CallContext) -> Sat:
    minimum = service.minimum(size)
    return minimum if context.is_text and 0 < given < minimum <= LENIENT_SAT else given
