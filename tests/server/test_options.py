import json
from dataclasses import replace

import pytest
from tests.server.house import ALICE, BOB, new

from impervious.config import Config
from impervious.errors import InvalidArgument
from impervious.events import Filter
from impervious.model import EventKind
from impervious.pb.messaging import SendMessageRequest
from impervious.pb.websocket import SubscribeRequest
from impervious.server.options import (
    PUBLISHED_TYPES,
    Query,
    Watch,
    encoding_of,
    fields_of_query,
    is_extended,
    known_types,
)
from impervious.wire.json import Encoding, decode

KNOWN = known_types(Config()) | {"chess"}


def watch(query: str = "", default: Encoding = Encoding.BASE64, **headers: str) -> Watch:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Watch.of_query(Query(query.encode()), given, default=default, known_types=KNOWN)


def test_parameters() -> None:
    query = Query(b"a=1&a=2,3&b=&c=%C3%B6&wait&d=true&e=0")
    with pytest.raises(InvalidArgument, match=r"\?a= is given twice"):
        query.one("a")
    assert query.all("a") == ["1", "2", "3"]
    assert query.one("b") == ""
    assert query.all("b") == []
    assert query.one("c") == "ö"
    assert query.one("none") is None
    assert [query.flag(name) for name in ("wait", "d", "e", "none")] == [True, True, False, False]
    with pytest.raises(InvalidArgument, match=r"\?c= must be true or false"):
        query.flag("c")


def test_unknown_parameters_come_once_too() -> None:
    for query in (b"x=1&x=1", b"x&x", b"v=2&x=1&x=2"):
        with pytest.raises(InvalidArgument, match=r"\?x= is given twice"):
            Query(query).check_once()
        with pytest.raises(InvalidArgument, match=r"\?x= is given twice"):
            watch(query.decode())
        with pytest.raises(InvalidArgument, match=r"\?x= is given twice"):
            fields_of_query(SubscribeRequest, Query(query))
    watch("from=@a&from=@b&service_type=message&service_type=vpn&v=2")
    fields_of_query(SubscribeRequest, Query(b"serviceType=vpn&serviceType=message"))
    Query(b"x=1&x=2&y=1").check_once({"x"})


def test_fields_of_a_request_without_a_body() -> None:
    query = Query(b"serviceType=vpn,message&from_pubkey=@bob&since=7&other=1")
    assert decode(SubscribeRequest, fields_of_query(SubscribeRequest, query)) == SubscribeRequest(
        service_type=["vpn", "message"], from_pubkey=["@bob"], since=7
    )
    assert json.loads(fields_of_query(SendMessageRequest, Query(b"wait&text=hi"))) == {"wait": True, "text": "hi"}
    with pytest.raises(InvalidArgument, match="wait"):
        fields_of_query(SendMessageRequest, Query(b"wait=7"))
    assert fields_of_query(SubscribeRequest, Query(b"")) == b"{}"


@pytest.mark.parametrize("query", [b"a=%ff", b"a=\xff", b"&".join([b"a=1"] * 101)])
def test_parameters_that_are_none(query: bytes) -> None:
    with pytest.raises(InvalidArgument, match="query"):
        Query(query)


def test_encoding_and_version() -> None:
    assert encoding_of(Query(b""), Encoding.TEXT) is Encoding.TEXT
    assert encoding_of(Query(b"encoding=base64"), Encoding.TEXT) is Encoding.BASE64
    with pytest.raises(InvalidArgument, match="text or base64"):
        encoding_of(Query(b"encoding=hex"), Encoding.TEXT)
    assert [is_extended(value, "?v=") for value in (None, "1", "2")] == [False, False, True]
    with pytest.raises(InvalidArgument, match=r"\?v= must be 1 or 2"):
        is_extended("3", "?v=")


def test_where_a_stream_begins() -> None:
    assert watch().since is None
    assert watch("since=0").since == 0
    assert watch("since=7").since == 7
    assert watch("since=7", last_event_id="9").since == 9
    assert watch("since=7", last_event_id="").since == 7
    for bad in ("since=", "since=-1", "since=1.5", "since=x", "since=%C2%B2", "since=" + "9" * 30):
        with pytest.raises(InvalidArgument, match="since must be the seq"):
            watch(bad)
    with pytest.raises(InvalidArgument, match="Last-Event-ID must be the seq"):
        watch(last_event_id="x")


def test_filters() -> None:
    found = watch(f"service_type=vpn,message&service_type=status&from={ALICE.hex},{BOB.hex}").wanted
    assert found.service_types == {"vpn", "message", "status"}
    assert found.senders == {ALICE, BOB}
    with pytest.raises(InvalidArgument, match="'mesage' is none of this node's: chess, federate"):
        watch("service_type=mesage")
    with pytest.raises(InvalidArgument, match="from: pubkey has 2 characters"):
        watch("from=02")


def test_text_mode_shows_what_was_published_unless_asked_for_more() -> None:
    text = watch(default=Encoding.TEXT)
    assert text.published
    assert text.wanted.service_types == PUBLISHED_TYPES
    assert "status" not in PUBLISHED_TYPES
    assert "lightning" not in PUBLISHED_TYPES
    assert watch("service_type=vpn", Encoding.TEXT).wanted.service_types == {"vpn"}
    for more in (watch("v=2", Encoding.TEXT), watch("encoding=base64", Encoding.TEXT), watch()):
        assert not more.published
        assert not more.wanted.service_types
    assert watch("encoding=text").published
    with pytest.raises(InvalidArgument, match="chess, status is not part of the text mode of 2021: add v=2"):
        watch("service_type=status,chess,vpn", Encoding.TEXT)
    assert watch("service_type=status&v=2", Encoding.TEXT).wanted.service_types == {"status"}


def test_what_nobody_proved_to_have_sent_is_shown_on_request() -> None:
    raw, signed = new(sender=None, verified=False).at(1), new().at(2)
    waits = replace(new(service="status"), kind=EventKind.PROGRESS).at(
        3
    )  # a program of 2021 takes any status for an end
    for modest in (watch(), watch(default=Encoding.TEXT), grpc()):
        assert [modest.shows(event) for event in (raw, signed, waits)] == [False, True, False]
    for asking in (watch("v=2"), watch("v=2", Encoding.TEXT), grpc(extended=True)):
        assert all(asking.shows(event) for event in (raw, signed, waits))


def grpc(request: SubscribeRequest | None = None, *, extended: bool = False) -> Watch:
    return Watch.of_request(request or SubscribeRequest(), extended=extended, known_types=KNOWN)


def test_the_same_over_grpc() -> None:
    assert grpc().since is None
    assert grpc(SubscribeRequest(since=0)).since == 0
    found = grpc(SubscribeRequest(since=2**64 - 1, service_type=["chess"], from_pubkey=[BOB.hex]))
    assert found.since == 2**64 - 1
    assert found.wanted == Filter(service_types=frozenset({"chess"}), senders=frozenset({BOB}))
    assert not found.published
    with pytest.raises(InvalidArgument, match="'x' is none of this node's"):
        grpc(SubscribeRequest(service_type=["x"]))
    with pytest.raises(InvalidArgument, match="from_pubkey: pubkey is missing"):
        grpc(SubscribeRequest(from_pubkey=[""]))
