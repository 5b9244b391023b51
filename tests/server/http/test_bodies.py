from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from impervious.server.http.asgi import HttpCall
from impervious.server.http.bodies import (
    BODY_S,
    PATIENCE_S,
    SLOWEST_BYTES_PER_S,
    Bodies,
    BodyRefused,
)
from impervious.wire.json import Encoding


def call(host: str = "127.0.0.1", length: str | None = None, coding: str | None = None) -> HttpCall:
    given = {"content-length": length, "content-encoding": coding}
    return HttpCall(
        method="POST",
        path="/v1/sign",
        query=b"",
        headers={name: value for name, value in given.items() if value is not None},
        peer=f"{host}:5000",
        arrived_at=None,
        encoding=Encoding.BASE64,
        is_websocket=False,
    )


class Client:
    """Sends pieces, each after a while; then nothing, or the end."""

    def __init__(self, pieces: Sequence[bytes], *, every_s: float = 0.0, ends: bool = True) -> None:
        self.left = list(pieces)
        self.every_s = every_s
        self.ends = ends

    async def receive(self) -> Any:
        await trio.sleep(self.every_s)
        if not self.left and not self.ends:
            await trio.sleep_forever()
        body = self.left.pop(0) if self.left else b""
        return {"type": "http.request", "body": body, "more_body": bool(self.left) or not self.ends}


async def refused(bodies: Bodies, client: Client, **facts: Any) -> tuple[int, str]:
    with pytest.raises(BodyRefused) as caught:
        await bodies.read(call(**facts), client.receive)
    assert caught.value.problem.message
    return caught.value.problem.http_status, caught.value.problem.message


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP", "x" * 100])
async def test_an_encoded_body_is_refused(coding: str) -> None:
    status, message = await refused(Bodies(largest=10), Client([b"hello"]), coding=coding)
    assert status == 415
    assert coding[:40] in message
    assert len(message) < 120


async def test_a_body_that_says_it_is_not_encoded() -> None:
    assert await Bodies(largest=10).read(call(coding="Identity"), Client([b"hello"]).receive) == b"hello"


async def test_a_body_arrives(autojump_clock: trio.testing.MockClock) -> None:
    bodies = Bodies(largest=10)
    assert await bodies.read(call(length="5"), Client([b"he", b"llo"]).receive) == b"hello"
    assert await bodies.read(call(), Client([]).receive) == b""
    assert bodies.used_bytes == 0


async def test_a_client_that_leaves(autojump_clock: trio.testing.MockClock) -> None:
    async def leaves() -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    assert await Bodies(largest=10).read(call(), leaves) is None


async def test_too_large(autojump_clock: trio.testing.MockClock) -> None:
    bodies = Bodies(largest=10)
    assert (await refused(bodies, Client([b"x" * 6] * 2)))[0] == 413
    never = Client([], ends=False)
    for length in ("11", "9" * 5000):
        status, text = await refused(bodies, never, length=length)
        assert (status, "more than 10 bytes" in text) == (413, True)
    assert bodies.used_bytes == 0


async def test_too_slow(autojump_clock: trio.testing.MockClock) -> None:
    bodies = Bodies(largest=10 << 20)
    began = trio.current_time()
    assert (await refused(bodies, Client([], ends=False)))[0] == 408
    assert trio.current_time() == began + PATIENCE_S
    assert (await refused(bodies, Client([b"x"] * 100_000, every_s=1.0)))[0] == 408
    began = trio.current_time()
    assert (await refused(bodies, Client([b"x" * 65_536] * 100, every_s=1.0)))[0] == 408
    assert trio.current_time() == began + BODY_S
    steady = Client([b"x" * SLOWEST_BYTES_PER_S] * 40, every_s=1.0)
    assert await bodies.read(call(), steady.receive) is not None
    assert bodies.used_bytes == 0


async def test_the_one_that_takes_longest_gives_way(autojump_clock: trio.testing.MockClock) -> None:
    bodies, ended = Bodies(largest=40, all_bytes=100), []

    async def stall(number: int) -> None:
        status, text = await refused(bodies, Client([b"x" * 40], ends=False))
        assert (status, "taken longest" in text) == (503, True)
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(stall, number)
            await trio.testing.wait_all_tasks_blocked()
        assert bodies.used_bytes == 80
        for left in (1, 2, 2):
            assert await bodies.read(call(), Client([b"y" * 40]).receive) == b"y" * 40
            await trio.testing.wait_all_tasks_blocked()
            assert len(ended) <= left
        assert ended == [0]
        nursery.start_soon(stall, 2)
        nursery.start_soon(stall, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [0, 1]
        assert bodies.used_bytes == 80
        nursery.cancel_scope.cancel()
    assert bodies.used_bytes == 0


async def test_one_address_cannot_take_all(autojump_clock: trio.testing.MockClock) -> None:
    bodies = Bodies(largest=10, all_bytes=100)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(bodies.read, call("192.0.2.1"), Client([b"x" * 10], ends=False).receive)
        await trio.testing.wait_all_tasks_blocked()
        assert (await refused(bodies, Client([b"x" * 10]), host="192.0.2.1"))[0] == 429
        for host in ("192.0.2.2", "127.0.0.1"):
            assert await bodies.read(call(host), Client([b"x" * 10]).receive)
        nursery.cancel_scope.cancel()
    assert bodies.used_bytes == 0
