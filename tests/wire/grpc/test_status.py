"""Every way a call can end, as a status."""

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes

from impervious.wire.grpc.status import OK, Outcome, outcome_of_http, outcome_of_reset, outcome_of_trailers


@pytest.mark.parametrize("status", list(Status))
def test_every_status_is_read(status: Status) -> None:
    outcome = outcome_of_trailers([(b"grpc-status", str(status.value).encode())])
    assert outcome.status is status


def test_message_and_details_are_read() -> None:
    trailers = [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no%20such%0Athing"),
        (b"grpc-status-details-bin", b"AAE"),
        (b"other", b"x"),
    ]
    outcome = outcome_of_trailers(trailers)
    assert outcome == Outcome(Status.NOT_FOUND, "no such\nthing", b"\x00\x01")
    error = outcome.error()
    assert isinstance(error, GRPCError)
    assert (error.status, error.message, error.details) == (Status.NOT_FOUND, "no such\nthing", b"\x00\x01")


def test_details_that_cannot_be_read_do_not_cost_the_status() -> None:
    outcome = outcome_of_trailers([(b"grpc-status", b"5"), (b"grpc-status-details-bin", b"?")])
    assert outcome == Outcome(Status.NOT_FOUND)


def test_a_message_beside_ok_is_dropped() -> None:
    assert outcome_of_trailers([(b"grpc-status", b"0"), (b"grpc-message", b"fine")]) is OK


@pytest.mark.parametrize(
    ("trailers", "text"),
    [
        ([], "the server ended the call without a grpc-status"),
        ([(b"grpc-status", b"17")], "unknown grpc-status '17'"),
        ([(b"grpc-status", b"x"), (b"grpc-message", b"why")], "unknown grpc-status 'x': why"),
        ([(b"grpc-status", b"")], "unknown grpc-status ''"),
        ([(b"grpc-status", b"0" * 1000)], f"unknown grpc-status '{'0' * 20}'"),
    ],
)
def test_no_status_or_no_known_one(trailers: list[tuple[bytes, bytes]], text: str) -> None:
    assert outcome_of_trailers(trailers) == Outcome(Status.UNKNOWN, text)


@pytest.mark.parametrize(
    ("http", "status"),
    [
        (b"400", Status.INTERNAL),
        (b"401", Status.UNAUTHENTICATED),
        (b"403", Status.PERMISSION_DENIED),
        (b"404", Status.UNIMPLEMENTED),
        (b"429", Status.UNAVAILABLE),
        (b"500", Status.UNKNOWN),
        (b"502", Status.UNAVAILABLE),
        (b"503", Status.UNAVAILABLE),
        (b"504", Status.UNAVAILABLE),
        (b"200", Status.UNKNOWN),
        (b"none", Status.UNKNOWN),
    ],
)
def test_answers_that_are_not_grpc(http: bytes, status: Status) -> None:
    outcome = outcome_of_http(http, b"text/html")
    assert outcome.status is status
    assert outcome.message == f"no gRPC answer: HTTP status {http.decode()}, 'text/html'; is this a gRPC server?"


def test_an_answer_without_content_type() -> None:
    assert "no content type" in (outcome_of_http(b"200", None).message or "")


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (ErrorCodes.NO_ERROR, Status.INTERNAL, "NO_ERROR"),
        (ErrorCodes.PROTOCOL_ERROR, Status.INTERNAL, "PROTOCOL_ERROR"),
        (ErrorCodes.REFUSED_STREAM, Status.UNAVAILABLE, "REFUSED_STREAM"),
        (ErrorCodes.CANCEL, Status.CANCELLED, "CANCEL"),
        (ErrorCodes.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED, "ENHANCE_YOUR_CALM"),
        (ErrorCodes.INADEQUATE_SECURITY, Status.PERMISSION_DENIED, "INADEQUATE_SECURITY"),
        (8, Status.CANCELLED, "CANCEL"),
        (4711, Status.INTERNAL, "4711"),
    ],
)
def test_resets(code: ErrorCodes | int, status: Status, name: str) -> None:
    assert outcome_of_reset(code, by_peer=True) == Outcome(status, f"the server reset the call: {name}")
    assert outcome_of_reset(code, by_peer=False).status is status
