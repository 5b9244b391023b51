"""What services say to each other: JSON in UTF-8, in shapes that both nodes know. A reader ignores keys it does not."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from impervious.errors import InvalidArgument, Malformed
from impervious.model import NodePubkey, check_imp_id

MAX_TTL_S: Final = 100 * 365 * 86_400
"""A hundred years; more is a mistake, or mischief."""
MAX_SERVICES: Final = 64

_SERVICE_TYPE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Federate:
    """A node says who it is: a request to be remembered, or the answer to one."""

    imp_id: str
    pubkey: NodePubkey
    """The sender's own."""
    ttl_s: int
    """How long it may be remembered."""
    services: tuple[str, ...]
    """What it offers."""
    answer: bool

    def encode(self) -> bytes:
        """Write it."""
        return compact(
            {
                "recordId": "FEDERATE",
                "impId": self.imp_id,
                "pubkey": self.pubkey.hex,
                "ttl": self.ttl_s,
                "services": list(self.services),
                "answer": self.answer,
            }
        )


@dataclass(frozen=True, slots=True)
class Leave:
    """A node wants to be forgotten; as an answer to a request: it does not want to be remembered."""

    def encode(self) -> bytes:
        """Write it."""
        return compact({"recordId": "LEAVE"})


FederateRecord: TypeAlias = Federate | Leave


def decode_federate(data: bytes) -> FederateRecord:
    """Read what the federate service of another node says.

    Raises:
      Malformed: names the key that is wrong.
    """
    shape = _object(data)
    match shape.get("recordId"):
        case "LEAVE":
            return Leave()
        case "FEDERATE":
            return _federate(shape)
    raise Malformed("recordId is neither FEDERATE nor LEAVE")


def _federate(shape: Mapping[str, object]) -> Federate:
    imp_id, pubkey, ttl_s, services, answer = (
        shape.get(key) for key in ("impId", "pubkey", "ttl", "services", "answer")
    )
    _require(isinstance(imp_id, str), "impId is not text")
    _require(isinstance(pubkey, str), "pubkey is not text")
    _require(type(ttl_s) is int and 0 < ttl_s <= MAX_TTL_S, "ttl is not a number of seconds")
    _require(answer is None or isinstance(answer, bool), "answer is neither true nor false")
    try:
        check_imp_id(cast("str", imp_id))
        parsed = NodePubkey.parse(cast("str", pubkey))
    except InvalidArgument as error:
        raise Malformed(str(error)) from None
    return Federate(
        imp_id=cast("str", imp_id),
        pubkey=parsed,
        ttl_s=cast("int", ttl_s),
        services=_services(services),
        answer=bool(answer),
    )


def _services(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_SERVICES:
        raise Malformed(f"services is not a list of at most {MAX_SERVICES} names")
    for name in value:
        _require(isinstance(name, str) and bool(_SERVICE_TYPE.fullmatch(name)), "a service has no usable name")
    return tuple(cast("list[str]", value))


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOffer:
    """Where a relay is, told to the node that is to use it."""

    ip: str
    """An address, or a host name, that the other node can reach."""
    ports: tuple[int, int]
    session: str = ""
    """Its name; empty: the one that the calls of 2021 act on."""

    def encode(self) -> bytes:
        """Write it as it was published; the name is ours, so it is only there when it says something."""
        first, second = self.ports
        shape = {
            "recordId": "SOCKET",
            "protocol": "udp",
            "ip": self.ip,
            "port1": port_text(first),
            "port2": port_text(second),
        }
        return compact(shape | ({"session": self.session} if self.session else {}))


def port_text(port: int) -> str:
    """Write a port as it was published: with a leading colon."""
    return f":{port}"


# --- JSON -------------------------------------------------------------------------------------------------------------


def compact(shape: Mapping[str, object]) -> bytes:
    """Write JSON without spaces: every byte of a message costs room in an onion."""
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":")).encode()


def _object(data: bytes) -> Mapping[str, object]:
    try:
        shape: object = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Malformed("it is not JSON") from None
    if not isinstance(shape, dict):
        raise Malformed("it is not a JSON object")
    return cast("dict[str, object]", shape)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Malformed(sentence)
