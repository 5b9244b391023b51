"""What is shown of payments by others, whatever they put into them."""

import json
from typing import Any

import pytest

from impervious.model import PaymentHash, SettledInvoice
from impervious.services.lightning.arrivals import CHAT_RECORD, PODCAST_RECORD, event_data, event_id
from impervious.units import Msat


def keysend(records: dict[int, bytes]) -> SettledInvoice:
    return SettledInvoice(
        payment_hash=PaymentHash(bytes(range(32))),
        amount=Msat(1234),
        records=records,
        is_keysend=True,
        add_index=1,
        settle_index=1,
        created_s=5,
        settled_s=6,
    )


def shown(records: dict[int, bytes]) -> Any:
    return json.loads(event_data(keysend(records)))


def test_every_record_in_hex() -> None:
    assert shown({70_000: b"\x00\xff", 65_536: b"", 5482373484: bytes(32)}) == {
        "recordId": "KEYSEND",
        "paymentHash": bytes(range(32)).hex(),
        "amountMsat": 1234,
        "settledAt": 6,
        "tlvRecords": [
            {"type": 65_536, "value": ""},
            {"type": 70_000, "value": "00ff"},
            {"type": 5482373484, "value": "00" * 32},
        ],
    }


def test_chat_is_text() -> None:
    assert shown({CHAT_RECORD: "grüezi".encode()})["chat"] == "grüezi"
    assert shown({CHAT_RECORD: b"\xff!"})["chat"] == "\ufffd!"


def test_a_podcast_is_json() -> None:
    assert shown({PODCAST_RECORD: b'{"app_name":"x","value_msat_total":5}'})["podcast"] == {
        "app_name": "x",
        "value_msat_total": 5,
    }


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 1100 + b"1" + b"}" * 1100,
        b'{"a":' * 64 + b"1" + b"}" * 64,
        b"[" * 100_000,
    ],
)
def test_what_is_no_podcast_is_shown_in_hex_only(value: bytes) -> None:
    found = shown({PODCAST_RECORD: value})
    assert "podcast" not in found
    assert found["tlvRecords"] == [{"type": PODCAST_RECORD, "value": value.hex()}]


def test_the_name_of_an_event_is_that_of_its_payment() -> None:
    one, other = event_id(keysend({})), event_id(keysend({70_000: b"x"}))
    assert one == other
    assert one.version == 4
