"""gRPC, with stubs that grpcio-tools made from the definitions of 2021, and as grpcurl does it."""

import base64
import json
from pathlib import Path
from uuid import UUID

import pytest
from tests.acceptance.clients import Grpc, grpcurl, subscribed
from tests.acceptance.conftest import Pair

pytestmark = [pytest.mark.slow, pytest.mark.interop]

SEND = "messaging.Messaging/SendMessage"


def field(stubs: Path, text: str) -> str:
    """What a program of that version gives for `msg`, and is given for `data`; bytes are base64 on their way to it."""
    return text if stubs.name == "v0.1.3" else base64.b64encode(text.encode()).decode()


def test_a_message_and_a_reply(pair: Pair, stubs: Path, alice: Grpc, carol: Grpc) -> None:
    carol.subscribe()
    sent = alice.call(SEND, msg=field(stubs, "héllo"), pubkey=pair.carol.pubkey, amount="7")
    assert list(sent) == ["id"]
    event = carol.next()
    while event["id"] != sent["id"]:  # what earlier programs caused
        event = carol.next()
    assert event == {
        "id": sent["id"],
        "replyToId": "",
        "fromPubkey": pair.alice.pubkey,
        "data": field(stubs, "héllo"),
        "serviceType": "message",
        "amount": "7",
    }
    alice.subscribe()
    answered = carol.call(SEND, msg=field(stubs, "yes"), pubkey=pair.alice.pubkey, replyToId=sent["id"])
    while (event := alice.next())["id"] != answered["id"]:
        pass
    assert (event["replyToId"], event["data"]) == (sent["id"], field(stubs, "yes"))


def test_signatures(alice: Grpc, carol: Grpc) -> None:
    signature = alice.call("signing.Signing/SignMessage", msg="hello")["signature"]
    for text, result in (("hello", True), ("hullo", False)):
        assert carol.call("signing.Signing/VerifySignature", msg=text, signature=signature) == {"result": result}


def test_the_relay(pair: Pair, alice: Grpc) -> None:
    opened = alice.call("socket.Socket/StartSocket")
    try:
        assert list(opened) == ["protocol", "ip", "port1", "port2"]
        assert (opened["protocol"], opened["port1"][0], opened["port2"][0]) == ("udp", ":", ":")
        assert UUID(alice.call("socket.Socket/SendSocket", pubkey=pair.carol.pubkey)["id"])
    finally:
        assert alice.call("socket.Socket/StopSocket") == {}


def test_federation(pair: Pair, alice: Grpc) -> None:
    for method in ("RequestFederate", "LeaveFederation"):
        assert UUID(alice.call(f"federate.Federate/{method}", pubkey=pair.carol.pubkey)["id"])


def test_a_quote_for_a_vpn(pair: Pair, alice: Grpc) -> None:
    assert UUID(alice.call("vpn.VPN/RequestQuote", pubkey=pair.carol.pubkey)["id"])
    for method in ("AcceptContract", "RefreshContract"):
        answer = alice.call(f"vpn.VPN/{method}", pubkey=pair.carol.pubkey, nonce="none", price="100")
        assert answer["error"]["code"] in (5, 9)


def test_an_error(alice: Grpc, stubs: Path) -> None:
    answer = alice.call(SEND, msg=field(stubs, "x"), pubkey="02ab")
    assert answer["error"]["code"] == 3
    assert "pubkey" in answer["error"]["message"]


def test_grpcurl(pair: Pair) -> None:
    """Bytes are base64 in its JSON, whichever listener there is for HTTP, and it needs no .proto file."""
    with subscribed(pair.carol.text) as stream:
        body = {"msg": base64.b64encode(b"from grpcurl").decode(), "pubkey": pair.carol.pubkey, "amount": 3}
        sent = grpcurl(pair.alice.grpc, SEND, json.dumps(body))
        result = stream.until(sent["id"])
    assert (result["data"], result["amount"]) == ("from grpcurl", "3")
    signed = grpcurl(pair.alice.grpc, "signing.Signing/SignMessage", '{"msg": "hi"}')
    verify = json.dumps({"msg": "hi", **signed})
    assert grpcurl(pair.carol.grpc, "signing.Signing/VerifySignature", verify)["result"] is True
