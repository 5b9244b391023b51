"""The client's connection: every way an answer can look, and every way it can fail to come."""

import pytest
from grpclib.const import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from impervious.wire.grpc.client import CANCELLED, ClientCall, ClientConnection
from impervious.wire.grpc.framing import frame_message
from impervious.wire.grpc.status import OK, Outcome

from .pair import REQUEST, TUNING, Pair
from .test_connection import frames_in

ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS = [(b"grpc-status", b"0")]


class Against:
    """Our client against h2 as a server that says whatever a test wants."""

    def __init__(self) -> None:
        self.client = ClientConnection(TUNING)
        self.h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
        )
        self.h2.initiate_connection()
        self.exchange()
        self.call: ClientCall = self.client.open(REQUEST)
        self.exchange()

    def exchange(self) -> None:
        self.h2.receive_data(self.client.take_outgoing())
        self.client.receive(self.h2.data_to_send())

    def headers(self, headers: list[tuple[bytes, bytes]], *, end: bool = False) -> None:
        self.h2.send_headers(self.call.stream_id, headers, end_stream=end)
        self.exchange()

    def data(self, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(self.call.stream_id, data, end_stream=end)
        self.exchange()


def test_an_answer_in_the_usual_order() -> None:
    server = Against()
    call = server.call
    assert not call.answered
    server.headers([*ANSWER, (b"first", b"1")])
    assert call.answered
    assert list(call.initial_metadata().items()) == [("first", "1")]
    server.data(frame_message(b"answer"))
    assert call.outcome is None
    server.headers([*TRAILERS, (b"last", b"2")], end=True)
    assert call.outcome is OK
    assert list(call.trailing_metadata().items()) == [("last", "2")]
    assert server.client.read(call) == b"answer"
    assert server.client.read(call) is None
    # We had not finished our request: the server is told that the rest will not come.
    [reset] = frames_in(server.client.take_outgoing())
    assert isinstance(reset, RstStreamFrame)
    assert reset.error_code == ErrorCodes.NO_ERROR


def test_trailers_only() -> None:
    server = Against()
    server.headers([*ANSWER, (b"grpc-status", b"5"), (b"grpc-message", b"no%20such"), (b"k", b"v")], end=True)
    assert server.call.outcome == Outcome(Status.NOT_FOUND, "no such")
    assert list(server.call.initial_metadata().items()) == []
    assert list(server.call.trailing_metadata().items()) == [("k", "v")]


@pytest.mark.parametrize("headers", [[(b":status", b"200")], [(b":status", b"503"), (b"content-type", b"text/html")]])
def test_a_grpc_status_counts_for_more_than_what_http_says(headers: list[tuple[bytes, bytes]]) -> None:
    server = Against()
    server.headers([*headers, (b"grpc-status", b"12")], end=True)
    assert server.call.outcome == Outcome(Status.UNIMPLEMENTED)


def test_trailers_only_without_the_end() -> None:
    server = Against()
    server.headers([*ANSWER, (b"grpc-status", b"5")])
    assert server.call.outcome == Outcome(Status.NOT_FOUND)
    assert server.call.closed


def test_headers_that_end_the_call_without_a_status() -> None:
    server = Against()
    server.headers(ANSWER, end=True)
    assert server.call.outcome == Outcome(Status.UNKNOWN, "the server ended the call without a grpc-status")


def test_an_interim_response_is_skipped() -> None:
    server = Against()
    server.headers([(b":status", b"103")])
    assert not server.call.answered
    server.headers(ANSWER)
    assert server.call.answered


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ([(b":status", b"404"), (b"content-type", b"text/html")], Status.UNIMPLEMENTED, "HTTP status 404, 'text/html'"),
        ([(b":status", b"503")], Status.UNAVAILABLE, "HTTP status 503, no content type"),
        ([(b":status", b"200"), (b"content-type", b"text/plain")], Status.UNKNOWN, "HTTP status 200, 'text/plain'"),
        ([(b"content-type", b"application/grpc")], Status.UNKNOWN, "HTTP status none"),
    ],
)
def test_answers_that_are_not_grpc(headers: list[tuple[bytes, bytes]], status: Status, text: str) -> None:
    server = Against()
    server.headers(headers)
    assert server.call.outcome is not None
    assert server.call.outcome.status is status
    assert text in (server.call.outcome.message or "")
    server.data(b"<html>" * 100)  # nobody collects it
    assert server.call.inbox.unread_bytes == 0


def test_the_end_without_trailers() -> None:
    server = Against()
    server.headers(ANSWER)
    server.data(frame_message(b"answer"), end=True)
    assert server.call.outcome == Outcome(Status.UNKNOWN, "the server ended the call without a grpc-status")
    assert server.client.read(server.call) == b"answer"


def test_a_reset_keeps_what_came_before() -> None:
    server = Against()
    server.headers(ANSWER)
    server.data(frame_message(b"answer"))
    server.h2.reset_stream(server.call.stream_id, ErrorCodes.REFUSED_STREAM)
    server.exchange()
    assert server.call.outcome == Outcome(Status.UNAVAILABLE, "the server reset the call: REFUSED_STREAM")
    assert server.client.read(server.call) == b"answer"
    assert server.call.closed


def test_a_reset_after_the_trailers_changes_nothing() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    pair.answer(opened, b"enough")  # resets with NO_ERROR, because the client has not ended
    assert call.outcome is OK
    assert pair.client.read(call) == b"enough"


def test_frames_for_calls_that_are_over_are_ignored() -> None:
    server = Against()
    server.client.cancel(server.call)
    server.client.take_outgoing()  # the server does not hear of it in time
    for headers, end in ((ANSWER, False), (TRAILERS, True)):
        server.h2.send_headers(1, headers, end_stream=end)
    server.client.receive(server.h2.data_to_send())
    assert server.call.outcome is CANCELLED

    # h2 takes in all that was received before we see any of it.
    for end_it in (
        GoAwayFrame(0, last_stream_id=0).serialize(),
        HeadersFrame(1, data=Encoder().encode([(b":status", b"404")]), flags=["END_HEADERS"]).serialize(),
    ):
        batch = Against()
        rest = [(ANSWER, False)] if end_it[3] == GoAwayFrame.type else []
        for headers, end in [*rest, (TRAILERS, True)]:
            data = HeadersFrame(1, data=Encoder().encode(headers), flags=["END_HEADERS", *["END_STREAM"] * end])
            end_it += DataFrame(1, data=b"data").serialize() * end + data.serialize()
        batch.client.receive(end_it)
        assert batch.call.outcome is not None
        assert batch.call.outcome.status in (Status.UNAVAILABLE, Status.UNIMPLEMENTED)
        assert batch.call.inbox.unread_bytes == 0

    ended = Against()
    ended.client.cancel(ended.call)
    ended.client.take_outgoing()
    ended.h2.send_headers(1, ANSWER)
    ended.h2.send_data(1, b"", end_stream=True)
    ended.client.receive(ended.h2.data_to_send())
    ended.client.receive(RstStreamFrame(1, error_code=8).serialize())
    assert ended.call.outcome is CANCELLED


def test_cancel_resets_once_and_hands_back_what_was_unread() -> None:
    server = Against()
    server.headers(ANSWER)
    server.data(frame_message(b"unread"))
    server.client.cancel(server.call)
    server.client.cancel(server.call)
    resets = [frame for frame in frames_in(server.client.take_outgoing()) if isinstance(frame, RstStreamFrame)]
    assert [(frame.stream_id, frame.error_code) for frame in resets] == [(1, ErrorCodes.CANCEL)]
    assert server.call.inbox.unread_bytes == 0
    assert server.client.calls == {}


def test_end_says_so_once() -> None:
    server = Against()
    server.client.end(server.call)
    server.client.end(server.call)
    assert [set(frame.flags) for frame in frames_in(server.client.take_outgoing())] == [{"END_STREAM"}]
    other = Against()
    other.client.cancel(other.call)
    other.client.take_outgoing()
    other.client.end(other.call)
    assert other.client.take_outgoing() == b""


def test_goaway_ends_the_calls_that_the_server_never_saw() -> None:
    server = Against()
    seen, unseen = server.call, server.client.open(REQUEST)
    changed = server.client.receive(GoAwayFrame(0, last_stream_id=1, additional_data=b"restart").serialize())
    assert set(changed) == {unseen}
    assert seen.outcome is None
    assert unseen.outcome == Outcome(Status.UNAVAILABLE, "not handled by the server: GOAWAY NO_ERROR (restart)")


def test_the_connection_is_lost() -> None:
    server = Against()
    second = server.client.open(REQUEST)
    assert server.client.lose("pulled the plug") == [server.call, second]
    assert server.call.outcome == second.outcome == Outcome(Status.UNAVAILABLE, "pulled the plug")
    assert not server.client.accepts_calls()


def test_the_servers_limit_on_calls_is_known() -> None:
    client = ClientConnection(TUNING)
    assert not client.settled
    client.receive(SettingsFrame(0, settings={3: 7}).serialize())
    assert client.settled
    assert client.max_calls == 7


def test_stream_ids_run_out() -> None:
    server = Against()
    assert server.client.accepts_calls()
    server.client._h2.highest_outbound_stream_id = 2**31 - 1
    assert not server.client.accepts_calls()


def test_goodbye_is_a_goaway() -> None:
    server = Against()
    server.client.say_goodbye()
    [frame] = frames_in(server.client.take_outgoing())
    assert isinstance(frame, GoAwayFrame)


def test_a_compressed_answer() -> None:
    import gzip

    server = Against()
    server.headers([*ANSWER, (b"grpc-encoding", b"gzip")])
    body = gzip.compress(b"answer")
    server.data(b"\x01" + len(body).to_bytes(4, "big") + body)
    assert server.client.read(server.call) == b"answer"


def test_response_headers_split_over_reads() -> None:
    server = Against()
    server.h2.send_headers(1, ANSWER)
    data = server.h2.data_to_send()
    assert isinstance(frames_in(data)[-1], HeadersFrame)
    for byte in data:
        server.client.receive(bytes([byte]))
    assert server.call.answered
