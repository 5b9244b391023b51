"""The seller's tables against what they promise; what is done with them is in test_service and test_life."""

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from uuid import UUID

import pytest
from sqlcipher3 import dbapi2
from tests.server.house import House, config, open_house
from tests.services.vpn.shop import ANN, BEN, START_MS, private_key

from impervious.service import ServiceContext
from impervious.services.vpn import money
from impervious.services.vpn.contract import Offered, Phase, Sold, Term
from impervious.services.vpn.seller_books import KEPT_MS, SqlSellerBooks
from impervious.services.vpn.service import VpnService
from impervious.units import Msat
from impervious.wireguard import PresharedKey, Traffic, Transfer

SOLD = Sold(
    nonce="n1",
    buyer=ANN,
    request=UUID(int=1),
    key=private_key(1).public,
    preshared_key=PresharedKey(b"\x05" * 32),
    address=ip_address("10.0.0.2"),
    hours=3,
    price=Msat(300_000),
    paid_ms=START_MS,
    term=Term(expires_ms=START_MS + 1, span_ms=7, told_ms=0),
    traffic=Traffic(received_bytes=1, sent_bytes=2, last=Transfer(received_bytes=3, sent_bytes=4)),
    reason="why",
)
OFFER = Offered(
    nonce="n1",
    buyer=ANN,
    address=ip_address("fd00::2"),
    hours=1,
    span_ms=3_600_000,
    price=Msat(100_000),
    expires_ms=START_MS + 1,
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(config(tmp_path), now_ms=lambda: START_MS) as house:
        yield house


@pytest.fixture
def context(home: House) -> ServiceContext:
    return home.services.get(VpnService).context


async def keep_sold(context: ServiceContext, contract: Sold) -> None:
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(contract))


async def keep_offer(context: ServiceContext, offer: Offered) -> None:
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_offer(offer))


async def sold(context: ServiceContext, nonce: str) -> Sold | None:
    return await context.read(lambda tx: SqlSellerBooks(tx).sold(nonce))


async def test_a_contract_comes_back_as_it_was(context: ServiceContext) -> None:
    other = replace(SOLD, nonce="n2", key=private_key(2).public, address=ip_address("fd00::5"), preshared_key=None)
    for kept in (SOLD, other, replace(SOLD, phase=Phase.ACTIVE, ended_ms=5, term=Term(expires_ms=9, span_ms=7))):
        await keep_sold(context, kept)
        assert await sold(context, kept.nonce) == kept
    assert len(await context.read(lambda tx: SqlSellerBooks(tx).living())) == 2
    assert await context.read(lambda tx: SqlSellerBooks(tx).sold("n3")) is None


@pytest.mark.parametrize("same", [{"key": private_key(2).public}, {"address": ip_address("10.0.0.3")}])
async def test_two_living_contracts_share_nothing(context: ServiceContext, same: dict[str, object]) -> None:
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(SOLD))
    other = replace(SOLD, nonce="n2", **{"key": private_key(2).public, "address": ip_address("10.0.0.3"), **same})  # type: ignore[arg-type]
    clash = replace(other, **{name: getattr(SOLD, name) for name in same})
    with pytest.raises(dbapi2.IntegrityError):
        await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(clash))
    gone = replace(SOLD, phase=Phase.GONE, gone_ms=START_MS)
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(gone))
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(clash))
    living = await context.read(lambda tx: SqlSellerBooks(tx).living())
    assert [each.nonce for each in living] == ["n2"]


async def test_addresses_cool_down(context: ServiceContext) -> None:
    gone = replace(SOLD, phase=Phase.GONE, gone_ms=START_MS)
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(gone))
    assert await context.read(lambda tx: SqlSellerBooks(tx).cooling(START_MS - 1)) == {gone.address}
    assert await context.read(lambda tx: SqlSellerBooks(tx).cooling(START_MS)) == set()


async def test_offers_are_open_until_they_expire_or_are_accepted(context: ServiceContext) -> None:
    theirs = replace(OFFER, nonce="n2", buyer=BEN, address=ip_address("10.0.0.9"), expires_ms=START_MS + 2)
    for offer in (OFFER, theirs):
        await keep_offer(context, offer)
    assert list(await context.read(lambda tx: SqlSellerBooks(tx).open_offers(START_MS))) == [OFFER, theirs]
    assert list(await context.read(lambda tx: SqlSellerBooks(tx).open_offers(START_MS + 1))) == [theirs]
    await context.transaction(lambda tx: SqlSellerBooks(tx).keep_sold(replace(SOLD, nonce="n2")))
    assert list(await context.read(lambda tx: SqlSellerBooks(tx).open_offers(START_MS))) == [OFFER]
    assert await context.read(lambda tx: SqlSellerBooks(tx).offer("n2")) == theirs


async def test_old_offers_are_forgotten(context: ServiceContext) -> None:
    old = replace(OFFER, nonce="old", expires_ms=START_MS - KEPT_MS)
    for offer in (OFFER, old):
        await keep_offer(context, offer)
    await context.transaction(lambda tx: SqlSellerBooks(tx).forget())
    assert await context.read(lambda tx: SqlSellerBooks(tx).offer("old")) is None
    assert await context.read(lambda tx: SqlSellerBooks(tx).offer("n1")) == OFFER


async def test_accounts_that_do_not_add_up_cannot_be_kept(context: ServiceContext) -> None:
    entry = money.refund(UUID(int=5), "n1", Msat(100_000), Msat(3000))
    await context.transaction(lambda tx: SqlSellerBooks(tx).book(entry))
    row = await context.read(lambda tx: tx.one("SELECT at_ms, nonce, refunded_msat, kept_msat FROM vpn_entry"))
    assert row == (START_MS, "n1", 97_000, 3000)
    with pytest.raises(dbapi2.IntegrityError):
        await context.transaction(lambda tx: tx.run("UPDATE vpn_entry SET kept_msat = 0"))


async def test_contracts_are_listed_the_latest_first(context: ServiceContext) -> None:
    for number, (nonce, paid_ms) in enumerate((("b", 2), ("c", 3), ("d", 1), ("a", 2))):
        address, key = ip_address(f"10.0.0.{number + 2}"), private_key(number + 20).public
        await keep_sold(context, replace(SOLD, nonce=nonce, paid_ms=paid_ms, address=address, key=key))
    listed = await context.read(lambda tx: SqlSellerBooks(tx).everything())
    assert [each.nonce for each in listed] == ["c", "a", "b", "d"]
