"""The table of operations: each is written down once, and gRPC and HTTP are both made from it.

An operation is a published gRPC path, the HTTP route that does the same, the two message types and the coroutine that
turns one into the other. A room that adds a service adds rows (see `server.api`), nothing else.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

import betterproto2 as proto

from impervious.config import ServiceConfig
from impervious.server.guard import LOCAL, Principal
from impervious.wire.json import Encoding
from impervious.wire.json.fields import fields_of

Request = TypeVar("Request", bound=proto.Message)
Response = TypeVar("Response", bound=proto.Message)


EXAMPLE_PUBKEY: Final = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""For the documentation: a key, though nobody's (it is the generator of secp256k1)."""
EXAMPLE_INVOICE: Final = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5"
    "rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext"
    "0eh0ymjpf39tuven09sam30g4vgpfna3rh"
)
"""For the documentation: 2500 µBTC for a cup of coffee (BOLT 11, examples). It is long expired."""
_SUBJECTS: Final = {"pubkey": EXAMPLE_PUBKEY, "invoice": EXAMPLE_INVOICE}
"""What a call is about, where it is the first field; without it no request makes sense."""


class Door(Enum):
    """Which way a call came in."""

    GRPC = "grpc"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What a call brings besides its request."""

    door: Door = Door.GRPC
    principal: Principal = LOCAL
    """Who calls."""
    peer: str = ""
    """Address it came from, for the log."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """gRPC metadata or HTTP headers; names in small letters."""
    idempotency_key: str | None = None
    encoding: Encoding = Encoding.BASE64
    """Text asks for the leniency that programs of v0.1.0 to v0.1.3 need."""
    extended: bool = False
    """`v=2`: the caller knows what was added since 2021."""

    @property
    def is_text(self) -> bool:
        """Whether the call is in text mode."""
        return self.encoding is Encoding.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of the table. Made by `operation`."""

    path: str
    """Of gRPC, such as "/messaging.Messaging/SendMessage"."""
    method: str
    """Of HTTP."""
    route: str
    """Of HTTP, such as "/v1/message/send"."""
    request_type: type[proto.Message]
    response_type: type[proto.Message]
    call: Callable[[proto.Message, CallContext], Awaitable[proto.Message]]
    """Raises whatever `server.convert` knows; nothing was done then, unless the error says otherwise."""
    example: proto.Message
    """A request as the documentation shows it."""
    needs: frozenset[str]
    """Fields without which no request makes sense, for the documentation; the call itself says so too."""
    keyed: bool
    """Whether it takes an idempotency key."""

    @property
    def has_body(self) -> bool:
        """Whether its fields come in a body; those of a GET come as query parameters."""
        return self.method != "GET"

    @property
    def service_name(self) -> str:
        """The gRPC service it belongs to, such as "messaging.Messaging"."""
        return self.path.split("/")[1]


def operation(
    path: str,
    http: str,
    request_type: type[Request],
    response_type: type[Response],
    call: Callable[[Request, CallContext], Awaitable[Response]],
    *,
    service: ServiceConfig,
    example: Request | None = None,
    needs: Iterable[str] = (),
    keyed: bool = False,
) -> Operation:
    """Write a row.

    Args:
      path: of gRPC.
      http: method and route, such as "POST /v1/message/send".
      request_type: class of the request.
      response_type: class of the response.
      call: does it.
      service: whose operation it is; while that is switched off, the operation says so and does nothing.
      example: a request for the documentation; None: an empty one, but for the node or the invoice that it is about.
      needs: fields without which no request makes sense, beside the node or the invoice that it is about.
      keyed: whether it takes an idempotency key. To other calls one changes nothing: repeating them does nothing more.
    """
    method, route = http.split()

    async def checked(request: proto.Message, context: CallContext) -> proto.Message:
        service.require_active()
        assert isinstance(request, request_type)
        return await call(request, context)

    return Operation(
        path=path,
        method=method,
        route=route,
        request_type=request_type,
        response_type=response_type,
        call=checked,
        example=example or request_type(**_subject(request_type)),
        needs=frozenset(needs) | _subject(request_type).keys(),
        keyed=keyed,
    )


def _subject(request_type: type[proto.Message]) -> dict[str, str]:
    first = next((field.attribute for field in fields_of(request_type) if field.number == 1), "")
    return {first: _SUBJECTS[first]} if first in _SUBJECTS else {}


def service_names(operations: Iterable[Operation]) -> list[str]:
    """List the gRPC services that the operations make up, each once, in order."""
    return list(dict.fromkeys(each.service_name for each in operations))
