"""How a call ended: from trailers, from an HTTP answer that is not gRPC, from a reset, from a lost connection.

Every end becomes an Outcome, also those where the server sent no status, so that whoever waits has one thing to look
at. The tables are those of grpc/doc/http-grpc-status-mapping.md and PROTOCOL-HTTP2.md, "Errors".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes

from .headers import decode_binary, decode_message

STATUS_DETAILS: Final = b"grpc-status-details-bin"

_BY_NUMBER: Final = {str(status.value).encode(): status for status in Status}

_BY_HTTP: Final = {
    b"400": Status.INTERNAL,
    b"401": Status.UNAUTHENTICATED,
    b"403": Status.PERMISSION_DENIED,
    b"404": Status.UNIMPLEMENTED,
    b"429": Status.UNAVAILABLE,
    b"502": Status.UNAVAILABLE,
    b"503": Status.UNAVAILABLE,
    b"504": Status.UNAVAILABLE,
}

_BY_RESET: Final = {
    ErrorCodes.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCodes.CANCEL: Status.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended."""

    status: Status
    message: str | None = None
    details: bytes | None = None
    """The bytes of `grpc-status-details-bin` (a google.rpc.Status), if the server sent them."""

    def error(self) -> GRPCError:
        """The exception for an outcome that is not OK."""
        return GRPCError(self.status, self.message, self.details)


OK: Final = Outcome(Status.OK)


def outcome_of_trailers(headers: Iterable[tuple[bytes, bytes]]) -> Outcome:
    """What trailers, or a trailers-only answer, say."""
    number: bytes | None = None
    message: str | None = None
    details: bytes | None = None
    for name, value in headers:
        if name == b"grpc-status":
            number = value
        elif name == b"grpc-message":
            message = decode_message(value)
        elif name == STATUS_DETAILS:
            details = _readable(value)
    if number == b"0":
        return OK
    if number is None:
        return Outcome(Status.UNKNOWN, "the server ended the call without a grpc-status")
    status = _BY_NUMBER.get(number)
    if status is None:
        shown = number[:20].decode("ascii", "replace")
        return Outcome(Status.UNKNOWN, f"unknown grpc-status {shown!r}: {message or ''}".rstrip(": "), details)
    return Outcome(status, message, details)


def _readable(value: bytes) -> bytes | None:
    """Details that cannot be read are no reason to lose the status."""
    try:
        return decode_binary(value)
    except ValueError:
        return None


def outcome_of_http(http_status: bytes, content_type: bytes | None) -> Outcome:
    """What an answer that is not gRPC means: a proxy, a web server, the wrong port."""
    status = _BY_HTTP.get(http_status, Status.UNKNOWN)
    shown_status = http_status[:20].decode("ascii", "replace")
    shown_type = "no content type" if content_type is None else repr(content_type[:80].decode("ascii", "replace"))
    return Outcome(status, f"no gRPC answer: HTTP status {shown_status}, {shown_type}; is this a gRPC server?")


def outcome_of_reset(code: ErrorCodes | int | None, *, by_peer: bool) -> Outcome:
    """What RST_STREAM means, or a stream error that h2 found."""
    named = ErrorCodes(code) if code in list(ErrorCodes) else None
    status = Status.INTERNAL if named is None else _BY_RESET.get(named, Status.INTERNAL)
    who = "the server reset the call" if by_peer else "the server broke HTTP/2 on this call"
    return Outcome(status, f"{who}: {code if named is None else named.name}")
