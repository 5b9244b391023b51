"""What both roles share: windows, backlog, GOAWAY, pings, and peers that break HTTP/2."""

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from impervious.wire.grpc.client import ClientCall, ClientConnection
from impervious.wire.grpc.connection import Connection
from impervious.wire.grpc.framing import Budget, frame_message
from impervious.wire.grpc.http2 import PeerError
from impervious.wire.grpc.server import ServerCall, ServerConnection
from impervious.wire.grpc.status import OK

from .pair import REQUEST, TUNING, Pair, tuned

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frames_in(data: bytes) -> list[Frame]:
    """The frames of what one side sent."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data)[:9])
        frame.parse_body(memoryview(data)[9 : 9 + length])
        found.append(frame)
        data = data[9 + length :]
    return found


@pytest.mark.parametrize("step", [1, 7, None])
def test_a_call_comes_through_however_the_bytes_are_cut(step: int | None) -> None:
    pair = Pair()
    call = pair.client.open(REQUEST)
    pair.client.send(call, frame_message(b"question"), end=True)
    pair.pump(step)
    [opened] = pair.server.take_opened()
    assert pair.server.read(opened) == b"question"
    assert opened.peer_ended
    pair.server.send_initial_metadata(opened)
    pair.server.send(opened, frame_message(b"answer"))
    pair.server.finish(opened, OK)
    pair.pump(step)
    assert pair.client.read(call) == b"answer"
    assert call.outcome is OK
    assert pair.client.calls == {}
    assert pair.server.calls == {}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.binary(max_size=60)), max_size=60))
def test_many_calls_at_once(steps: list[tuple[int, int, bytes]]) -> None:
    """Whatever the order of messages on four calls, each call gets its own, in order, both ways."""
    pair = Pair()
    calls = [pair.open(end=False) for _ in range(4)]
    sent: dict[tuple[int, str], list[bytes]] = {}
    got: dict[tuple[int, str], list[bytes]] = {}

    def read_all(number: int) -> None:
        client_call, server_call = calls[number]
        got.setdefault((number, "up"), []).extend(iter(lambda: pair.server.read(server_call), None))
        got.setdefault((number, "down"), []).extend(iter(lambda: pair.client.read(client_call), None))

    for number, action, message in steps:
        client_call, server_call = calls[number]
        if action == 0:
            pair.client.send(client_call, frame_message(message))
            sent.setdefault((number, "up"), []).append(message)
        elif action == 1:
            pair.server.send_initial_metadata(server_call)
            pair.server.send(server_call, frame_message(message))
            sent.setdefault((number, "down"), []).append(message)
        elif action == 2:
            pair.pump()
        else:
            read_all(number)
    pair.pump()
    for number in range(4):
        read_all(number)
        for way in ("up", "down"):
            assert got.get((number, way), []) == sent.get((number, way), [])


# --- Flow control -----------------------------------------------------------------------------------------------------


def test_an_unread_call_gets_no_more_than_its_window() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    data = frame_message(bytes(300_000))
    sent = pair.client.send(call, data)
    pair.pump()
    assert sent == TUNING.stream_window_bytes == opened.inbox.unread_bytes
    assert pair.client.send(call, data[sent:]) == 0
    pair.pump()
    assert opened.inbox.unread_bytes == sent


def test_reading_opens_the_window_and_wakes_the_sender() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    message = bytes(range(256)) * 2000
    rest = memoryview(frame_message(message))
    received = None
    rounds = 0
    while received is None:
        rounds += 1
        assert rounds < 50
        if rest:
            sent = pair.client.send(call, rest)
            assert call.mid_message is (0 < sent < len(rest) or (call.mid_message and sent < len(rest)))
            rest = rest[sent:]
        pair.changed.clear()
        pair.pump()
        received = pair.server.read(opened)
        pair.pump()
        if rest:
            assert call in pair.changed
    assert received == message
    assert not call.mid_message


def test_unread_calls_leave_room_for_others_up_to_the_connection_window() -> None:
    tuning = tuned(stream_window_bytes=100_000, connection_window_bytes=250_000)
    pair = Pair(server=ServerConnection(tuning, Budget(1 << 20), max_calls=10))
    stuck = [pair.open(end=False) for _ in range(2)]
    for call, _ in stuck:
        assert pair.client.send(call, frame_message(bytes(150_000))) == 100_000
    pair.pump()
    # Two windows are full and unread; a third call still gets everything through, as it is read.
    call, opened = pair.open(end=False)
    for _ in range(20):
        rest = memoryview(frame_message(bytes(40_000)))
        while rest:
            rest = rest[pair.client.send(call, rest) :]
            pair.pump()
            if rest:
                assert pair.server.read(opened) is None
                pair.pump()
        assert pair.server.read(opened) == bytes(40_000)
        pair.pump()


def test_what_nobody_will_read_is_handed_back() -> None:
    """Ended calls with unread data must not eat up the connection window."""
    pair = Pair()
    for _ in range(30):
        call, opened = pair.open(end=False)
        assert pair.client.send(call, frame_message(bytes(90_000))) == 90_005
        pair.pump()
        pair.server.finish(opened, OK)
        pair.pump()
        assert call.outcome is OK
    for _ in range(30):
        call, opened = pair.open()
        pair.server.send_initial_metadata(opened)
        assert pair.server.send(opened, frame_message(bytes(60_000))) == 60_005
        pair.client.cancel(call)  # while the answer is under way
        pair.pump()


def test_small_acknowledgements_are_saved_up() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    updates = 0
    for _ in range(100):
        pair.client.send(call, frame_message(bytes(995)))
        pair.pump()
        assert pair.server.read(opened) is not None
        updates += sum(isinstance(frame, WindowUpdateFrame) for frame in frames_in(bytes(pair.server._outgoing)))
        pair.pump()
    assert updates == 4


def test_one_read_finds_what_the_last_one_left() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    pair.client.send(call, frame_message(b"one") + frame_message(b"two") + frame_message(b"three")[:4])
    pair.pump()
    assert [pair.server.read(opened) for _ in range(3)] == [b"one", b"two", None]
    assert opened.inbox.torn


def test_a_message_over_the_limit_is_refused_and_handed_back() -> None:
    tuning = tuned(message_bytes=10)
    pair = Pair(server=ServerConnection(tuning, Budget(1 << 20), max_calls=10))
    _, opened = pair.open(bytes(11), end=False)
    with pytest.raises(GRPCError) as caught:
        pair.server.read(opened)
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert opened.inbox.unread_bytes == 0


def test_the_backlog_stops_senders_until_it_is_written() -> None:
    tuning = tuned(backlog_bytes=50_000)
    pair = Pair(client=ClientConnection(tuning))
    first, _ = pair.open(end=False)
    second, _ = pair.open(end=False)
    sent = pair.client.send(first, frame_message(bytes(90_000)))
    assert 50_000 <= sent < 70_000
    assert first.mid_message
    assert pair.client.send(second, frame_message(b"x")) == 0
    assert not second.mid_message
    assert pair.client.backlog_bytes >= pair.client.backlog_limit_bytes == 50_000
    assert list(pair.client.take_blocked()) == [first, second]
    assert list(pair.client.take_blocked()) == []
    assert len(pair.client.take_outgoing()) >= sent
    assert pair.client.backlog_bytes == 0
    assert pair.client.send(second, frame_message(b"x")) == 6


def test_a_larger_initial_window_wakes_senders() -> None:
    pair = Pair()
    call, _ = pair.open(end=False)
    pair.client.send(call, frame_message(bytes(150_000)))
    grown = SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    assert call in pair.client.receive(grown.serialize())
    assert pair.client.receive(SettingsFrame(0, settings={SettingCodes.HEADER_TABLE_SIZE: 100}).serialize()) == {}


def test_window_updates_for_calls_that_do_not_wait_wake_nobody() -> None:
    pair = Pair()
    call, _ = pair.open(end=False)
    update = WindowUpdateFrame(call.stream_id, window_increment=5).serialize()
    assert pair.client.receive(update) == {}


# --- Pings ------------------------------------------------------------------------------------------------------------


def test_pings_are_answered_and_answers_counted() -> None:
    pair = Pair()
    for end, other in ((pair.client, pair.server), (pair.server, pair.client)):
        end.ping(b"12345678")
        pair.pump()
        assert end.pongs == 1
        assert other.pongs <= 1


# --- Peers that break HTTP/2 ------------------------------------------------------------------------------------------


def test_a_broken_peer_is_told_why_and_then_nothing_more_is_said() -> None:
    pair = Pair()
    call, opened = pair.open(bytes(1000), end=False)
    with pytest.raises(PeerError, match="NoSuchStream"):
        pair.server.receive(WindowUpdateFrame(99, window_increment=5).serialize())
    assert pair.server.over
    assert isinstance(frames_in(pair.server.take_outgoing())[-1], GoAwayFrame)
    pair.server.send_initial_metadata(opened)
    assert pair.server.send(opened, frame_message(b"x")) == 0
    assert pair.server.read(opened) == bytes(1000)  # what came before may still be read
    assert list(pair.server.lose()) == [opened]
    assert opened.abandoned
    pair.server.finish(opened, OK)
    pair.server.abort(opened)
    assert pair.server.take_outgoing() == b""

    with pytest.raises(PeerError, match="not HTTP/2"):
        pair.client.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    pair.client.take_outgoing()
    pair.client.end(call)
    pair.client.cancel(call)
    assert list(pair.client.lose("gone")) == []
    assert pair.client.take_outgoing() == b""


def test_credit_is_not_given_to_a_connection_that_is_over() -> None:
    tuning = tuned(stream_window_bytes=65_535, connection_window_bytes=65_536)
    pair = Pair(server=ServerConnection(tuning, Budget(1 << 20), max_calls=10))
    call, opened = pair.open(end=False)
    pair.client.send(call, frame_message(bytes(50_000)))
    pair.pump()
    pair.server.lose()
    assert pair.server.read(opened) is None  # nobody waits for it any more
    other = Pair(server=ServerConnection(tuning, Budget(1 << 20), max_calls=10))
    call, opened = other.open(end=False)
    other.client.send(call, frame_message(bytes(50_000)))
    other.pump()
    other.server.over = True
    assert other.server.read(opened) == bytes(50_000)
    assert other.server.take_outgoing() == b""


def test_unknown_frames_and_settings_are_ignored() -> None:
    pair = Pair()
    odd = [
        b"\x00\x00\x06\xfa\xff\x00\x00\x00\x00grease",
        SettingsFrame(0, settings={0x7A7A: 1}).serialize(),
        AltSvcFrame(0, origin=b"x", field=b"y").serialize(),
        PriorityFrame(1, depends_on=0, stream_weight=1).serialize(),
    ]
    for end in (pair.client, pair.server):
        for frame in odd:
            assert end.receive(frame) == {}
    call, opened = pair.open(b"still here")
    assert pair.server.read(opened) == b"still here"
    pair.answer(opened, b"yes")
    assert pair.client.read(call) == b"yes"


def test_data_after_the_end_and_for_calls_long_gone() -> None:
    pair = Pair()
    call, opened = pair.open(b"x")
    late = DataFrame(call.stream_id, data=b"late")
    pair.server.receive(late.serialize())
    resets = [frame for frame in frames_in(pair.server.take_outgoing()) if isinstance(frame, RstStreamFrame)]
    assert [frame.stream_id for frame in resets] == [call.stream_id]
    assert opened not in pair.server.calls.values() or opened.peer_ended


def test_headers_larger_than_allowed_end_the_connection() -> None:
    pair = Pair()
    with pytest.raises(PeerError, match="header"):
        pair.open(headers=[*REQUEST, (b"big", b"x" * 9000)])


def test_headers_without_end_are_cut_off() -> None:
    pair = Pair()
    start = HeadersFrame(1, data=Encoder().encode(REQUEST))
    more = ContinuationFrame(1, data=b"").serialize()

    def flood() -> None:
        pair.server.receive(start.serialize())
        for _ in range(100):
            pair.server.receive(more)

    with pytest.raises(PeerError, match="continuation"):
        flood()


STREAM_IDS = st.sampled_from([1, 3, 5, 7, 2, 2**31 - 1])
HEADER_LISTS = st.lists(
    st.tuples(
        st.sampled_from([b"grpc-status", b"grpc-timeout", b"content-length", b"x-bin", b"X", b":path", b"", b"cookie"]),
        st.sampled_from([b"", b"0", b"5", b"\xff\xfe", b"1S", b"-1", b"9" * 30]),
    ),
    max_size=3,
)
RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]
FRAMES = st.one_of(
    st.builds(
        lambda stream_id, flags, headers: HeadersFrame(stream_id, data=Encoder().encode(headers), flags=flags),
        STREAM_IDS,
        st.lists(st.sampled_from(["END_HEADERS", "END_STREAM", "PRIORITY"]), unique=True),
        st.builds(lambda base, more: base + more, st.sampled_from([REQUEST, RESPONSE, RESPONSE[:1], []]), HEADER_LISTS),
    ),
    st.builds(
        lambda stream_id, data, flags: DataFrame(stream_id, data=data, flags=flags),
        STREAM_IDS,
        st.sampled_from([b"", frame_message(b"abc"), frame_message(b"abc")[:6], b"\x01\x00\x00\x00\x01x"]),
        st.sampled_from([[], ["END_STREAM"]]),
    ),
    st.builds(lambda stream_id, code: RstStreamFrame(stream_id, error_code=code), STREAM_IDS, st.integers(0, 20)),
    st.builds(
        lambda settings: SettingsFrame(0, settings=settings),
        st.dictionaries(st.integers(0, 9), st.sampled_from([0, 1, 16_384, 65_535, 2**31 - 1, 2**32 - 1]), max_size=2),
    ),
    st.builds(
        lambda stream_id, increment: WindowUpdateFrame(stream_id, window_increment=increment),
        st.one_of(st.just(0), STREAM_IDS),
        st.sampled_from([1, 65_535, 2**31 - 1]),
    ),
    st.builds(lambda last, code: GoAwayFrame(0, last_stream_id=last, error_code=code), STREAM_IDS, st.integers(0, 20)),
    st.builds(lambda flags: PingFrame(0, opaque_data=b"12345678", flags=flags), st.sampled_from([[], ["ACK"]])),
    st.builds(lambda stream_id: ContinuationFrame(stream_id, data=b"", flags=["END_HEADERS"]), STREAM_IDS),
).map(lambda frame: frame.serialize())
ACTIONS = st.lists(st.tuples(st.lists(st.one_of(FRAMES, st.binary(max_size=20)), max_size=4), st.integers(0, 6)))


def poke(
    end: Connection[ClientCall] | Connection[ServerCall], calls: list[ClientCall | ServerCall], action: int
) -> None:
    """Do to each call what an owner may do in its state."""
    for call in calls:
        try:
            if isinstance(end, ClientConnection) and isinstance(call, ClientCall):
                if action == 0:
                    end.read(call)
                elif action == 1 and call.outcome is None and not call.local_ended:
                    end.send(call, frame_message(b"x"), end=len(end.calls) % 2 == 0)
                elif action == 2:
                    end.cancel(call)
                elif action == 3:
                    end.end(call)
            elif isinstance(end, ServerConnection) and isinstance(call, ServerCall):
                if action == 0:
                    end.read(call)
                elif action == 1 and not call.finished:
                    end.send_initial_metadata(call)
                    end.send(call, frame_message(b"x"))
                elif action == 2:
                    end.finish(call, OK)
                elif action == 3:
                    end.abort(call)
                elif action == 4:
                    end.drain()
        except GRPCError:
            end.discard_unread(call)  # type: ignore[arg-type]  # the call is of this end


@settings(max_examples=300)
@given(ACTIONS, st.booleans())
def test_nothing_that_a_peer_sends_raises_anything_but_peer_error(
    steps: list[tuple[list[bytes], int]], client_side: bool
) -> None:
    calls: list[ClientCall | ServerCall] = []
    end: ClientConnection | ServerConnection
    if client_side:
        end = ClientConnection(TUNING)
        calls += [end.open(REQUEST, end=number == 1) for number in range(3)]
    else:
        end = ServerConnection(TUNING, Budget(1 << 20), max_calls=10)
        end.receive(PREFACE)
    try:
        end.receive(SettingsFrame(0).serialize())
        for chunks, action in steps:
            end.receive(b"".join(chunks))
            if isinstance(end, ServerConnection):
                calls += end.take_opened()
            poke(end, calls, action)
            end.take_outgoing()
            end.take_blocked()
    except PeerError:
        assert end.over
    if isinstance(end, ServerConnection):
        end.lose()
    else:
        end.lose("over")
    assert end.calls == {}
    poke(end, calls, 0)
    poke(end, calls, 2)
