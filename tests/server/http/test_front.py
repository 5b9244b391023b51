from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from tests.server.asgi import opened, request
from tests.server.house import Inside, config, open_app

from impervious.errors import Unauthenticated
from impervious.server.doors import Doors
from impervious.server.guard import CallFacts, Principal

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
