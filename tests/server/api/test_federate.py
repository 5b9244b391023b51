"""Federation through both doors."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
import trio
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, opened, request
from tests.server.house import ALICE, BOB, LOCKED, ME, Inside, config, new, open_app, without_service

from impervious.config import Config
from impervious.model import NodePubkey, Peer
from impervious.pb.federate import (
    FederateStub,
    GetPeerRequest,
    ListPeersRequest,
    ListRequestsRequest,
    RequestFederateRequest,
)
from impervious.rpc import open_channel_over
from impervious.store import outbox, peers

NOW_MS = 1_760_000_000_000
ID = UUID(int=7)
OTHER = NodePubkey.parse("02" + "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5")


def named(given: Config) -> Config:
    return replace(given, federate=replace(given.federate, imp_id="Me"))


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(named(config(tmp_path))) as opened_app:
        yield opened_app


async def post(inside: Inside, path: str, body: object, *, key: str | None = None) -> Reply:
    headers = {} if key is None else {"idempotency-key": key}
    raw = json.dumps(body).encode()
    return await request(inside.app, "POST", f"/v1/federate/{path}", body=raw, server=inside.http, headers=headers)


async def befriend(inside: Inside, *keys: NodePubkey, imp_id: str = "Ally") -> None:
    for key in keys:
        peer = Peer(pubkey=key, imp_id=imp_id, since_ms=5, expires_ms=NOW_MS + 1000, services=("message",))
        await inside.house.store.write(partial(peers.remember, peer=peer))


async def recipient(inside: Inside, identifier: str) -> tuple[NodePubkey, int, bytes]:
    stored, _ = await inside.house.store.read(lambda tx: outbox.load(tx, UUID(identifier)))
    return stored.message.recipient, stored.message.amount, stored.message.payload


async def test_requesting_and_leaving(inside: Inside) -> None:
    asked = await post(inside, "request", {"pubkey": ALICE.hex})
    assert (asked.status, set(asked.json)) == (200, {"id"})
    far, amount, raw = await recipient(inside, asked.json["id"])
    payload = json.loads(raw)
    assert (far, amount) == (ALICE, 2000)
    assert (payload["recordId"], payload["impId"], payload["pubkey"]) == ("FEDERATE", "Me", ME.hex)
    left = await post(inside, "leave", {"pubkey": ALICE.hex})
    assert await recipient(inside, left.json["id"]) == (ALICE, 1000, b'{"recordId":"LEAVE"}')


async def test_a_key_sends_once(inside: Inside) -> None:
    await befriend(inside, ALICE)
    left = await post(inside, "leave", {"pubkey": "@Ally"}, key="k")
    assert left.status == 200
    for status in (inside.house.lightning.status, LOCKED):  # nobody goes by that name any more, and LND may be away
        inside.house.lightning.status, before = status, inside.house.lightning.status
        assert (await post(inside, "leave", {"pubkey": "@Ally"}, key="k")).json == left.json
        inside.house.lightning.status = before
    for path, body in (
        ("leave", {"pubkey": ALICE.hex}),
        ("request", {"pubkey": "@Ally"}),
        ("leave", {"pubkey": BOB.hex}),
    ):
        clash = await post(inside, path, body, key="k")
        assert (clash.status, clash.json["code"]) == (409, 6)
        assert "used for another request" in clash.json["message"]
    assert await inside.house.stored_messages() == 1
    asked = [await post(inside, "request", {"pubkey": name}, key="r") for name in (ALICE.hex, ALICE.hex.upper())]
    assert asked[0].json == asked[1].json != left.json
    assert await inside.house.stored_messages() == 2
    assert (await post(inside, "peer", {"pubkey": ALICE.hex}, key="k")).json["code"] == 5  # repeats nothing anyway


async def test_a_key_is_free_as_long_as_nothing_was_sent(inside: Inside) -> None:
    assert (await post(inside, "leave", {"pubkey": "@Nobody"}, key="k")).status == 404
    assert (await post(inside, "request", {"pubkey": ALICE.hex}, key="k")).status == 200


async def test_peers_are_listed_and_found(inside: Inside) -> None:
    listed = await request(inside.app, "GET", "/v1/federate/peers", server=inside.http)
    assert (listed.status, listed.json) == (200, {"peers": []})
    await befriend(inside, ALICE)
    listed = await request(inside.app, "GET", "/v1/federate/peers", server=inside.http)
    peer = {
        "impId": "Ally",
        "pubkey": ALICE.hex,
        "sinceMs": "5",
        "expiresMs": str(NOW_MS + 1000),
        "services": ["message"],
    }
    assert listed.json == {"peers": [peer]}
    for name in (ALICE.hex, "@Ally"):
        assert (await post(inside, "peer", {"pubkey": name})).json == peer


PENDING = "INSERT INTO federate_pending VALUES (?, ?, ?, ?, ?, ?)"


async def test_who_waits_for_a_word_is_listed(inside: Inside) -> None:
    listed = await request(inside.app, "GET", "/v1/federate/requests", server=inside.http)
    assert (listed.status, listed.json) == (200, {"requests": []})
    await ask(inside, BOB, at_ms=NOW_MS)
    await ask(inside, ALICE, at_ms=NOW_MS - 1000, services="message,vpn")
    await ask(inside, OTHER, at_ms=NOW_MS - 7 * 86_400_000)
    listed = await request(inside.app, "GET", "/v1/federate/requests", server=inside.http)
    first, second = listed.json["requests"]
    assert second["pubkey"] == BOB.hex
    assert first == {
        "id": str(ID),
        "pubkey": ALICE.hex,
        "impId": "Ally",
        "ttlS": "60",
        "services": ["message", "vpn"],
        "askedAtMs": str(NOW_MS - 1000),
        "expiresMs": str(NOW_MS - 1000 + 7 * 86_400_000),
    }
    accepted = await post(inside, "accept", {"pubkey": ALICE.hex})
    assert (await recipient(inside, accepted.json["id"]))[0] == ALICE
    listed = await request(inside.app, "GET", "/v1/federate/requests", server=inside.http)
    assert [each["pubkey"] for each in listed.json["requests"]] == [BOB.hex]


async def ask(inside: Inside, sender: NodePubkey, *, at_ms: int, services: str = "") -> None:
    await inside.house.store.write(lambda tx: tx.run(PENDING, sender.raw, ID.bytes, "Ally", 60, services, at_ms))


async def test_names_stand_for_keys_everywhere(inside: Inside) -> None:
    await befriend(inside, ALICE)
    message = {"msg": "aGk=", "pubkey": "@Ally"}
    for path, body in (("/v1/message/send", message), ("/v1/federate/request", {"pubkey": "@Ally"})):
        reply = await request(inside.app, "POST", path, body=json.dumps(body).encode(), server=inside.http)
        assert reply.status == 200, reply.body
        assert (await recipient(inside, reply.json["id"]))[0] == ALICE
    await inside.house.emit(new("from alice", sender=ALICE), new("from bob", sender=BOB))
    async with opened(inside.app, "/v1/subscribe?since=0&from=@Ally", server=inside.http) as line:
        await line.expect("http.response.start")
        shown = (await line.body()).splitlines()
        assert [json.loads(each)["result"]["fromPubkey"] for each in shown] == [ALICE.hex]
    unknown = await request(inside.app, "GET", "/v1/subscribe?from=@Nobody", server=inside.http)
    assert (unknown.status, unknown.json["code"]) == (404, 5)
    await befriend(inside, BOB)
    reply = await request(inside.app, "POST", "/v1/message/send", body=json.dumps(message).encode(), server=inside.http)
    assert (await recipient(inside, reply.json["id"]))[0] == ALICE, "the name is the first one's"
    await inside.house.store.write(lambda tx: peers.forget(tx, ALICE))
    clash = await request(inside.app, "POST", "/v1/message/send", body=json.dumps(message).encode(), server=inside.http)
    assert (clash.status, clash.json["code"]) == (400, 9)
    assert "@Ally belonged to a peer whose time is over" in clash.json["message"]


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("request", {}, 3, "pubkey is missing"),
        ("request", {"pubkey": ME.hex}, 3, "this node's own"),
        ("request", {"pubkey": "zz" * 33}, 3, "not hexadecimal"),
        ("request", {"pubkey": 7}, 3, "pubkey must be"),
        ("request", {"pubkey": "@Nobody"}, 5, "no peer goes by @Nobody"),
        ("leave", {}, 3, "pubkey is missing"),
        ("leave", {"pubkey": ME.hex}, 3, "this node's own"),
        ("peer", {}, 3, "pubkey is missing"),
        ("peer", {"pubkey": ALICE.hex}, 5, "is no peer"),
        ("accept", {"pubkey": ALICE.hex}, 5, "has not asked to federate"),
        ("reject", {"pubkey": ALICE.hex}, 5, "has not asked to federate"),
    ],
)
async def test_every_bad_input_says_what_to_do(inside: Inside, path: str, body: object, code: int, says: str) -> None:
    reply = await post(inside, path, body)
    assert reply.json["code"] == code
    assert says in reply.json["message"]
    assert await inside.house.stored_messages() == 0


async def test_locked_off_or_nameless_nothing_is_sent(tmp_path: Path) -> None:
    async with open_app(named(config(tmp_path))) as inside:
        inside.house.lightning.status = LOCKED
        assert (await post(inside, "request", {"pubkey": ALICE.hex})).status == 503
        assert await inside.house.stored_messages() == 0
    async with open_app(config(tmp_path)) as inside:
        nameless = await post(inside, "request", {"pubkey": ALICE.hex})
        assert (nameless.status, nameless.json["code"]) == (400, 9)
        assert "federate.imp_id" in nameless.json["message"]
    async with open_app(without_service(named(config(tmp_path)), "federate")) as inside:
        for path in ("request", "leave", "peer", "accept", "reject"):
            assert (await post(inside, path, {"pubkey": ALICE.hex})).status == 501
        for path in ("peers", "requests"):
            assert (await request(inside.app, "GET", f"/v1/federate/{path}", server=inside.http)).status == 501
        assert await inside.house.stored_messages() == 0


async def test_the_same_over_grpc(inside: Inside) -> None:
    await befriend(inside, ALICE)
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            stub = FederateStub(channel)  # type: ignore[arg-type]
            asked = RequestFederateRequest(pubkey=BOB.hex)
            keyed = [await stub.request_federate(asked, metadata={"idempotency-key": "k"}) for _ in range(2)]
            assert UUID(keyed[0].id) == UUID(keyed[1].id)
            assert [each.pubkey for each in (await stub.list_peers(ListPeersRequest())).peers] == [ALICE.hex]
            assert (await stub.get_peer(GetPeerRequest(pubkey="@Ally"))).pubkey == ALICE.hex
            await ask(inside, BOB, at_ms=NOW_MS)
            [waits] = (await stub.list_requests(ListRequestsRequest())).requests
            assert (waits.id, waits.pubkey, waits.asked_at_ms) == (str(ID), BOB.hex, NOW_MS)
        nursery.cancel_scope.cancel()
