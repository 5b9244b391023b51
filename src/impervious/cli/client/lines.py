"""An event as one line for people: time, seq, type, who, what.

What comes from other nodes is not trusted with a terminal: control characters are escaped, bytes that are no text are
counted and their beginning is shown in hex.
"""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from impervious.cli.client.frames import StreamEvent

SHOWN_HEX_BYTES: Final = 16
NARROWEST: Final = 30
"""Characters of data that are shown on the narrowest terminal."""

_KEY_ENDS: Final = (10, 4)
"""Hex digits of a key that are shown: enough to tell nodes apart."""
_TYPE_WIDTH: Final = 8
_DIM, _BOLD, _GREEN, _RED, _CYAN, _YELLOW = "2", "1", "32", "31", "36", "33"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How lines look."""

    colours: bool = False
    width: int | None = 200
    """Characters of a line; None: data is shown whole."""
    local: Callable[[int], datetime] = lambda at_ms: datetime.fromtimestamp(at_ms / 1000).astimezone()
    """The time of day where the reader is."""

    def line(self, event: StreamEvent) -> str:
        """Write an event."""
        words = [
            (_DIM, self.time(event.sent_at_ms)),
            (_DIM, f"#{event.seq}"),
            (_CYAN, f"{printable(event.service_type):{_TYPE_WIDTH}}"),
            *self._who_and_what(event),
        ]
        return " ".join(self._painted(colour, word) for colour, word in words if word)

    def time(self, at_ms: int) -> str:
        """Write a time, with the date."""
        try:
            return self.local(at_ms).strftime("%Y-%m-%d %H:%M:%S")
        except (ValueError, OverflowError, OSError):  # a sender can claim any
            return f"at {at_ms} ms"

    def _who_and_what(self, event: StreamEvent) -> list[tuple[str, str]]:
        if event.service_type == "status":
            outcome = _outcome(event)
            if outcome is not None:
                return [outcome]
        who = shortened_key(event.sender) if event.sender else "nobody known"
        about = f"{event.amount_sat} sat" if event.amount_sat else ""
        doubt = "" if event.verified else "unverified"
        reply = f"re {event.reply_to[:8]}" if event.reply_to else ""
        words = [(_BOLD, who), (_YELLOW, doubt), (_DIM, about), (_DIM, reply)]
        before = (self.time(event.sent_at_ms), f"#{event.seq}", "-" * _TYPE_WIDTH, *(word for _, word in words if word))
        taken = sum(len(word) + 1 for word in before)
        room = None if self.width is None else max(NARROWEST, self.width - taken)
        return [*words, ("", shown_data(event.data, room) or "(empty)")]

    def _painted(self, sgr: str, text: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self.colours and sgr else text


def _outcome(event: StreamEvent) -> tuple[str, str] | None:
    """Say how one of our own calls ended, or why it has not; None: it is told in words that we do not know."""
    try:
        told = json.loads(event.data)
        service = printable(str(told["service"]))
        match told["state"]:
            case "delivered":
                parts, fee_msat = int(told["parts"]), int(told["fee_msat"])
                cost = f"{int(told['amount_sat'])} sat, fee {exact_sat(fee_msat)} sat"
                return (_GREEN, f"{service} {event.id} delivered: {parts} part{'s' * (parts != 1)}, {cost}")
            case "failed":
                again = "; sending it again may work" if told["retryable"] is True else ""
                return (_RED, f"{service} {event.id} failed: {printable(str(told['reason']))}{again}")
            case "retrying" | "pending" as state:
                return (_YELLOW, f"{service} {event.id} {state}: {printable(str(told['reason']))}")
    except (ValueError, KeyError, TypeError):
        pass
    return None


def exact_sat(msat: int) -> str:
    """Write msat as satoshis, exactly."""
    return f"{msat // 1000}.{msat % 1000:03}".rstrip("0").rstrip(".")


def shortened_key(key: str) -> str:
    """Write both ends of a key."""
    first, last = _KEY_ENDS
    return key if len(key) <= first + last else f"{key[:first]}…{key[-last:]}"


def shown_data(data: bytes, room: int | None) -> str:
    """Write data on one line, in so many characters; None: all of it."""
    try:
        text = printable(data.decode())
    except UnicodeDecodeError:
        shown = data if room is None else data[:SHOWN_HEX_BYTES]
        return f"<{len(data):,} bytes: {shown.hex()}{'…' if len(shown) < len(data) else ''}>"
    if room is None or len(text) <= room:
        return text
    tail = f"… ({len(data):,} bytes)"
    return text[: max(1, room - len(tail))] + tail


def printable(text: str) -> str:
    """Escape what could steer a terminal, or look like another line."""
    if text.isprintable():
        return text
    return "".join(character if _is_plain(character) else _escaped(character) for character in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def in_words(span: timedelta) -> str:
    """Write a span of time in its largest unit: "3 days"."""
    total_s = max(0, int(span.total_seconds()))
    for unit, seconds in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if count := total_s // seconds:
            return f"{count} {unit}{'s' * (count != 1)}"
    return f"{total_s} second{'s' * (total_s != 1)}"
