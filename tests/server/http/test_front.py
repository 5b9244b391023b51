import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import trio
from tests.server.asgi import Line, opened, request, scope_of
from tests.server.house import Inside, config, open_app

from impervious.errors import Unauthenticated
from impervious.server.doors import Doors
from impervious.server.guard import CallFacts, Principal
from impervious.server.http.asgi import HttpCall
from impervious.wire.json import Encoding

APP_ORIGIN = "https://app.example.com"
EVIL = {"origin": "https://evil.example"}


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path, cors_origins=(APP_ORIGIN,))) as opened_app:
        yield opened_app


@pytest.mark.parametrize(
    ("method", "url"),
    [("POST", "/v1/message/send"), ("GET", "/v1/subscribe"), ("GET", "/healthz"), ("GET", "/nope"), ("OPTIONS", "/x")],
)
@pytest.mark.parametrize("headers", [EVIL, {"host": "evil.example"}, {"origin": "null"}])
async def test_foreign_pages_get_nowhere(inside: Inside, method: str, url: str, headers: dict[str, str]) -> None:
    reply = await request(inside.app, method, url, headers=headers, server=inside.http)
    assert (reply.status, reply.json["code"]) == (403, 7)
    assert "server." in reply.json["message"]
    assert "access-control-allow-origin" not in reply.headers
    assert inside.house.stream.statistics().subscribers == 0


@pytest.mark.parametrize("headers", [EVIL, {"host": "evil.example:8882"}])
async def test_nor_do_their_websockets(inside: Inside, headers: dict[str, str]) -> None:
    async with opened(inside.app, "/v1/subscribe", websocket=True, headers=headers, server=inside.http) as line:
        start = await line.expect("websocket.http.response.start")
        body = await line.expect("websocket.http.response.body")
    assert start["status"] == 403
    assert b'"code":7' in body["body"]


async def test_pages_of_configured_origins_are_told_that_they_may(inside: Inside) -> None:
    headers = {"origin": APP_ORIGIN}
    reply = await request(inside.app, "GET", "/healthz", headers=headers, server=inside.http)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, APP_ORIGIN)
    assert reply.headers["vary"] == "Origin"
    failed = await request(inside.app, "GET", "/nope", headers=headers, server=inside.http)
    assert (failed.status, failed.headers["access-control-allow-origin"]) == (404, APP_ORIGIN)
    async with opened(inside.app, "/v1/subscribe", headers=headers, server=inside.http) as line:
        start = await line.expect("http.response.start")
        assert (b"access-control-allow-origin", APP_ORIGIN.encode()) in start["headers"]


async def test_pages_of_our_own_need_not_be_told(inside: Inside) -> None:
    host, port = inside.http
    own = {"origin": f"http://{host}:{port}"}
    reply = await request(inside.app, "GET", "/healthz", headers=own, server=inside.http)
    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers


async def test_a_preflight(inside: Inside) -> None:
    asked = {"origin": APP_ORIGIN, "access-control-request-method": "POST"}
    for url in ("/v1/message/send", "/v1/subscribe"):
        reply = await request(inside.app, "OPTIONS", url, headers=asked, server=inside.http)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == APP_ORIGIN
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert "idempotency-key" in reply.headers["access-control-allow-headers"]
        assert "access-control-allow-private-network" not in reply.headers
    private = {**asked, "access-control-request-private-network": "true"}
    reply = await request(inside.app, "OPTIONS", "/v1/message/send", headers=private, server=inside.http)
    assert reply.headers["access-control-allow-private-network"] == "true"
    evil = await request(inside.app, "OPTIONS", "/v1/message/send", headers={**asked, **EVIL}, server=inside.http)
    assert evil.status == 403


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/nope", 404, 5),
        ("POST", "/v1/message/send/", 404, 5),
        ("POST", "//v1/message/send", 404, 5),
        ("POST", "/v1/Message/send", 404, 5),
        ("GET", "/" + "x" * 9000, 404, 5),
        ("GET", "/static/x", 404, 5),
        ("OPTIONS", "*", 404, 5),
        ("GET", "?x", 404, 5),
        ("GET", "/v1/message/send", 501, 12),
        *((method, "/v1/message/send", 501, 12) for method in ("post", "Post", "poST")),
        *((method, "/healthz", 501, 12) for method in ("get", "gEt", "head", "options")),
        ("get", "/v1/subscribe", 501, 12),
        ("HEAD", "/v1/message/send", 501, 12),
        ("BREW", "/v1/message/send", 501, 12),
        ("POST", "/v1/subscribe", 501, 12),
        ("POST", "/healthz", 501, 12),
    ],
)
async def test_ways_to_miss(inside: Inside, method: str, url: str, status: int, code: int) -> None:
    reply = await request(inside.app, method, url, server=inside.http)
    assert (reply.status, reply.json["code"], reply.json["details"]) == (status, code, [])
    assert reply.headers["content-type"] == "application/json"
    assert len(reply.json["message"]) < 300
    assert "POST /v1/message/send" in reply.json["message"] or "use " in reply.json["message"]


async def test_a_websocket_anywhere_else_is_not_found(inside: Inside) -> None:
    async with opened(inside.app, "/v1/message/send", websocket=True, server=inside.http) as line:
        assert (await line.expect("websocket.http.response.start"))["status"] == 404


async def test_options_say_what_can_be_done(inside: Inside) -> None:
    stream = await request(inside.app, "OPTIONS", "/v1/subscribe", server=inside.http)
    assert (stream.status, stream.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    call = await request(inside.app, "OPTIONS", "/v1/message/send", server=inside.http)
    assert call.status == 200
    assert set(call.headers["allow"].split(", ")) == {"OPTIONS", "POST"}


async def test_the_one_place_that_decides_who_may_call(inside: Inside) -> None:
    seen = []

    async def authorize(facts: CallFacts) -> Principal:
        await trio.lowlevel.checkpoint()
        seen.append(facts)
        if facts.metadata.get("authorization") != "Bearer x":
            raise Unauthenticated("give a token: authorization: Bearer …")
        return Principal(name="app")

    house = inside.house
    app = Doors(house, house.config, inside.listeners, authorizer=authorize).http_app()
    refused = await request(app, "GET", "/healthz", server=inside.http)
    assert (refused.status, refused.json["code"]) == (401, 16)
    async with opened(app, "/v1/subscribe", websocket=True, server=inside.http) as line:
        assert (await line.expect("websocket.http.response.start"))["status"] == 401
    let_in = await request(app, "GET", "/healthz", headers={"authorization": "Bearer x"}, server=inside.http)
    assert let_in.status == 200
    assert [facts.path for facts in seen] == ["/healthz", "/v1/subscribe", "/healthz"]
    assert seen[0].peer == "127.0.0.1:50000"


@pytest.mark.parametrize("name", ["Authorization", "Idempotency-Key", "Host", "Origin", "Last-Event-ID"])
@pytest.mark.parametrize("values", [("a", "b"), ("a", "a")])
async def test_a_header_that_may_come_once(inside: Inside, name: str, values: tuple[str, str]) -> None:
    scope = scope_of("POST", "/v1/message/send", {}, inside.http)
    scope["headers"] += [(name.lower().encode(), value.encode()) for value in (*values, "a")]
    status, _, body = await ask(inside, scope)
    assert status == 400
    assert f"the header {name.lower()} is given twice".encode() in body


async def test_headers_that_are_lists_may_come_in_several_lines(inside: Inside) -> None:
    scope = scope_of("GET", "/v1/subscribe", {}, inside.http)
    scope["headers"] += [
        (b"accept", b"text/html"),
        (b"cache-control", b"no-store"),
        (b"accept", b"a/b, Text/Event-Stream;q=1"),
    ]
    call = HttpCall.of(scope, encoding=Encoding.BASE64)  # type: ignore[arg-type]
    assert call.headers["accept"] == "text/html, a/b, Text/Event-Stream;q=1"
    assert call.twice is None
    for accept, kind in (
        ("text/html, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0, */*", "application/json"),
        ("text/event-stream; q=0.0", "application/json"),
        ("text/event-streams", "application/json"),
    ):
        headers = {"accept": accept}
        async with opened(inside.app, "/v1/subscribe", headers=headers, server=inside.http) as line:
            start = await line.expect("http.response.start")
        assert dict(start["headers"])[b"content-type"].decode() == kind


@pytest.mark.parametrize(
    "target",
    [
        *(
            "//v1/sign",
            "/v1//sign",
            "/v1/sign/",
            "/v1/sign//",
            "/v1%2Fsign",
            "/v1%2fsign",
            "/v1/%73ign",
            "/%76%31/sign",
        ),
        *("/v1/./sign", "/v1/x/../sign", "/./v1/sign", "/v1/%2e/sign", "/v1/sign%20", "/v1/sign%00", "/v1/sign;x=y"),
        *("/v1/sign%3Fx", "/V1/sign", "/v1/Sign", "/v1\\sign", "\\v1\\sign", "/v1/sign#x", "/v1/sign.", "v1/sign", "*"),
        *("http://localhost/v1/sign", "/v1/sign%", "/v1/sign%zz", "/v1/subscribe/", "/v1%2Fsubscribe", "//healthz"),
    ],
)
async def test_one_path_has_one_spelling(inside: Inside, target: str) -> None:
    scope = scope_of("POST", "/", {}, inside.http)
    scope["path"], scope["raw_path"] = unquote(target), target.encode()
    seen = []

    async def authorize(facts: CallFacts) -> Principal:
        await trio.lowlevel.checkpoint()
        seen.append(facts.path)
        return Principal(name="app")

    inside.app._authorizer = authorize
    status, _, body = await ask(inside, scope)
    assert (status, json.loads(body)["code"]) == (404, 5)
    if "%" in target:
        assert f"there is no {target} here" in json.loads(body)["message"]
    assert not {"/v1/sign", "/v1/subscribe", "/healthz"} & set(seen)


async def ask(inside: Inside, scope: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    line = Line()
    await line.send_to_app({"type": "http.request", "body": b"", "more_body": False})
    await inside.app(scope, line.app_receive.receive, line.app_send)  # type: ignore[arg-type]
    start = await line.expect("http.response.start")
    return start["status"], dict(start["headers"]), await line.body()


async def test_pages_that_may_read_answers_may_read_refusals(inside: Inside, caplog: pytest.LogCaptureFixture) -> None:
    foreign_host = {"origin": APP_ORIGIN, "host": "evil.example"}
    reply = await request(inside.app, "GET", "/healthz", headers=foreign_host, server=inside.http)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (403, APP_ORIGIN)
    assert "refused: Host 'evil.example' is not this daemon's" in caplog.text
    body = b"{" * 10
    reply = await request(inside.app, "POST", "/v1/sign", body=body, headers={"origin": APP_ORIGIN}, server=inside.http)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (400, APP_ORIGIN)


async def test_what_pages_may_send_and_read(inside: Inside) -> None:
    asked = {"origin": APP_ORIGIN, "access-control-request-method": "GET"}
    preflight = await request(inside.app, "OPTIONS", "/v1/subscribe", headers=asked, server=inside.http)
    assert "cache-control" in preflight.headers["access-control-allow-headers"]
    async with opened(inside.app, "/v1/subscribe", headers={"origin": APP_ORIGIN}, server=inside.http) as line:
        start = await line.expect("http.response.start")
    assert dict(start["headers"])[b"access-control-expose-headers"] == b"impervious-seq, impervious-epoch"


async def test_each_reason_to_refuse_has_its_line(inside: Inside, caplog: pytest.LogCaptureFixture) -> None:
    preflight = {**EVIL, "access-control-request-method": "POST"}
    load = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    for _ in range(3):
        await request(inside.app, "GET", "/healthz", headers=EVIL, server=inside.http)
        await request(inside.app, "GET", "/healthz", headers={"host": "evil.example"}, server=inside.http)
        await request(inside.app, "OPTIONS", "/healthz", headers=preflight, server=inside.http)
        await request(inside.app, "GET", "/healthz", headers=load, server=inside.http)
    lines = [message for message in caplog.messages if "refused: " in message]
    assert len(lines) == 4
    assert [sum(word in line for line in lines) for word in ("server.cors_origins", "Host", "another site")] == [
        2,
        1,
        1,
    ]


@pytest.mark.parametrize("url", ["/v1/sign?x=1&x=2", "/openapi.json?x=1&x=1", "/v1/subscribe?x=1&x=1"])
async def test_a_parameter_given_twice_is_refused_known_or_not(inside: Inside, url: str) -> None:
    method = "POST" if "sign" in url else "GET"
    reply = await request(inside.app, method, url, server=inside.http)
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert "?x= is given twice" in reply.json["message"]
