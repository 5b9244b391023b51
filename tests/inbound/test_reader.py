"""The loop that reads invoices: one message can never stop it, and what stops it loses nothing."""

import errno
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall, inline
from tests.inbound.letters import ALICE_KEY, CAROL_KEY, LOCAL, MESSAGE, header, invoice, sign, whole
from tests.server.house import LoneNode
from trio.testing import MockClock

from impervious.background import background
from impervious.errors import NodeRefused, NodeUnavailable, StoreError, StoreFull
from impervious.hub import Hub
from impervious.inbound.reader import BATCH, Inbound, InboundPolicy
from impervious.inbound.turns import Show, as_it_is
from impervious.model import (
    Event,
    InvoiceCursor,
    InvoiceNews,
    NodeInfo,
    RecordType,
    ServiceType,
    SettledInvoice,
    Shown,
)
from impervious.store import Store, Tx, inbox, log, open_store
from impervious.store.inbox import Complete
from impervious.wire import envelope
from impervious.wire.envelope import Envelope

SERVICE = ServiceType("message")


@dataclass
class Teller(LoneNode):
    """A node that was paid: tells every invoice from a cursor on, and that that was all."""

    invoices: list[SettledInvoice] = field(default_factory=list)
    troubles: list[Exception] = field(default_factory=list)
    """One for each of the next subscriptions."""
    asked: list[int] = field(default_factory=list)
    """The cursors that subscriptions began at."""

    def __post_init__(self) -> None:
        super().__init__()
        self.news = trio.Event()

    async def wait_ready(self) -> NodeInfo:
        return replace(await super().wait_ready(), pubkey=LOCAL.pubkey, network=LOCAL.network)

    def pay(self, *values: bytes, invoices: Sequence[SettledInvoice] = (), **other: object) -> None:
        """Somebody pays invoices with these records, or these invoices."""
        self.invoices += [*invoices, *(invoice(value, **other) for value in values)]  # type: ignore[arg-type]
        self.news.set()
        self.news = trio.Event()

    def settled_invoices(
        self, cursor: InvoiceCursor, *, rescan: bool = False
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[InvoiceNews]]:
        return self._settled(cursor)

    @asynccontextmanager
    async def _settled(self, cursor: InvoiceCursor) -> AsyncIterator[trio.MemoryReceiveChannel[InvoiceNews]]:
        self.asked.append(cursor.settle_index)
        send, receive = trio.open_memory_channel[InvoiceNews](BATCH)
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, NodeRefused):
            raise trouble
        async with background(partial(self._tell, cursor.settle_index, send, trouble)):
            with receive:
                yield receive

    async def _tell(self, at: int, send: trio.MemorySendChannel[InvoiceNews], trouble: Exception | None) -> None:
        with send:
            while True:
                for told in self.invoices[at:]:
                    at += 1
                    await send.send(InvoiceNews(invoice=told, cursor=InvoiceCursor(settle_index=at)))
                    if trouble is not None:
                        return
                await send.send(InvoiceNews(invoice=None, cursor=InvoiceCursor(settle_index=at)))
                await self.news.wait()


@dataclass
class Reading:
    node: Teller
    store: Store
    hub: Hub
    show: Show
    policy: InboundPolicy

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Inbound]:
        """Read for as long as the block runs; leaving it is what a stop of the daemon does."""
        reader = Inbound(self.node, self.store, self.hub, self.policy, random=lambda: 0.0, show=self.show)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run)
            yield reader
            nursery.cancel_scope.cancel()

    async def settled(self) -> None:
        """Let the reader do what there is to do, back-offs included."""
        async with self.running() as reader:
            await reader.wait_caught_up()
            await trio.sleep(300)

    async def shown(self) -> list[Event]:
        return await self.store.read(lambda tx: log.public_events(tx, after=0, limit=1000))

    async def events(self) -> list[Event]:
        """What streams with `v=2` show."""
        return await self.store.read(lambda tx: log.public_events(tx, after=0, limit=1000, quarantined=True))

    async def quarantined(self) -> list[str]:
        rows = await self.store.read(lambda tx: tx.all("SELECT reason FROM quarantine ORDER BY number"))
        return [row[0] for row in rows]

    async def cursor(self) -> int:
        return (await self.store.read(inbox.invoice_cursor)).settle_index


@asynccontextmanager
async def open_reading(
    folder: Path,
    wall: Wall,
    *,
    show: Show = as_it_is,
    raw: bool = False,
    payments: bool = False,
    off: Mapping[RecordType, str] | None = None,
) -> AsyncIterator[Reading]:
    hub = Hub()
    policy = InboundPolicy(
        services={MESSAGE: SERVICE, **{kind: ServiceType(name) for kind, name in (off or {}).items()}},
        active=frozenset({SERVICE}),
        max_bytes=480_000,
        raw=frozenset({SERVICE} if raw else ()),
        payments=payments,
    )
    async with open_store(folder / "imp.db", on_commit=hub.publish, now_ms=wall, run_sync=inline) as store:
        yield Reading(Teller(), store, hub, show, policy)


def letter(text: str, order: int) -> bytes:
    return envelope.encode(whole(text.encode(), uuid4(), order=order))


def forged(text: str) -> bytes:
    """Alice's name under carol's signature."""
    identifier = uuid4()
    signed = sign(header(text.encode(), key=ALICE_KEY), identifier, key=CAROL_KEY)
    return envelope.encode(Envelope(message_id=identifier, offset=0, payload=text.encode(), signed_header=signed))


def poor(text: str) -> bytes:
    """Alice meant to give more than came."""
    return envelope.encode(whole(text.encode(), uuid4(), order=2, amount=5_000))


def raising(error: Exception) -> Show:
    """A service with a mistake in it."""

    def show(_tx: Tx, _service_type: ServiceType, message: Complete, /) -> Shown | None:
        if message.data == b"poison":
            raise error
        return Shown(data=message.data)

    return show


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "forged": (lambda: forged("x"), "the signature is not the sender's"),
    "torn": (lambda: letter("x", 2)[:-1], ""),
    "garbage": (lambda: envelope.MAGIC + b"\xff" * 50, ""),
    "bytes of a wallet": (lambda: b"hello", "not one of our envelopes, and message.accept_unsigned is off"),
    "poor": (lambda: poor("x"), ""),
    "nothing": (lambda: b"", "not one of our envelopes"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_message_is_kept_apart_and_the_next_is_read(
    name: str, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    make, words = BAD[name]
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(letter("one", 1), make(), letter("three", 3))
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"one", b"three"]
        [reason] = await here.quarantined()
        assert words in reason
        assert reason
        assert await here.cursor() == 3


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), KeyError(7), StoreError("no such table")])
async def test_a_mistake_in_a_service_costs_one_message(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async with open_reading(tmp_path, wall, show=raising(error)) as here:
        here.node.pay(letter("one", 1), letter("poison", 2), letter("three", 3))
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"one", b"three"]
        assert len(await here.quarantined()) == 1
        [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert record.exc_info
        assert "put into quarantine" in record.getMessage()


async def test_the_same_payment_is_read_once_whatever_the_cursor(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(letter("one", 1), b"raw", letter("two", 2))
        here.node.invoices *= 3
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"one", b"two"]
        assert len(await here.quarantined()) == 1


async def test_the_same_message_paid_twice_is_shown_once(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_reading(tmp_path, wall) as here:
        message = letter("one", 1)
        here.node.pay(message, message, message)  # each an invoice of its own
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"one"]


async def test_a_wallets_bytes_are_shown_where_they_are_wanted(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall, raw=True) as here:
        here.node.pay(b"hello", amount=7_000)
        await here.settled()
        [event] = await here.shown()
        assert (event.data, event.sender, event.verified, event.amount) == (b"hello", None, False, 7_000)
        assert await here.quarantined() == []


async def test_other_records_are_none_of_ours(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(b"podcast", record_type=RecordType(7_629_169))
        here.node.pay(letter("an invoice", 1), keysend=False)
        await here.settled()
        assert await here.shown() == []
        assert await here.quarantined() == []
        assert await here.cursor() == 2


# --- What stops it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [NodeUnavailable("LND is away"), NodeRefused("LND: not now")])
async def test_a_subscription_that_ends_is_opened_again_where_it_was(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, trouble: Exception
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.troubles += [trouble] * 3
        here.node.pay(*(letter(f"{number}", number) for number in range(1, 6)))
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"1", b"2", b"3", b"4", b"5"]
        assert here.node.asked[:4] == ([0, 1, 2, 3] if isinstance(trouble, NodeUnavailable) else [0, 0, 0, 0])


async def test_a_full_disk_holds_it_up_and_loses_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(letter("one", 1))
        async with here.running() as reader:
            await reader.wait_caught_up()
            write = here.store.write

            async def refuse(work: object) -> None:
                await trio.lowlevel.checkpoint()
                raise StoreFull("the disk is full")

            monkeypatch.setattr(here.store, "write", refuse)
            here.node.pay(letter("two", 2))
            await trio.sleep(400)
            assert len(await here.shown()) == 1
            monkeypatch.setattr(here.store, "write", write)
            await trio.sleep(60)
            assert [event.data for event in await here.shown()] == [b"one", b"two"]


async def test_a_database_that_cannot_be_used_ends_it(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reading(tmp_path, wall) as here:

        async def broken(work: object) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreError(f"disk I/O error ({errno.EIO})")

        here.node.pay(letter("one", 1))
        with pytest.RaisesGroup(StoreError, flatten_subgroups=True):
            async with here.running():
                monkeypatch.setattr(here.store, "write", broken)
                await trio.sleep(10)
        monkeypatch.undo()
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"one"]


async def test_stops_at_any_moment_lose_and_repeat_nothing(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        number = 3 * BATCH
        here.node.pay(*(letter(f"{order}", order) for order in range(1, number + 1)))
        for steps in range(40):
            async with here.running():
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
        await here.settled()
        assert [event.data for event in await here.shown()] == [f"{n}".encode() for n in range(1, number + 1)]
