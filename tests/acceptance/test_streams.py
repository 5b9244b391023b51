"""The stream, as programs of 2021 hold it."""

import http.client
import json
from typing import Any

import pytest
from tests.acceptance.clients import PATIENCE_S, curl, subscribed
from tests.acceptance.conftest import Door, Pair

pytestmark = [pytest.mark.slow, pytest.mark.interop]


def send(pair: Pair, door: Door, data: bytes) -> str:
    message = {"msg": door.shown(data), "pubkey": pair.carol.pubkey}
    return str(curl(door.of(pair.alice), "/v1/message/send", message).body["id"])


@pytest.mark.parametrize("word", ["start", "", "{}", b"\x00\xff"])
def test_whatever_is_sent_into_a_websocket_is_ignored(pair: Pair, door: Door, word: str | bytes) -> None:
    with subscribed(door.of(pair.carol)) as stream:
        stream.connection.send(word)
        identifier = send(pair, door, b"one")
        stream.connection.send(word)
        assert door.bytes_of(stream.until(identifier)["data"]) == b"one"
        identifier = send(pair, door, b"two")
        assert door.bytes_of(stream.until(identifier)["data"]) == b"two"


def test_pings_are_answered(pair: Pair, door: Door) -> None:
    with subscribed(door.of(pair.carol)) as stream:
        assert stream.connection.ping("anybody there?").wait(PATIENCE_S)


def test_a_message_larger_than_64_kib_is_one_frame(pair: Pair, door: Door) -> None:
    data = b"0123456789abcdef" * 6000
    with subscribed(door.of(pair.carol)) as stream:
        result = stream.until(send(pair, door, data))
    assert result["amount"] == "107"
    assert door.bytes_of(result["data"]) == data


def test_many_arrive_in_the_order_in_which_they_were_sent(pair: Pair, door: Door) -> None:
    with subscribed(door.of(pair.carol)) as first, subscribed(door.of(pair.carol)) as second:
        sent = [send(pair, door, b"%d" % number) for number in range(20)]
        assert [first.of_type("message")["id"] for _ in sent] == sent
        assert [second.of_type("message")["id"] for _ in sent] == sent


def test_without_a_websocket_it_is_a_line_of_json_for_each_event(pair: Pair, door: Door) -> None:
    connection = http.client.HTTPConnection(door.of(pair.carol), timeout=PATIENCE_S)
    connection.request("GET", "/v1/subscribe")
    answer = connection.getresponse()  # the headers are there before any event is
    assert (answer.status, answer.getheader("transfer-encoding")) == (200, "chunked")
    sent = [send(pair, door, data) for data in (b"one", b"two")]
    lines: list[dict[str, Any]] = []
    while len(lines) < len(sent):
        line = json.loads(answer.readline())
        lines.extend([line] if line["result"]["serviceType"] == "message" else [])
    connection.close()
    assert [list(line) for line in lines] == [["result"], ["result"]]
    assert [line["result"]["id"] for line in lines] == sent
