"""The same life with the tables of the database beside those in memory: after every look both say the same."""

import sqlite3
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from tests.services.vpn.books import BuyerMemory, SellerMemory
from tests.services.vpn.shop import ANN, BEN
from tests.services.vpn.test_life import Life

from impervious.model import MessageId, NodePubkey
from impervious.service import ServiceTx
from impervious.services.vpn.buyer_books import SqlBuyerBooks
from impervious.services.vpn.contract import Offered, Sold
from impervious.services.vpn.money import Entry
from impervious.services.vpn.purchase import Asked, Bought, Seen
from impervious.services.vpn.seller_books import SqlSellerBooks
from impervious.services.vpn.tables import MIGRATIONS
from impervious.wireguard import Host

T = TypeVar("T")


class Shelf:
    """As much of a service's transaction as books need."""

    now_ms = 0

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for migration in MIGRATIONS:
            self.connection.executescript(migration)

    def run(self, sql: str, *parameters: Any) -> int:
        return self.connection.execute(sql, parameters).rowcount

    def one(self, sql: str, *parameters: Any) -> Any:
        return self.connection.execute(sql, parameters).fetchone()

    def all(self, sql: str, *parameters: Any) -> list[Any]:
        return self.connection.execute(sql, parameters).fetchall()

    def __deepcopy__(self, _memo: object) -> "Shelf":
        other = Shelf.__new__(Shelf)
        other.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.backup(other.connection)
        return other

    def __del__(self) -> None:
        self.connection.close()


def same(memory: T, table: object) -> T:
    assert table == memory
    return memory


def by_name(contracts: Collection[Any]) -> list[Any]:
    return sorted(contracts, key=lambda each: each.nonce)


def by_id(requests: Collection[Asked]) -> list[Asked]:
    return sorted(requests, key=lambda each: each.id)


class SellerBoth(SellerMemory):
    """Both; what one says, the other must."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()

    @property
    def sql(self) -> SqlSellerBooks:
        return SqlSellerBooks(cast("ServiceTx", self.shelf))

    def offer(self, nonce: str) -> Offered | None:
        return same(super().offer(nonce), self.sql.offer(nonce))

    def open_offers(self, now_ms: int) -> Collection[Offered]:
        return same(by_name(super().open_offers(now_ms)), by_name(self.sql.open_offers(now_ms)))

    def keep_offer(self, offer: Offered) -> None:
        super().keep_offer(offer)
        self.sql.keep_offer(offer)

    def sold(self, nonce: str) -> Sold | None:
        return same(super().sold(nonce), self.sql.sold(nonce))

    def living(self) -> Collection[Sold]:
        # While a contract is being kept only one side has it.
        return super().living()

    def cooling(self, since_ms: int) -> AbstractSet[Host]:
        return same(super().cooling(since_ms), self.sql.cooling(since_ms))

    def keep_sold(self, contract: Sold) -> None:
        super().keep_sold(contract)
        self.sql.keep_sold(contract)
        same(by_name(super().living()), by_name(self.sql.living()))

    def book(self, entry: Entry) -> None:
        super().book(entry)
        self.sql.book(entry)
        [kept] = self.shelf.all("SELECT sum(received_msat) FROM vpn_entry")
        same((sum(each.received for each in self.entries),), kept)


class BuyerBoth(BuyerMemory):
    """Both; what one says, the other must."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()

    @property
    def sql(self) -> SqlBuyerBooks:
        return SqlBuyerBooks(cast("ServiceTx", self.shelf))

    def asked(self, message: MessageId) -> Asked | None:
        return same(super().asked(message), self.sql.asked(message))

    def keep_asked(self, asked: Asked) -> None:
        super().keep_asked(asked)
        self.sql.keep_asked(asked)

    def awaited(self) -> Collection[Asked]:
        return same(by_id(super().awaited()), by_id(self.sql.awaited()))

    def seen(self, seller: NodePubkey, nonce: str) -> Seen | None:
        return same(super().seen(seller, nonce), self.sql.seen(seller, nonce))

    def keep_seen(self, quote: Seen) -> None:
        super().keep_seen(quote)
        self.sql.keep_seen(quote)

    def bought(self, seller: NodePubkey, nonce: str) -> Bought | None:
        return same(super().bought(seller, nonce), self.sql.bought(seller, nonce))

    def all_bought(self) -> Collection[Bought]:
        return same(by_name(super().all_bought()), by_name(self.sql.all_bought()))

    def keep_bought(self, contract: Bought) -> None:
        super().keep_bought(contract)
        self.sql.keep_bought(contract)


class LifeInSql(Life):
    """The world of one seller, on the database's tables."""

    def __init__(self) -> None:
        super().__init__()
        self.seller = SellerBoth()
        self.buyers = {ANN: BuyerBoth(), BEN: BuyerBoth()}


LifeInSql.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLifeInSql = pytest.mark.slow(LifeInSql.TestCase)
