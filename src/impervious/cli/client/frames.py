"""Frames of the stream as values: one event, or the error that ends it (spec: POST and stream JSON of the API)."""

import base64
import binascii
import json
from dataclasses import dataclass

from impervious.errors import Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """An event as the daemon shows it."""

    seq: int
    id: str
    reply_to: str
    sender: str
    """66 hex digits; empty when nobody proved to have sent it."""
    service_type: str
    data: bytes
    amount_sat: int
    sent_at_ms: int
    verified: bool
    json: str
    """The event as it came, on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamError:
    """Why the daemon ends the stream."""

    code: int
    """gRPC's."""
    message: str


def read_frame(text: str | bytes) -> StreamEvent | StreamError:
    """Read one frame.

    Raises:
      Malformed: it is none of an impervious daemon's.
    """
    try:
        frame = json.loads(text)
        if "error" in frame:
            return StreamError(code=int(frame["error"]["code"]), message=str(frame["error"]["message"]))
        shown = frame["result"]
        return StreamEvent(
            seq=int(shown["seq"]),
            id=str(shown["id"]),
            reply_to=str(shown["replyToId"]),
            sender=str(shown["fromPubkey"]),
            service_type=str(shown["serviceType"]),
            data=base64.b64decode(shown["data"], validate=True),
            amount_sat=int(shown["amount"]),
            sent_at_ms=int(shown["sentAtMs"]),
            verified=shown["verified"] is True,
            json=json.dumps(shown, ensure_ascii=False, separators=(",", ":")),
        )
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise Malformed(f"a frame of the stream is none of an impervious daemon's: {error!r}") from error
