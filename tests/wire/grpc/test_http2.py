"""What h2 does that gRPC cannot use, and what it does instead in our hands."""

import h2.config
import h2.connection
import pytest
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, SettingsFrame

from impervious.wire.grpc.framing import frame_message
from impervious.wire.grpc.http2 import GoAway, PeerError
from impervious.wire.grpc.status import OK

from .pair import REQUEST, Pair, tuned
from .test_connection import frames_in


def raw_client() -> h2.connection.H2Connection:
    """h2 as it comes."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    connection.receive_data(SettingsFrame(0).serialize())
    return connection


def test_h2_itself_cannot_go_on_after_goaway() -> None:
    """Should this fail, h2 has learned to drain, and the override in connection.py can go."""
    connection = raw_client()
    connection.send_headers(1, REQUEST)
    connection.receive_data(GoAwayFrame(0, last_stream_id=1).serialize())
    with pytest.raises(ProtocolError):
        connection.send_data(1, b"more")


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM, 4711])
def test_calls_that_the_server_took_outlive_goaway(code: ErrorCodes | int) -> None:
    pair = Pair()
    call, opened = pair.open(end=False)
    frame = GoAwayFrame(0, last_stream_id=call.stream_id, error_code=code, additional_data=b"too_many_pings\xff")
    assert pair.client.receive(frame.serialize()) == {}
    assert pair.client.goaway == GoAway(call.stream_id, code, "too_many_pings\ufffd")
    assert not pair.client.accepts_calls()
    pair.client.send(call, frame_message(b"more"), end=True)
    pair.pump()
    assert pair.server.read(opened) == b"more"
    pair.answer(opened, b"answer")
    assert pair.client.read(call) == b"answer"
    assert call.outcome is OK


def test_goaway_in_words() -> None:
    assert str(GoAway(1, ErrorCodes.ENHANCE_YOUR_CALM, "too_many_pings")) == "GOAWAY ENHANCE_YOUR_CALM (too_many_pings)"
    assert str(GoAway(1, 4711, "")) == "GOAWAY 4711"


@pytest.mark.parametrize("step", [1, 9, 100])
def test_an_overlong_frame_is_refused_before_it_is_collected(step: int) -> None:
    pair = Pair()
    head = (16_385).to_bytes(3, "big") + bytes([0, 0]) + (1).to_bytes(4, "big")
    data = head + bytes(100)

    def send() -> None:
        for start in range(0, len(data), step):
            pair.server.receive(data[start : start + step])

    with pytest.raises(PeerError, match="longer than allowed"):
        send()
    [goaway] = frames_in(pair.server.take_outgoing())
    assert isinstance(goaway, GoAwayFrame)
    assert goaway.error_code == ErrorCodes.FRAME_SIZE_ERROR


@pytest.mark.parametrize(("stream", "connection"), [(65_534, 10**6), (10**6, 10**6), (10**6, 2**31)])
def test_windows_that_cannot_work(stream: int, connection: int) -> None:
    with pytest.raises(ValueError, match="windows must"):
        tuned(stream_window_bytes=stream, connection_window_bytes=connection)


def test_the_compression_table_grows_no_further_than_the_default() -> None:
    """A client that offers 4 GiB must not make the server fill them, nor search them for each header it sends."""
    pair = Pair()
    for size in (2**32 - 1, 100_000, 100):
        offer = SettingsFrame(0, settings={SettingCodes.HEADER_TABLE_SIZE: size})
        pair.server.receive(offer.serialize())
        assert pair.server._h2.encoder.header_table_size == min(size, 4096)
    pair.server.take_outgoing()  # the acknowledgements are for a client that is not there
    fresh = Pair()
    fresh.server.receive(SettingsFrame(0, settings={SettingCodes.HEADER_TABLE_SIZE: 4096}).serialize())
    fresh.server.take_outgoing()
    call, opened = fresh.open(b"x")
    for number in range(200):
        fresh.server.send_initial_metadata(opened, {"k": "v" * 100 + str(number)})
        fresh.answer(opened, b"y")
        assert call.outcome is OK
        call, opened = fresh.open(b"x")
    assert len(fresh.server._h2.encoder.header_table.dynamic_entries) < 40
