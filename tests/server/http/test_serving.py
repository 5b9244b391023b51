"""How the HTTP door ends: in order, and within its grace whatever clients do. Real sockets, short grace."""

import os
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from tests.server.house import ALICE, new
from tests.server.http.door import GET, SEND, UPGRADE, open_door
from trio_websocket import ConnectionClosed, wrap_client_stream


async def test_idle_connections_end_at_once(tmp_path: Path) -> None:
    async with open_door(tmp_path, grace_s=100) as door, await door.connect() as fresh, await door.connect() as used:
        await used.send_all(GET)
        await used.receive_some()
        await door.until_connected(2)
        with trio.fail_after(2):
            await door.stop()
            assert await fresh.receive_some() == b""
            assert b"alive" in await used.receive_some() or await used.receive_some() == b""


async def test_a_websocket_is_told_that_we_go(tmp_path: Path) -> None:
    async with (
        open_door(tmp_path, grace_s=100) as door,
        await door.connect() as stream,  # our own: trio-websocket leaves a socket open that the server closed
        trio.open_nursery() as nursery,
    ):
        websocket = await wrap_client_stream(nursery, stream, "localhost", "/v1/subscribe")
        with trio.fail_after(2):
            await door.stop()
            with pytest.raises(ConnectionClosed) as caught:
                await websocket.get_message()
        assert caught.value.reason is not None
        assert (caught.value.reason.code, caught.value.reason.reason) == (1001, "the daemon is stopping")


async def test_lines_end_as_a_whole_response(tmp_path: Path) -> None:
    async with open_door(tmp_path, grace_s=100) as door, await door.connect() as stream:
        await stream.send_all(b"GET /v1/subscribe HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in await stream.receive_some()
        with trio.fail_after(2):
            await door.stop()
            assert b"".join([chunk async for chunk in stream]) == b"0\r\n\r\n"


async def test_requests_that_run_are_answered_when_the_grace_is_over(tmp_path: Path) -> None:
    body = b'{"pubkey":"%b","msg":"aGk="}' % ALICE.hex.encode()
    async with open_door(tmp_path) as door, await door.connect() as stream:
        await stream.send_all(SEND % (len(body), body))
        while not await door.house.stored_messages():  # noqa: ASYNC110
            await trio.sleep(0.001)
        await door.stop()
        answer = b"".join([chunk async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"the daemon is stopping" in answer


async def test_nothing_new_is_accepted_meanwhile(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        await door.stop()
        with pytest.raises(OSError, match="connect"):
            await door.connect()


@pytest.mark.slow
async def test_clients_that_do_not_read_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        stalled = [await door.connect() for _ in range(3)]
        for stream in stalled:
            await stream.send_all(UPGRADE)
            await stream.receive_some()
        for _ in range(40):  # more than the sockets hold
            await door.house.emit(new(os.urandom(400_000)))
            await trio.lowlevel.checkpoint()
        await door.stop()
        assert door.server.connections == 0
        for stream in stalled:
            await stream.aclose()


async def test_beyond_the_limit_connections_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_door(tmp_path, max_connections=2) as door:
        kept = [await door.connect() for _ in range(2)]
        await door.until_connected(2)
        async with await door.connect() as refused:
            with trio.fail_after(2):
                assert await refused.receive_some() == b""
        assert "a connection was refused: 2 are open already" in caplog.text
        for stream in kept:
            await stream.aclose()
        with trio.fail_after(2):
            while door.server.connections:  # noqa: ASYNC110
                await trio.sleep(0.001)
        async with await door.connect() as let_in:
            await let_in.send_all(GET)
            assert b"200" in await let_in.receive_some()
