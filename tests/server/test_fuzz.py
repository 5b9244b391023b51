"""What strangers send, at both doors: whatever it is, the answer blames them, and the log has no traceback.

Requests begin as good ones and are then bent: bytes flipped, cut, doubled, fields given another wire type or a foreign
value. The seed is fixed; `FUZZ=100000 python -m pytest tests/server/test_fuzz.py` goes on for longer.
"""

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.rpc.pair import MemoryListener
from tests.server.house import config, open_app
from tests.server.http.door import open_door

from impervious.rpc import ServerLimits, open_channel_over
from impervious.server.grpc import SUBSCRIBE, Ready
from impervious.server.operations import Operation
from impervious.wire.grpc.framing import Budget, frame_message
from impervious.wire.grpc.http2 import PeerError, open_http2
from impervious.wire.grpc.server import ServerConnection
from impervious.wire.json import encode
from impervious.wire.json.fields import fields_of
from impervious.wire.protobuf import VARINT

COUNT = int(os.environ.get("FUZZ", "600"))
"""Requests at each door."""
OURS = {Status.INTERNAL, Status.UNKNOWN, Status.DATA_LOSS}
"""What a caller cannot have caused."""


@pytest.fixture
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"]
    assert len(caplog.records) < 50  # a line for each of a flood would be another flood


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def foreign_field(chance: random.Random) -> bytes:
    """A field of any number and wire type, its value of any sort."""
    number, wire_type = chance.choice([0, 1, 2, 3, 4, 5, 100, 101, 102, 2**29 - 1, 2**61]), chance.randrange(8)
    value = {
        VARINT: varint(chance.choice([0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**70])),
        1: chance.randbytes(8),
        2: varint(chance.choice([0, 1, 3, 200, 2**31, 2**64 - 1])) + chance.randbytes(3),
        5: chance.randbytes(4),
    }.get(wire_type, chance.randbytes(2))
    return varint(number << 3 | wire_type) + value


def bent(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
        case 2:
            return data + foreign_field(chance)
        case 3:
            return foreign_field(chance) + data
        case 4:
            return data[:at] + bytes((chance.randrange(256),)) + data[at + 1 :]
        case _:
            return data * chance.choice([2, 50])


def deep(levels: int = 3000) -> bytes:
    data = b""
    for _ in range(levels):
        data = b"\x0a" + varint(len(data)) + data
    return data


def wrong_types(operation: Operation) -> Iterator[bytes]:
    """Each field with each wire type, and a few messages that break parsers."""
    for number in sorted({field.number for field in fields_of(operation.request_type)}):
        yield varint(number << 3) + b"\x05"
        yield varint(number << 3 | 1) + bytes(8)
        yield varint(number << 3 | 2) + b"\x02\xff\xfe"
        yield varint(number << 3 | 2) + b"\xff\xff\xff\xff\x0f"
        yield varint(number << 3 | 3) + varint(number << 3 | 4)
        yield varint(number << 3 | 5) + bytes(4)
        yield varint(number << 3 | 2) + b"\x03\x80\x80\x80"  # packed, and torn
        yield varint(number << 3) + varint(2**64 - 1)
    yield from (b"\x0a", b"\x80", b"\x00\x00", b"\x07", deep(), b"\xfa\x3f\x00" * 20_000)


@pytest.mark.slow
async def test_grpc(tmp_path: Path, no_tracebacks: None) -> None:
    chance = random.Random(7)
    async with open_app(config(tmp_path)) as inside, trio.open_nursery() as nursery:
        listener = MemoryListener()
        await nursery.start(inside.doors.grpc_server().serve_listeners, [listener])
        requests: list[tuple[str, bytes]] = []
        for operation in inside.doors.table:
            good = bytes(operation.example)
            requests += [(operation.path, data) for data in wrong_types(operation)]
            requests += [(operation.path, bent(good, chance)) for _ in range(max(1, COUNT // len(inside.doors.table)))]
        requests += [
            (SUBSCRIBE, data) for data in (b"\xa0\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x08\x01" * 9)
        ]
        requests += [(path, foreign_field(chance)) for path in REFLECTION for _ in range(20)]
        async with open_channel_over(listener.connect, authority="test") as channel:
            for path, data in requests:
                error: GRPCError | None = None
                with trio.move_on_after(0.2):
                    try:
                        await channel.unary_unary(path, Ready(data), Ready)
                    except GRPCError as caught:
                        error = caught
                if error is not None:
                    assert error.status not in OURS, (path, data, error)
                    assert "incident" not in (error.message or "")
        nursery.cancel_scope.cancel()


def test_http_2() -> None:
    """Frames bent: the connection takes them, or says that the peer broke HTTP/2, and raises nothing else."""
    chance = random.Random(9)
    for _ in range(COUNT):
        client = open_http2(ServerLimits().tuning(), client_side=True, max_calls=None)
        preface = client.data_to_send()
        headers = [
            (b":method", b"POST"),
            (b":path", b"/x.X/Y"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b"te", b"trailers"),
        ]
        client.send_headers(1, [*headers, (b"content-type", b"application/grpc"), (b"k-bin", chance.randbytes(3))])
        client.send_data(1, frame_message(b"hello"), end_stream=True)
        client.ping(bytes(8))
        client.increment_flow_control_window(1)
        data = client.data_to_send()
        for _ in range(chance.randrange(3)):
            data = bent(data, chance)
        server = ServerConnection(ServerLimits().tuning(), Budget(1 << 20), max_calls=10)
        try:
            for piece in (preface, data[:20], data[20:]):
                server.receive(piece)
                for call in server.take_opened():
                    with suppress(GRPCError):
                        server.read(call)
        except PeerError:
            server.take_outgoing()


REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.health.v1.Health/Check",
)

JSON_VALUES = [
    None, True, 0, -1, 1.5, 2**31, 2**63, 2**64, 1e400, "", "x", "\ud800", "\0", "\u0661", [], [1], {},
    {"a": 1}, "🙂" * 100,
]  # fmt: skip


def bent_json(text: bytes, chance: random.Random) -> bytes:
    fields = json.loads(text)
    if fields and chance.random() < 0.7:
        fields[chance.choice(list(fields))] = chance.choice(JSON_VALUES)
    written = json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.5:
        at = chance.randrange(len(written) + 1)
        written = (
            written[:at]
            + chance.choice([b"\xff", b"\0", b"[" * 5000, b'{"a":' * 5000, b"1" * 5000, b"", b"\\u"])
            + written[at:]
        )
    return written


def bent_request(operation: Operation, chance: random.Random) -> bytes:
    body = bent_json(encode(operation.example), chance) if chance.random() < 0.8 else chance.randbytes(50)
    path = operation.route
    if chance.random() < 0.3:
        path += chance.choice(
            ["?", "?%", "?%ff", "?encoding=", "?wait=2", "?v=x", "?" + "a=b&" * 300, "/", "%00", "%2e", "?=", "?&&"]
        )
    head = [
        f"{operation.method} {path} HTTP/1.1".encode(),
        b"Host: localhost",
        b"Content-Length: %d" % len(body),
        *chance.sample(HEADERS, chance.randrange(4)),
    ]
    request = b"\r\n".join(head) + b"\r\n\r\n" + body
    if chance.random() < 0.3:
        at = chance.randrange(len(request))
        request = request[:at] + chance.randbytes(2) + request[at + 1 :]
    return request


HEADERS = [
    b"Authorization: \xff\xfe", b"Idempotency-Key: " + b"k" * 5000, b"Idempotency-Key:",
    b"Last-Event-ID: 99999999999999999999",
    b"Origin: \x80", b"Origin: http://[", b"Origin: http://localhost:99999999", b"Expect: 100-continue", b"Expect: x",
    b"Transfer-Encoding: chunked", b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: upgrade", b"Connection: close",
    b"Content-Type: multipart/form-data; boundary=\xff", b"Content-Encoding: gzip", b"Cookie: a=\xff; b", b"Host: x",
    b"Content-Length: 1", b"Accept: text/event-stream", b"Accept: \xff", b"X-Forwarded-For: \xff",
    b"TE: trailers", b":path: /x",
]  # fmt: skip


@pytest.mark.slow
async def test_http(tmp_path: Path, no_tracebacks: None) -> None:
    chance = random.Random(8)
    async with open_door(tmp_path) as door:
        for _ in range(COUNT):
            request = bent_request(chance.choice(door.table), chance)
            answer = b""
            async with await door.connect() as stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(request)
                    await stream.send_eof()
                    answer = b"".join([bytes(chunk) async for chunk in stream])
            for status in (b"500", b"502"):
                assert b"HTTP/1.1 " + status not in answer, (request, answer)
            assert b"incident" not in answer
        while door.server.connections:  # noqa: ASYNC110
            await trio.sleep(0.001)
