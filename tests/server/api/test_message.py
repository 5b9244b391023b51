"""SendMessage through both doors: what is taken, and every input that is not, with code, words and no effect."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
import trio.testing
from grpclib.exceptions import GRPCError
from tests.rpc.pair import MemoryListener
from tests.server.asgi import Reply, request
from tests.server.house import ALICE, BOB, LOCKED, ME, Inside, config, open_app, without_service

from impervious.errors import StoreFull
from impervious.model import OutboundMessage
from impervious.pb.messaging import MessagingStub, SendMessageRequest
from impervious.rpc import Channel, open_channel_over
from impervious.store import Tx, outbox

SEND = "/v1/message/send"


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened:
        yield opened


async def post(inside: Inside, body: object, *, query: str = "", text: bool = False, **headers: str) -> Reply:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, str | bytes) else json.dumps(body)
    server = inside.text if text else inside.http
    return await request(inside.app, "POST", SEND + query, body=raw, headers=given, server=server)


async def stored(inside: Inside, reply: Reply) -> OutboundMessage:
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"id"}
    found = UUID(reply.json["id"])
    assert found.version == 4

    def load(tx: Tx) -> OutboundMessage:
        kept = outbox.load(tx, found)
        assert kept is not None
        return kept[0].message

    return await inside.house.store.read(load)


def body(**fields: object) -> dict[str, object]:
    return {"msg": base64.b64encode(b"hello").decode(), "pubkey": ALICE.hex, **fields}


# --- What is taken ----------------------------------------------------------------------------------------------------


async def test_a_message(inside: Inside) -> None:
    reply_to = "5fed0c3a-9c2c-4f5c-8a4b-3f1d2e0c9b8a"
    message = await stored(inside, await post(inside, body(amount=7, replyToId=reply_to)))
    assert (message.recipient, message.payload, message.amount) == (ALICE, b"hello", 7000)
    assert message.reply_to == UUID(reply_to)
    assert (await stored(inside, await post(inside, body(reply_to_id=reply_to)))).reply_to == UUID(reply_to)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"msg":"aGVsbG8=","pubkey":"%b","amount":"1","memo":"unknown fields are ignored"}' % ALICE.hex.encode(),
        b'{"msg":"aGVsbG8","pubkey":"%b","amount":null}' % ALICE.hex.encode(),
        b'{"text":"hello","pubkey":"%b"}' % ALICE.hex.upper().encode(),
    ],
)
async def test_ways_to_write_it(inside: Inside, raw: bytes) -> None:
    message = await stored(inside, await post(inside, raw, content_type="application/x-www-form-urlencoded"))
    assert (message.payload, message.amount, message.recipient) == (b"hello", 1000, ALICE)


async def test_the_text_listener_takes_text_and_raises_small_amounts(inside: Inside) -> None:
    message = await stored(inside, await post(inside, body(msg="test"), text=True))
    assert message.payload == b"test"
    packet = await stored(inside, await post(inside, body(msg="x" * 905, amount=1), text=True))
    assert packet.amount == 2000
    bytes_here = await stored(inside, await post(inside, body(), text=True, query="?encoding=base64"))
    text_there = await stored(inside, await post(inside, body(msg="ö"), query="?encoding=text"))
    assert (bytes_here.payload, text_there.payload) == (b"hello", "ö".encode())


async def test_an_idempotency_key_gives_the_same_id(inside: Inside) -> None:
    first = await post(inside, body(), idempotency_key="k1")
    again = await post(inside, body(), idempotency_key="k1")
    other = await post(inside, body(), idempotency_key="k2")
    assert first.json == again.json != other.json
    assert await inside.house.stored_messages() == 2
    inside.house.lightning.status = LOCKED
    assert (await post(inside, body(), idempotency_key="k1")).json == first.json
    clash = await post(inside, body(amount=5), idempotency_key="k1")
    assert (clash.status, clash.json["code"]) == (409, 6)
    assert await inside.house.stored_messages() == 2


async def test_a_call_that_waits_is_not_answered_before_the_end(inside: Inside) -> None:
    replies: list[Reply] = []

    async def call(query: str, **fields: object) -> None:
        replies.append(await post(inside, body(**fields), query=query))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "?wait=true")
        await trio.testing.wait_all_tasks_blocked()
        assert not replies
        assert await inside.house.stored_messages() == 1
        nursery.cancel_scope.cancel()
    assert (await post(inside, body(), query="?wait=0")).status == 200


# --- What is not ------------------------------------------------------------------------------------------------------

OFF_CURVE = "02" + "00" * 31 + "05"
BAD: dict[str, tuple[object, int, str]] = {
    "no pubkey": ({"msg": "aGk="}, 3, "pubkey is missing: give the node's 66 hex digits"),
    "an empty body": ("", 3, "pubkey is missing"),
    "short pubkey": (body(pubkey=ALICE.hex[:-1]), 3, "pubkey has 65 characters; a compressed key has 66 hex digits"),
    "pubkey no hex": (body(pubkey="zz" * 33), 3, "pubkey is not hexadecimal"),
    "pubkey uncompressed": (body(pubkey="04" + "11" * 32), 3, "does not begin with 02 or 03"),
    "pubkey no point": (body(pubkey=OFF_CURVE), 3, "pubkey is not a point on the curve"),
    "our own pubkey": (body(pubkey=ME.hex), 3, "pubkey is this node's own"),
    "no msg": ({"pubkey": ALICE.hex}, 3, "msg is empty"),
    "empty msg": (body(msg=""), 3, "msg is empty"),
    "large msg": (
        body(msg=base64.b64encode(bytes(480_001)).decode()),
        3,
        "msg has 480001 bytes; at most 480000 are sent (message.max_bytes)",
    ),
    "msg and text": (body(text="x"), 3, "msg and text are both given"),
    "negative amount": (body(amount=-1), 3, "amount is negative"),
    "amount too small": (
        body(msg=base64.b64encode(bytes(2000)).decode(), amount=2),
        3,
        "amount is below the minimum: 2000 bytes need 3 sat",
    ),
    "amount above the daily limit": (body(amount=200_000), 8, "lightning.daily_limit_sat"),
    "amount above all there is": (body(amount=2**63 - 1), 3, "21 million bitcoin"),
    "amount too large for its type": (body(amount=2**63), 3, "amount must be whole satoshis, 0 or more"),
    "amount no number": (body(amount="1 sat"), 3, "amount must be a number"),
    "amount a fraction": (body(amount=1.5), 3, "amount must be whole satoshis, 0 or more"),
    "bad base64": (body(msg="hello world"), 3, "msg is not base64: encode it"),
    "bad base64 names the text mode": (body(msg="héllo"), 3, "?encoding=text or to server.http_text_addr"),
    "bad reply_to_id": (body(replyToId="x"), 3, "reply_to_id is not the id of a message"),
    "bad JSON": ('{"msg":', 3, "the body is not JSON"),
    "JSON no object": ("[]", 3, "the body must be an object"),
    "JSON not UTF-8": (b'{"msg":"\xff"}', 3, "the body is not UTF-8"),
    "JSON deep": ("[" * 100_000, 3, "nested too deeply"),
    "wait no boolean": (body(wait="yes"), 3, "wait must be true or false"),
}
STATUSES = {3: 400, 8: 429}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_says_what_to_do_and_does_nothing(inside: Inside, name: str) -> None:
    sent, code, words = BAD[name]
    reply = await post(inside, sent)
    assert (reply.json["code"], reply.status, reply.json["details"]) == (code, STATUSES[code], [])
    assert words in reply.json["message"]
    assert reply.headers["content-type"] == "application/json"
    assert await inside.house.stored_messages() == 0
    assert await inside.house.store.read(lambda tx: tx.number("SELECT count(*) FROM part")) == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?wait=perhaps", "?wait= must be true or false"),
        ("?encoding=hex", "?encoding= must be text or base64"),
        ("?v=3", "?v= must be 1 or 2"),
        ("?a=%ff", "the query is not UTF-8"),
    ],
)
async def test_bad_parameters(inside: Inside, query: str, words: str) -> None:
    reply = await post(inside, body(), query=query)
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert words in reply.json["message"]
    assert await inside.house.stored_messages() == 0


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_bad_idempotency_keys(inside: Inside, key: str) -> None:
    reply = await post(inside, body(), idempotency_key=key)
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert "Idempotency-Key must have 1 to 255 bytes" in reply.json["message"]


async def test_text_mode_stays_strict_where_it_would_be_expensive(inside: Inside) -> None:
    reply = await post(inside, body(msg="x" * 9001, amount=10), text=True)
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert "9001 bytes need 11 sat" in reply.json["message"]
    reply = await post(inside, body(msg="x" * 905, amount=-1), text=True)
    assert "negative" in reply.json["message"]
    assert await inside.house.stored_messages() == 0


async def test_a_node_that_cannot_serve_is_named(inside: Inside) -> None:
    inside.house.lightning.status = LOCKED
    reply = await post(inside, body())
    assert (reply.status, reply.json["code"], reply.json["message"]) == (503, 14, LOCKED.reason)
    assert await inside.house.stored_messages() == 0


async def test_a_full_disk_is_named(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(work: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreFull("the disk is full: make room")

    monkeypatch.setattr(inside.house.store, "write", full)
    reply = await post(inside, body())
    assert (reply.status, reply.json["code"], reply.json["message"]) == (503, 14, "the disk is full: make room")


async def test_a_service_that_is_switched_off_says_so(tmp_path: Path) -> None:
    async with open_app(without_service(config(tmp_path), "message")) as inside:
        reply = await post(inside, body())
        assert (reply.status, reply.json["code"]) == (501, 12)
        assert "the message service is switched off here" in reply.json["message"]
        assert await inside.house.stored_messages() == 0


async def test_a_bug_is_told_by_number(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: object, **options: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret")

    monkeypatch.setattr(inside.house.messages, "send", broken)
    reply = await post(inside, body())
    assert (reply.status, reply.json["code"]) == (500, 13)
    assert "incident" in reply.json["message"]
    assert b"secret" not in reply.body


async def test_calls_that_run_are_answered_when_the_doors_close(inside: Inside) -> None:
    replies: list[Reply] = []

    async def call() -> None:
        replies.append(await post(inside, body(), query="?wait=true"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        inside.doors.calls.begin()
    assert (replies[0].status, replies[0].json["code"]) == (503, 14)
    assert "what it has accepted goes on" in replies[0].json["message"]
    assert await inside.house.stored_messages() == 1


# --- The same over gRPC -----------------------------------------------------------------------------------------------


@pytest.fixture
async def channel(inside: Inside) -> AsyncIterator[Channel]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        async with open_channel_over(listener.connect, authority="test") as channel:
            yield channel
        nursery.cancel_scope.cancel()


async def send(channel: Channel, metadata: Any = None, **fields: Any) -> str:
    given = {"msg": b"hello", "pubkey": ALICE.hex, **fields}
    answer = await MessagingStub(channel).send_message(SendMessageRequest(**given), metadata=metadata)  # type: ignore[arg-type]
    return answer.id


async def test_over_grpc(inside: Inside, channel: Channel) -> None:
    assert UUID(await send(channel)).version == 4
    first = await send(channel, {"idempotency-key": "k"}, pubkey=BOB.hex)
    assert await send(channel, {"idempotency-key": "k"}, pubkey=BOB.hex) == first
    assert await inside.house.stored_messages() == 2


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"pubkey": ""}, 3, "pubkey is missing"),
        ({"pubkey": ME.hex}, 3, "this node's own"),
        ({"msg": b""}, 3, "msg is empty"),
        ({"msg": bytes(480_001)}, 3, "480001 bytes"),
        ({"amount": -1}, 3, "negative"),
        ({"msg": bytes(905), "amount": 1}, 3, "905 bytes need 2 sat"),
        ({"amount": 200_000}, 8, "daily_limit_sat"),
        ({"reply_to_id": "x"}, 3, "reply_to_id"),
    ],
)
async def test_bad_input_over_grpc(
    inside: Inside, channel: Channel, fields: dict[str, Any], code: int, words: str
) -> None:
    with pytest.raises(GRPCError, match=words) as caught:
        await send(channel, **fields)
    assert caught.value.status.value == code
    assert await inside.house.stored_messages() == 0


async def test_errors_over_grpc(inside: Inside, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(channel, {"idempotency-key": "k"})
    with pytest.raises(GRPCError, match="used for another request") as clash:
        await send(channel, {"idempotency-key": "k"}, amount=9)
    with pytest.raises(GRPCError, match="v in the metadata must be 1 or 2") as version:
        await send(channel, {"v": "3"})
    inside.house.lightning.status = LOCKED
    with pytest.raises(GRPCError, match="wallet is locked") as locked:
        await send(channel)

    async def broken(*args: object, **options: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret")

    monkeypatch.setattr(inside.house.messages, "send", broken)
    with pytest.raises(GRPCError, match="incident") as bug:
        await send(channel)
    codes = [each.value.status.value for each in (clash, version, locked, bug)]
    assert codes == [6, 3, 14, 13]
    assert await inside.house.stored_messages() == 1


async def test_a_deadline_ends_the_waiting_not_the_sending(
    inside: Inside, channel: Channel, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    request = SendMessageRequest(msg=b"hello", pubkey=ALICE.hex, wait=True)
    with pytest.raises(GRPCError) as caught:
        await MessagingStub(channel).send_message(request, timeout=5)  # type: ignore[arg-type]
    assert (caught.value.status.value, trio.current_time()) == (4, began + 5)
    assert await inside.house.stored_messages() == 1


# --- GetMessage -------------------------------------------------------------------------------------------------------


async def test_a_message_that_waits_is_found(inside: Inside) -> None:
    sent = (await post(inside, body(amount=7))).json["id"]
    found = (await request(inside.app, "GET", f"/v1/message/get?id={sent}", server=inside.http)).json
    assert {found[name] for name in ("id", "pubkey", "serviceType", "state")} == {
        sent,
        ALICE.hex,
        "message",
        "accepted",
    }
    assert (found["parts"], found["partsSettled"], found["partsInFlight"], found["feeMsat"]) == (1, 0, 0, "0")
    assert int(found["untilMs"]) > int(found["acceptedAtMs"])


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [("", 400, "id is missing"), ("?id=x", 400, "id"), (f"?id={UUID(int=1)}", 404, "no message has the id")],
)
async def test_a_message_that_is_not_there(inside: Inside, query: str, status: int, words: str) -> None:
    reply = await request(inside.app, "GET", f"/v1/message/get{query}", server=inside.http)
    assert reply.status == status
    assert words in reply.json["message"]
