"""The buyer's tables against what they promise; what is done with them is in test_service and test_life."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from tests.server.api.test_vpn import BOUGHT, QUOTE
from tests.server.house import config, open_house
from tests.services.vpn.shop import BEN, START_MS

from impervious.model import NodePubkey
from impervious.service import ServiceContext
from impervious.services.vpn.buyer_books import KEPT_MS, SqlBuyerBooks
from impervious.services.vpn.contract import Term
from impervious.services.vpn.purchase import Asked, Bought, Question, Seen, Stage
from impervious.services.vpn.service import VpnService
from impervious.units import Msat
from impervious.wireguard import ClientConfig


class Clock:
    """A wall clock that is set by hand."""

    now_ms = START_MS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def context(tmp_path: Path, clock: Clock) -> AsyncIterator[ServiceContext]:
    async with open_house(config(tmp_path), now_ms=lambda: clock.now_ms) as house:
        yield house.services.get(VpnService).context


async def keep_bought(context: ServiceContext, contract: Bought) -> None:
    await context.transaction(lambda tx: SqlBuyerBooks(tx).keep_bought(contract))


async def keep_asked(context: ServiceContext, asked: Asked) -> None:
    await context.transaction(lambda tx: SqlBuyerBooks(tx).keep_asked(asked))


async def test_a_contract_comes_back_as_it_was(context: ServiceContext) -> None:
    assert isinstance(BOUGHT.config, ClientConfig)
    plain = replace(BOUGHT, config=replace(BOUGHT.config, preshared_key=None, dns=()))
    waiting = replace(BOUGHT, stage=Stage.PAYING, term=None, config=None, renewing=UUID(int=9), reason="why")
    renewed = replace(
        BOUGHT,
        term=Term(expires_ms=1, span_ms=2, told_ms=0),
        renewals=Msat(3),
        returned=Msat(4),
    )
    for kept in (BOUGHT, plain, waiting, renewed):
        await keep_bought(context, kept)
        assert await context.read(lambda tx: SqlBuyerBooks(tx).bought(BOUGHT.seller, "mine")) == kept
    assert await context.read(lambda tx: SqlBuyerBooks(tx).bought(BEN, "mine")) is None


async def test_only_what_goes_on_is_looked_after(context: ServiceContext) -> None:
    for stage in Stage:
        contract = replace(BOUGHT, nonce=stage.value, stage=stage)
        await keep_bought(context, contract)
    live = await context.read(lambda tx: SqlBuyerBooks(tx).all_bought())
    assert {each.stage for each in live} == {Stage.PAYING, Stage.UNANSWERED, Stage.ACTIVE}
    assert len(await context.read(lambda tx: SqlBuyerBooks(tx).everything())) == len(Stage)


async def test_answers_are_awaited_once_a_request_arrived(context: ServiceContext) -> None:
    asked = Asked(id=UUID(int=3), seller=BEN, question=Question.CONTRACT, nonce="n", amount=Msat(7))
    arrived = replace(asked, arrived_ms=START_MS)
    for kept, awaited in (
        (asked, []),
        (arrived, [arrived]),
        (replace(arrived, overdue=True), []),
        (replace(arrived, open=False), []),
    ):
        await keep_asked(context, kept)
        assert await context.read(lambda tx: SqlBuyerBooks(tx).awaited()) == awaited


async def test_requests_and_quotes_are_kept_for_a_time(context: ServiceContext, clock: Clock) -> None:
    asked = Asked(id=UUID(int=3), seller=BEN, question=Question.REFRESH, nonce="n", amount=Msat(7), automatic=True)
    arrived = replace(asked, arrived_ms=START_MS)
    for kept in (asked, arrived, replace(arrived, overdue=True), replace(arrived, open=False)):
        await keep_asked(context, kept)
        assert await context.read(lambda tx: SqlBuyerBooks(tx).asked(asked.id)) == kept
    await context.transaction(lambda tx: SqlBuyerBooks(tx).keep_seen(QUOTE))
    assert await context.read(lambda tx: SqlBuyerBooks(tx).seen(QUOTE.seller, "offered")) == QUOTE
    clock.now_ms += KEPT_MS + 600_000
    await context.transaction(lambda tx: SqlBuyerBooks(tx).forget())
    assert await context.read(lambda tx: SqlBuyerBooks(tx).asked(asked.id)) is None
    assert await context.read(lambda tx: SqlBuyerBooks(tx).seen(QUOTE.seller, "offered")) is None


async def keep_seen(context: ServiceContext, quote: Seen) -> None:
    await context.transaction(lambda tx: SqlBuyerBooks(tx).keep_seen(quote))


async def seen(context: ServiceContext, seller: NodePubkey, nonce: str) -> Seen | None:
    return await context.read(lambda tx: SqlBuyerBooks(tx).seen(seller, nonce))


async def asked(context: ServiceContext, identifier: UUID) -> Asked | None:
    return await context.read(lambda tx: SqlBuyerBooks(tx).asked(identifier))


async def bought(context: ServiceContext, nonce: str) -> Bought | None:
    return await context.read(lambda tx: SqlBuyerBooks(tx).bought(BOUGHT.seller, nonce))


async def test_what_is_known_of_one_seller_and_one_quote_is_of_no_other(context: ServiceContext) -> None:
    cheaper = replace(QUOTE, price=Msat(1))
    others = [replace(QUOTE, seller=BEN), replace(QUOTE, nonce="other"), cheaper]
    for quote in (QUOTE, *others):
        await keep_seen(context, quote)
    for quote in others:
        assert await seen(context, quote.seller, quote.nonce) == quote
    for contract in (BOUGHT, replace(BOUGHT, nonce="z"), replace(BOUGHT, nonce="a"), replace(BOUGHT, seller=BEN)):
        await keep_bought(context, contract)
    for nonce in ("z", "a", BOUGHT.nonce):
        assert await bought(context, nonce) == replace(BOUGHT, nonce=nonce)
    listed = [(it.seller.raw, it.nonce) for it in await context.read(lambda tx: SqlBuyerBooks(tx).everything())]
    assert listed == sorted(listed)
    one, two = (Asked(id=UUID(int=number), seller=BEN, question=Question.QUOTE) for number in (4, 5))
    for each in (one, two):
        await keep_asked(context, each)
    await keep_asked(context, replace(one, open=False))
    assert await asked(context, two.id) == two
    assert await asked(context, UUID(int=6)) is None


async def test_requests_and_quotes_are_kept_for_thirty_days_each(context: ServiceContext, clock: Clock) -> None:
    begun_ms = clock.now_ms
    old, new = (Asked(id=UUID(int=number), seller=BEN, question=Question.QUOTE) for number in (4, 5))
    await keep_asked(context, old)
    await keep_seen(context, replace(QUOTE, nonce="a", expires_ms=begun_ms))
    await keep_seen(context, replace(QUOTE, nonce="b", expires_ms=begun_ms + 1))
    clock.now_ms += 1
    await keep_asked(context, new)

    async def left() -> tuple[list[bool], list[bool]]:
        await context.transaction(lambda tx: SqlBuyerBooks(tx).forget())
        requests = [await asked(context, each.id) for each in (old, new)]
        quotes = [await seen(context, QUOTE.seller, each) for each in ("a", "b")]
        return [each is not None for each in requests], [each is not None for each in quotes]

    clock.now_ms = begun_ms + 30 * 86_400_000 - 1
    assert await left() == ([True, True], [True, True])
    clock.now_ms += 1
    assert await left() == ([False, True], [False, True])
    clock.now_ms += 1
    assert await left() == ([False, False], [False, False])
