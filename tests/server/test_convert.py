import json
import logging
from uuid import UUID

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.server.house import ALICE, new

from impervious import errors
from impervious.errors import DeliveryFailed, InvalidArgument, PaymentFailed, PaymentFailure
from impervious.server.convert import Problem, event_message, message_id, problem
from impervious.wire.json import encode

SPECIAL = {
    DeliveryFailed: DeliveryFailed("x", retryable=True),
    PaymentFailed: PaymentFailed("x", reason=PaymentFailure.TIMEOUT, retryable=False),
}


def every_error() -> list[type[Exception]]:
    found = [errors.ImperviousError]
    for each in found:
        found.extend(each.__subclasses__())
    return [each for each in found if each.__module__ == "impervious.errors"]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_ours_but_the_base_has_a_code_and_keeps_its_sentence(kind: type[Exception]) -> None:
    found = problem(SPECIAL.get(kind) or kind("do this"), "/x")
    if kind is errors.ImperviousError:
        assert (found.code, "incident" in found.message) == (Status.INTERNAL, True)
    else:
        assert found.code not in (Status.OK, Status.UNKNOWN)
        assert found.message == ("x" if kind in SPECIAL else "do this")


@pytest.mark.parametrize(
    ("error", "code", "http"),
    [
        (InvalidArgument("x"), 3, 400),
        (errors.NotFound("x"), 5, 404),
        (errors.AlreadyExists("x"), 6, 409),
        (errors.PermissionDenied("x"), 7, 403),
        (errors.Unauthenticated("x"), 16, 401),
        (errors.ResourceExhausted("x"), 8, 429),
        (errors.OutOfRange("x"), 11, 400),
        (errors.Unsupported("x"), 12, 501),
        (errors.NodeUnavailable("x"), 14, 503),
        (errors.StoreFull("x"), 14, 503),
        (errors.WireGuardMissing("x"), 9, 400),
        (errors.WireGuardStuck("x"), 14, 503),
        (errors.StoreError("x"), 13, 500),
        (DeliveryFailed("x", retryable=True), 10, 409),
        (DeliveryFailed("x", retryable=False), 9, 400),
        (trio.TooSlowError(), 4, 504),
        (GRPCError(Status.DATA_LOSS, "x"), 15, 500),
    ],
)
def test_codes_and_statuses(error: Exception, code: int, http: int) -> None:
    found = problem(error, "/x")
    assert (found.code.value, found.http_status) == (code, http)


def test_no_error_is_without_words() -> None:
    assert problem(trio.TooSlowError(), "/x").message
    assert problem(InvalidArgument(), "/x").message == "refused: InvalidArgument"
    assert problem(GRPCError(Status.CANCELLED), "/x").message == "CANCELLED"


def test_a_bug_is_told_by_number_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("secret")
    except KeyError as error:
        found = problem(error, "/v1/x")
    number = found.message.rpartition(" ")[2]
    assert found.code is Status.INTERNAL
    assert len(number) == 8
    assert "secret" not in found.message
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"/v1/x: failed, incident {number}"
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_groups_are_bugs_too() -> None:
    assert problem(ExceptionGroup("x", [InvalidArgument("y")]), "/x").code is Status.INTERNAL


def test_a_problem_as_json() -> None:
    found = Problem(code=Status.NOT_FOUND, message='no "ö" \ud800')
    assert json.loads(found.body) == {"code": 5, "message": 'no "ö" ?', "details": []}
    assert (found.grpc_error.status, found.grpc_error.message) == (found.code, found.message)


def test_an_event_as_its_subscribers_see_it() -> None:
    reply_to = UUID(int=7)
    event = new("hi", amount=1999, reply_to=reply_to).at(5)
    assert json.loads(encode(event_message(event))) == {
        "id": str(event.id),
        "replyToId": str(reply_to),
        "fromPubkey": ALICE.hex,
        "data": "aGk=",
        "serviceType": "message",
        "amount": "1",
        "seq": "5",
        "sentAtMs": "1760000000123",
        "verified": True,
    }
    raw = event_message(new("hi", sender=None, verified=False).at(6))
    assert (raw.from_pubkey, raw.reply_to_id, raw.verified) == ("", "", False)


def test_message_ids() -> None:
    text = "5fed0c3a-9c2c-4f5c-8a4b-3f1d2e0c9b8a"
    assert message_id("", "reply_to_id") is None
    assert message_id(text, "reply_to_id") == message_id(text.upper(), "x") == message_id(text.replace("-", ""), "x")
    for bad in ("x", text[:-1], "{" + text + "}", "urn:uuid:" + text, text + " ", text.replace("-", "", 1)):
        with pytest.raises(InvalidArgument, match="reply_to_id is not the id"):
            message_id(bad, "reply_to_id")
