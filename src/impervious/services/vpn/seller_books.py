"""What a seller knows, in SQLite."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from impervious.model import NodePubkey
from impervious.service import ServiceTx
from impervious.services.vpn.contract import MAX_OFFERS, Offered, Phase, Sold, Term
from impervious.services.vpn.money import Entry
from impervious.store import Row
from impervious.store.transaction import SqlValue
from impervious.units import Msat
from impervious.wireguard import Host, PresharedKey, PublicKey, Traffic, Transfer

KEPT_MS: Final = 86_400_000
"""How long a quote that expired is remembered, so that whoever accepts it late is told why not."""

_OFFER: Final = "nonce, buyer, address, hours, span_ms, price_msat, expires_ms"
_SOLD: Final = (
    "nonce, buyer, request, key, preshared_key, address, hours, price_msat, paid_ms, expires_ms, span_ms, told_ms,"
    " phase, ended_ms, gone_ms, reason, received_bytes, sent_bytes, last_received_bytes, last_sent_bytes"
)


@dataclass(frozen=True, slots=True)
class SqlSellerBooks:
    """See `ports.SellerBooks`."""

    tx: ServiceTx

    def offer(self, nonce: str) -> Offered | None:
        """See `SellerBooks.offer`."""
        row = self.tx.one(f"SELECT {_OFFER} FROM vpn_offer WHERE nonce = ?", nonce)
        return None if row is None else _offer(row)

    def open_offers(self, now_ms: int) -> Collection[Offered]:
        """See `SellerBooks.open_offers`."""
        rows = self.tx.all(
            f"SELECT {_OFFER} FROM vpn_offer WHERE expires_ms > ?"
            " AND NOT EXISTS (SELECT 1 FROM vpn_sold WHERE vpn_sold.nonce = vpn_offer.nonce)"
            " ORDER BY expires_ms DESC LIMIT ?",
            now_ms,
            MAX_OFFERS,
        )
        return [_offer(row) for row in reversed(rows)]

    def keep_offer(self, offer: Offered) -> None:
        """See `SellerBooks.keep_offer`."""
        self.tx.run(
            "INSERT INTO vpn_offer VALUES (?, ?, ?, ?, ?, ?, ?)",
            offer.nonce,
            offer.buyer.raw,
            str(offer.address),
            offer.hours,
            offer.span_ms,
            offer.price,
            offer.expires_ms,
        )

    def sold(self, nonce: str) -> Sold | None:
        """See `SellerBooks.sold`."""
        row = self.tx.one(f"SELECT {_SOLD} FROM vpn_sold WHERE nonce = ?", nonce)
        return None if row is None else _sold(row)

    def living(self) -> Collection[Sold]:
        """See `SellerBooks.living`."""
        return [_sold(row) for row in self.tx.all(f"SELECT {_SOLD} FROM vpn_sold WHERE phase <> 'gone'")]

    def everything(self) -> Collection[Sold]:
        """List all contracts, the latest first."""
        return [_sold(row) for row in self.tx.all(f"SELECT {_SOLD} FROM vpn_sold ORDER BY paid_ms DESC, nonce")]

    def cooling(self, since_ms: int) -> AbstractSet[Host]:
        """See `SellerBooks.cooling`."""
        rows = self.tx.all("SELECT address FROM vpn_sold WHERE phase = 'gone' AND gone_ms > ?", since_ms)
        return {ip_address(row[0]) for row in rows}

    def keep_sold(self, contract: Sold) -> None:
        """See `SellerBooks.keep_sold`."""
        values = _values(contract)
        known = ", ".join(f"{name} = excluded.{name}" for name in _SOLD.split(", ")[1:])
        # Not INSERT OR REPLACE: that would throw out another contract with the same key or address.
        self.tx.run(
            f"INSERT INTO vpn_sold ({_SOLD}) VALUES ({', '.join('?' * len(values))})"
            f" ON CONFLICT (nonce) DO UPDATE SET {known}",
            *values,
        )

    def book(self, entry: Entry) -> None:
        """See `SellerBooks.book`."""
        self.tx.run(
            "INSERT INTO vpn_entry (at_ms, cause, nonce, received_msat, sold_msat, refunded_msat, kept_msat)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            self.tx.now_ms,
            entry.cause.bytes,
            entry.nonce,
            entry.received,
            entry.sold,
            entry.refunded,
            entry.kept,
        )

    def forget(self) -> None:
        """Drop quotes that expired long ago."""
        self.tx.run("DELETE FROM vpn_offer WHERE expires_ms <= ?", self.tx.now_ms - KEPT_MS)


def _offer(row: Row) -> Offered:
    nonce, buyer, address, hours, span_ms, price, expires_ms = row
    return Offered(
        nonce=nonce,
        buyer=NodePubkey(buyer),
        address=ip_address(address),
        hours=hours,
        span_ms=span_ms,
        price=Msat(price),
        expires_ms=expires_ms,
    )


def _sold(row: Row) -> Sold:
    nonce, buyer, request, key, secret, address, hours, price, paid_ms = row[:9]
    expires_ms, span_ms, told_ms, phase, ended_ms, gone_ms, reason, received, sent, last_received, last_sent = row[9:]
    return Sold(
        nonce=nonce,
        buyer=NodePubkey(buyer),
        request=UUID(bytes=request),
        key=PublicKey(key),
        preshared_key=None if secret is None else PresharedKey(secret),
        address=ip_address(address),
        hours=hours,
        price=Msat(price),
        paid_ms=paid_ms,
        term=Term(expires_ms=expires_ms, span_ms=span_ms, told_ms=told_ms),
        phase=Phase(phase),
        ended_ms=ended_ms,
        gone_ms=gone_ms,
        reason=reason,
        traffic=Traffic(
            received_bytes=received,
            sent_bytes=sent,
            last=Transfer(received_bytes=last_received, sent_bytes=last_sent),
        ),
    )


def _values(contract: Sold) -> tuple[SqlValue, ...]:
    """Give a contract's columns in the order of `_SOLD`."""
    traffic = contract.traffic
    return (
        contract.nonce,
        contract.buyer.raw,
        contract.request.bytes,
        contract.key.raw,
        contract.preshared_key.raw if contract.preshared_key else None,
        str(contract.address),
        contract.hours,
        contract.price,
        contract.paid_ms,
        contract.term.expires_ms,
        contract.term.span_ms,
        contract.term.told_ms,
        contract.phase.value,
        contract.ended_ms,
        contract.gone_ms,
        contract.reason,
        traffic.received_bytes,
        traffic.sent_bytes,
        traffic.last.received_bytes,
        traffic.last.sent_bytes,
    )
