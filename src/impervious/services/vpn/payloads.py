"""What two nodes tell each other about tunnels: JSON objects with a `recordId`.

Unknown keys are ignored, so that later versions can add some; every known one must be of its type and within bounds. A
request that carries money stays under 200 bytes: it is then never cut into parts, so what arrives is exactly what was
sent. Times are whole seconds since 1970.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Final, TypeAlias

from impervious.errors import Malformed

MAX_TEXT: Final = 2048
"""Characters of one value; lists of networks are the longest."""
MAX_NONCE: Final = 64
"""Characters, so that a request with money stays one part, and so does an answer that repeats it."""
MAX_INTEGER: Final = 2**53
"""JSON's integers are exact up to here everywhere (RFC 8259, section 6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRequest:
    """What would some hours cost?"""

    hours: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """This much, until then, and this is what you would get."""

    nonce: str
    price: int
    """Satoshis, for all the hours."""
    hours: int
    expires_at: int
    endpoint: str
    server_pub_key: str
    allowed_ips: str
    dns: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractRequest:
    """Agreed: here is the money, and my key."""

    nonce: str
    public_key: str
    psk_wanted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The tunnel stands."""

    nonce: str
    address: str
    expires_at: int
    endpoint: str
    server_pub_key: str
    allowed_ips: str
    dns: str = ""
    preshared_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """The same again: here is the money."""

    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """The tunnel stands until then."""

    nonce: str
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No. What can be given back of the money comes with this."""

    reason: str
    nonce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """The seller ended the tunnel early. What is owed for the rest of the time comes with this.

    That time runs out is told by nobody: both ends know when, and each announces it on its own stream.
    """

    nonce: str
    reason: str = ""


Request: TypeAlias = QuoteRequest | ContractRequest | RefreshRequest
Answer: TypeAlias = Quote | Contract | Refresh | Refused
Payload: TypeAlias = Request | Answer | Expired

_KINDS: Final[dict[str, type[Payload]]] = {
    "QUOTE_REQUEST": QuoteRequest,
    "QUOTE": Quote,
    "CONTRACT_REQUEST": ContractRequest,
    "CONTRACT": Contract,
    "REFRESH_REQUEST": RefreshRequest,
    "REFRESH": Refresh,
    "REFUSED": Refused,
    "EXPIRED": Expired,
}
_LONGEST_CHARACTER: Final = 12
"""Bytes that one character takes in JSON's escapes: two of `\\uXXXX`."""
_RECORDS: Final = {kind: record for record, kind in _KINDS.items()}
_REQUESTS: Final = frozenset({"QUOTE_REQUEST", "CONTRACT_REQUEST", "REFRESH_REQUEST"})


class MalformedRequest(Malformed):
    """It asks for something of ours, wrongly: the sender can be told. Other malformed payloads are never answered."""


def is_nonce(text: str) -> bool:
    """Whether a text can name a quote."""
    return text.isascii() and 1 <= len(text) <= MAX_NONCE


def write(payload: Payload) -> bytes:
    """Write a payload as it travels."""
    return json.dumps({"recordId": record_of(payload), **asdict(payload)}, separators=(",", ":")).encode()


def fitting(payload: Payload, room_bytes: int) -> Payload:
    """Cut the reason of a refusal short, so that it travels in one part: money that goes back pays for no more.

    Args:
      payload: any; one without a reason is returned as it is.
      room_bytes: what a part holds. A refusal without a reason takes less than 200 bytes.
    """
    while isinstance(payload, Refused | Expired) and payload.reason and len(write(payload)) > room_bytes:
        too_much = -(-(len(write(payload)) - room_bytes) // _LONGEST_CHARACTER)
        payload = replace(payload, reason=payload.reason[:-too_much])
    return payload


def record_of(payload: Payload) -> str:
    """Name a payload's kind."""
    return _RECORDS[type(payload)]


def read(data: bytes) -> Payload:
    """Read what came.

    Raises:
      MalformedRequest: it is a request with something wrong in it; says what.
      Malformed: it is nothing that we know.
    """
    values = _object(data)
    record = values.get("recordId")
    kind = _KINDS.get(record) if isinstance(record, str) else None
    if kind is None:
        raise Malformed("recordId is none of a tunnel's")
    try:
        return _build(kind, values)
    except (Malformed, TypeError) as error:  # TypeError: a key without a default is missing
        fault = MalformedRequest if record in _REQUESTS else Malformed
        raise fault(f"{record}: {_said(error)}") from None


def _object(data: bytes) -> dict[str, object]:
    try:
        values: object = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("it is not JSON") from None
    if not isinstance(values, dict):
        raise Malformed("it is not a JSON object")
    return values


def _build(kind: type[Payload], values: dict[str, object]) -> Payload:
    known = {each.name: each.type for each in fields(kind)}
    given = {name: value for name, value in values.items() if name in known}
    for name, value in given.items():
        _check(name, value, known[name])
    payload = kind(**given)  # type: ignore[arg-type]  # checked above, which no type can say
    if isinstance(payload, ContractRequest | RefreshRequest):
        _check_nonce(payload.nonce)
    return payload


def _check_nonce(nonce: str) -> None:
    """Refuse a name that no seller gave: an answer repeats it."""
    if not is_nonce(nonce):
        raise Malformed(f"nonce is not 1 to {MAX_NONCE} ASCII characters")


def _check(name: str, value: object, wanted: object) -> None:
    if type(value) is not wanted:
        raise Malformed(f"{name} is not of its type")
    if isinstance(value, str) and (len(value) > MAX_TEXT or not value.isprintable()):
        raise Malformed(f"{name} is not one line of at most {MAX_TEXT} characters")
    if isinstance(value, int) and not 0 <= value <= MAX_INTEGER:
        raise Malformed(f"{name} is not between 0 and {MAX_INTEGER}")


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, Malformed) else "a key is missing"
