"""Foreign shapes and ours: which error has which code, and how an event looks to a subscriber.

This is the one table from exception classes to gRPC codes, and from those to HTTP statuses. An error that is not in it
is a bug: its traceback goes to the log under a number, and the caller is told the number.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.errors import (
    AlreadyExists,
    AlreadyPaying,
    CallerError,
    ConfigError,
    DeliveryFailed,
    FailedPrecondition,
    InvalidArgument,
    Malformed,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    NotFound,
    OutOfRange,
    PaymentFailed,
    PaymentNotFound,
    PermissionDenied,
    ResourceExhausted,
    StoreError,
    StoreFull,
    Unauthenticated,
    Unsupported,
    Unverified,
    WireGuardError,
    WireGuardStuck,
)
from impervious.model import Event, MessageId
from impervious.pb.websocket import SubscribeResponse
from impervious.units import sat_credited

logger = logging.getLogger(__name__)

_CODES: Final[Mapping[type[BaseException], Status]] = {
    InvalidArgument: Status.INVALID_ARGUMENT,
    NotFound: Status.NOT_FOUND,
    AlreadyExists: Status.ALREADY_EXISTS,
    PermissionDenied: Status.PERMISSION_DENIED,
    Unauthenticated: Status.UNAUTHENTICATED,
    FailedPrecondition: Status.FAILED_PRECONDITION,
    OutOfRange: Status.OUT_OF_RANGE,
    Unsupported: Status.UNIMPLEMENTED,
    ResourceExhausted: Status.RESOURCE_EXHAUSTED,
    CallerError: Status.INVALID_ARGUMENT,
    NodeUnavailable: Status.UNAVAILABLE,
    NodeRefused: Status.FAILED_PRECONDITION,
    ConfigError: Status.FAILED_PRECONDITION,
    PaymentNotFound: Status.NOT_FOUND,
    AlreadyPaying: Status.ABORTED,
    NoRoute: Status.ABORTED,
    StoreFull: Status.UNAVAILABLE,
    StoreError: Status.INTERNAL,
    Malformed: Status.INVALID_ARGUMENT,
    Unverified: Status.INVALID_ARGUMENT,
    WireGuardStuck: Status.UNAVAILABLE,
    WireGuardError: Status.FAILED_PRECONDITION,
    trio.TooSlowError: Status.DEADLINE_EXCEEDED,
}

HTTP_STATUSES: Final[Mapping[Status, int]] = {
    Status.OK: 200,
    Status.CANCELLED: 499,
    Status.UNKNOWN: 500,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
    Status.UNAUTHENTICATED: 401,
}
"""As a gRPC gateway maps them."""

_INCIDENT_BYTES: Final = 4
"""Enough to find one line in a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as a caller is told of it."""

    code: Status
    message: str
    """A sentence that says what to do."""
    status: int | None = None
    """What HTTP calls it, where that is not what its code says."""

    @property
    def http_status(self) -> int:
        """What HTTP calls it."""
        return self.status or HTTP_STATUSES[self.code]

    @property
    def body(self) -> bytes:
        """The answer's JSON (google.rpc.Status)."""
        return json.dumps(
            {"code": self.code.value, "message": self.message, "details": []}, ensure_ascii=False, separators=(",", ":")
        ).encode("utf-8", "replace")

    @property
    def grpc_error(self) -> GRPCError:
        """The same for gRPC."""
        return GRPCError(self.code, self.message)


STOPPING: Final = Problem(
    code=Status.UNAVAILABLE,
    message="the daemon is stopping: what it has accepted goes on when it is started again; call again then",
)


def problem(error: Exception, doing: str) -> Problem:
    """Say what is to be told of an error.

    Args:
      error: what was raised.
      doing: for the log, if it is a bug: path of the call.
    """
    if isinstance(error, GRPCError):
        return Problem(code=error.status, message=error.message or error.status.name)
    code = _code(error)
    if code is None:
        return _incident(error, doing)
    if code is Status.INTERNAL:
        logger.error("%s: %s", doing, error)
    text = str(error) or ("the deadline passed before it was done" if isinstance(error, trio.TooSlowError) else "")
    return Problem(code=code, message=text or f"refused: {type(error).__name__}")


def _code(error: Exception) -> Status | None:
    if isinstance(error, PaymentFailed | DeliveryFailed):
        # Not UNAVAILABLE: gRPC clients repeat such calls by themselves, and this one may have paid for some parts.
        return Status.ABORTED if error.retryable else Status.FAILED_PRECONDITION
    return next((_CODES[each] for each in type(error).__mro__ if each in _CODES), None)


def _incident(error: Exception, doing: str) -> Problem:
    number = secrets.token_hex(_INCIDENT_BYTES)
    logger.error("%s: failed, incident %s", doing, number, exc_info=error)
    return Problem(
        code=Status.INTERNAL,
        message=f"the daemon has made a mistake; its log tells more under incident {number}",
    )


def event_message(event: Event, *, secrets: bool = False, extended: bool = False) -> SubscribeResponse:
    """Show an event as its subscribers see it: those who ask for secrets, or the others."""
    return SubscribeResponse(
        id=str(event.id),
        reply_to_id=str(event.reply_to) if event.reply_to else "",
        from_pubkey=event.sender.hex if event.sender else "",
        data=event.secret if secrets and event.secret is not None else event.data,
        service_type=event.service_type,
        amount=sat_credited(event.amount),
        seq=event.seq,
        sent_at_ms=event.sent_at_ms,
        verified=event.verified,
        order=event.order if extended and event.order else None,
    )


def one_of(ways: Mapping[str, bytes]) -> bytes:
    """Take what is given in one of several fields; nothing, if none of them is.

    Raises:
      InvalidArgument: more than one is given.
    """
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise InvalidArgument(f"{given[0]} and {given[1]} are both given: choose one")
    return ways[given[0]] if given else b""


def message_id(text: str, name: str) -> MessageId | None:
    """Read an id that a caller gives; empty is none.

    Raises:
      InvalidArgument: it is no UUID; names the field.
    """
    if not text:
        return None
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or text.lower() not in (str(parsed), parsed.hex):
        raise InvalidArgument(f"{name} is not the id of a message: give the UUID that its event or its sending showed")
    return parsed
