import json

import pytest

from impervious.cli.client.frames import StreamError, StreamEvent, read_frame
from impervious.errors import Malformed

SHOWN = {
    "id": "5fed",
    "replyToId": "",
    "fromPubkey": "027b",
    "data": "aGk=",
    "serviceType": "message",
    "amount": "1",
    "seq": "7",
    "sentAtMs": "1760000000123",
    "verified": True,
    "added": "later",
}


def test_an_event() -> None:
    assert read_frame(json.dumps({"result": SHOWN})) == StreamEvent(
        seq=7,
        id="5fed",
        reply_to="",
        sender="027b",
        service_type="message",
        data=b"hi",
        amount_sat=1,
        sent_at_ms=1_760_000_000_123,
        verified=True,
        json=json.dumps(SHOWN, separators=(",", ":")),
    )


def test_an_error() -> None:
    assert read_frame('{"error":{"code":14,"message":"away","details":[]}}') == StreamError(code=14, message="away")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "7",
        "null",
        "{}",
        '{"result":{}}',
        '{"error":7}',
        json.dumps({"result": {**SHOWN, "data": "~"}}),
    ],
)
def test_what_is_no_frame(text: str) -> None:
    with pytest.raises(Malformed, match="none of an impervious daemon's"):
        read_frame(text)
