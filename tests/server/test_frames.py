import json
from dataclasses import replace

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st
from tests.server.house import new
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, TextMessage

from impervious.model import LATE, Event
from impervious.pb.websocket import SubscribeResponse
from impervious.server import frames as frames_module
from impervious.server.convert import Problem
from impervious.server.frames import (
    PING,
    Frames,
    Framing,
    Shape,
    frame_event,
    frame_line,
    frame_problem,
    websocket_frame,
)
from impervious.wire.json import Encoding

PROBLEM = Problem(code=Status.UNAVAILABLE, message="later")


def read_websocket(data: bytes) -> list[object]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return [event.data if isinstance(event, TextMessage) else type(event) for event in client.events()]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_websocket_frames_are_what_wsproto_reads(size: int) -> None:
    assert "".join(map(str, read_websocket(websocket_frame(b"x" * size)))) == "x" * size


@given(st.lists(st.text(max_size=300), max_size=5))
def test_websocket_frames_can_be_joined(texts: list[str]) -> None:
    assert read_websocket(b"".join(websocket_frame(text.encode()) for text in texts)) == texts


def test_the_ping_is_one() -> None:
    assert read_websocket(PING) == [Ping]


def test_every_framing_carries_the_same_line() -> None:
    event = new("a\nb\r\u2028c").at(9)
    line = frame_event(event, Shape(Framing.LINES, Encoding.TEXT))
    assert line.endswith(b"}}\n")
    assert line.count(b"\n") == 1
    assert read_websocket(frame_event(event, Shape(Framing.WEBSOCKET, Encoding.TEXT))) == [line[:-1].decode()]
    assert frame_event(event, Shape(Framing.SSE, Encoding.TEXT)) == b"id: 9\ndata: " + line + b"\n"
    assert json.loads(line)["result"]["data"] == "a\nb\r\u2028c"
    assert len(line.decode().splitlines()) == 1


def test_grpc_frames_are_messages() -> None:
    event = new("hi").at(9)
    assert SubscribeResponse.parse(frame_event(event, Shape(Framing.GRPC))).seq == 9
    with pytest.raises(AssertionError):
        frame_line(b"{}", Framing.GRPC)


def test_encodings_and_published_fields() -> None:
    event = new(b"\xff\x00").at(1)
    shown = {
        shape: json.loads(frame_event(event, shape))["result"]
        for shape in (
            Shape(Framing.LINES),
            Shape(Framing.LINES, Encoding.TEXT, published=True),
        )
    }
    full, published = shown.values()
    assert (full["data"], published["data"]) == ("/wA=", "\ufffd\x00")
    assert list(published) == ["id", "replyToId", "fromPubkey", "data", "serviceType", "amount"]
    assert set(full) - set(published) == {"seq", "sentAtMs", "verified"}


def test_what_may_be_out_of_order_says_so_where_version_2_is_asked_for() -> None:
    late = replace(new("hi"), order=LATE).at(1)
    plain = replace(late, order="")
    for event, shape, expected in (
        (late, Shape(Framing.LINES, extended=True), "late"),
        (late, Shape(Framing.LINES, Encoding.TEXT, extended=True), "late"),
        (late, Shape(Framing.LINES), None),
        (plain, Shape(Framing.LINES, extended=True), None),
    ):
        assert json.loads(frame_event(event, shape))["result"].get("order") == expected
    assert SubscribeResponse.parse(frame_event(late, Shape(Framing.GRPC, extended=True))).order == "late"
    assert frame_event(late, Shape(Framing.GRPC)) == frame_event(plain, Shape(Framing.GRPC))


def test_problems() -> None:
    body = {"error": {"code": 14, "message": "later", "details": []}}
    assert json.loads(frame_problem(PROBLEM, Framing.LINES)) == body
    assert json.loads(str(read_websocket(frame_problem(PROBLEM, Framing.WEBSOCKET))[0])) == body
    assert frame_problem(PROBLEM, Framing.SSE) == b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def test_a_frame_is_made_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = frames_module.frame_event

    def counting(event: Event, shape: Shape) -> bytes:
        made.append(event.seq)
        return original(event, shape)

    monkeypatch.setattr(frames_module, "frame_event", counting)
    frames = Frames()
    encode = frames.encoder(Shape(Framing.LINES))
    assert frames.encoder(Shape(Framing.LINES)) is encode
    events = [new(str(number)).at(number) for number in range(5)]
    first = [encode(event) for event in events]
    assert [encode(event) for event in events] == first
    assert made == [0, 1, 2, 3, 4]
    assert frames.encoder(Shape(Framing.WEBSOCKET))(events[0]) != first[0]


def test_old_frames_are_forgotten_and_made_again() -> None:
    encode = Frames(kept_bytes=1000).encoder(Shape(Framing.LINES))
    events = [new("x" * 100).at(number) for number in range(50)]
    first = [encode(event) for event in events]
    assert [encode(event) for event in events] == first
    large = new("x" * 5000).at(99)
    assert encode(large) == encode(large)
    assert [encode(event) for event in events] == first
