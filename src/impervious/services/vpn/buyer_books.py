"""What a buyer knows, in SQLite: private keys too, which is one reason why the database is encrypted."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from impervious.model import MessageId, NodePubkey
from impervious.service import ServiceTx
from impervious.services.vpn.contract import Term
from impervious.services.vpn.purchase import Asked, Bought, Question, Seen, Stage
from impervious.store import Row
from impervious.store.transaction import SqlValue
from impervious.units import Msat
from impervious.wireguard import ClientConfig, PrivateKey

KEPT_MS: Final = 30 * 86_400_000
"""How long requests are remembered, answered or not, and quotes after they expired."""

_ASKED: Final = "id, seller, question, nonce, amount_msat, automatic, open, arrived_ms, overdue"
_BOUGHT: Final = (
    "seller, nonce, request, private_key, price_msat, hours, stage, expires_ms, span_ms, told_ms, config, renewing,"
    " budget_msat, renewals_msat, returned_msat, reason"
)


@dataclass(frozen=True, slots=True)
class SqlBuyerBooks:
    """See `ports.BuyerBooks`."""

    tx: ServiceTx

    def asked(self, message: MessageId) -> Asked | None:
        """See `BuyerBooks.asked`."""
        row = self.tx.one(f"SELECT {_ASKED} FROM vpn_asked WHERE id = ?", message.bytes)
        return None if row is None else _asked(row)

    def keep_asked(self, asked: Asked) -> None:
        """See `BuyerBooks.keep_asked`."""
        self.tx.run(
            f"INSERT INTO vpn_asked ({_ASKED}, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET open = excluded.open, arrived_ms = excluded.arrived_ms, overdue = excluded.overdue",
            asked.id.bytes,
            asked.seller.raw,
            asked.question.value,
            asked.nonce,
            asked.amount,
            int(asked.automatic),
            int(asked.open),
            asked.arrived_ms,
            int(asked.overdue),
            self.tx.now_ms,
        )

    def awaited(self) -> Collection[Asked]:
        """See `BuyerBooks.awaited`."""
        rows = self.tx.all(f"SELECT {_ASKED} FROM vpn_asked WHERE open AND arrived_ms IS NOT NULL AND NOT overdue")
        return [_asked(row) for row in rows]

    def seen(self, seller: NodePubkey, nonce: str) -> Seen | None:
        """See `BuyerBooks.seen`."""
        row = self.tx.one(
            "SELECT price_msat, hours, expires_ms FROM vpn_seen WHERE seller = ? AND nonce = ?", seller.raw, nonce
        )
        if row is None:
            return None
        price, hours, expires_ms = row
        return Seen(seller=seller, nonce=nonce, price=Msat(price), hours=hours, expires_ms=expires_ms)

    def keep_seen(self, quote: Seen) -> None:
        """See `BuyerBooks.keep_seen`."""
        self.tx.run(
            "INSERT OR REPLACE INTO vpn_seen VALUES (?, ?, ?, ?, ?)",
            quote.seller.raw,
            quote.nonce,
            quote.price,
            quote.hours,
            quote.expires_ms,
        )

    def bought(self, seller: NodePubkey, nonce: str) -> Bought | None:
        """See `BuyerBooks.bought`."""
        row = self.tx.one(f"SELECT {_BOUGHT} FROM vpn_bought WHERE seller = ? AND nonce = ?", seller.raw, nonce)
        return None if row is None else _bought(row)

    def all_bought(self) -> Collection[Bought]:
        """See `BuyerBooks.all_bought`."""
        rows = self.tx.all(f"SELECT {_BOUGHT} FROM vpn_bought WHERE stage IN ('paying', 'unanswered', 'active')")
        return [_bought(row) for row in rows]

    def everything(self) -> Collection[Bought]:
        """List all contracts, also those that are over."""
        return [_bought(row) for row in self.tx.all(f"SELECT {_BOUGHT} FROM vpn_bought ORDER BY seller, nonce")]

    def keep_bought(self, contract: Bought) -> None:
        """See `BuyerBooks.keep_bought`."""
        values = _values(contract)
        self.tx.run(f"INSERT OR REPLACE INTO vpn_bought ({_BOUGHT}) VALUES ({', '.join('?' * len(values))})", *values)

    def forget(self) -> None:
        """Drop requests and quotes of long ago."""
        before_ms = self.tx.now_ms - KEPT_MS
        self.tx.run("DELETE FROM vpn_asked WHERE at_ms <= ?", before_ms)
        self.tx.run("DELETE FROM vpn_seen WHERE expires_ms <= ?", before_ms)


def _asked(row: Row) -> Asked:
    identifier, seller, question, nonce, amount, automatic, is_open, arrived_ms, overdue = row
    return Asked(
        id=UUID(bytes=identifier),
        seller=NodePubkey(seller),
        question=Question(question),
        nonce=nonce,
        amount=Msat(amount),
        automatic=bool(automatic),
        open=bool(is_open),
        arrived_ms=arrived_ms,
        overdue=bool(overdue),
    )


def _bought(row: Row) -> Bought:
    seller, nonce, request, secret, price, hours, stage, expires_ms, span_ms, told_ms, config = row[:11]
    renewing, budget, renewals, returned, reason = row[11:]
    key = PrivateKey(secret)
    term = None if expires_ms is None else Term(expires_ms=expires_ms, span_ms=span_ms, told_ms=told_ms)
    return Bought(
        seller=NodePubkey(seller),
        nonce=nonce,
        request=UUID(bytes=request),
        private_key=key,
        price=Msat(price),
        hours=hours,
        stage=Stage(stage),
        term=term,
        config=None if config is None else ClientConfig.received(key, **json.loads(config)),
        renewing=None if renewing is None else UUID(bytes=renewing),
        budget=Msat(budget),
        renewals=Msat(renewals),
        returned=Msat(returned),
        reason=reason,
    )


def _values(contract: Bought) -> tuple[SqlValue, ...]:
    """Give a contract's columns in the order of `_BOUGHT`."""
    term = contract.term
    return (
        contract.seller.raw,
        contract.nonce,
        contract.request.bytes,
        contract.private_key.raw,
        contract.price,
        contract.hours,
        contract.stage.value,
        term.expires_ms if term else None,
        term.span_ms if term else None,
        term.told_ms if term else None,
        _config(contract.config) if contract.config else None,
        contract.renewing.bytes if contract.renewing else None,
        contract.budget,
        contract.renewals,
        contract.returned,
        contract.reason,
    )


def _config(config: ClientConfig) -> str:
    """Write a configuration as its seller would; the private key has a column of its own."""
    return json.dumps(
        {
            "address": str(config.address),
            "dns": ", ".join(map(str, config.dns)),
            "server_key": config.server_key.text,
            "preshared_key": config.preshared_key.text if config.preshared_key else "",
            "allowed_ips": ", ".join(map(str, config.allowed)),
            "endpoint": str(config.endpoint),
        }
    )
