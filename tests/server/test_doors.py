"""Two nodes on one simulated network, and what real clients see at the doors of each."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.exceptions import GRPCError
from tests.server.house import config
from trio_websocket import open_websocket_url

from impervious.config import Address
from impervious.errors import ConfigError, PaymentFailure
from impervious.pb.messaging import MessagingStub, SendMessageRequest
from impervious.pb.socket import ListSocketsRequest, SocketStub
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse
from impervious.rpc import open_channel
from impervious.server.doors import largest_request
from impervious.server.grpc import SUBSCRIBE
from impervious.server.listeners import Addresses
from impervious.sim import SimNetwork
from impervious.supervisor import Node, open_node


@dataclass(frozen=True)
class Town:
    network: SimNetwork
    alice: Node
    carol: Node

    @property
    def alice_at(self) -> Addresses:
        assert self.alice.addresses
        return self.alice.addresses

    @property
    def carol_at(self) -> Addresses:
        assert self.carol.addresses
        return self.carol.addresses

    @property
    def carol_hex(self) -> str:
        return self.network.node("carol").pubkey.hex

    @property
    def alice_hex(self) -> str:
        return self.network.node("alice").pubkey.hex


@asynccontextmanager
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """Alice and carol, with bob between them; settlements take no time."""
    for name in ("alice", "carol"):
        (tmp_path / name).mkdir()
    async with (
        SimNetwork.line("alice", "bob", "carol", seed=1, latency_s=(0, 0)).open() as network,
        open_node(config(tmp_path / "alice"), lightning=network.node("alice"), doors=True) as alice,
        open_node(config(tmp_path / "carol"), lightning=network.node("carol"), doors=True) as carol,
    ):
        with trio.fail_after(20):
            await alice.wait_ready()
            await carol.wait_ready()
            yield Town(network, alice, carol)


async def http(address: Address | None, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """A request by hand, as the smallest of clients would make it."""
    assert address
    raw = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address}", "Connection: close", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        head, _, answer = b"".join([chunk async for chunk in stream]).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(answer)


class Body:
    """A response whose body goes on: its chunks, as they come."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def until(self, end: bytes) -> bytes:
        """Read up to and with `end`."""
        while end not in self._buffer:
            chunk = await self._stream.receive_some()
            assert chunk, self._buffer
            self._buffer += chunk
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    async def chunk(self) -> bytes:
        """Read one chunk (RFC 9112, section 7.1)."""
        size = int(await self.until(b"\r\n"), 16)
        while len(self._buffer) < size + 2:
            self._buffer += await self._stream.receive_some()
        found, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
        return found


@asynccontextmanager
async def streaming(address: Address | None, path: str, *headers: str) -> AsyncIterator[Body]:
    assert address
    head = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {address}", *headers])
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(head.encode() + b"\r\n\r\n")
        body = Body(stream)
        assert b"200" in await body.until(b"\r\n\r\n")
        yield body


async def test_a_message_crosses_from_rest_to_every_kind_of_stream(tmp_path: Path) -> None:
    async with town(tmp_path) as here, open_channel(here.carol_at.grpc.host, here.carol_at.grpc.port) as channel:
        at = here.carol_at
        async with (
            open_websocket_url(f"ws://{at.http}/v1/subscribe") as websocket,
            open_websocket_url(f"ws://{at.http_text}/v1/subscribe") as text,
            streaming(at.http, "/v1/subscribe", "Accept: text/event-stream") as events,
            streaming(at.http, "/v1/subscribe") as lines,
            channel.unary_stream(SUBSCRIBE, SubscribeRequest(since=0), SubscribeResponse) as responses,
        ):
            message = {"msg": "aGkg4pqh", "pubkey": here.carol_hex, "amount": "5"}
            status, sent = await http(here.alice_at.http, "POST", "/v1/message/send?wait=true", message)
            assert status == 200
            shown = json.loads(await websocket.get_message())["result"]
            assert (shown["id"], shown["fromPubkey"], shown["data"]) == (sent["id"], here.alice_hex, "aGkg4pqh")
            assert (shown["amount"], shown["serviceType"], shown["verified"]) == ("5", "message", True)
            plain = json.loads(await text.get_message())["result"]
            assert plain == {
                "id": sent["id"],
                "replyToId": "",
                "fromPubkey": here.alice_hex,
                "data": "hi ⚡",
                "serviceType": "message",
                "amount": "5",
            }
            assert await events.chunk() == b"retry: 2000\n\nid: 0\n\n"
            assert (
                await events.chunk()
                == b"id: 1\ndata: %b\n\n" % json.dumps({"result": shown}, separators=(",", ":")).encode()
            )
            assert json.loads(await lines.chunk()) == {"result": shown}
            message_over_grpc = await anext(responses)
            assert (message_over_grpc.data, message_over_grpc.seq) == ("hi ⚡".encode(), 1)


async def test_outcomes_are_events_of_the_sender(tmp_path: Path) -> None:
    async with town(tmp_path) as here, open_websocket_url(f"ws://{here.alice_at.http}/v1/subscribe") as websocket:
        status, sent = await http(
            here.alice_at.http_text, "POST", "/v1/message/send", {"msg": "hi", "pubkey": here.carol_hex}
        )
        assert status == 200
        shown = json.loads(await websocket.get_message())["result"]
        assert (shown["id"], shown["serviceType"], shown["fromPubkey"]) == (sent["id"], "status", here.alice_hex)


async def test_a_reply_over_grpc_and_a_resumed_stream(tmp_path: Path) -> None:
    async with town(tmp_path) as here, open_channel(here.carol_at.grpc.host, here.carol_at.grpc.port) as channel:
        _, sent = await http(
            here.alice_at.http, "POST", "/v1/message/send?wait=true", {"msg": "aGk=", "pubkey": here.carol_hex}
        )
        request = SendMessageRequest(msg=b"yes", pubkey=here.alice_hex, reply_to_id=sent["id"], wait=True)
        answer = await MessagingStub(channel).send_message(request)  # type: ignore[arg-type]
        async with open_websocket_url(f"ws://{here.alice_at.http}/v1/subscribe?since=0") as websocket:
            first, second = [json.loads(await websocket.get_message())["result"] for _ in range(2)]
        assert first["serviceType"] == "status"
        assert (second["id"], second["replyToId"]) == (answer.id, sent["id"])
        async with streaming(here.alice_at.http, "/v1/subscribe", f"Last-Event-ID: {first['seq']}") as lines:
            assert json.loads(await lines.chunk())["result"] == second


async def test_two_programs_talk_through_a_relay_that_one_node_runs_and_the_other_is_told_of(tmp_path: Path) -> None:
    async with town(tmp_path) as here, open_websocket_url(f"ws://{here.carol_at.http_text}/v1/subscribe") as websocket:
        _, started = await http(here.alice_at.http, "POST", "/v1/socket/start")
        status, sent = await http(
            here.alice_at.http, "POST", "/v1/socket/sendRequest?wait=true", {"pubkey": here.carol_hex}
        )
        assert status == 200
        shown = json.loads(await websocket.get_message())["result"]
        assert (shown["id"], shown["serviceType"], shown["fromPubkey"]) == (sent["id"], "socket", here.alice_hex)
        told = json.loads(shown["data"])
        assert told == {"recordId": "SOCKET", **{name: started[name] for name in ("protocol", "ip", "port1", "port2")}}

        with (
            trio.socket.socket(type=trio.socket.SOCK_DGRAM) as near,
            trio.socket.socket(type=trio.socket.SOCK_DGRAM) as far,
        ):
            await near.connect((told["ip"], int(told["port1"][1:])))
            await far.connect((told["ip"], int(told["port2"][1:])))
            await far.send(b"")
            await near.send(b"hello")
            assert await far.recv(65_535) == b"hello"
            for size in (1, 1200, 65_507):
                await far.send(b"x" * size)
                assert await near.recv(65_535) == b"x" * size
        async with open_channel(here.alice_at.grpc.host, here.alice_at.grpc.port) as channel:
            listed = await SocketStub(channel).list_sockets(ListSocketsRequest())  # type: ignore[arg-type]
        assert [each.side2 and each.side2.forwarded_bytes for each in listed.sessions] == [66_708]
        assert await http(here.alice_at.http, "POST", "/v1/socket/stop") == (200, {})


@pytest.mark.slow
async def test_large_messages_cross_in_every_shape(tmp_path: Path) -> None:
    async with town(tmp_path) as here, open_channel(here.alice_at.grpc.host, here.alice_at.grpc.port) as channel:
        data = bytes(range(256)) * 400
        async with streaming(here.carol_at.http_text, "/v1/subscribe") as lines:
            request = SendMessageRequest(msg=data, pubkey=here.carol_hex, wait=True)
            await MessagingStub(channel).send_message(request)  # type: ignore[arg-type]
            shown = json.loads(await lines.chunk())["result"]
        assert shown["data"] == data.decode("utf-8", "replace")
        assert shown["amount"] == "114"


async def test_a_failure_is_told_to_whoever_waits(tmp_path: Path) -> None:
    async with town(tmp_path) as here, open_channel(here.alice_at.grpc.host, here.alice_at.grpc.port) as channel:
        refused = PaymentFailure.INCORRECT_PAYMENT_DETAILS
        here.network.lnd("alice").fail_next_payment(refused, after_attempt=True)
        message = {"msg": "aGk=", "pubkey": here.carol_hex}
        status, answer = await http(here.alice_at.http, "POST", "/v1/message/send?wait=true", message)
        assert (status, answer["code"]) == (409, 10)
        assert "not delivered: " in answer["message"]
        here.network.lnd("alice").fail_next_payment(refused, after_attempt=True)
        with pytest.raises(GRPCError, match="not delivered: ") as caught:
            await MessagingStub(channel).send_message(  # type: ignore[arg-type]
                SendMessageRequest(msg=b"hi", pubkey=here.carol_hex, wait=True)
            )
        assert caught.value.status.value == 10


async def test_ready_follows_the_lightning_node(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        assert (await http(here.alice_at.http, "GET", "/readyz"))[0] == 200
        here.network.lnd("alice").lock()
        while (found := await http(here.alice_at.http, "GET", "/readyz"))[0] != 503:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert found[1]["state"] == "locked"
        status, answer = await http(
            here.alice_at.http, "POST", "/v1/message/send", {"msg": "aGk=", "pubkey": here.carol_hex}
        )
        assert (status, answer["code"], answer["message"]) == (503, 14, found[1]["reason"])


async def test_an_occupied_port_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    network = SimNetwork.line("alice", "bob", seed=1)
    async with town(tmp_path) as here:
        for key in ("grpc_addr", "http_addr", "http_text_addr"):
            taken = config(tmp_path / "other", **{key: here.alice_at.http})
            with pytest.raises(
                ConfigError, match=rf"server\.{key} 127.0.0.1:\d+ cannot be listened on: another program"
            ):
                async with open_node(taken, lightning=network.node("alice"), doors=True):
                    pass
    assert not (tmp_path / "other").exists()


async def test_doors_are_opened_when_they_are_wanted(tmp_path: Path) -> None:
    async with SimNetwork.line("alice", "bob", seed=1).open() as network:
        alice = network.node("alice")
        async with open_node(config(tmp_path), lightning=alice) as node:
            assert node.addresses is None
        async with open_node(config(tmp_path, enabled=False), lightning=alice, doors=True) as node:
            assert node.addresses is None
        without_text = config(tmp_path, http_text_addr=None)
        async with open_node(without_text, lightning=alice, doors=True) as node:
            assert node.addresses
            assert node.addresses.http_text is None
            assert (await http(node.addresses.http, "GET", "/healthz"))[0] == 200
            http_address = node.addresses.http
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(http_address.host, http_address.port)


def test_requests_may_be_as_large_as_a_message_in_its_worst_shape() -> None:
    plain = config(Path("unused"))
    assert largest_request(plain) == 4 << 20
    large = replace(plain, message=replace(plain.message, max_bytes=10_000_000))
    assert largest_request(large) > 60_000_000
