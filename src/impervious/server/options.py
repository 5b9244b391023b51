"""What a request asks for beside its body: query parameters, headers, and the fields of a subscription.

HTTP gives them as text, gRPC as a message; both come out as the same values.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self
from urllib.parse import parse_qs

import betterproto2 as proto

from impervious.config import DEFAULT_RECORD_TYPES, LIGHTNING, Config
from impervious.errors import InvalidArgument
from impervious.events import Filter
from impervious.model import STATUS, Event, EventKind, NodePubkey
from impervious.pb.websocket import SubscribeRequest
from impervious.wire.json import Encoding
from impervious.wire.json.fields import Field, fields_of

PUBLISHED_TYPES: Final = frozenset(map(str, DEFAULT_RECORD_TYPES))
"""Service types that programs of 2021 expect on a stream."""
MAX_PARAMETERS: Final = 100
_SHOWN: Final = 40
"""Characters of a name that an error repeats."""
_LISTS: Final = frozenset({"service_type", "from"})
"""Parameters of a subscription that may be given several times."""


class Query:
    """The parameters behind the question mark.

    Raises:
      InvalidArgument: they are too many or no text.
    """

    def __init__(self, text: bytes) -> None:
        try:
            self._values = parse_qs(
                text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
            )
        except ValueError:
            raise InvalidArgument(
                f"the query is not UTF-8, percent-encoded, of at most {MAX_PARAMETERS} parameters"
            ) from None

    def one(self, name: str) -> str | None:
        """Return the value given for a name.

        Raises:
          InvalidArgument: it is given twice.
        """
        values = self._values.get(name)
        if values and len(values) > 1:
            shown = name[:_SHOWN] if name.isprintable() else "a parameter"
            raise InvalidArgument(f"?{shown}= is given twice: give it once")
        return values[0] if values else None

    def check_once(self, lists: Collection[str] = ()) -> None:
        """Refuse parameters that are given twice, known or not: of two, one program takes the first, another the last.

        Args:
          lists: names of those that may be given several times.

        Raises:
          InvalidArgument: names one.
        """
        for name in self._values:
            if name not in lists:
                self.one(name)

    def has(self, name: str) -> bool:
        """Whether a name is given."""
        return name in self._values

    def all(self, name: str) -> list[str]:
        """Return all values given for a name, also those joined by commas."""
        return [each for value in self._values.get(name, ()) for each in value.split(",") if each]

    def flag(self, name: str) -> bool:
        """Read a parameter that is on or off; given without a value it is on."""
        value = self.one(name)
        if value in (None, "false", "0"):
            return False
        if value in ("", "true", "1"):
            return True
        raise InvalidArgument(f"?{name}= must be true or false")


def list_names(message_type: type[proto.Message]) -> frozenset[str]:
    """List the names of the fields that may be given several times."""
    fields = [field for field in fields_of(message_type) if field.repeated]
    return frozenset(name for field in fields for name in (field.json_name, field.proto_name))


def fields_of_query(message_type: type[proto.Message], query: Query) -> bytes:
    """Read the fields of a request without a body: as JSON, by the names that they have there.

    Raises:
      InvalidArgument: a field that is true or false is neither, or one that is no list is given twice.
    """
    found: dict[str, object] = {}
    query.check_once(list_names(message_type))
    for field in fields_of(message_type):
        names = [name for name in dict.fromkeys((field.json_name, field.proto_name)) if query.has(name)]
        if len(names) > 1:
            raise InvalidArgument(f"?{names[1]}= is ?{names[0]}=, which is given too: give one of them")
        for name in names:
            found[name] = _of_query(field, query, name)
    return json.dumps(found).encode()


def _of_query(field: Field, query: Query, name: str) -> object:
    if field.repeated:
        return query.all(name)
    return query.flag(name) if field.proto_type == proto.TYPE_BOOL else query.one(name)


def encoding_of(query: Query, default: Encoding) -> Encoding:
    """Read `?encoding=`.

    Raises:
      InvalidArgument: it is neither text nor base64.
    """
    value = query.one("encoding")
    if value is None:
        return default
    try:
        return Encoding(value)
    except ValueError:
        raise InvalidArgument("?encoding= must be text or base64") from None


def is_extended(value: str | None, place: str) -> bool:
    """Read `v`: whether the caller knows what was added since 2021.

    Raises:
      InvalidArgument: there is no such version.
    """
    if value not in (None, "1", "2"):
        raise InvalidArgument(f"{place} must be 1 or 2")
    return value == "2"


class Finder(Protocol):
    """What knows the peers."""

    async def resolve(self, node: str) -> NodePubkey:
        """Find the node that is meant by @ and the imp id of a peer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a subscriber wants to see, and how."""

    since: int | None
    """Behind which event to begin; None: live only."""
    wanted: Filter
    encoding: Encoding = Encoding.BASE64
    extended: bool = False
    """`v=2`."""
    secrets: bool = False
    """Show what is kept from others."""
    peers: tuple[str, ...] = ()
    """Senders named as @imp_id, which `resolved` finds."""

    async def resolved(self, source: "Finder") -> Self:
        """Find the senders that are named.

        Raises:
          NotFound: no peer goes by that name.
          FailedPrecondition: the peer that the name belonged to is gone.
        """
        if not self.peers:
            return self
        found = [await source.resolve(each) for each in self.peers]
        wanted = replace(self.wanted, senders=self.wanted.senders | frozenset(found))
        return replace(self, wanted=wanted, peers=())

    @property
    def published(self) -> bool:
        """Whether to show only the fields of 2021."""
        return self.encoding is Encoding.TEXT and not self.extended

    def shows(self, event: Event) -> bool:
        """Whether to show an event that passed the filter.

        What nobody proved to have sent, and what a program of 2021 would take for the end of a call: only on request.
        """
        return self.extended or (event.verified and event.kind is not EventKind.PROGRESS)

    @classmethod
    def of_query(
        cls, query: Query, headers: Mapping[str, str], *, default: Encoding, known_types: frozenset[str]
    ) -> Self:
        """Read the subscription of an HTTP request.

        Raises:
          InvalidArgument: names the parameter and what it may be.
        """
        query.check_once(_LISTS)
        encoding = encoding_of(query, default)
        extended = is_extended(query.one("v"), "?v=")
        types = frozenset(query.all("service_type"))
        _check_types(types, known_types)
        if encoding is Encoding.TEXT and not extended:
            if not types <= PUBLISHED_TYPES:
                unknown = ", ".join(sorted(types - PUBLISHED_TYPES))
                raise InvalidArgument(f"service_type {unknown} is not part of the text mode of 2021: add v=2")
            types = types or PUBLISHED_TYPES
        senders, peers = _senders(query.all("from"), "from")
        return cls(
            since=_since(query, headers),
            wanted=Filter(service_types=types, senders=senders, quarantined=extended),
            encoding=encoding,
            extended=extended,
            secrets=query.flag("secrets"),
            peers=peers,
        )

    @classmethod
    def of_request(cls, request: SubscribeRequest, *, extended: bool, known_types: frozenset[str]) -> Self:
        """Read the subscription of a gRPC request.

        Raises:
          InvalidArgument: names the field and what it may be.
        """
        types = frozenset(request.service_type)
        _check_types(types, known_types)
        senders, peers = _senders(request.from_pubkey, "from_pubkey")
        return cls(
            since=request.since,
            wanted=Filter(service_types=types, senders=senders, quarantined=extended),
            extended=extended,
            secrets=request.secrets,
            peers=peers,
        )


def known_types(config: Config) -> frozenset[str]:
    """List the service types that events of this node can have."""
    listed = {str(entry.service_type) for entry in config.services}
    return frozenset(listed | PUBLISHED_TYPES | {STATUS, LIGHTNING})


def _check_types(types: frozenset[str], known: frozenset[str]) -> None:
    unknown = sorted(types - known)
    if unknown:
        raise InvalidArgument(f"service_type {unknown[0]!r} is none of this node's: {', '.join(sorted(known))}")


def _senders(texts: Sequence[str], name: str) -> tuple[frozenset[NodePubkey], tuple[str, ...]]:
    """Tell keys from names."""
    try:
        keys = frozenset(NodePubkey.parse(text) for text in texts if not text.startswith("@"))
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error}") from None
    return keys, tuple(text for text in texts if text.startswith("@"))


def _since(query: Query, headers: Mapping[str, str]) -> int | None:
    """Last-Event-ID comes first: a browser that reconnects sends it to the same URL, whose `since` is older."""
    value, name = headers.get("last-event-id"), "Last-Event-ID"
    if not value:
        value, name = query.one("since"), "since"
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(2**64))):
        raise InvalidArgument(f"{name} must be the seq of an event: a whole number, or 0 for everything kept")
    return int(value)
