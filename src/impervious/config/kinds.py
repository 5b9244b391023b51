"""The kinds of values that settings take, each with the words that describe it.

A kind reads the text as it was written, whatever YAML took it for: `port: "10009"`, `password: 0123` and a public key
of digits only all mean what they look like.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from impervious.config.address import Address, is_address
from impervious.config.schema import Kind, Wrong
from impervious.config.values import Listing, Scalar, Value, plain
from impervious.errors import InvalidArgument
from impervious.model import NodePubkey, RecordType, ServiceType, check_imp_id
from impervious.units import Msat, Sat

T = TypeVar("T")

MAX_SAT: Final = 21_000_000 * 10**8
"""All bitcoin there will be; as msat it still fits 63 bits."""

MAX_INT: Final = 2**63 - 1
"""What SQLite can hold."""

TAKEN_RECORD_TYPES: Final = {
    106_823: "LND marks accountable HTLCs with it",
    5_482_373_484: "it carries the keysend preimage",
}

NO_RESOLVER: Final = "none"
"""What `vpn.dns` says where buyers are given none."""

_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})
_INTEGER: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_LONGEST_INTEGER: Final = 30
"""Characters; far beyond any limit, and short of Python's own bound on reading digits."""
_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#*]+")
_SERVICE_TYPE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")


def _text_of(value: Value) -> str:
    if not isinstance(value, Scalar):
        raise Wrong("it is a list" if isinstance(value, Listing) else "it has keys below it")
    return value.text


def _of_text(says: str, parse: Callable[[str], T]) -> Kind[T]:
    return Kind(says, lambda value: parse(_text_of(value)))


def _matching(says: str, pattern: re.Pattern[str], fold: Callable[[str], str] = str) -> Kind[str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(fold(text)):
            raise Wrong
        return fold(text)

    return _of_text(says, parse)


def _parse_bool(text: str) -> bool:
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Wrong


def _parse_int(text: str) -> int:
    if re.fullmatch(r"[+-]?0[0-9_]+", text):
        raise Wrong("write it without the leading zero")
    if len(text) > _LONGEST_INTEGER or not _INTEGER.fullmatch(text):
        raise Wrong
    return int(text)


def number(low: int, high: int, make: Callable[[int], T], unit: str = "") -> Kind[T]:
    """Make the kind of whole numbers between two bounds, both included."""

    def parse(text: str) -> T:
        value = _parse_int(text)
        if not low <= value <= high:
            raise Wrong
        return make(value)

    of = f" of {unit}" if unit else ""
    limits = f"from {low} to {high}" if high < MAX_SAT else f"from {low}"
    return _of_text(f"a whole number{of}, {limits}", parse)


def whole(low: int, high: int = MAX_INT, unit: str = "") -> Kind[int]:
    """Make the kind of whole numbers, with the unit they count."""
    return number(low, high, int, unit)


def sat(low: int) -> Kind[Sat]:
    """Make the kind of amounts in satoshis."""
    return number(low, MAX_SAT, Sat, "satoshis")


def msat(low: int) -> Kind[Msat]:
    """Make the kind of amounts in millisatoshis."""
    return number(low, MAX_SAT * 1000, Msat, "millisatoshis")


def choice(*words: str) -> Kind[str]:
    """Make the kind of one word out of a few."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise Wrong
        return text.lower()

    return _of_text(f"one of {', '.join(words)}", parse)


def listing(of: Kind[T], items: str, example: str) -> Kind[tuple[T, ...]]:
    """Make the kind of lists of another kind.

    Args:
      of: the kind of one item.
      items: its plural, for people.
      example: a list as YAML.
    """

    def read(value: Value) -> tuple[T, ...]:
        if not isinstance(value, Listing):
            raise Wrong("put it in brackets")
        return tuple(read_item(position, item) for position, item in enumerate(value.items, start=1))

    def read_item(position: int, item: Value) -> T:
        try:
            return of.read(item)
        except Wrong as wrong:
            raise Wrong(f"number {position} is not {of.says}" + (f", {wrong}" if str(wrong) else "")) from None

    return Kind(f"a list of {items}, for example {example}", read, is_list=True)


def _parse_port(text: str) -> int:
    port = _parse_int(text)
    if not 1 <= port <= 65535:
        raise Wrong("ports go from 1 to 65535")
    return port


def _parse_host(text: str) -> str:
    if not is_address(text) and not _HOST_NAME.fullmatch(text):
        raise Wrong
    return text


def _parse_address(text: str) -> Address:
    if "://" in text:
        raise Wrong("leave the scheme out")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise Wrong("it has no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_address(host) or ":" not in host:
            raise Wrong("only an IPv6 address goes in brackets")
    elif ":" in host:
        raise Wrong("put an IPv6 address in brackets")
    # An empty host means every interface, in IPv4 because that exists wherever the daemon runs.
    # Port 0 is any free one; the start line says which.
    return Address(host=_parse_host(host or "0.0.0.0"), port=0 if port == "0" else _parse_port(port))


def _parse_allowed_host(text: str) -> str:
    if "://" in text:
        raise Wrong("leave the scheme out")
    if ":" in text and not is_address(text):
        raise Wrong("leave the port out")
    return _parse_host(text).lower()


def _parse_pubkey(text: str) -> str:
    try:
        return NodePubkey.parse(text.lower()).hex
    except InvalidArgument as error:
        raise Wrong(str(error)) from None


def _parse_name(text: str) -> str:
    try:
        check_imp_id(text)
    except InvalidArgument as error:
        raise Wrong(str(error)) from None
    return text


def _parse_record_type(text: str) -> RecordType:
    value = _parse_int(text)
    if value in TAKEN_RECORD_TYPES:
        raise Wrong(f"that number is taken: {TAKEN_RECORD_TYPES[value]}")
    if not 65536 <= value <= MAX_INT:
        raise Wrong
    return RecordType(value)


def _parse_hex(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise Wrong("it is not hexadecimal") from None


def _parse_certificate_hex(text: str) -> str:
    if b"-----BEGIN CERTIFICATE-----" not in _parse_hex(text):
        raise Wrong("it is hexadecimal, but not of a PEM certificate: xxd -p tls.cert | tr -d '\\n'")
    return text.lower()


def _parse_macaroon_hex(text: str) -> str:
    _parse_hex(text)
    return text.lower()


def _parse_wireguard_key(text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Wrong from None
    if len(raw) != 32 or base64.b64encode(raw).decode() != text:
        raise Wrong
    return text


def _parse_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise Wrong from None


def _each(parse: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: ", ".join(parse(part.strip()) for part in text.split(","))


def _parse_ip(text: str) -> str:
    if not is_address(text):
        raise Wrong
    return text


def _parse_ips(text: str) -> str:
    # A word, because an empty key means the default, here as everywhere.
    return NO_RESOLVER if text.lower() == NO_RESOLVER else _each(_parse_ip)(text)


def _read_ports(value: Value) -> tuple[int, int]:
    if not isinstance(value, Listing) or len(value.items) != 2:
        raise Wrong("each pair has two ports")
    first, second = (_parse_port(_text_of(item)) for item in value.items)
    return first, second


def _read_port_pairs(value: Value) -> tuple[tuple[int, int], ...]:
    pairs = _PAIRS.read(value)
    ports = [port for pair in pairs for port in pair]
    if not pairs:
        raise Wrong("give at least one pair")
    if len(set(ports)) != len(ports):
        raise Wrong("a port is in it twice")
    return pairs


def _read_pinned(value: Value) -> tuple[str, str]:
    if not isinstance(value, Listing) or len(value.items) != 2:
        raise Wrong("each pair has a name and a pubkey")
    name, pubkey = (_text_of(item) for item in value.items)
    return _parse_name(name), _parse_pubkey(pubkey)


def _read_pinned_names(value: Value) -> tuple[tuple[str, str], ...]:
    pairs = _PINNED.read(value)
    if len({name for name, _ in pairs}) != len(pairs):
        raise Wrong("a name is in it twice")
    return pairs


BOOL: Final = _of_text("true or false", _parse_bool)
TEXT: Final = _of_text("text", str)
NAME: Final = _of_text("a name of at most 64 bytes, on one line", _parse_name)
PATH: Final = _of_text("the path of a file", Path)
PORT: Final = _of_text("a port, from 1 to 65535", _parse_port)
HOST: Final = _of_text("a host name or an IP address", _parse_host)
ADDRESS: Final = _of_text("an address host:port, for example 127.0.0.1:8881 or [::1]:8881", _parse_address)
ORIGINS: Final = listing(
    _matching("an origin", _ORIGIN, str.lower), "origins, without a path", "[https://app.example.com]"
)
ALLOWED_HOSTS: Final = listing(
    _of_text("a host name", _parse_allowed_host), "host names, without a port", "[node.example.com]"
)
PUBKEY: Final = _of_text("the node's 66 hex digits", _parse_pubkey)
RECORD_TYPE: Final = _of_text("a whole number from 65536", _parse_record_type)
SERVICE_TYPE: Final = Kind(
    "a name of small letters, digits, dots, dashes and underscores",
    lambda value: ServiceType(_matching("", _SERVICE_TYPE).read(value)),
)
CERTIFICATE_HEX: Final = _of_text("the certificate file in hex", _parse_certificate_hex)
MACAROON_HEX: Final = _of_text("the macaroon file in hex", _parse_macaroon_hex)
WIREGUARD_KEY: Final = _of_text("a WireGuard public key, 44 characters of base64", _parse_wireguard_key)
NETWORK: Final = _of_text("a network, for example 10.0.0.0/24", _parse_network)
NETWORKS: Final = _of_text("networks, separated by commas, for example 0.0.0.0/0", _each(_parse_network))
IPS: Final = _of_text(f"IP addresses, separated by commas, or {NO_RESOLVER}", _parse_ips)
INTERFACE: Final = _matching("a network interface's name, at most 15 characters", _INTERFACE)
_PAIRS: Final = listing(Kind("a pair of ports", _read_ports), "pairs of ports", "[[6000, 9000], [6001, 9001]]")
PORT_PAIRS: Final = Kind(_PAIRS.says, _read_port_pairs, is_list=True)
_PINNED: Final = listing(Kind("a name and a pubkey", _read_pinned), "names, each with a pubkey", "[[carol, 02…]]")
PINNED_NAMES: Final = Kind(_PINNED.says, _read_pinned_names, is_list=True)
ANYTHING: Final = Kind("any YAML", plain, is_list=True)
