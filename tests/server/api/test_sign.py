"""Signing and verifying through both doors."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from coincurve import PrivateKey
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, request
from tests.server.house import ALICE, ME, Inside, config, open_app, without_service
from tests.wire.test_lnd_signature import VECTORS

from impervious.model import NodePubkey
from impervious.pb.signing import SigningStub, SignRequest, VerifyRequest
from impervious.rpc import open_channel_over
from impervious.wire import lnd_signature, zbase32

ALICE_KEY = PrivateKey(bytes([2]) * 32)


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened:
        yield opened


async def post(inside: Inside, path: str, body: object, *, text: bool = False) -> Reply:
    server = inside.text if text else inside.http
    return await request(inside.app, "POST", path, body=json.dumps(body).encode(), server=server)


async def test_what_is_signed_verifies(inside: Inside) -> None:
    # `msg` of these two calls has always been text, whatever the encoding.
    for is_text in (False, True):
        signed = await post(inside, "/v1/sign", {"msg": "is this ö?", "pubkey": "unknown"}, text=is_text)
        assert set(signed.json) == {"signature"}
        assert lnd_signature.recover("is this ö?".encode(), zbase32.decode(signed.json["signature"])) == ME
        body = {"msg": "is this ö?", **signed.json}
        assert (await post(inside, "/v1/verify", body, text=is_text)).json == {
            "result": True,
            "pubkey": ME.hex,
            "inGraph": True,
        }


@pytest.mark.parametrize("is_text", [False, True])
async def test_text_and_data_say_what_they_are(inside: Inside, is_text: bool) -> None:
    signatures = []
    for given in ({"msg": "hi"}, {"text": "hi"}, {"data": "aGk="}):
        signed = await post(inside, "/v1/sign", given, text=is_text)
        signatures.append(signed.json["signature"])
        assert lnd_signature.recover(b"hi", zbase32.decode(signatures[-1])) == ME
        assert (await post(inside, "/v1/verify", {**given, **signed.json}, text=is_text)).json["result"]
    for path, more in (("/v1/sign", {}), ("/v1/verify", {"signature": signatures[0]})):
        for given in ({"msg": "hi", "text": "hi"}, {"text": "hi", "data": "aGk="}, {"msg": "hi", "data": "aGk="}):
            reply = await post(inside, path, {**given, **more}, text=is_text)
            assert (reply.status, "are both given: choose one" in reply.json["message"]) == (400, True)
    reply = await post(inside, "/v1/sign", {"data": "ö"}, text=is_text)
    assert (reply.status, "data is not base64" in reply.json["message"]) == (400, True)


@pytest.mark.parametrize(("text", "signature", "signer"), VECTORS)
@pytest.mark.parametrize("known", [True, False])
async def test_published_signatures(inside: Inside, text: bytes, signature: str, signer: str, known: bool) -> None:
    if known:
        inside.house.lightning.graph.add(NodePubkey.parse(signer))
    body = {"msg": text.decode(), "signature": signature}
    assert (await post(inside, "/v1/verify", body)).json == {"result": known, "pubkey": signer, "inGraph": known}
    assert (await post(inside, "/v1/verify", {**body, "pubkey": signer})).json["result"] is True
    assert (await post(inside, "/v1/verify", {**body, "pubkey": ALICE.hex})).json["result"] is False


async def test_a_signature_of_another_text_is_not_an_error_but_false(inside: Inside) -> None:
    signature = zbase32.encode(lnd_signature.sign(b"one", ALICE_KEY))
    reply = await post(inside, "/v1/verify", {"msg": "other", "signature": signature, "pubkey": ALICE.hex})
    assert (reply.status, reply.json["result"]) == (200, False)
    nobodys = zbase32.encode(b"\x1f" + b"\xff" * 64)
    reply = await post(inside, "/v1/verify", {"msg": "one", "signature": nobodys})
    assert (reply.status, reply.json) == (200, {"result": False, "pubkey": "", "inGraph": False})


GOOD = VECTORS[0][1]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/sign", {}, "msg is empty"),
        ("/v1/sign", {"msg": ""}, "msg is empty"),
        ("/v1/sign", {"msg": 1}, "msg must be"),
        ("/v1/sign", {"msg": "impervious/1|mainnet|400000"}, 'begins with "impervious/"'),
        ("/v1/verify", {}, "msg is empty"),
        ("/v1/verify", {"msg": "x"}, "signature is missing"),
        ("/v1/verify", {"msg": "x", "signature": "y" * 103}, "103 characters; one has 104"),
        ("/v1/verify", {"msg": "x", "signature": "y" * 100_000}, "100000 characters"),
        ("/v1/verify", {"msg": "x", "signature": "l" + GOOD[1:]}, "character 1 is not zbase32"),
        ("/v1/verify", {"msg": "x", "signature": GOOD.upper()}, "is not zbase32"),
        ("/v1/verify", {"msg": "x", "signature": GOOD, "pubkey": "02"}, "66 hex digits"),
        ("/v1/verify", {"msg": "x", "signature": 7}, "signature must be"),
    ],
)
async def test_every_bad_input_says_what_to_do(inside: Inside, path: str, body: object, says: str) -> None:
    reply = await post(inside, path, body)
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert says in reply.json["message"]


async def test_switched_off(tmp_path: Path) -> None:
    async with open_app(without_service(config(tmp_path), "sign")) as inside:
        for path in ("/v1/sign", "/v1/verify"):
            reply = await post(inside, path, {"msg": "x"})
            assert (reply.status, reply.json["code"]) == (501, 12)
            assert "the sign service is switched off" in reply.json["message"]


async def test_the_same_over_grpc(inside: Inside) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            stub = SigningStub(channel)  # type: ignore[arg-type]  # ours has what the stub needs of grpclib's
            signature = (await stub.sign_message(SignRequest(msg="hello"))).signature
            answer = await stub.verify_signature(VerifyRequest(msg="hello", signature=signature))
            assert (answer.result, answer.pubkey, answer.in_graph) == (True, ME.hex, True)
        nursery.cancel_scope.cancel()
