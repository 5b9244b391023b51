"""The server's connection: requests good and bad, answers, and leaving."""

import pytest
from grpclib.const import Status
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from impervious.wire.grpc.framing import frame_message
from impervious.wire.grpc.headers import Header
from impervious.wire.grpc.http2 import ALL_STREAMS
from impervious.wire.grpc.status import OK, Outcome

from .pair import REQUEST, Pair, request
from .test_connection import frames_in


def outcome_of(headers: list[Header], *, end: bool = True) -> Outcome:
    """What the server says to a request that it does not take."""
    pair = Pair()
    call = pair.client.open(headers, end=end)
    pair.pump()
    assert pair.server.take_opened() == []
    assert pair.server.calls == {}
    assert pair.client.calls == {}
    assert call.outcome is not None
    return call.outcome


def test_a_request_is_read() -> None:
    pair = Pair()
    _, opened = pair.open(
        headers=request(
            (b"grpc-timeout", b"5S"),
            (b"user-agent", b"grpc-go/1.60"),
            (b"macaroon", b"0201"),
            (b"id-bin", b"AAE"),
            content_type=b"application/grpc+proto",
        )
    )
    assert opened.path == "/test.Play/Unary"
    assert opened.timeout_s == 5.0
    assert opened.user_agent == "grpc-go/1.60"
    assert list(opened.metadata.items()) == [("macaroon", "0201"), ("id-bin", b"\x00\x01")]
    assert opened.peer_ended
    assert pair.server.take_opened() == []
    _, plain = pair.open(headers=request(content_type=b"application/grpc; x=y"))
    assert plain.timeout_s is None
    assert plain.user_agent is None


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        (request(method=b"GET"), Status.UNKNOWN, "HTTP status 405"),
        (request(content_type=b"text/html"), Status.UNKNOWN, "HTTP status 415"),
        (request(content_type=b"application/grpc+json"), Status.UNKNOWN, "HTTP status 415"),
        (request(content_type=b"application/grpc-web"), Status.UNKNOWN, "HTTP status 415"),
        (request(content_type=None), Status.UNKNOWN, "HTTP status 415"),
        (request((b"grpc-timeout", b"soon")), Status.INVALID_ARGUMENT, "malformed grpc-timeout"),
        (request((b"k-bin", b"?")), Status.INVALID_ARGUMENT, "binary metadata is not base64"),
        (request((b"grpc-encoding", b"br")), Status.UNIMPLEMENTED, "only gzip and identity"),
    ],
)
def test_what_is_no_grpc_request_is_answered_at_once(
    headers: list[Header], status: Status, text: str, end: bool
) -> None:
    outcome = outcome_of(headers, end=end)
    assert outcome.status is status
    assert text in (outcome.message or "")


def test_an_unknown_compression_is_told_which_are_known() -> None:
    pair = Pair()
    call = pair.client.open(request((b"grpc-encoding", b"zstd")), end=True)
    pair.pump()
    assert dict(call._trailing)[b"grpc-accept-encoding"] == b"identity,gzip"


def test_a_bad_request_that_is_taken_back_in_the_same_breath() -> None:
    pair = Pair()
    for headers in (request(method=b"GET"), REQUEST):
        call = pair.client.open(headers)
        pair.client.cancel(call)
    pair.client.open(REQUEST)  # makes h2 forget the earlier ones before we see their events
    pair.pump()
    opened = pair.server.take_opened()
    assert [call.abandoned for call in opened] == [True, False]
    assert pair.server.early_ends == 1


def test_initial_metadata_is_sent_once() -> None:
    pair = Pair()
    call, opened = pair.open()
    pair.server.send_initial_metadata(opened, {"k": "1"})
    pair.server.send_initial_metadata(opened, {"k": "2"})
    pair.pump()
    assert list(call.initial_metadata().items()) == [("k", "1")]


def test_a_status_with_everything() -> None:
    pair = Pair()
    call, opened = pair.open()
    pair.server.finish(opened, Outcome(Status.ABORTED, "käse", b"\x08\x0a"), {"k-bin": b"v"})
    pair.server.finish(opened, OK)
    pair.pump()
    assert call.outcome == Outcome(Status.ABORTED, "käse", b"\x08\x0a")
    assert list(call.trailing_metadata().items()) == [("k-bin", b"v")]


def test_half_a_message_is_not_followed_by_trailers() -> None:
    pair = Pair()
    call, opened = pair.open()
    pair.server.send_initial_metadata(opened)
    sent = pair.server.send(opened, frame_message(bytes(200_000)))
    assert sent < 200_000
    pair.server.finish(opened, Outcome(Status.DEADLINE_EXCEEDED))
    pair.pump()
    assert call.outcome == Outcome(Status.CANCELLED, "the server reset the call: CANCEL")


def test_a_client_that_still_sends_is_told_to_stop() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    pair.server.finish(opened, OK)
    resets = [frame for frame in frames_in(bytes(pair.server._outgoing)) if isinstance(frame, RstStreamFrame)]
    assert [frame.error_code for frame in resets] == [ErrorCodes.NO_ERROR]
    pair.pump()
    assert call.outcome is OK


def test_trailers_from_a_client_end_its_request() -> None:
    pair = Pair()
    call, opened = pair.open(b"x", end=False)
    pair.client._send_headers(call.stream_id, [(b"odd", b"1")], end=True)
    pair.pump()
    assert opened.peer_ended
    assert opened in pair.changed
    assert pair.server.read(opened) == b"x"


def test_a_call_taken_back() -> None:
    pair = Pair()
    call, opened = pair.open(b"unread", end=False)
    pair.client.cancel(call)
    pair.pump()
    assert opened.abandoned
    assert opened in pair.changed
    assert opened.inbox.unread_bytes == 0
    assert pair.server.early_ends == 1
    pair.server.send_initial_metadata(opened)
    pair.server.finish(opened, OK)
    assert pair.server.take_outgoing() == b""


def test_a_reset_for_a_call_that_is_over_does_not_count() -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    pair.server.finish(opened, OK)
    pair.client.receive(b"")
    pair.client.cancel(call)
    pair.pump()
    assert pair.server.early_ends == 0


def test_refusing_and_aborting() -> None:
    pair = Pair()
    call, opened = pair.open()
    pair.server.refuse(opened)
    pair.pump()
    assert call.outcome == Outcome(Status.UNAVAILABLE, "the server reset the call: REFUSED_STREAM")
    assert pair.server.early_ends == 1
    call, opened = pair.open()
    pair.server.abort(opened)
    pair.server.abort(opened)
    pair.pump()
    assert call.outcome == Outcome(Status.CANCELLED, "the server reset the call: CANCEL")


def test_draining_takes_what_is_under_way_and_then_no_more() -> None:
    pair = Pair()
    call, opened = pair.open()
    pair.server.drain()
    pair.server.drain()
    assert not pair.server.done
    first = pair.server.take_outgoing()
    assert [frame.last_stream_id for frame in frames_in(first) if isinstance(frame, GoAwayFrame)] == [ALL_STREAMS]
    late = pair.client.open(REQUEST, end=True)  # sent before the client hears of it
    pair.server.receive(pair.client.take_outgoing())
    [opened_late] = pair.server.take_opened()
    pair.client.receive(first)
    assert pair.client.goaway is not None
    assert not pair.client.accepts_calls()
    assert not pair.server.refusing
    pair.pump()
    assert pair.server.refusing
    assert pair.client.goaway.last_stream_id == late.stream_id
    rude = pair.client.open(REQUEST, end=True)
    pair.pump()
    assert rude.outcome == Outcome(Status.UNAVAILABLE, "the server reset the call: REFUSED_STREAM")
    assert not pair.server.done
    pair.answer(opened, b"a")
    pair.answer(opened_late, b"b")
    assert call.outcome is late.outcome is OK
    assert pair.server.done


def test_other_pings_are_not_mistaken_for_the_end_of_draining() -> None:
    pair = Pair()
    pair.server.ping(b"draining")
    pair.pump()
    assert not pair.server.refusing
    pair.server.drain()
    pair.pump()
    assert pair.server.refusing
    pair.server.ping(b"draining")
    pair.pump()
    assert pair.server.pongs == 3


def test_a_client_that_says_goodbye_is_done_after_its_calls() -> None:
    pair = Pair()
    call, opened = pair.open()
    pair.client.say_goodbye()
    pair.pump()
    assert not pair.server.done
    pair.answer(opened, b"a")
    assert call.outcome is OK
    assert pair.server.done


def test_expelling() -> None:
    pair = Pair()
    call, _ = pair.open()
    pair.server.expel("too many")
    pair.pump()
    assert pair.client.goaway is not None
    assert str(pair.client.goaway) == "GOAWAY ENHANCE_YOUR_CALM (too many)"
    assert pair.client.goaway.last_stream_id == call.stream_id
    assert pair.server.refusing
