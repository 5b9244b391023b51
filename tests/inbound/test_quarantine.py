"""What is paid and not shown: an event, a line, a row; and its release, once."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.inbound.letters import LOCAL, MESSAGE, NOW_S, invoice, whole
from tests.inbound.test_assembly import pieces
from tests.inbound.test_reader import SERVICE, Reading, forged, letter, open_reading, poor
from trio.testing import MockClock

from impervious.errors import NotFound
from impervious.inbound import arrival
from impervious.inbound.quarantine import LINES
from impervious.model import Event, EventKind, ServiceType, SettledInvoice, Shown
from impervious.store import Tx, inbox, quarantine
from impervious.store.inbox import Complete
from impervious.wire import envelope

CHAIN_AHEAD_MS = 60 * 86_400_000


def slow_clock() -> bytes:
    return envelope.encode(whole(b"late", uuid4(), sent_at_ms=NOW_S * 1000 - CHAIN_AHEAD_MS))


def cheap() -> SettledInvoice:
    return invoice(letter("cheap", 2), amount=999)


UNSHOWN: dict[str, tuple[Callable[[], SettledInvoice], str]] = {
    "wallet": (lambda: invoice(b"hello"), "accept_unsigned is off"),
    "forged": (lambda: invoice(forged("x")), "signature"),
    "slow clock": (lambda: invoice(slow_clock()), "within 7 days"),
    "poor": (lambda: invoice(poor("x")), "were signed"),
    "cheap": (cheap, "at least 1000"),
    "cheap wallet": (lambda: invoice(b"hello", amount=1), "at least 1000"),
    "dropped": (lambda: invoice(letter("drop", 2)), "shows nothing of it"),
    "unreadable": (lambda: replace(invoice(b""), records={}, unreadable="torn"), "torn"),
}


def dropping(_tx: Tx, _service_type: ServiceType, message: Complete, /) -> Shown | None:
    return None if message.data == b"drop" else Shown(data=message.data)


async def put_aside(here: Reading) -> list[Event]:
    return [event for event in await here.events() if event.kind is EventKind.QUARANTINED]


@pytest.mark.parametrize("name", UNSHOWN)
async def test_each_payment_that_is_not_shown_is_an_event_a_line_and_a_row(
    name: str, tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    make, words = UNSHOWN[name]
    async with open_reading(tmp_path, wall, show=dropping) as here:
        paid = make()
        here.node.pay(invoices=[paid])
        await here.settled()
        [event] = await here.events()
        assert (event.kind, event.service_type, event.verified) == (EventKind.QUARANTINED, "lightning", False)
        assert event.amount == paid.amount
        shape = json.loads(event.data)
        assert (shape["recordId"], shape["state"], shape["number"]) == ("QUARANTINED", "quarantined", 1)
        assert words in shape["reason"]
        assert len(event.data) < 1000
        [row] = await here.store.read(lambda tx: quarantine.newest(tx, limit=9))
        assert row.reason == shape["reason"]
        [line] = [each.getMessage() for each in caplog.records if "quarantine show" in each.getMessage()]
        assert words in line


async def test_what_a_switched_off_service_gets_is_put_aside(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.policy = replace(here.policy, active=frozenset())
        here.node.pay(letter("one", 1), letter("two", 2))
        await here.settled()
        assert [json.loads(event.data)["service"] for event in await put_aside(here)] == ["message"] * 2
        here.policy = replace(here.policy, active=frozenset({SERVICE}))
        await here.store.write(lambda tx: quarantine.want(tx, [1]))
        await here.settled()
        [shown] = await here.shown()
        assert (shown.data, shown.verified, shown.service_type) == (b"one", True, "message")


async def test_parts_without_a_header_are_put_aside_in_the_end(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        _, second = pieces(b"a" * 1800, uuid4())
        here.node.pay(envelope.encode(second))
        await here.settled()
        wall.offset_ms += 2 * 86_400_000
        await here.settled()
        [event] = await put_aside(here)
        assert "header did not come" in json.loads(event.data)["reason"]


async def test_a_part_that_was_paid_twice_is_put_aside(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_reading(tmp_path, wall) as here:
        message = letter("one", 1)
        here.node.pay(message, message)
        await here.settled()
        [event] = await put_aside(here)
        assert "dealt with before" in json.loads(event.data)["reason"]


# --- Release ----------------------------------------------------------------------------------------------------------


async def test_what_is_released_is_shown_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(b"hello", forged("x"), b"", amount=7_000)
        await here.settled()
        for _ in range(3):
            await here.store.write(lambda tx: quarantine.want(tx, present(tx)))
            await here.settled()
        shown = await here.shown()
        assert [(event.data, event.verified, event.sender, event.amount) for event in shown] == [
            (data, False, None, 7_000) for data in (b"hello", b"x", b"")
        ]
        with pytest.raises(NotFound):
            await here.store.write(lambda tx: quarantine.want(tx, [1]))


def present(tx: Tx) -> list[int]:
    return [each.number for each in quarantine.newest(tx, limit=100)]


async def test_a_release_while_the_daemon_runs(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_reading(tmp_path, wall) as here, here.running() as reader:
        here.node.pay(b"hello")
        await reader.wait_caught_up()
        await trio.sleep(1)
        await here.store.write(lambda tx: quarantine.want(tx, [1]))
        await trio.sleep(6)
        assert [event.data for event in await here.shown()] == [b"hello"]


async def test_what_can_be_read_now_is_read_again(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_reading(tmp_path, wall) as here:
        paid = invoice(letter("one", 1))

        def put(tx: Tx) -> None:  # by a mistake of a former version
            value = paid.records[MESSAGE]
            inbox.quarantine(tx, paid.payment_hash, "why", record_type=MESSAGE, value=value, amount=paid.amount)
            quarantine.want(tx, [1])

        await here.store.write(put)
        await here.settled()
        [event] = await here.shown()
        assert (event.data, event.verified) == (b"one", True)
        assert await here.quarantined() == []


# --- The log ----------------------------------------------------------------------------------------------------------


async def test_a_flood_gets_a_few_lines_and_their_number(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(*(b"%d" % number for number in range(200)))
        await here.settled()
        lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
        assert len([line for line in lines if "quarantine show" in line]) == LINES
        assert f"{200 - LINES} more payments were put into quarantine" in lines
        assert len(await put_aside(here)) == 200


def test_a_satoshi_is_enough() -> None:
    assert isinstance(arrival.read(invoice(letter("x", 1), amount=1000), LOCAL), arrival.PartArrived)


async def test_parts_to_a_record_that_no_service_has_any_more_are_put_aside(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        first, _ = pieces(b"a" * 1800, uuid4())
        here.node.pay(envelope.encode(first))
        await here.settled()
        here.policy = replace(here.policy, services={}, active=frozenset())
        wall.offset_ms += 2 * 86_400_000
        await here.settled()
        [event] = await put_aside(here)
        assert "no service has any more" in json.loads(event.data)["reason"]
        assert event.amount == 1000
