"""Whatever is raised between an invoice and the log ends that one invoice, never the node, and loses nothing.

The project's tests do not replace its own code. This module does, and it is the only one that may: a parser that is
right today may raise anything after tomorrow's change, so each function on the way is replaced in turn by one that
raises, for as long as bad invoices come, and afterwards the next good message must arrive.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest
import trio
from google.protobuf.message import DecodeError
from sqlcipher3 import dbapi2
from tests.conftest import Wall
from tests.inbound.letters import CAROL_KEY, LOCAL, MESSAGE, NOW_S, header, invoice, sign
from tests.inbound.test_assembly import pieces
from tests.inbound.test_reader import letter, open_reading
from trio.testing import MockClock

from impervious import invoice_feed
from impervious.containment import is_containable, reason_of
from impervious.errors import InvalidArgument, Malformed
from impervious.inbound import arrival, assembly, turns
from impervious.lnd import convert
from impervious.model import HtlcState, InvoiceHtlc, RecordType, SettledInvoice
from impervious.pb import envelope as pb
from impervious.pb.lnrpc import Invoice, InvoiceInvoiceState
from impervious.pb.lnrpc import InvoiceHtlc as PbHtlc
from impervious.store import Tx, inbox, settled
from impervious.units import Msat
from impervious.wire import envelope, lnd_signature, protobuf
from impervious.wire.envelope import Envelope


class Panic(BaseException):
    """What a library written in another language may raise."""


FAULTS: tuple[BaseException, ...] = (
    EOFError(),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    OverflowError("Python int too large to convert to SQLite INTEGER"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeError("half a character: \ud800"),
    AssertionError(),
    struct.error("unpack requires a buffer of 4 bytes"),
    DecodeError("Error parsing message"),
    dbapi2.DatabaseError("type is not supported"),
    InvalidArgument("\ud800"),
    SystemExit(1),
    Panic(),
    BaseExceptionGroup("several", [SystemExit(1), Panic()]),
    ExceptionGroup("several", [KeyError("x")]),
)

MODULES = (arrival, assembly, turns, envelope, protobuf, lnd_signature, inbox, settled)


def functions() -> Iterator[tuple[ModuleType | type, str]]:
    for module in MODULES:
        for name, value in vars(module).items():
            if isfunction(value) and value.__module__ == module.__name__:
                yield module, name
    yield Tx, "emit"
    yield Tx, "insert"
    yield Tx, "wake"


EVERY = [pytest.param(owner, name, id=f"{owner.__name__.rsplit('.', 1)[-1]}.{name}") for owner, name in functions()]


@contextmanager
def raising(owner: object, name: str, fault: BaseException) -> Iterator[list[str]]:
    """Have a function raise for as long as the block runs. Yields a list that grows with each call."""
    original = getattr(owner, name)
    calls: list[str] = []

    def broken(*_: object, **__: object) -> object:
        calls.append(name)
        raise copy(fault)  # a traceback of its own

    setattr(owner, name, broken)
    try:
        yield calls
    finally:
        setattr(owner, name, original)


def bad_ones() -> list[SettledInvoice]:
    """Everything that a stranger can begin: whole, in parts, early, forged, unsigned, foreign, incomplete."""
    first, second = pieces(b"in two parts".ljust(1800), uuid4(), order=2)
    lonely, _ = pieces(b"never whole".ljust(1800), uuid4(), order=3)
    _, orphan = pieces(b"no header".ljust(1800), uuid4(), order=4)
    early = sign(header(b"early", key=CAROL_KEY, order=7, void_orders=(1, 2, 5)), identifier := uuid4(), key=CAROL_KEY)
    last = sign(header(b"last", key=CAROL_KEY, order=2**63 - 1), final := uuid4(), key=CAROL_KEY)
    parts = (
        first,
        second,
        lonely,
        orphan,
        Envelope(message_id=identifier, offset=0, payload=b"early", signed_header=early),
        Envelope(message_id=final, offset=0, payload=b"last", signed_header=last),
        Envelope(message_id=uuid4(), offset=0, payload=b"forged", signed_header=early),
    )
    values = [letter("bad", 1), *map(envelope.encode, parts), b"of a wallet"]
    return [*map(invoice, values), invoice(b"podcast", record_type=RecordType(7_629_169))]


async def survives(folder: Path, wall: Wall, owner: object, name: str, fault: BaseException) -> None:
    async with open_reading(folder, wall, payments=True) as here:
        async with here.running():
            await trio.sleep(1)
            bad = bad_ones()
            with raising(owner, name, fault):
                here.node.pay(invoices=bad)
                await trio.sleep(70)
                wall.offset_ms += 2 * 86_400_000
                await trio.sleep(600)  # both clocks come round
            here.node.pay(letter("good", 50))
            await trio.sleep(70)
            wall.offset_ms += 2 * 86_400_000
            await trio.sleep(600)
        shown = [event.data for event in await here.shown()]
        assert b"good" in shown
        assert await here.cursor() == len(here.node.invoices)
        if b"bad" not in shown:
            assert len(await here.quarantined()) >= 1 or name in UNSHOWN


UNSHOWN = {"quarantine", "_trim_quarantine", "insert"}
"""What cannot be put into quarantine for want of these is named in the log alone."""


@pytest.mark.parametrize(("owner", "name"), EVERY)
async def test_a_function_that_raises_costs_what_it_was_called_for(
    owner: ModuleType | type, name: str, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    fault = FAULTS[sum(name.encode()) % len(FAULTS)]
    await survives(tmp_path, wall, owner, name, fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize(("owner", "name"), EVERY)
async def test_whatever_it_raises(
    owner: ModuleType | type, name: str, fault: BaseException, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    await survives(tmp_path, wall, owner, name, fault)


# --- What is stored already -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [("ord", 2**63 - 1), ("id", b"short"), ("reply_to", b"short"), ("data", "text"), ("amount_msat", "much")],
)
async def test_held_rows_of_a_former_version_are_shown_or_put_aside(
    column: str, value: object, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(letter("early", 9))
        async with here.running() as reader:
            await reader.wait_caught_up()
        await here.store.write(lambda tx: tx.run(f"UPDATE held SET {column} = ?", value))  # type: ignore[arg-type]
        await here.settled()
        here.node.pay(letter("good", 10))
        await here.settled()
        assert [event.data for event in await here.shown()][-1] == b"good"
        assert len(await here.shown()) + len(await here.quarantined()) == 2
        assert await here.store.read(lambda tx: tx.number("SELECT count(*) FROM held")) == 0


async def test_a_stored_header_that_cannot_be_read_any_more_is_in_nobodys_way(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        first, second = pieces(b"in two parts".ljust(1800), uuid4())
        here.node.pay(envelope.encode(first))
        await here.settled()
        await here.store.write(lambda tx: tx.run("UPDATE assembly SET header = ?", b"\x42\x01\x80"))
        here.node.pay(envelope.encode(second), letter("good", 2))
        await here.settled()
        wall.offset_ms += 2 * 86_400_000
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"good"]
        assert await here.store.read(lambda tx: tx.number("SELECT count(*) FROM assembly")) == 0


# --- What the Lightning node says -------------------------------------------------------------------------------------


def lnd_invoice(**changes: object) -> Invoice:
    message = Invoice(
        r_hash=bytes(32),
        state=InvoiceInvoiceState.SETTLED,
        add_index=7,
        settle_index=8,
        creation_date=NOW_S,
        settle_date=NOW_S,
        is_keysend=True,
        htlcs=[PbHtlc(amt_msat=1000, custom_records={MESSAGE: b"x"})],
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    "changes",
    [
        {"htlcs": [None]},
        {"htlcs": 7},
        {"state": []},
        {"add_index": 2**64 - 1},
        {"settle_index": "x"},
        {"r_hash": None, "htlcs": None},
    ],
)
def test_an_invoice_that_cannot_be_converted_is_unreadable(changes: dict[str, object]) -> None:
    found = convert.invoice(lnd_invoice(**changes))
    told = invoice_feed.settled(found)
    assert told.unreadable
    assert isinstance(arrival.read(told, LOCAL), arrival.Rejected)


def test_an_invoice_at_which_the_feed_breaks_is_unreadable() -> None:
    htlcs = [InvoiceHtlc(state=HtlcState.SETTLED, amount=Msat(1), accepted_s=at, index=0, records={}) for at in (1, 2)]
    broken = replace(htlcs[1], accepted_s="x")  # type: ignore[arg-type]
    found = replace(convert.invoice(lnd_invoice()), htlcs=(htlcs[0], broken))
    assert not found.unreadable
    assert "'<' not supported" in invoice_feed.settled(found).unreadable


async def test_an_unreadable_invoice_is_put_aside_and_the_next_is_read(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(invoices=[invoice_feed.settled(convert.invoice(lnd_invoice(htlcs=[None])))])
        here.node.pay(letter("good", 1))
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"good"]
        [reason] = await here.quarantined()
        assert "LND's invoice cannot be read" in reason


# --- The two ways to the end that were found --------------------------------------------------------------------------


def unchecked(raw: bytes) -> bytes:
    """A record whose unsigned header is these bytes."""
    return envelope.MAGIC + bytes(pb.Envelope(message_id=uuid4().bytes, payload=b"x", header=raw, signature=bytes(65)))


@pytest.mark.parametrize("packed", [b"\x80", b"\x01\xff", b"\xff" * 11, b"\x80\x80", b"\xff" * 9 + b"\x7f"])
async def test_void_orders_that_end_inside_a_number_are_malformed(
    packed: bytes, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    raw = envelope.encode_header(header(b"x")) + b"\x42" + bytes([len(packed)]) + packed
    with pytest.raises(Malformed):
        envelope.decode_header(raw)
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(unchecked(raw), letter("good", 1))
        await here.settled()
        assert [event.data for event in await here.shown()] == [b"good"]
        assert len(await here.quarantined()) == 1


@pytest.mark.parametrize("order", [2**63 - 1, 2**63 - 2, 2**62])
async def test_the_largest_orders_are_shown_and_what_comes_after_them_too(
    order: int, tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with open_reading(tmp_path, wall) as here:
        here.node.pay(letter("large", order))
        await here.settled()
        here.node.pay(letter("larger", 2**63 - 1), letter("good", 1), letter("again", 2**63 - 1))
        await here.settled()
        assert sorted(event.data for event in await here.shown()) == [b"again", b"good", b"large", b"larger"]
        assert await here.quarantined() == []


# --- What is contained ------------------------------------------------------------------------------------------------


def test_cancellation_and_control_c_are_never_contained() -> None:
    assert all(map(is_containable, FAULTS))
    assert not is_containable(KeyboardInterrupt())
    assert not is_containable(BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt()]))


def test_reasons_are_short_and_printable() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert reason_of(MuteError()) == "MuteError"
    assert len(reason_of(ValueError("\ud800" * 10_000)).encode()) == 500
