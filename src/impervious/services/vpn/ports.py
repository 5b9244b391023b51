"""What deciding needs: the tables of a seller and of a buyer, and a way out. All of it belongs to one transaction.

The decisions are plain functions; whoever calls them gives a transaction of the database, so that what they store, send
and show is kept together or not at all.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.contract import Offered, Sold
from impervious.services.vpn.money import Entry
from impervious.services.vpn.payloads import Payload
from impervious.services.vpn.purchase import Asked, Bought, Seen
from impervious.services.vpn.told import Told
from impervious.units import Msat
from impervious.wireguard import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Another node's message, its sender proved."""

    id: MessageId
    sender: NodePubkey
    reply_to: MessageId | None
    data: bytes
    amount: Msat
    """What was received with it."""


class Outgoing(Protocol):
    """What leaves a decision."""

    def send(self, recipient: NodePubkey, payload: Payload, amount: Msat) -> MessageId:
        """Send a request of ours; 0 msat: the least that carries it.

        Raises:
          ResourceExhausted: the budget does not allow it.
        """
        ...

    def answer(
        self,
        recipient: NodePubkey,
        payload: Payload,
        *,
        reply_to: MessageId | None,
        amount: Msat,
        owed: bool,
        price: Msat = Msat(0),
    ) -> bool:
        """Send an answer. A reason that is too long for one part is cut short.

        Args:
          recipient: who gets it.
          payload: what it says.
          reply_to: the request; None if there was none.
          amount: what it gives back, in msat; 0: the least that carries it.
          owed: True: it is due for money that we have, and is tried until it arrives; False: a courtesy, which is not
            sent where it is beyond the limits. Neither raises.
          price: what was paid for it, in msat, where it gives nothing back.

        Returns:
          Whether it is sent.
        """
        ...

    def tell(self, told: Told) -> None:
        """Show an event on this node's own stream."""
        ...


class SellerBooks(Protocol):
    """What a seller knows."""

    def offer(self, nonce: str) -> Offered | None:
        """Look a quote up."""
        ...

    def open_offers(self, now_ms: int) -> Collection[Offered]:
        """List quotes that have not expired and were not accepted: of many the newest, `MAX_OFFERS` at most."""
        ...

    def keep_offer(self, offer: Offered) -> None:
        """Store a quote."""
        ...

    def sold(self, nonce: str) -> Sold | None:
        """Look a contract up."""
        ...

    def living(self) -> Collection[Sold]:
        """List the contracts whose peer may be on the interface: all that are not gone."""
        ...

    def cooling(self, since_ms: int) -> AbstractSet[Host]:
        """List addresses of contracts that are gone since then."""
        ...

    def keep_sold(self, contract: Sold) -> None:
        """Store a contract. Two living ones with the same key or the same address cannot be."""
        ...

    def book(self, entry: Entry) -> None:
        """Write a line of the accounts."""
        ...


class BuyerBooks(Protocol):
    """What a buyer knows."""

    def asked(self, message: MessageId) -> Asked | None:
        """Look a request up, open or answered."""
        ...

    def keep_asked(self, asked: Asked) -> None:
        """Store a request."""
        ...

    def awaited(self) -> Collection[Asked]:
        """List the open requests that arrived and are not overdue."""
        ...

    def seen(self, seller: NodePubkey, nonce: str) -> Seen | None:
        """Look up a quote that came."""
        ...

    def keep_seen(self, quote: Seen) -> None:
        """Store a quote that came."""
        ...

    def bought(self, seller: NodePubkey, nonce: str) -> Bought | None:
        """Look a contract up."""
        ...

    def all_bought(self) -> Collection[Bought]:
        """List the contracts that are not over."""
        ...

    def keep_bought(self, contract: Bought) -> None:
        """Store a contract."""
        ...
