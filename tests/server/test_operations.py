import pytest
import trio

from impervious.config import ServiceConfig
from impervious.errors import Unsupported
from impervious.model import ServiceType
from impervious.pb.messaging import SendMessageRequest, SendMessageResponse
from impervious.pb.signing import SignRequest, SignResponse
from impervious.server.operations import CallContext, Door, Operation, operation, service_names
from impervious.wire.json import Encoding

ON, OFF = (ServiceConfig(service_type=ServiceType("sign"), active=active) for active in (True, False))


async def sign(request: SignRequest, context: CallContext) -> SignResponse:
    await trio.lowlevel.checkpoint()
    return SignResponse(signature=f"{request.msg} {context.door.value}")


def row(service: ServiceConfig = ON) -> Operation:
    return operation("/signing.Signing/SignMessage", "POST /v1/sign", SignRequest, SignResponse, sign, service=service)


async def test_a_row_says_it_all() -> None:
    found = row()
    assert (found.path, found.method, found.route) == ("/signing.Signing/SignMessage", "POST", "/v1/sign")
    assert (found.request_type, found.response_type) == (SignRequest, SignResponse)
    assert found.service_name == "signing.Signing"
    assert await found.call(SignRequest(msg="x"), CallContext(door=Door.HTTP)) == SignResponse(signature="x http")


async def test_a_switched_off_service_does_nothing() -> None:
    with pytest.raises(Unsupported, match="the sign service is switched off here"):
        await row(OFF).call(SignRequest(), CallContext())


async def test_a_request_of_another_row_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        await row().call(SendMessageRequest(), CallContext())


def test_services_are_named_once() -> None:
    async def send(request: SendMessageRequest, context: CallContext) -> SendMessageResponse:
        await trio.lowlevel.checkpoint()
        raise NotImplementedError

    other = operation("/a.B/C", "POST /c", SendMessageRequest, SendMessageResponse, send, service=ON)
    assert service_names([row(), other, row()]) == ["signing.Signing", "a.B"]


def test_text_mode() -> None:
    assert CallContext(encoding=Encoding.TEXT).is_text
    assert not CallContext().is_text
