"""Messaging over HTTP, as a script with curl and a page with a websocket do it."""

import json
from typing import Any
from uuid import UUID

import pytest
from tests.acceptance.clients import Answer, curl, subscribed
from tests.acceptance.conftest import Door, Pair

pytestmark = [pytest.mark.slow, pytest.mark.interop]

SEND = "/v1/message/send"
PUBLISHED = ["id", "replyToId", "fromPubkey", "data", "serviceType", "amount"]


def sent(answer: Answer) -> str:
    """The id, as programs read it."""
    assert (answer.status, list(answer.body)) == (200, ["id"]), answer
    assert UUID(answer.body["id"]).version == 4
    return str(answer.body["id"])


@pytest.mark.parametrize("amount", [{}, {"amount": 0}, {"amount": None}, {"amount": 21}, {"amount": "21"}])
def test_a_message_is_sent_and_shown(pair: Pair, door: Door, amount: dict[str, Any]) -> None:
    data = "héllo ⚡ test".encode()
    with subscribed(door.of(pair.carol)) as stream:
        message = {"msg": door.shown(data), "pubkey": pair.carol.pubkey, **amount, "a field of another version": [1]}
        identifier = sent(curl(door.of(pair.alice), SEND, message))
        result = stream.until(identifier)
    assert (result["id"], result["fromPubkey"], result["serviceType"]) == (identifier, pair.alice.pubkey, "message")
    assert door.bytes_of(result["data"]) == data
    assert (result["replyToId"], result["amount"]) == ("", "21" if amount.get("amount") else "1")
    assert [name for name in result if name in PUBLISHED] == PUBLISHED
    assert (list(result) == PUBLISHED) == (door.name == "text")


@pytest.mark.parametrize("name", ["replyToId", "reply_to_id"])
def test_a_reply(pair: Pair, door: Door, name: str) -> None:
    asked = sent(curl(door.of(pair.alice), SEND, {"msg": door.shown(b"ping"), "pubkey": pair.carol.pubkey}))
    with subscribed(door.of(pair.alice)) as stream:
        answer = {"msg": door.shown(b"pong"), "pubkey": pair.alice.pubkey, name: asked}
        sent(curl(door.of(pair.carol), SEND, answer))
        result = stream.of_type("message")
    assert (result["replyToId"], door.bytes_of(result["data"])) == (asked, b"pong")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json", None])
def test_the_content_type_is_not_looked_at(pair: Pair, door: Door, content_type: str | None) -> None:
    message = json.dumps({"msg": door.shown(b"x"), "pubkey": pair.carol.pubkey}).encode()
    with subscribed(door.of(pair.carol)) as stream:
        answer = curl(door.of(pair.alice), SEND, message, content_type=content_type)
        assert answer.content_type == "application/json"
        stream.until(sent(answer))


def test_text_that_is_base64_by_chance_is_still_text(pair: Pair) -> None:
    with subscribed(pair.carol.text) as text, subscribed(pair.carol.http) as base64:
        for address, msg in ((pair.alice.text, "test"), (pair.alice.http, "dGVzdA")):
            identifier = sent(curl(address, SEND, {"msg": msg, "pubkey": pair.carol.pubkey}))
            assert (text.until(identifier)["data"], base64.until(identifier)["data"]) == ("test", "dGVzdA==")


def test_the_encoding_of_one_request_can_be_the_other(pair: Pair) -> None:
    with subscribed(pair.carol.http, "/v1/subscribe?encoding=text") as stream:
        identifier = sent(curl(pair.alice.http, f"{SEND}?encoding=text", {"msg": "plain", "pubkey": pair.carol.pubkey}))
        result = stream.until(identifier)
    assert (result["data"], list(result)) == ("plain", PUBLISHED)


def test_text_at_the_base64_door_is_told_of_the_other_one(pair: Pair) -> None:
    answer = curl(pair.alice.http, SEND, {"msg": "not base64!", "pubkey": pair.carol.pubkey})
    assert (answer.status, answer.body["code"]) == (400, 3)
    assert "encoding=text" in answer.body["message"]


def test_the_base64_door_does_not_raise_an_amount(pair: Pair, door: Door) -> None:
    packet = {"msg": door.shown(b"x" * 905), "amount": 1, "pubkey": pair.carol.pubkey}
    with subscribed(pair.carol.text) as stream:
        answer = curl(door.of(pair.alice), SEND, packet)
        if door.name == "text":
            stream.until(sent(answer))
            return
    assert (answer.status, answer.body["code"], "2 sat" in answer.body["message"]) == (400, 3, True), answer


def test_bytes_that_are_no_text_are_shown_all_the_same(pair: Pair) -> None:
    with subscribed(pair.carol.text) as stream:
        identifier = sent(curl(pair.alice.http, SEND, {"msg": "/w==", "pubkey": pair.carol.pubkey}))
        assert stream.until(identifier)["data"] == "\ufffd"
