"""What a seller does when another node asks, as decisions inside one transaction.

Money decides: whatever came with a request either buys time or goes back, less what sending it costs, and the accounts
say which. A request never touches the interface: what it bought is set up by `upkeep`, after the transaction that
booked the money.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from impervious.errors import CallerError, FailedPrecondition, Malformed, NotFound, ResourceExhausted
from impervious.services.vpn import money
from impervious.services.vpn.contract import COOLING_MS, QUOTE_MS, SECOND_MS, Offered, Phase, Sold, Term
from impervious.services.vpn.payloads import (
    ContractRequest,
    MalformedRequest,
    Quote,
    QuoteRequest,
    Refresh,
    RefreshRequest,
    Request,
    read,
)
from impervious.services.vpn.ports import Incoming
from impervious.services.vpn.sale import Closed, Peers, Sale, Shop, contract_answer, listed
from impervious.units import Msat, Sat, msat, sat_credited
from impervious.wireguard import Host, PresharedKey, buyer_key, foreign_networks

MAX_OPEN_OFFERS: Final = 3
"""To one buyer: an offer costs a satoshi to ask for and keeps an address from others for ten minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Where randomness comes from."""

    nonce: Callable[[], str]
    preshared_key: Callable[[], PresharedKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller(Sale):
    """A seller that is asked."""

    def receive(self, message: Incoming, peers: Peers, draw: Draw) -> bool:
        """Decide on a request; anything that is none is left alone.

        Args:
          message: each is shown once (the log's cursor sees to that); the same request in another message is
            recognised by its nonce.
          peers: what is on the interface, ours and others'.
          draw: where nonces and keys come from.

        Returns:
          Whether time was bought, so that the interface and the clocks must follow.
        """
        try:
            request = read(message.data)
        except MalformedRequest as error:
            self._refuse(message, "", str(error))
            return False
        except Malformed:
            return False
        if not isinstance(request, Request):
            return False
        try:
            if isinstance(self.shop, Closed):
                raise FailedPrecondition(self.shop.reason)
            return self._decide(message, request, self.shop, peers, draw)
        except CallerError as error:
            self._refuse(message, "" if isinstance(request, QuoteRequest) else request.nonce, str(error))
            return False

    def _decide(self, message: Incoming, request: Request, shop: Shop, peers: Peers, draw: Draw) -> bool:
        match request:
            case QuoteRequest():
                self._quote(message, request.hours, shop, peers, draw)
                return False
            case ContractRequest():
                self._contract(message, request, shop, peers, draw)
            case RefreshRequest():
                self._refresh(message, request.nonce)
        return True

    def _quote(self, message: Incoming, hours: int, shop: Shop, peers: Peers, draw: Draw) -> None:
        if not 1 <= hours <= shop.max_hours:
            raise FailedPrecondition(f"hours must be from 1 to {shop.max_hours}")
        offers = self.books.open_offers(self.now_ms)
        if sum(1 for each in offers if each.buyer == message.sender) >= MAX_OPEN_OFFERS:
            raise ResourceExhausted(f"you have {MAX_OPEN_OFFERS} open quotes: accept one, or wait ten minutes")
        offer = Offered(
            nonce=draw.nonce(),
            buyer=message.sender,
            address=self._free_address(shop, offers, self.books.living(), peers),
            hours=hours,
            span_ms=hours * shop.hour_ms,
            price=msat(Sat(hours * shop.price)),
            expires_ms=self.now_ms + QUOTE_MS,
        )
        # What a question costs pays for the answer.
        self.books.book(
            money.Entry(
                cause=message.id, nonce="", received=message.amount, sold=Msat(0), refunded=Msat(0), kept=message.amount
            )
        )
        quote = Quote(
            nonce=offer.nonce,
            price=sat_credited(offer.price),
            hours=hours,
            expires_at=offer.expires_ms // SECOND_MS,
            endpoint=str(shop.terms.endpoint),
            server_pub_key=shop.terms.server_key.text,
            allowed_ips=listed(shop.terms.allowed),
            dns=listed(shop.terms.dns),
        )
        if not self.out.answer(message.sender, quote, reply_to=message.id, amount=Msat(0), owed=False):
            return  # a question that did not pay for its answer keeps nothing from anybody
        self.books.keep_offer(offer)
        self.tell("QUOTE", message.sender, offer.nonce, about=message.id, price_sat=quote.price, hours=hours)

    def _free_address(self, shop: Shop, offers: Collection[Offered], living: Collection[Sold], peers: Peers) -> Host:
        """Choose an address that nobody has; where all are offered, one whose offer does not hold it any more.

        Raises:
          ResourceExhausted: there is none; the text says whether waiting helps.
        """
        taken = {each.address for each in living}
        allocate = partial(
            shop.terms.subnet.allocate,
            cooling=self.books.cooling(self.now_ms - COOLING_MS),
            foreign=foreign_networks(peers, {each.key for each in living}),
        )
        try:
            return allocate(used=taken | {each.address for each in offers})
        except ResourceExhausted:
            return allocate(used=taken | {each.address for each in offers if each.holds(self.now_ms)})

    def _address_of(self, offer: Offered, shop: Shop, living: Collection[Sold], peers: Peers) -> Host:
        """Give a buyer the address that was offered, or another if somebody else has bought that one."""
        if offer.address not in {each.address for each in living}:
            return offer.address
        return self._free_address(shop, self.books.open_offers(self.now_ms), living, peers)

    def _contract(self, message: Incoming, request: ContractRequest, shop: Shop, peers: Peers, draw: Draw) -> None:
        known = self.books.sold(request.nonce)
        if known is not None and known.buyer == message.sender:
            self._again(message, request, known, shop)
            return
        offer = self.books.offer(request.nonce)
        if offer is None or offer.buyer != message.sender or known is not None:
            raise NotFound("this quote is not yours: ask for one")
        if self.now_ms >= offer.expires_ms:
            raise FailedPrecondition("the quote has expired: ask for another")
        if message.amount != offer.price:
            raise FailedPrecondition(f"{message.amount} msat were paid, and the quote says {offer.price}")
        living = self.books.living()
        in_use = {each.key for each in living} | set(peers)
        contract = Sold(
            nonce=offer.nonce,
            buyer=offer.buyer,
            request=message.id,
            key=buyer_key(request.public_key, server=shop.terms.server_key, in_use=in_use),
            preshared_key=draw.preshared_key() if request.psk_wanted else None,
            address=self._address_of(offer, shop, living, peers),
            hours=offer.hours,
            price=offer.price,
            paid_ms=self.now_ms,
            term=Term(expires_ms=0, span_ms=offer.span_ms),
        )
        self.books.keep_sold(contract)
        self.books.book(money.sale(message.id, contract.nonce, message.amount))

    def _again(self, message: Incoming, request: ContractRequest, contract: Sold, shop: Shop) -> None:
        """Give the same answer to the same request; its money, if any, goes back with it."""
        if contract.phase in (Phase.ENDED, Phase.GONE):
            raise FailedPrecondition("this contract is over: ask for a quote")
        if contract.key.text != request.public_key:
            raise FailedPrecondition("this quote was accepted with another key: ask for one for each")
        if contract.phase is Phase.PAID:
            raise FailedPrecondition("this quote was accepted already; its answer is on the way")
        entry = money.refund(message.id, contract.nonce, message.amount, self.fee, self.least)
        self.books.book(entry)
        answer = contract_answer(contract, shop.terms)
        self.out.answer(contract.buyer, answer, reply_to=message.id, amount=entry.refunded, owed=entry.refunded > 0)

    def _refresh(self, message: Incoming, nonce: str) -> None:
        contract = self.books.sold(nonce)
        if contract is None or contract.buyer != message.sender:
            raise NotFound("this contract is not yours: ask for a quote")
        if contract.phase is not Phase.ACTIVE or contract.is_over(self.now_ms, self.grace_ms):
            raise FailedPrecondition("this contract is over: ask for a quote")
        if message.amount != contract.price:
            raise FailedPrecondition(f"{message.amount} msat were paid, and this contract costs {contract.price}")
        contract = contract.renewed(self.now_ms)
        self.books.keep_sold(contract)
        self.books.book(money.sale(message.id, nonce, message.amount))
        expires_at = contract.term.expires_ms // SECOND_MS
        answer = Refresh(nonce=nonce, expires_at=expires_at)
        self.out.answer(contract.buyer, answer, reply_to=message.id, amount=Msat(0), owed=True, price=contract.price)
        self.tell("REFRESH", contract.buyer, nonce, about=message.id, expires_at=expires_at)

    def _refuse(self, message: Incoming, nonce: str, reason: str) -> None:
        entry = money.refund(message.id, nonce, message.amount, self.fee, self.least)
        self.books.book(entry)
        self.say_no(message.sender, message.id, nonce, reason, entry.refunded)
