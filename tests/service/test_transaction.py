"""What a service can do inside a transaction: answers and their limits, debts, requests, secrets, alarms."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.server.house import ALICE, BOB, ME, House, config, open_house
from tests.service.toys import EchoService
from trio.testing import MockClock

from impervious.errors import InvalidArgument, NodeUnavailable, ResourceExhausted
from impervious.model import NodePubkey, OutboundMessage, Part
from impervious.service import ServiceContext, ServiceTx, VerifiedMessage
from impervious.store import answers, outbox, spending
from impervious.units import Msat, Sat

HOUR_MS = 3_600_000


@pytest.fixture
async def house(tmp_path: Path, wall: Wall) -> AsyncIterator[House]:
    given = config(tmp_path)
    limits = replace(given.limits, auto_answers_per_hour=3, auto_answers_sat_per_day=Sat(10))
    async with open_house(replace(given, limits=limits), services=[EchoService], now_ms=wall) as opened:
        yield opened


@pytest.fixture
def context(house: House) -> ServiceContext:
    return house.services.get(EchoService).context


def message(
    *, sender: NodePubkey = ALICE, amount: int = 2000, reply_to: UUID | None = None, data: bytes = b"question"
) -> VerifiedMessage:
    return VerifiedMessage(
        seq=1, id=uuid4(), sender=sender, reply_to=reply_to, data=data, amount=Msat(amount), sent_at_ms=0
    )


async def stored(house: House, identifier: UUID | None) -> tuple[OutboundMessage, list[Part], int | None]:
    assert identifier is not None
    kept, parts = await house.store.read(lambda tx: outbox.load(tx, identifier))
    return kept.message, parts, kept.deadline_ms


async def refused(house: House) -> int:
    return await house.store.read(lambda tx: tx.number("SELECT value FROM counter WHERE name = 'refused_answers'"))


async def test_a_node_that_nobody_knows_yet_cannot_be_named(house: House, context: ServiceContext) -> None:
    assert await context.read(lambda tx: tx.own_pubkey) == ME
    await house.store.write(lambda tx: tx.run("DELETE FROM identity"))
    with pytest.raises(NodeUnavailable, match="call again"):
        await context.read(lambda tx: tx.own_pubkey)


# --- Answers ----------------------------------------------------------------------------------------------------------


async def test_an_answer_goes_back_at_the_lowest_price(house: House, context: ServiceContext) -> None:
    question = message()
    identifier = await context.transaction(lambda tx: tx.answer(question, b"answer"))
    answer, [part], deadline_ms = await stored(house, identifier)
    assert (answer.recipient, answer.reply_to, answer.payload) == (ALICE, question.id, b"answer")
    assert (answer.amount, part.fee_limit) == (1000, 1000)
    assert deadline_ms is not None


@pytest.mark.parametrize(
    ("question", "payload"),
    [
        (message(amount=1999), b"answer"),
        (message(amount=3999), b"x" * 901),
        (message(reply_to=uuid4()), b"answer"),
    ],
)
async def test_what_costs_more_than_came_and_answers_to_answers_stay_unsent(
    house: House, context: ServiceContext, question: VerifiedMessage, payload: bytes
) -> None:
    assert await context.transaction(lambda tx: tx.answer(question, payload)) is None
    assert await house.stored_messages() == 0
    assert await refused(house) == 1


async def test_a_sender_gets_so_many_answers_an_hour(house: House, context: ServiceContext, wall: Wall) -> None:
    async def ask(sender: NodePubkey) -> bool:
        return await context.transaction(lambda tx: tx.answer(message(sender=sender), b"x")) is not None

    assert [await ask(ALICE) for _ in range(4)] == [True, True, True, False]
    assert await ask(BOB)
    wall.offset_ms += HOUR_MS + 1
    assert await ask(ALICE)
    assert await refused(house) == 1


async def test_answers_that_were_paid_for_use_up_no_day(house: House, context: ServiceContext) -> None:
    """`auto_answers_sat_per_day` is 10 here, and keys cost a stranger nothing."""
    for number in range(1, 121):
        question = message(sender=NodePubkey(b"\x02" + number.to_bytes(32, "big")))
        assert await context.transaction(partial(ServiceTx.answer, message=question, payload=b"x")) is not None
    assert await house.store.read(spending.spent) == 0
    assert await house.store.read(answers.answered_in_day) == 0


async def test_answers_that_were_paid_for_need_no_budget(tmp_path: Path) -> None:
    given = config(tmp_path)
    poor = replace(given, lightning=replace(given.lightning, daily_limit_sat=Sat(0)))
    async with open_house(poor, services=[EchoService]) as house:
        context = house.services.get(EchoService).context
        for _ in range(3):
            assert await context.transaction(lambda tx: tx.answer(message(), b"x")) is not None
        with pytest.raises(InvalidArgument, match="empty"):
            await context.transaction(lambda tx: tx.answer(message(), b""))
        with pytest.raises(ResourceExhausted):
            await context.transaction(lambda tx: tx.send(ALICE, b"x"))
        assert await house.stored_messages() == 3


async def test_a_debt_is_paid_whatever_the_limits_but_never_beyond_what_came(tmp_path: Path) -> None:
    given = config(tmp_path)
    poor = replace(given, lightning=replace(given.lightning, daily_limit_sat=Sat(0)))
    async with open_house(poor, services=[EchoService]) as house:
        context = house.services.get(EchoService).context
        paid = message(amount=100_000)
        identifier = await context.transaction(lambda tx: tx.owe(paid, b"contract"))
        owed, [part], deadline_ms = await stored(house, identifier)
        assert (owed.amount, owed.reply_to, deadline_ms) == (1000, paid.id, None)
        assert part.fee_limit == poor.message.max_fee_msat_per_part
        refund = await context.transaction(lambda tx: tx.owe(paid, b"refund", amount=Msat(98_500)))
        owed, [part], _ = await stored(house, refund)
        assert (owed.amount, part.fee_limit) == (98_500, 1500)
        with pytest.raises(InvalidArgument, match="only 100000 came"):
            await context.transaction(lambda tx: tx.owe(paid, b"refund", amount=Msat(100_001)))
        assert await house.stored_messages() == 2
        assert await house.store.read(spending.spent) == 0, "what came paid for it"


async def test_debts_of_many_strangers_leave_the_budget_alone(house: House, context: ServiceContext) -> None:
    limit = house.config.lightning.daily_limit_sat * 1000
    for number in range(1, 101):
        paid = message(sender=NodePubkey(b"\x02" + number.to_bytes(32, "big")), amount=limit)
        owe = partial(ServiceTx.owe, message=paid, payload=b"refund", amount=Msat(limit - 3000))
        await context.transaction(owe)
    assert await house.store.read(spending.spent) == 0
    assert await context.transaction(lambda tx: tx.reserve(Msat(limit)))


@pytest.mark.parametrize(
    ("received", "counts"),
    [(None, 0), (Msat(0), 9_000), (Msat(5_000), 4_000), (Msat(9_000), 0), (Msat(50_000), 0)],
)
async def test_of_a_debt_counts_what_it_costs_beyond_what_came(
    house: House, context: ServiceContext, received: Msat | None, counts: int
) -> None:
    await context.transaction(
        lambda tx: tx.settle(ALICE, b"back", amount=Msat(6_000), fee_limit=Msat(3_000), received=received)
    )
    assert await house.store.read(spending.spent) == counts


# --- Requests ---------------------------------------------------------------------------------------------------------


async def test_an_answer_counts_once_from_whom_was_asked_for_a_week(
    house: House, context: ServiceContext, wall: Wall
) -> None:
    async def counts(answer: VerifiedMessage) -> bool:
        return await context.transaction(lambda tx: tx.close_request(answer))

    identifier = await context.transaction(lambda tx: tx.ask(ALICE, b"question"))
    asked, _, _ = await stored(house, identifier)
    assert asked.amount == 2000
    assert not await counts(message(sender=BOB, reply_to=identifier))
    assert not await counts(message(reply_to=uuid4()))
    assert not await counts(message())
    assert await counts(message(reply_to=identifier))
    assert not await counts(message(reply_to=identifier))
    old, withdrawn = [await context.transaction(lambda tx: tx.ask(ALICE, b"question")) for _ in range(2)]
    wall.offset_ms += 7 * 24 * HOUR_MS
    assert not await counts(message(reply_to=old))
    withdrawn = await context.transaction(lambda tx: tx.ask(ALICE, b"question"))
    assert await context.transaction(lambda tx: tx.withdraw_requests(ALICE))
    assert not await context.transaction(lambda tx: tx.withdraw_requests(BOB))
    assert not await counts(message(reply_to=withdrawn))


async def test_a_request_pays_for_its_answer(house: House, context: ServiceContext) -> None:
    for payload, given, answer_bytes, expected in (
        (b"x", 0, 1, 2000),
        (b"x", 0, 901, 4000),
        (b"x" * 4000, 0, 1, 5000),
        (b"x", 7000, 1, 7000),
    ):
        ask: Callable[..., UUID] = lambda tx, p=payload, g=given, a=answer_bytes: tx.ask(  # noqa: E731
            ALICE, p, amount=Msat(g), answer_bytes=a
        )
        sent, _, _ = await stored(house, await context.transaction(ask))
        assert sent.amount == expected


# --- The rest ---------------------------------------------------------------------------------------------------------


async def test_events_with_secrets(house: House, context: ServiceContext) -> None:
    identifier = uuid4()
    await context.transaction(lambda tx: tx.emit(b"redacted", identifier=identifier, secret=b"whole"))
    async with house.events(since=0) as events:
        event = await events.receive()
        assert (event.data, event.secret, event.id, event.service_type) == (b"redacted", b"whole", identifier, "echo")


@pytest.mark.parametrize("sql", ["COMMIT", " -- x\n;rollback to attempt", "END", "release attempt", "Attach 'x' AS y"])
async def test_a_service_leaves_the_transaction_alone(house: House, context: ServiceContext, sql: str) -> None:
    def effect(tx: ServiceTx) -> None:
        tx.emit(b"half done", identifier=uuid4())
        tx.run(sql)

    for one in (effect, lambda tx: tx.one(sql), lambda tx: tx.all(sql)):
        with pytest.raises(ValueError, match="must not say"):
            await context.transaction(one)
    assert await house.store.read(lambda tx: tx.number("SELECT count(*) FROM event")) == 0
    assert await context.read(lambda tx: tx.one("SELECT 'commit', count(*) AS begin_ FROM peer")) == ("commit", 0)


async def test_what_raises_is_undone_as_a_whole(house: House, context: ServiceContext) -> None:
    with pytest.raises(InvalidArgument):
        await context.transaction(lambda tx: (tx.send(ALICE, b"x"), tx.send(ALICE, b"")))
    assert await house.stored_messages() == 0


async def test_an_alarm_rings_at_its_time_or_when_woken(
    context: ServiceContext, wall: Wall, autojump_clock: MockClock
) -> None:
    begun = trio.current_time()
    with context.alarm() as alarm:
        await alarm.sleep_until(wall() + 5000)
        assert 4.9 < trio.current_time() - begun < 5.1
        await alarm.sleep_until(wall() - 5000)
        await context.transaction(lambda tx: tx.wake())
        await alarm.sleep_until(None)
        assert trio.current_time() - begun < 5.1
        await alarm.sleep_until(wall() + 365 * 24 * HOUR_MS)  # clocks are set: look again after a day
        assert trio.current_time() - begun < 25 * 3600


# --- Money ------------------------------------------------------------------------------------------------------------


async def test_a_services_own_payments_share_the_budget(house: House, context: ServiceContext) -> None:
    limit = house.config.lightning.daily_limit_sat * 1000
    reservation = await context.transaction(lambda tx: tx.reserve(Msat(limit - 1000)))
    with pytest.raises(ResourceExhausted, match="may cost 2 sat, and 99999 of the 100000 sat"):
        await context.transaction(lambda tx: tx.reserve(Msat(1001)))
    with pytest.raises(ResourceExhausted):
        await house.messages.send(ALICE, b"hello", amount=Sat(1))  # and its fee
    await context.transaction(lambda tx: tx.release(reservation, spent=Msat(5)))
    assert await house.store.read(spending.spent) == 5
    await house.messages.send(ALICE, b"hello", amount=Sat(1))


async def test_an_event_can_tell_what_was_received(context: ServiceContext) -> None:
    event = await context.transaction(lambda tx: tx.emit(b"paid", identifier=uuid4(), amount=Msat(1500)))
    assert (event.amount, event.data) == (1500, b"paid")
