"""Parts, turns and limits, straight on the database: no node, no loop."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Wall, inline
from tests.inbound.letters import ALICE_KEY, CAROL_KEY, LOCAL, MESSAGE, NOW_S, header, invoice, node, sign, whole

from impervious.errors import Malformed
from impervious.inbound import arrival, assembly, turns
from impervious.inbound.arrival import Foreign, PartArrived, RawArrived, Rejected
from impervious.inbound.assembly import Refused, joined
from impervious.model import EventKind, NodePubkey, PaymentHash, RecordType, ServiceType
from impervious.store import Store, Tx, inbox, log, open_store
from impervious.store.inbox import Complete
from impervious.units import Msat
from impervious.wire import envelope
from impervious.wire.envelope import Envelope

# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_signed_message_is_a_part() -> None:
    message = whole(b"hello", uuid4())
    what = arrival.read(invoice(envelope.encode(message)), LOCAL)
    assert what == PartArrived(record_type=MESSAGE, service_type=ServiceType("message"), envelope=message)


def test_other_payments_are_foreign() -> None:
    value = envelope.encode(whole(b"hello", uuid4()))
    assert arrival.read(invoice(value, keysend=False), LOCAL) == Foreign()
    assert arrival.read(invoice(value, record_type=7629169), LOCAL) == Foreign()


def test_a_wallets_bytes_are_raw() -> None:
    what = arrival.read(invoice(b"hello"), LOCAL)
    assert what == RawArrived(record_type=MESSAGE, service_type=ServiceType("message"), data=b"hello")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": CAROL_KEY}, "signature"),
        ({"network": "mainnet"}, "signature"),
        ({"record_type": RecordType(200_000)}, "signature"),
        ({"recipient": node(CAROL_KEY)}, "signature"),
        ({"message_id": UUID(int=9)}, "signature"),
    ],
)
def test_a_signature_for_anything_else_is_rejected(changes: dict[str, object], says: str) -> None:
    message_id = uuid4()
    signed = sign(header(b"hello"), message_id, **changes)  # type: ignore[arg-type]
    part = Envelope(message_id=message_id, offset=0, payload=b"hello", signed_header=signed)
    what = arrival.read(invoice(envelope.encode(part)), LOCAL)
    assert isinstance(what, Rejected)
    assert says in what.reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sent_at_ms": NOW_S * 1000 - arrival.MAX_AGE_MS - 1}, "7 days"),
        ({"sent_at_ms": NOW_S * 1000 + arrival.MAX_AGE_MS + 1}, "7 days"),
        ({"total_bytes": 480_001}, "max_bytes"),
        ({"sender": LOCAL.pubkey}, "itself"),
    ],
)
def test_a_header_that_cannot_be_believed_is_rejected(changes: dict[str, object], says: str) -> None:
    what = arrival.read(invoice(envelope.encode(whole(b"hello", uuid4(), **changes))), LOCAL)
    assert isinstance(what, Rejected)
    assert says in what.reason


def test_a_part_without_header_beyond_the_limit_is_rejected() -> None:
    part = Envelope(message_id=uuid4(), offset=479_999, payload=b"xx")
    assert isinstance(arrival.read(invoice(envelope.encode(part)), LOCAL), Rejected)


# --- Joining ----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_any_order_and_overlap_gives_the_whole(data: st.DataObject) -> None:
    text = data.draw(st.binary(min_size=1, max_size=60))
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, 20)), max_size=12))
    pieces = [(start, text[start : start + length]) for start, length in cuts]
    covered = {index for start, piece in pieces for index in range(start, start + len(piece))}
    expected = text if len(covered) == len(text) else None
    assert joined(pieces, len(text)) == expected


def test_first_bytes_for_a_range_win() -> None:
    assert joined([(0, b"abc"), (0, b"XYZdef")], 6) == b"abcdef"
    assert joined([(2, b"cd"), (0, b"abXXef")], 6) == b"abcdef"
    assert joined([(0, b"abcdefgh")], 6) == b"abcdef"


# --- In the database --------------------------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


def add(tx: Tx, part: Envelope, *, amount: int = 1000, active: bool = True) -> Complete | Refused | None:
    what = arrival.read(invoice(envelope.encode(part), amount=amount), LOCAL)
    assert isinstance(what, PartArrived), what
    return assembly.add_part(tx, invoice(b"", amount=amount), what, active=active)


def pieces(data: bytes, message_id: UUID, size: int = 900, **other: object) -> list[Envelope]:
    signed = sign(header(data, **other), message_id)  # type: ignore[arg-type]
    return [
        Envelope(
            message_id=message_id,
            offset=offset,
            payload=data[offset : offset + size],
            signed_header=None if offset else signed,
        )
        for offset in range(0, len(data), size)
    ]


async def test_a_message_of_one_part(store: Store) -> None:
    message_id = uuid4()
    result = await store.write(lambda tx: add(tx, whole(b"hello", message_id), amount=1500))
    assert isinstance(result, Complete)
    assert (result.data, result.amount, result.id, result.sender) == (b"hello", 1500, message_id, node(ALICE_KEY))
    assert await store.write(lambda tx: add(tx, whole(b"hello", message_id))) is None  # once, ever


@pytest.mark.parametrize("reverse", [False, True])
async def test_parts_in_any_order(store: Store, reverse: bool) -> None:
    data, message_id = bytes(range(256)) * 20, uuid4()
    parts = pieces(data, message_id)
    results = await store.write(lambda tx: [add(tx, part) for part in (parts[::-1] if reverse else parts)])
    assert results[:-1] == [None] * (len(parts) - 1)
    assert isinstance(results[-1], Complete)
    assert (results[-1].data, results[-1].amount) == (data, 1000 * len(parts))
    assert await store.write(lambda tx: add(tx, parts[2])) is None
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM fragment")) == 0


async def test_a_forged_part_spoils_the_message_and_only_its_turn_counts(store: Store) -> None:
    data, message_id = b"x" * 1800, uuid4()
    first, second = pieces(data, message_id)
    forged = Envelope(message_id=message_id, offset=900, payload=b"y" * 900)
    results = await store.write(lambda tx: [add(tx, part) for part in (first, forged)])
    assert isinstance(results[1], Refused)
    assert await store.write(lambda tx: add(tx, second)) is None


async def test_less_than_was_signed_is_refused(store: Store) -> None:
    result = await store.write(lambda tx: add(tx, whole(b"hello", uuid4(), amount=5000), amount=4999))
    assert isinstance(result, Refused)


async def test_two_senders_with_one_id_do_not_mix(store: Store) -> None:
    message_id = uuid4()
    first, _ = pieces(b"a" * 1800, message_id)
    carols = sign(header(b"c" * 1800, key=CAROL_KEY), message_id, key=CAROL_KEY)
    other = Envelope(message_id=message_id, offset=0, payload=b"c" * 900, signed_header=carols)
    await store.write(lambda tx: add(tx, first))
    with pytest.raises(Malformed, match="two senders"):
        await store.write(lambda tx: add(tx, other))


async def test_an_incomplete_message_expires_with_an_event(store: Store, wall: Wall) -> None:
    message_id = uuid4()
    first, second = pieces(b"a" * 1800, message_id)
    await store.write(lambda tx: add(tx, first))
    await store.write(lambda tx: assembly.expire(tx, LOCAL))
    assert await store.read(log.newest) == 0
    wall.offset_ms += assembly.INCOMPLETE_TTL_MS + 1000
    await store.write(lambda tx: assembly.expire(tx, LOCAL))
    [event] = await store.read(lambda tx: log.public_events(tx, after=0, limit=9))
    assert (event.service_type, event.id, event.sender) == ("status", message_id, LOCAL.pubkey)
    detail = json.loads(event.data)
    assert (detail["state"], detail["sender"], detail["amount_sat"]) == ("expired", node(ALICE_KEY).hex, 1)
    assert await store.write(lambda tx: add(tx, second)) is None  # too late
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM assembly")) == 0


async def test_a_sender_keeps_a_bounded_number_of_incomplete_messages(store: Store) -> None:
    def flood(tx: Tx) -> None:
        for order in range(1, inbox.SENDER_MESSAGES + 4):
            add(tx, pieces(b"a" * 1800, uuid4(), order=order)[0])
            assembly.enforce_limits(tx, LOCAL, node(ALICE_KEY))

    await store.write(flood)
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM assembly")) == inbox.SENDER_MESSAGES
    events = await store.read(lambda tx: log.public_events(tx, after=0, limit=9))
    assert [json.loads(event.data)["state"] for event in events] == ["expired"] * 3


async def test_strangers_share_one_pool(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "STRANGER_BYTES", 9000)

    def flood(tx: Tx) -> None:
        for _ in range(15):
            add(tx, pieces(b"a" * 1800, uuid4())[1])
            assembly.enforce_limits(tx, LOCAL, None)

    await store.write(flood)
    assert await store.read(lambda tx: tx.number("SELECT count(*) FROM assembly")) == 10
    events = await store.read(lambda tx: log.public_events(tx, after=0, limit=9, quarantined=True))
    assert [event.kind for event in events] == [EventKind.QUARANTINED] * 5
    assert [event.amount for event in events] == [1000] * 5
    assert await store.read(lambda tx: tx.all("SELECT value FROM quarantine")) == [(b"a" * 900,)] * 5


# --- Turns ------------------------------------------------------------------------------------------------------------


def complete(
    order: int, *, active: bool = True, key: PrivateKey = ALICE_KEY, sender: NodePubkey | None = None
) -> Complete:
    return Complete(
        sender=sender or node(key),
        order=order,
        id=uuid4(),
        reply_to=None,
        service_type=ServiceType("message") if active else None,
        data=str(order).encode(),
        amount=Msat(1000),
        sent_at_ms=0,
    )


async def take_turns(store: Store, *messages: Complete) -> None:
    def take(tx: Tx) -> None:
        for message in messages:
            turns.take_turn(tx, message)

    await store.write(take)


async def shown(store: Store) -> list[str]:
    events = await store.read(lambda tx: log.public_events(tx, after=0, limit=1000))
    return [event.data.decode() for event in events]


@given(order=st.permutations(range(1, 8)))
def test_whatever_the_arrival_the_order_is_the_senders(order: list[int]) -> None:
    import trio

    async def check() -> None:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            async with open_store(Path(folder) / "imp.db", run_sync=inline) as store:
                await take_turns(store, *map(complete, order))
                assert await shown(store) == list("1234567")

    trio.run(check)


async def test_a_gap_holds_and_closing_it_releases(store: Store) -> None:
    for number, expected in ((2, []), (4, []), (1, ["1", "2"]), (3, ["1", "2", "3", "4"])):
        await take_turns(store, complete(number))
        assert await shown(store) == expected


async def test_what_is_late_or_begins_anew_is_shown_at_once(store: Store) -> None:
    for number in (1, 2, 1, 2):
        await take_turns(store, complete(number))
    assert await shown(store) == ["1", "2", "1", "2"]


async def test_a_switched_off_service_still_takes_its_turn(store: Store) -> None:
    await take_turns(store, *(complete(number, active=number != 2) for number in (3, 2, 1)))
    assert await shown(store) == ["1", "3"]


async def test_orders_that_never_come_are_skipped(store: Store) -> None:
    await take_turns(store, complete(4))
    await store.write(lambda tx: turns.skip(tx, node(ALICE_KEY), [2, 3]))
    assert await shown(store) == []
    await take_turns(store, complete(1))
    assert await shown(store) == ["1", "4"]
    await take_turns(store, complete(6))
    await store.write(lambda tx: turns.skip(tx, node(ALICE_KEY), [5]))
    assert await shown(store) == ["1", "4", "6"]


async def test_a_gap_is_given_up_after_three_quiet_seconds(store: Store, wall: Wall) -> None:
    await take_turns(store, complete(2))
    await take_turns(store, complete(3))
    due = await store.write(lambda tx: turns.release(tx, tx.now_ms))
    assert due is not None
    assert abs(due - wall() - turns.QUIET_MS) < 500
    assert await shown(store) == []
    wall.offset_ms += turns.QUIET_MS + 1
    assert await store.write(lambda tx: turns.release(tx, tx.now_ms)) is None
    assert await shown(store) == ["2", "3"]
    await take_turns(store, complete(1))  # it comes after all
    assert await shown(store) == ["2", "3", "1"]


async def test_parts_of_an_earlier_message_prolong_the_wait_up_to_a_minute(store: Store, wall: Wall) -> None:
    parts = pieces(b"a" * 90_000, uuid4(), order=1)
    await store.write(lambda tx: add(tx, parts[0]))
    await take_turns(store, complete(2))
    for part in parts[1:30]:
        wall.offset_ms += 2000
        await store.write(partial(add, part=part))
        await store.write(lambda tx: turns.release(tx, tx.now_ms))
        assert await shown(store) == []
    wall.offset_ms += 2000
    await store.write(lambda tx: turns.release(tx, tx.now_ms))
    assert await shown(store) == ["2"]


async def test_senders_do_not_wait_for_each_other(store: Store) -> None:
    await take_turns(store, complete(2))
    await take_turns(store, complete(1, key=CAROL_KEY))
    assert await shown(store) == ["1"]


async def marks(store: Store) -> list[tuple[str, str]]:
    events = await store.read(lambda tx: log.public_events(tx, after=0, limit=1000))
    return [(event.data.decode(), event.order) for event in events]


async def test_what_may_be_out_of_order_says_so(store: Store, wall: Wall) -> None:
    await take_turns(store, *map(complete, (1, 4, 5, 3)))
    wall.offset_ms += turns.QUIET_MS + 1
    await store.write(lambda tx: turns.release(tx, tx.now_ms))
    await take_turns(store, *map(complete, (2, 6, 9, 8, 7, 1)))
    assert await marks(store) == [
        ("1", ""),
        ("3", "gap"),
        ("4", ""),
        ("5", ""),
        ("2", "late"),
        ("6", ""),
        ("7", ""),
        ("8", ""),
        ("9", ""),
        ("1", "late"),
    ]


async def test_orders_that_never_come_are_no_gap(store: Store) -> None:
    await take_turns(store, complete(3))
    await store.write(lambda tx: turns.skip(tx, node(ALICE_KEY), [1, 2]))
    assert await marks(store) == [("3", "")]


# --- Quarantine -------------------------------------------------------------------------------------------------------


async def test_quarantine_keeps_the_newest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "QUARANTINE_BYTES", 10_000)

    def fill(tx: Tx) -> None:
        for number in range(64):
            payment_hash = PaymentHash(bytes([number]) * 32)
            inbox.quarantine(tx, payment_hash, "why", record_type=MESSAGE, value=bytes(800), amount=Msat(1))

    await store.write(fill)
    kept = await store.read(lambda tx: tx.all("SELECT number FROM quarantine ORDER BY number"))
    assert [row[0] for row in kept] == list(range(55, 65))
