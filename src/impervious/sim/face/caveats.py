"""Conditions of macaroons as LND checks them: time-before, ipaddr and iprange; it satisfies no other.

Errors are those of LND's libraries (macaroon-bakery/checkers, macaroons/constraints.go), Go's formatting included.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Final

_RFC3339: Final = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(?:[.,](\d+))?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_LAYOUT: Final = "2006-01-02T15:04:05.999999999Z07:00"
"""Go's way to write RFC 3339, which stands in its errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who presents a macaroon, and when."""

    host: str
    """Its IP address."""
    now_s: float
    """Seconds since 1970."""


def refusal(caveat: bytes, caller: Caller) -> str:
    """What LND says of a condition that does not hold; nothing of one that does."""
    if not caveat:
        return 'cannot parse caveat "": empty caveat'
    if caveat.startswith(b" "):
        return f"cannot parse caveat {go_quoted(caveat)}: caveat starts with space character"
    reason = unsatisfied(caveat.decode(errors="replace"), caller)
    return f"caveat {go_quoted(caveat)} not satisfied: {reason}" if reason else ""


def unsatisfied(caveat: str, caller: Caller) -> str:
    """Why a condition does not hold; nothing if it does."""
    name, _, argument = caveat.partition(" ")
    if name == "time-before":
        return _time_before(argument, caller.now_s)
    if name == "ipaddr":
        same = _address(argument) == _address(caller.host) is not None
        return "" if same else "macaroon locked to different IP address"
    if name == "iprange":
        return _iprange(argument, caller.host)
    if name == "lnd-custom":
        custom = argument.partition(" ")[0]
        return f"cannot accept macaroon with custom caveat '{custom}', no middleware registered to handle it"
    if name == "error":
        return "bad caveat"
    return "caveat not recognized"


def go_quoted(raw: bytes) -> str:
    """Bytes as Go's %q writes them."""
    text = json.dumps(raw.decode(errors="surrogateescape"), ensure_ascii=False)
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def _time_before(argument: str, now_s: float) -> str:
    match = _RFC3339.fullmatch(argument)
    try:
        if match is None:
            raise ValueError
        date, clock, fraction, zone = match.groups()
        until = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        return f'parsing time {go_quoted(argument.encode())} as "{_LAYOUT}": cannot parse it'
    until_s = until.astimezone(UTC).timestamp() + float(f"0.{fraction or 0}")
    return "" if now_s < until_s else "macaroon has expired"


def _iprange(argument: str, host: str) -> str:
    address = _address(host)
    try:
        network = ip_network(argument, strict=False)
    except ValueError:
        return f"unable to parse macaroon IP range: invalid CIDR address: {argument}"
    inside = address is not None and ip_address(address) in network
    return "" if inside else "macaroon locked to different IP range"


def _address(text: str) -> str | None:
    """An IP address in one spelling; IPv4 within IPv6 is IPv4. None if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
