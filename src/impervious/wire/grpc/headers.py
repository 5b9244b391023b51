"""Header lists and what gRPC keeps in them: metadata, binary metadata, timeouts, status messages.

HTTP/2 headers are bytes here; metadata is a MultiDict of str, or of bytes where the key ends in `-bin`. What we send is
checked strictly, because a bad value is a caller's bug. What we receive is read as far as it can be read: only binary
values that are not base64 are an error, as they cannot be represented.
"""

import base64
import binascii
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from multidict import MultiDict

Header: TypeAlias = tuple[bytes, bytes]
"""Name and value. hpack's NeverIndexedHeaderTuple is one too, and keeps out of the compression table what would only
drive more useful entries out of it (RFC 7541, 7.1.3)."""

Metadata: TypeAlias = MultiDict[str | bytes]
MetadataLike: TypeAlias = Mapping[str, str | bytes] | Collection[tuple[str, str | bytes]]

_NAME: Final = re.compile(r"[0-9a-z_.\-]+")
_TEXT: Final = re.compile(r"[ -~]*")
_RESERVED: Final = frozenset({"te", "content-type", "user-agent"})
_NOT_METADATA: Final = frozenset(name.encode() for name in _RESERVED)

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS_PER: Final = {b"n": 1e-9, b"u": 1e-6, b"m": 1e-3, b"S": 1.0, b"M": 60.0, b"H": 3600.0}
_TIMEOUT_LIMIT: Final = 10**8
"""A timeout has at most eight digits (PROTOCOL-HTTP2, TimeoutValue)."""

_UNESCAPED: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != ord("%"))
MESSAGE_LIMIT: Final = 4096
"""Longest grpc-message sent, escaped, in bytes: grpcio refuses header lists from 8 KiB on, and with them the status."""


def metadata_pairs(metadata: MetadataLike | None) -> list[tuple[str, str | bytes]]:
    """`metadata` as a list of pairs, in order."""
    if not metadata:
        return []
    return list(metadata.items() if isinstance(metadata, Mapping) else metadata)


def encode_metadata(metadata: MetadataLike | None) -> list[Header]:
    """Metadata as header pairs.

    Raises:
      ValueError: a key or value that gRPC does not allow; the text names the key, never the value.
      TypeError: bytes without the suffix `-bin`, or str with it.
    """
    return [_encode_pair(key, value) for key, value in metadata_pairs(metadata)]


def _encode_pair(key: str, value: str | bytes) -> tuple[bytes, bytes]:
    if key in _RESERVED or key.startswith("grpc-") or not _NAME.fullmatch(key):
        raise ValueError(f"{key!r} cannot be a metadata key: use lower case a-z, 0-9, '-', '_' and '.', not grpc-…")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise TypeError(f"the value of metadata key {key!r} must be bytes, because the key ends in -bin")
        return key.encode(), encode_binary(value)
    if not isinstance(value, str):
        raise TypeError(f"the value of metadata key {key!r} must be str; for bytes the key must end in -bin")
    if not _TEXT.fullmatch(value):
        raise ValueError(f"the value of metadata key {key!r} must be printable ASCII; use a key ending in -bin")
    return key.encode(), value.encode()


def decode_metadata(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """The metadata in a header list, without what belongs to HTTP/2 or gRPC itself.

    Raises:
      ValueError: a binary value is not base64.
    """
    metadata: Metadata = MultiDict()
    for name, value in headers:
        if name[:1] == b":" or name[:5] == b"grpc-" or name in _NOT_METADATA:
            continue
        key = name.decode("ascii", "replace")
        if name[-4:] == b"-bin":
            # Values of one key may arrive joined by commas (PROTOCOL-HTTP2, Binary-Header).
            for part in value.split(b","):
                metadata.add(key, decode_binary(part))
        else:
            metadata.add(key, value.decode("ascii", "replace"))
    return metadata


def encode_binary(value: bytes) -> bytes:
    """Base64 without padding, as gRPC prefers it."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(value: bytes) -> bytes:
    """Base64 with or without padding.

    Raises:
      ValueError: it is neither.
    """
    bare = value.strip().rstrip(b"=")
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("binary metadata is not base64") from error


def encode_timeout(seconds: float) -> bytes:
    """A `grpc-timeout` value: the finest unit that fits, rounded up, so that the far end does not give up first."""
    for unit, scale in _SECONDS_PER.items():
        ticks = max(1, math.ceil(seconds / scale))
        if ticks < _TIMEOUT_LIMIT:
            return b"%d%s" % (ticks, unit)
    return b"%dH" % (_TIMEOUT_LIMIT - 1)


def decode_timeout(value: bytes) -> float:
    """Seconds in a `grpc-timeout` value.

    Raises:
      ValueError: it does not follow the grammar.
    """
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise ValueError("malformed grpc-timeout")
    return int(match[1]) * _SECONDS_PER[match[2]]


def encode_message(message: str) -> bytes:
    """A `grpc-message` value: percent-encoded UTF-8, cut at MESSAGE_LIMIT."""
    escaped = quote(message[:MESSAGE_LIMIT], safe=_UNESCAPED, errors="replace")
    if len(escaped) > MESSAGE_LIMIT:
        cut = escaped[:MESSAGE_LIMIT]
        # Never end inside an escape: "%", "%E" and the first bytes of a character read as garbage.
        escaped = quote(unquote_to_bytes(re.sub("%.?$", "", cut)).decode("utf-8", "ignore"), safe=_UNESCAPED)
    return escaped.encode("ascii")


def decode_message(value: bytes) -> str:
    """The text in a `grpc-message` value; what is not valid UTF-8 becomes U+FFFD, as losing the rest would be worse."""
    return unquote_to_bytes(value).decode("utf-8", "replace")
