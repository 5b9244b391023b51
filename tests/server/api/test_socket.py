"""The relay through both doors: the published calls as they were, what was added, and every refusal."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from grpclib.exceptions import GRPCError
from tests.relay.endpoint import Endpoint
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, request
from tests.server.house import ALICE, LOCKED, ME, Inside, config, open_app, without_service

from impervious.config import SocketConfig
from impervious.model import OutboundMessage, Peer
from impervious.pb.socket import (
    GetSocketRequest,
    ListSocketsRequest,
    SendSocketRequest,
    SocketStub,
    StartSocketRequest,
    StopSocketRequest,
)
from impervious.rpc import Channel, open_channel_over
from impervious.services.socket import SocketService
from impervious.store import Tx, outbox, peers

ZERO_DROPPED = dict.fromkeys(("stranger", "unpaired", "rate", "tooLarge", "congested", "unreachable", "overrun"), "0")
ZERO_SIDE = {
    "endpoint": "",
    "silentS": "0",
    **dict.fromkeys(("receivedPackets", "receivedBytes", "forwardedPackets", "forwardedBytes", "refusals"), "0"),
    "dropped": ZERO_DROPPED,
}


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened:
        yield opened


async def call(inside: Inside, path: str, body: object = b"", *, method: str = "POST", **headers: str) -> Reply:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, str | bytes) else json.dumps(body)
    return await request(inside.app, method, f"/v1/socket/{path}", body=raw, headers=given, server=inside.http)


def ports(inside: Inside, number: int = 0) -> tuple[int, int]:
    first, second = inside.house.services.get(SocketService).sessions()[number].sides
    return first.port, second.port


async def stored(inside: Inside, reply: Reply) -> OutboundMessage:
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"id"}

    def load(tx: Tx) -> OutboundMessage:
        kept = outbox.load(tx, UUID(reply.json["id"]))
        assert kept is not None
        return kept[0].message

    return await inside.house.store.read(load)


# --- As published -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"pubkey":"unknown fields are ignored"}'])
async def test_start_and_stop(inside: Inside, body: bytes) -> None:
    started = await call(inside, "start", body, content_type="application/x-www-form-urlencoded")
    first, second = ports(inside)
    added = {"session": "default", "token1": "", "token2": ""}
    assert (started.status, started.json) == (
        200,
        {"protocol": "udp", "ip": "127.0.0.1", "port1": f":{first}", "port2": f":{second}", **added},
    )
    stopped = await call(inside, "stop", body)
    assert (stopped.status, stopped.body) == (200, b"{}")
    for port in (first, second):
        with Endpoint(0, own_port=port):
            pass


async def test_a_node_is_told(inside: Inside) -> None:
    await call(inside, "start")
    first, second = ports(inside)
    message = await stored(inside, await call(inside, "sendRequest", {"pubkey": ALICE.hex}))
    assert (message.recipient, message.service_type, message.amount) == (ALICE, "socket", 1000)
    told = '{"recordId":"SOCKET","protocol":"udp","ip":"127.0.0.1",'
    assert message.payload.decode() == told + f'"port1":":{first}","port2":":{second}"}}'


# --- Added ------------------------------------------------------------------------------------------------------------


async def test_an_idempotency_key_tells_once(inside: Inside) -> None:
    await call(inside, "start")
    replies = [await call(inside, "sendRequest", {"pubkey": ALICE.hex}, idempotency_key="k") for _ in range(2)]
    assert replies[0].json == replies[1].json
    await call(inside, "stop")
    late = await call(inside, "sendRequest", {"pubkey": ALICE.hex}, idempotency_key="k")
    assert late.json == replies[0].json
    other = await call(inside, "sendRequest", {"pubkey": ALICE.hex, "session": "chess"}, idempotency_key="k")
    assert (other.status, other.json["code"]) == (409, 6)
    assert await inside.house.stored_messages() == 1


async def test_a_peer_is_told_by_its_name(inside: Inside) -> None:
    await call(inside, "start")
    peer = Peer(pubkey=ALICE, imp_id="Ally", since_ms=5, expires_ms=2**53, services=())
    await inside.house.store.write(lambda tx: peers.remember(tx, peer))
    message = await stored(inside, await call(inside, "sendRequest", {"pubkey": "@Ally"}))
    assert message.recipient == ALICE
    unknown = await call(inside, "sendRequest", {"pubkey": "@Nobody"})
    assert (unknown.status, unknown.json["code"]) == (404, 5)


async def test_a_call_that_waits_is_not_answered_before_the_end(inside: Inside) -> None:
    await call(inside, "start")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, inside, "sendRequest?wait=true", {"pubkey": ALICE.hex})
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert await inside.house.stored_messages() == 1
        nursery.cancel_scope.cancel()


async def test_sessions_are_shown_with_their_counters(inside: Inside) -> None:
    empty = await call(inside, "list", method="GET")
    assert (empty.status, empty.json) == (200, {"sessions": [], "free": 1})
    await call(inside, "start", {"session": "chess"})
    first, second = ports(inside)
    shown = (await call(inside, "get", {"session": "chess"})).json
    assert UUID(shown.pop("id")).version == 4
    assert shown == {
        "session": "chess",
        "protocol": "udp",
        "ip": "127.0.0.1",
        "port1": f":{first}",
        "port2": f":{second}",
        "ageS": "0",
        "paired": False,
        "side1": ZERO_SIDE,
        "side2": ZERO_SIDE,
    }
    with Endpoint(first) as one, Endpoint(second) as other, Endpoint(first) as stranger:
        one.send(b"hello")
        other.send(b"")
        await trio.testing.wait_all_tasks_blocked()
        stranger.send(b"me too")
        await trio.testing.wait_all_tasks_blocked()
        listed = (await call(inside, "list", method="GET")).json
    [shown] = listed["sessions"]
    assert (listed["free"], shown["paired"]) == (0, True)
    assert shown["side1"] == {
        **ZERO_SIDE,
        "endpoint": f"127.0.0.1:{one.port}",
        "receivedPackets": "1",
        "receivedBytes": "5",
        "forwardedPackets": "1",
        "forwardedBytes": "5",
        "dropped": {**ZERO_DROPPED, "stranger": "1"},
    }
    assert (shown["side2"]["receivedPackets"], shown["side2"]["forwardedPackets"]) == ("1", "0")


async def test_tokens_come_with_the_answer_where_they_are_required(tmp_path: Path) -> None:
    plain = config(tmp_path)
    async with open_app(replace(plain, socket=replace(plain.socket, require_token=True))) as inside:
        started = (await call(inside, "start")).json
        tokens = [bytes.fromhex(started[name]) for name in ("token1", "token2")]
        assert [len(token) for token in tokens] == [32, 32]
        assert tokens[0] != tokens[1]
        for path, method in (("get", "POST"), ("list", "GET")):
            assert tokens[0].hex() not in (await call(inside, path, method=method)).body.decode()


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("stop", {}, 5, "no session 'default' is open: start it first"),
        ("stop", {"session": "chess"}, 5, "no session 'chess' is open: start it first"),
        ("get", {}, 5, "no session 'default' is open"),
        ("start", {"session": "x" * 65}, 3, "session is not a name"),
        ("start", {"session": "a\nb"}, 3, "session is not a name"),
        ("stop", {"session": "a\nb"}, 3, "session is not a name"),
        ("start", {"session": 7}, 3, "session must be"),
        ("start", "[]", 3, "the body must be an object"),
        ("start", "{", 3, "the body is not JSON"),
        ("sendRequest", {}, 3, "pubkey is missing"),
        ("sendRequest", {"pubkey": "02ab"}, 3, "pubkey has 4 characters"),
        ("sendRequest", {"pubkey": 7}, 3, "pubkey must be"),
        ("sendRequest", {"pubkey": ALICE.hex}, 5, "no session 'default' is open: start it first"),
        ("sendRequest", {"pubkey": ALICE.hex, "session": "a\nb"}, 3, "session is not a name"),
        ("sendRequest", {"pubkey": ALICE.hex, "wait": "yes"}, 3, "wait must be true or false"),
    ],
)
async def test_bad_input_says_what_to_do_and_does_nothing(
    inside: Inside, path: str, body: object, code: int, words: str
) -> None:
    reply = await call(inside, path, body)
    assert (reply.status, reply.json["code"]) == ({3: 400, 5: 404}[code], code)
    assert words in reply.json["message"]
    assert inside.house.services.get(SocketService).sessions() == ()
    assert await inside.house.stored_messages() == 0


async def test_a_session_is_started_once(inside: Inside) -> None:
    await call(inside, "start")
    before = ports(inside)
    again = await call(inside, "start")
    assert (again.status, again.json["code"]) == (409, 6)
    assert f"session 'default' is open already, on UDP ports {before[0]} and {before[1]}" in again.json["message"]
    other = await call(inside, "start", {"session": "other"})
    assert (other.status, other.json["code"]) == (429, 8)
    assert "all 1 pairs of socket.ports are in use, by 'default'" in other.json["message"]
    assert ports(inside) == before


async def test_stopping_twice(inside: Inside) -> None:
    await call(inside, "start")
    assert (await call(inside, "stop")).status == 200
    again = await call(inside, "stop")
    assert (again.status, again.json["code"]) == (404, 5)
    assert "no session 'default' is open" in again.json["message"]


async def test_an_occupied_port(tmp_path: Path) -> None:
    plain = config(tmp_path)
    with Endpoint(0) as taken:
        settings = SocketConfig(server_ip="127.0.0.1", ports=((0, taken.port),))
        async with open_app(replace(plain, socket=settings)) as inside:
            reply = await call(inside, "start")
            assert (reply.status, reply.json["code"]) == (400, 9)
            assert f"UDP port {taken.port} of 127.0.0.1 is taken by another program" in reply.json["message"]
            assert inside.house.services.get(SocketService).sessions() == ()


async def test_a_relay_without_an_address_is_off(tmp_path: Path) -> None:
    plain = config(tmp_path)
    async with open_app(replace(plain, socket=SocketConfig())) as inside:
        reply = await call(inside, "start")
        assert (reply.status, reply.json["code"]) == (400, 9)
        assert "set socket.server_ip" in reply.json["message"]
        assert (await call(inside, "list", method="GET")).json == {"sessions": [], "free": 0}


async def test_our_own_pubkey_and_a_node_that_is_away(inside: Inside) -> None:
    await call(inside, "start")
    own = await call(inside, "sendRequest", {"pubkey": ME.hex})
    assert (own.status, own.json["code"]) == (400, 3)
    inside.house.lightning.status = LOCKED
    away = await call(inside, "sendRequest", {"pubkey": ALICE.hex})
    assert (away.status, away.json["code"], away.json["message"]) == (503, 14, LOCKED.reason)
    assert await inside.house.stored_messages() == 0


async def test_a_service_that_is_switched_off_says_so(tmp_path: Path) -> None:
    async with open_app(without_service(config(tmp_path), "socket")) as inside:
        for path, method in (("start", "POST"), ("stop", "POST"), ("sendRequest", "POST"), ("list", "GET")):
            reply = await call(inside, path, method=method)
            assert (reply.status, reply.json["code"]) == (501, 12)
            assert "the socket service is switched off here" in reply.json["message"]
        assert inside.house.services.get(SocketService).sessions() == ()


# --- The same over gRPC -----------------------------------------------------------------------------------------------


@pytest.fixture
async def stub(inside: Inside) -> AsyncIterator[SocketStub]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        channel: Channel
        async with open_channel_over(listener.connect, authority="test") as channel:
            yield SocketStub(channel)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


async def test_over_grpc(inside: Inside, stub: SocketStub) -> None:
    started = await stub.start_socket(StartSocketRequest())
    first, second = ports(inside)
    assert (started.protocol, started.ip, started.port1, started.port2) == (
        "udp",
        "127.0.0.1",
        f":{first}",
        f":{second}",
    )
    sent = await stub.send_socket(SendSocketRequest(pubkey=ALICE.hex))
    assert UUID(sent.id).version == 4
    found = await stub.get_socket(GetSocketRequest())
    listed = await stub.list_sockets(ListSocketsRequest())
    assert [found.id] == [each.id for each in listed.sessions]
    await stub.stop_socket(StopSocketRequest())
    assert (await stub.list_sockets(ListSocketsRequest())).sessions == []


@pytest.mark.parametrize(
    ("method", "message", "code", "words"),
    [
        ("stop_socket", StopSocketRequest(), 5, "no session 'default' is open"),
        ("get_socket", GetSocketRequest(session="x"), 5, "no session 'x' is open"),
        ("start_socket", StartSocketRequest(session="x" * 65), 3, "session is not a name"),
        ("send_socket", SendSocketRequest(), 3, "pubkey is missing"),
    ],
)
async def test_bad_input_over_grpc(stub: SocketStub, method: str, message: Any, code: int, words: str) -> None:
    with pytest.raises(GRPCError, match=words) as caught:
        await getattr(stub, method)(message)
    assert caught.value.status.value == code
