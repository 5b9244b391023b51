import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.server.asgi import opened, request
from tests.server.house import ALICE, LOCKED, Inside, config, open_app

from impervious.server.doors import largest_request
from impervious.server.http.bodies import PATIENCE_S

SEND = "/v1/message/send"


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with open_app(config(tmp_path)) as opened_app:
        yield opened_app


async def test_alive_and_ready(inside: Inside) -> None:
    alive = await request(inside.app, "GET", "/healthz", server=inside.http)
    ready = await request(inside.app, "GET", "/readyz", server=inside.http)
    assert (alive.status, alive.json) == (200, {"alive": True})
    assert (ready.status, ready.json) == (200, {"ready": True, "state": "ready", "reason": ""})


async def test_not_ready_says_why_and_is_alive(inside: Inside) -> None:
    inside.house.lightning.status = LOCKED
    ready = await request(inside.app, "GET", "/readyz", server=inside.http)
    assert (ready.status, ready.json) == (503, {"ready": False, "state": "locked", "reason": LOCKED.reason})
    assert (await request(inside.app, "GET", "/healthz", server=inside.http)).status == 200
    assert (await request(inside.app, "HEAD", "/readyz", server=inside.http)).status == 503


async def test_a_full_disk_is_not_ready(inside: Inside) -> None:
    inside.house.disk_problem = "the disk is full: make room"
    ready = await request(inside.app, "GET", "/readyz", server=inside.http)
    assert (ready.status, ready.json["state"]) == (503, "disk_full")
    assert ready.json["reason"] == "the disk is full: make room"


def scoped_body(size: int) -> bytes:
    return json.dumps({"pubkey": "x" * (size - 14)}).encode()


async def test_a_body_over_the_limit_is_refused_with_or_without_its_length(inside: Inside) -> None:
    limit = largest_request(inside.house.config)
    assert limit == 4 << 20
    most = await request(inside.app, "POST", SEND, body=scoped_body(limit), server=inside.http)
    assert "characters; a compressed key" in most.json["message"]
    over = scoped_body(limit + 1)
    for headers in ({}, {"content-length": str(len(over))}):
        reply = await request(inside.app, "POST", SEND, body=over, headers=headers, server=inside.http)
        assert (reply.status, reply.json["code"]) == (413, 3)
        assert f"the body has more than {limit} bytes" in reply.json["message"]
    assert await inside.house.stored_messages() == 0


async def test_a_body_that_does_not_come(inside: Inside, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    half = {"content-length": "100"}
    async with opened(
        inside.app, SEND, method="POST", headers=half, server=inside.http, more_body=True, body=b"{"
    ) as line:
        start = await line.expect("http.response.start")
        body = await line.body()
        assert trio.current_time() == pytest.approx(began + PATIENCE_S, abs=0.01)
    assert start["status"] == 408
    assert json.loads(body)["code"] == 4


async def test_a_client_that_leaves_ends_its_call(inside: Inside) -> None:
    body = b'{"pubkey":"%b","msg":"aGk=","wait":true}' % ALICE.hex.encode()
    async with opened(inside.app, SEND, method="POST", body=body, server=inside.http):
        await trio.testing.wait_all_tasks_blocked()
        assert await inside.house.stored_messages() == 1
    # leaving the block has disconnected, and waited for the application's end
    assert await inside.house.stored_messages() == 1


async def test_http_1_0_without_host(inside: Inside) -> None:
    reply = await request(inside.app, "GET", "/healthz", headers={"host": None}, server=inside.http)  # type: ignore[dict-item]
    assert reply.status == 200
