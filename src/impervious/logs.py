"""Log lines: one JSON object each, or a readable line on a terminal.

Rooms write with `logging.getLogger(__name__)` and put what programs may want in `extra=`; the roof decides here, once,
what becomes of it. Only our own lines follow `log.level`: other libraries are heard from warnings up, because at debug
level hpack prints every header, the macaroon's among them.

A net catches what looks like a secret before it is written. It is the second line of defence: the first is not to
log one.
"""

import json
import logging
import math
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO

from impervious.config import LogConfig

HIDDEN: Final = "***"

_OURS: Final = "impervious"
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""What every record has; the rest came with `extra=`."""

_LOOKS_SECRET: Final = re.compile(
    r"(?P<uri>lndconnect://)\S+"
    r"|(?P<name>(?:preimage|macaroon|password|secret|token\d?)\W{1,4})[0-9a-f]{32,}"
    r"|0201036c6e64[0-9a-f]{20,}",  # LND's macaroons begin so: version 2, location "lnd"
    re.IGNORECASE,
)
_SECRET_NAME: Final = re.compile(r"preimage|macaroon|password|secret|token|seed|private_?key", re.IGNORECASE)
_SHORTEST_SECRET: Final = 6
"""Characters; hiding shorter ones would blot out ordinary words."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS: Final = {"debug": "2", "info": "36", "warning": "33", "error": "31", "critical": "1;31"}
"""SGR parameters (ECMA-48)."""


def configure(
    config: LogConfig, stream: TextIO, *, environ: Mapping[str, str], secrets: Iterable[str | None] = ()
) -> None:
    """Send the log of this process to a stream, in place of wherever it went.

    Args:
      config: the least level, and the format.
      stream: stderr, as a rule; whether it is a terminal decides what the format `auto` means.
      environ: NO_COLOR (https://no-color.org) and TERM=dumb switch colours off.
      secrets: texts that must never be written, such as the database's password.
    """
    redact = Redactor(secrets)
    formatter: logging.Formatter
    if config.format == "console" or (config.format == "auto" and stream.isatty()):
        colours = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        formatter = ConsoleFormatter(redact, colours=colours)
    else:
        formatter = JsonFormatter(redact)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(_is_heard)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(config.level.upper())
    logging.captureWarnings(True)


def _is_heard(record: logging.LogRecord) -> bool:
    """Whether a record is ours, or matters; a library may have set the level of its logger itself."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] == _OURS


class Redactor:
    """Hides what looks like a secret, or is known to be one."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        known = sorted({text for text in secrets if text and len(text) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known)), re.IGNORECASE) if known else None

    def text(self, text: str) -> str:
        """Clean a text."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _LOOKS_SECRET.sub(lambda found: (found["uri"] or found["name"] or "") + HIDDEN, text)

    def value(self, value: object, name: str = "") -> object:
        """Clean a value that was logged under a name, and make JSON of it."""
        match value:
            case None | bool() | int():
                return value
            case str() | bytes() | bytearray() if _SECRET_NAME.search(name):
                return HIDDEN
            case float():
                return value if math.isfinite(value) else str(value)
            case bytes() | bytearray():
                return f"{len(value)} bytes"  # contents never
            case Mapping():
                return {str(key): self.value(item, str(key)) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(item, name) for item in value]
            case _:
                return self.text(str(value))

    def extras(self, record: logging.LogRecord) -> dict[str, object]:
        """Give what came with `extra=`, cleaned."""
        return {key: self.value(value, key) for key, value in vars(record).items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One object a line: level, ts, caller, msg, what came with `extra=`, and the exception if there is one."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Write a record on one line."""
        line: dict[str, object] = {
            "level": record.levelname.lower(),
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "caller": record.name,
            "msg": self._redact.text(record.getMessage()),
        }
        for key, value in self._redact.extras(record).items():
            line[f"{key}_" if key in line else key] = value
        if (error := _error_of(record)) is not None:
            line["error"] = self._redact.text("".join(traceback.format_exception_only(error)).strip())
            line["traceback"] = self._redact.text("".join(traceback.format_exception(error)))
        if record.stack_info:
            line["stack"] = self._redact.text(record.stack_info)
        # Escaped, so that no text from outside can look like a second line to any reader.
        return json.dumps(line, separators=(",", ":"))


class ConsoleFormatter(logging.Formatter):
    """A line for people: local time, level, caller, message, name=value …, and below it the traceback."""

    def __init__(self, redact: Redactor, *, colours: bool) -> None:
        super().__init__()
        self._redact = redact
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Write a record for a terminal; characters that could steer one are escaped."""
        level = record.levelname.lower()
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        words = [
            self._painted("2", time),
            self._painted(_COLOURS.get(level, "0"), f"{level:7}"),
            self._painted("2", record.name.removeprefix(f"{_OURS}.")),
            _escape(self._redact.text(record.getMessage())),
            *(
                self._painted("2", f"{_escape(key)}=") + _escape(value if isinstance(value, str) else json.dumps(value))
                for key, value in self._redact.extras(record).items()
            ),
        ]
        lines = [" ".join(words)]
        if (error := _error_of(record)) is not None:
            lines += traceback.format_exception(error)
        if record.stack_info:
            lines.append(record.stack_info)
        below = "\n".join(self._redact.text(line).rstrip("\n") for line in lines[1:])
        return lines[0] + ("\n" + _CONTROL_BUT_LINES.sub(_escaped, below) if below else "")

    def _painted(self, sgr: str, text: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self._colours else text


def _error_of(record: logging.LogRecord) -> BaseException | None:
    info: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None
    info = record.exc_info
    return info[1] if info else None


def _escape(text: str) -> str:
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
