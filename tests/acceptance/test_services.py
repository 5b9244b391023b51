"""Every other published call over HTTP: its path, its names, its answer."""

import json
from uuid import UUID

import pytest
from tests.acceptance.clients import curl, subscribed
from tests.acceptance.conftest import Door, Pair

pytestmark = [pytest.mark.slow, pytest.mark.interop]


def test_a_signature(pair: Pair, door: Door) -> None:
    signed = curl(door.of(pair.alice), "/v1/sign", {"msg": "test"})  # text, in either encoding
    assert (signed.status, list(signed.body)) == (200, ["signature"])
    verify = {"msg": "test", "signature": signed.body["signature"]}
    assert curl(door.of(pair.carol), "/v1/verify", verify).body["result"] is True
    assert curl(door.of(pair.carol), "/v1/verify", {**verify, "msg": "best"}).body["result"] is False


def test_federation(pair: Pair, door: Door) -> None:
    with subscribed(door.of(pair.carol)) as carol, subscribed(door.of(pair.alice)) as alice:
        asked = curl(door.of(pair.alice), "/v1/federate/request", {"pubkey": pair.carol.pubkey})
        assert UUID(asked.body["id"]).version == 4
        there = carol.until(asked.body["id"])
        assert (there["serviceType"], there["fromPubkey"]) == ("federate", pair.alice.pubkey)
        assert alice.of_type("federate")["fromPubkey"] == pair.carol.pubkey
        left = curl(door.of(pair.alice), "/v1/federate/leave", {"pubkey": pair.carol.pubkey})
        assert carol.until(left.body["id"])["serviceType"] == "federate"


def test_a_relay_is_opened_announced_and_closed(pair: Pair, door: Door) -> None:
    opened = curl(door.of(pair.alice), "/v1/socket/start", b"")
    try:
        assert opened.status == 200
        assert (opened.body["protocol"], opened.body["ip"]) == ("udp", "127.0.0.1")
        for port in ("port1", "port2"):
            assert opened.body[port].startswith(":")
            assert 0 < int(opened.body[port][1:]) < 65536
        with subscribed(door.of(pair.carol)) as stream:
            sent = curl(door.of(pair.alice), "/v1/socket/sendRequest", {"pubkey": pair.carol.pubkey})
            result = stream.until(sent.body["id"])
        assert (result["serviceType"], result["fromPubkey"]) == ("socket", pair.alice.pubkey)
        names = ("protocol", "ip", "port1", "port2")
        offer = json.loads(door.bytes_of(str(result["data"])))
        assert offer == {"recordId": "SOCKET", **{name: opened.body[name] for name in names}}
    finally:
        assert curl(door.of(pair.alice), "/v1/socket/stop", {}).body == {}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/vpn/quote", {}),
        ("/v1/vpn/contract", {"nonce": "none", "price": "100"}),
        ("/v1/vpn/refresh", {"nonce": "none", "price": "100"}),
    ],
)
def test_the_vpn_answers_with_an_id_or_with_what_is_wrong(
    pair: Pair, door: Door, path: str, fields: dict[str, str]
) -> None:
    answer = curl(door.of(pair.alice), path, {"pubkey": pair.carol.pubkey, **fields})
    if answer.status == 200:
        assert UUID(answer.body["id"]).version == 4
    else:
        assert (answer.status, answer.body["code"]) in ((404, 5), (400, 9)), answer


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/no/such/path", b"", 404, 5),
        ("GET", "/v1/message/send", b"", 501, 12),
        ("POST", "/v1/message/send", b"{", 400, 3),
        ("POST", "/v1/message/send", b"[]", 400, 3),
        ("POST", "/v1/message/send", b"", 400, 3),
        ("POST", "/v1/message/send", b'{"pubkey": 7}', 400, 3),
        ("POST", "/v1/message/send", b'{"pubkey": "02ab", "msg": "dGVzdA=="}', 400, 3),
    ],
)
def test_errors(pair: Pair, door: Door, method: str, path: str, body: bytes, status: int, code: int) -> None:
    answer = curl(door.of(pair.alice), path, body, method=method)
    assert (answer.status, list(answer.body), answer.body["code"]) == (status, ["code", "message", "details"], code)
    assert (answer.content_type, answer.body["details"]) == ("application/json", [])
    assert len(answer.body["message"]) > 10
