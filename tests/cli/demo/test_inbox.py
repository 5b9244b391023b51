import json
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from impervious.cli.demo.inbox import KEPT, Arrival, Inbox, StreamEnded


def frame(identifier: str, service: str = "message") -> str:
    event = {
        "id": identifier,
        "replyToId": "r",
        "fromPubkey": "02aa",
        "data": "aGk=",
        "serviceType": service,
        "amount": "7",
        "seq": "1",
    }
    return json.dumps({"result": event})


def arrival(identifier: str, service: str = "message") -> Arrival:
    return Arrival.read(frame(identifier, service))


class Frames:
    """A websocket that has some frames to read and is then closed."""

    def __init__(self, *frames: str, reason: CloseReason | None = None) -> None:
        self._frames = [*frames]
        self._reason = reason

    async def get_message(self) -> str:
        await trio.lowlevel.checkpoint()
        if not self._frames:
            raise ConnectionClosed(self._reason)
        return self._frames.pop(0)


async def watch(inbox: Inbox, frames: Any) -> None:
    await inbox.watch(cast("WebSocketConnection", frames))


def test_a_frame_is_read() -> None:
    assert arrival("a") == Arrival(
        id="a", reply_to="r", from_pubkey="02aa", service="message", data=b"hi", amount_sat=7
    )
    with pytest.raises(StreamEnded, match="the stream ended: too far behind"):
        Arrival.read('{"error":{"code":11,"message":"too far behind","details":[]}}')


async def test_a_websocket_is_watched_until_it_is_closed() -> None:
    heard: list[Arrival] = []
    inbox = Inbox(heard.append)
    with pytest.raises(StreamEnded, match="was closed: going"):
        await watch(inbox, Frames(frame("a"), frame("b"), reason=CloseReason(1001, "going")))
    assert [each.id for each in heard] == ["a", "b"]
    with pytest.raises(StreamEnded, match="no reason"):
        await watch(inbox, Frames())


async def test_what_came_shortly_before_counts(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox(lambda _: None)
    inbox.add(arrival("a"))
    with trio.fail_after(1), trio.testing.assert_checkpoints():
        assert (await inbox.wait_for(lambda each: each.id == "a")).id == "a"


async def test_what_comes_later_is_waited_for_by_many(autojump_clock: trio.testing.MockClock) -> None:
    inbox, found = Inbox(lambda _: None), []

    async def wait_for(identifier: str) -> None:
        found.append((await inbox.wait_for(lambda each: each.id == identifier)).id)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, "b")
            nursery.start_soon(wait_for, "c")
            for identifier in ("a", "b", "c"):
                await trio.testing.wait_all_tasks_blocked()
                inbox.add(arrival(identifier))
    assert found == ["b", "c"]


def test_the_newest_are_kept() -> None:
    inbox = Inbox(lambda _: None)
    assert inbox.latest("message") is None
    inbox.add(arrival("first", "vpn"))
    for number in range(KEPT - 1):
        inbox.add(arrival(str(number)))
    latest = inbox.latest("message")
    assert latest is not None
    assert latest.id == str(KEPT - 2)
    assert inbox.latest("vpn") is not None
    inbox.add(arrival("last"))
    assert inbox.latest("vpn") is None
