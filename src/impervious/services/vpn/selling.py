"""What a seller does, as decisions inside one transaction.

Money decides: whatever came with a request either buys time or goes back, less what sending it costs, and the accounts
say which. A peer is put on the interface after the transaction that booked the money, by reconciling, and only when it
was seen there does its time begin and the answer go out (`stands`). So a crash anywhere leaves a contract that is paid,
which the next reconciling finishes; nothing is charged or answered twice.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from impervious.errors import CallerError, FailedPrecondition, Malformed, NotFound, ResourceExhausted
from impervious.model import MessageId, NodePubkey
from impervious.services.vpn import money
from impervious.services.vpn.contract import (
    COOLING_MS,
    MINUTE_MS,
    QUOTE_MS,
    SECOND_MS,
    Offered,
    Phase,
    Sold,
    Term,
)
from impervious.services.vpn.payloads import (
    Contract,
    ContractRequest,
    Expired,
    MalformedRequest,
    Quote,
    QuoteRequest,
    Refresh,
    RefreshRequest,
    Refused,
    Request,
    read,
)
from impervious.services.vpn.ports import Incoming, Outgoing, SellerBooks
from impervious.services.vpn.told import Role, Told
from impervious.units import Msat, Sat, msat, sat_credited
from impervious.wireguard import Peer, PresharedKey, PublicKey, Terms, Transfer, Wanted, buyer_key, foreign_networks

MAX_OPEN_OFFERS: Final = 3
"""To one buyer: an offer costs a satoshi to ask for and keeps an address from others for ten minutes."""
SETUP_MS: Final = MINUTE_MS
"""How long a paid contract may wait for its peer to be on the interface before the money goes back."""
MAX_REASON: Final = 200
"""Characters of a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What is sold."""

    terms: Terms
    price: Sat
    """For one hour."""
    hour_ms: int
    """What an hour is: `vpn.period_s`."""
    max_hours: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing is sold now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Where randomness comes from."""

    nonce: Callable[[], str]
    preshared_key: Callable[[], PresharedKey]


Peers: TypeAlias = Mapping[PublicKey, Peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller:
    """A seller in one transaction."""

    books: SellerBooks
    out: Outgoing
    shop: Shop | Closed
    now_ms: int
    grace_ms: int
    """How long after its end a contract can be renewed: `vpn.grace_s`."""
    fee: Msat
    """Most that sending money back may cost; it is taken from what goes back."""
    least: Msat = money.SMALLEST
    """Least that can be sent back; what is less stays."""

    # --- What other nodes ask for ------------------------------------------------------------------------------------

    def receive(self, message: Incoming, peers: Peers, draw: Draw) -> None:
        """Decide on a request; anything that is none is left alone.

        Args:
          message: each is shown once (the log's cursor sees to that); the same request in another message is
            recognised by its nonce.
          peers: what is on the interface, ours and others'.
          draw: where nonces and keys come from.
        """
        try:
            request = read(message.data)
        except MalformedRequest as error:
            self._refuse(message, "", str(error))
            return
        except Malformed:
            return
        if not isinstance(request, Request):
            return
        try:
            if isinstance(self.shop, Closed):
                raise FailedPrecondition(self.shop.reason)
            self._decide(message, request, self.shop, peers, draw)
        except CallerError as error:
            self._refuse(message, "" if isinstance(request, QuoteRequest) else request.nonce, str(error))

    def _decide(self, message: Incoming, request: Request, shop: Shop, peers: Peers, draw: Draw) -> None:
        match request:
            case QuoteRequest():
                self._quote(message, request.hours, shop, peers, draw)
            case ContractRequest():
                self._contract(message, request, shop, peers, draw)
            case RefreshRequest():
                self._refresh(message, request.nonce)

    def _quote(self, message: Incoming, hours: int, shop: Shop, peers: Peers, draw: Draw) -> None:
        if not 1 <= hours <= shop.max_hours:
            raise FailedPrecondition(f"hours must be from 1 to {shop.max_hours}")
        offers, living = self.books.open_offers(self.now_ms), self.books.living()
        if sum(1 for each in offers if each.buyer == message.sender) >= MAX_OPEN_OFFERS:
            raise ResourceExhausted(f"you have {MAX_OPEN_OFFERS} open quotes: accept one, or wait ten minutes")
        address = shop.terms.subnet.allocate(
            used={each.address for each in offers} | {each.address for each in living},
            cooling=self.books.cooling(self.now_ms - COOLING_MS),
            foreign=foreign_networks(peers, {each.key for each in living}),
        )
        offer = Offered(
            nonce=draw.nonce(),
            buyer=message.sender,
            address=address,
            hours=hours,
            span_ms=hours * shop.hour_ms,
            price=msat(Sat(hours * shop.price)),
            expires_ms=self.now_ms + QUOTE_MS,
        )
        self.books.keep_offer(offer)
        # What a question costs pays for the answer.
        self._book(
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
            allowed_ips=_listed(shop.terms.allowed),
            dns=_listed(shop.terms.dns),
        )
        self.out.answer(message.sender, quote, reply_to=message.id, amount=Msat(0), owed=False)
        self._tell("QUOTE", message.sender, offer.nonce, about=message.id, price_sat=quote.price, hours=hours)

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
        in_use = {each.key for each in self.books.living()} | set(peers)
        contract = Sold(
            nonce=offer.nonce,
            buyer=offer.buyer,
            request=message.id,
            key=buyer_key(request.public_key, server=shop.terms.server_key, in_use=in_use),
            preshared_key=draw.preshared_key() if request.psk_wanted else None,
            address=offer.address,
            hours=offer.hours,
            price=offer.price,
            paid_ms=self.now_ms,
            term=Term(expires_ms=0, span_ms=offer.span_ms),
        )
        self.books.keep_sold(contract)
        self._book(money.sale(message.id, contract.nonce, message.amount))

    def _again(self, message: Incoming, request: ContractRequest, contract: Sold, shop: Shop) -> None:
        """Give the same answer to the same request; its money, if any, goes back with it."""
        if contract.phase in (Phase.ENDED, Phase.GONE):
            raise FailedPrecondition("this contract is over: ask for a quote")
        if contract.key.text != request.public_key:
            raise FailedPrecondition("this quote was accepted with another key: ask for one for each")
        if contract.phase is Phase.PAID:
            raise FailedPrecondition("this quote was accepted already; its answer is on the way")
        entry = money.refund(message.id, contract.nonce, message.amount, self.fee, self.least)
        self._book(entry)
        answer = _contract_answer(contract, shop.terms)
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
        self._book(money.sale(message.id, nonce, message.amount))
        expires_at = contract.term.expires_ms // SECOND_MS
        answer = Refresh(nonce=nonce, expires_at=expires_at)
        self.out.answer(contract.buyer, answer, reply_to=message.id, amount=Msat(0), owed=True)
        self._tell("REFRESH", contract.buyer, nonce, about=message.id, expires_at=expires_at)

    # --- What happens to the interface -------------------------------------------------------------------------------

    def wanted(self) -> Wanted:
        """Say what should be on the interface."""
        living = self.books.living()
        peers = (contract.wanted(self.now_ms) for contract in living)
        return Wanted(peers=[peer for peer in peers if peer is not None], ours={contract.key for contract in living})

    def reconciled(self, peers: Peers, transfers: Mapping[PublicKey, Transfer]) -> None:
        """Draw the conclusions from a look at the interface after reconciling.

        Args:
          peers: what is on it.
          transfers: what went through.
        """
        for contract in self.books.living():
            peer, seen = peers.get(contract.key), transfers.get(contract.key)
            if contract.phase is Phase.ENDED and peer is None:
                self.books.keep_sold(contract.gone(self.now_ms))
                continue
            counted = contract.counting(seen) if seen is not None else contract
            wanted = contract.wanted(self.now_ms)
            if (
                contract.phase is Phase.PAID
                and wanted is not None
                and wanted.is_met_by(peer)
                and isinstance(self.shop, Shop)
            ):
                self._stands(counted, self.shop)
            elif counted != contract:
                self.books.keep_sold(counted)

    def _stands(self, contract: Sold, shop: Shop) -> None:
        contract = contract.standing(self.now_ms)
        self.books.keep_sold(contract)
        answer = _contract_answer(contract, shop.terms)
        self.out.answer(contract.buyer, answer, reply_to=contract.request, amount=Msat(0), owed=True)
        self._tell(
            "CONTRACT",
            contract.buyer,
            contract.nonce,
            about=contract.request,
            address=str(contract.address),
            expires_at=answer.expires_at,
        )

    # --- What time and the operator do -------------------------------------------------------------------------------

    def tick(self, trouble: str = "") -> None:
        """Announce what is due, end what is over, and give back what could not be delivered.

        Args:
          trouble: why the interface cannot be programmed, as far as is known.
        """
        for contract in self.books.living():
            if contract.phase is Phase.PAID and self.now_ms >= contract.paid_ms + SETUP_MS:
                self._fail(contract, trouble or "the tunnel could not be set up")
            elif contract.phase is Phase.ACTIVE:
                self._age(contract)

    def cancel(self, nonce: str, reason: str, cause: MessageId) -> Msat:
        """End a contract early, and give back what the rest of it is worth.

        Args:
          nonce: which.
          reason: what the buyer is told.
          cause: names this call in the accounts.

        Returns:
          What goes back, in msat, the fee taken off.

        Raises:
          NotFound: there is no such contract.
          FailedPrecondition: it is over already.
        """
        contract = self.books.sold(nonce)
        if contract is None:
            raise NotFound(f"no contract {nonce} was sold here: ListContracts shows all")
        if contract.phase is Phase.PAID:
            return self._fail(contract, reason)
        ended = contract.ending(self.now_ms, reason)
        self.books.keep_sold(ended)
        entry = money.taken_back(cause, nonce, contract.worth(self.now_ms), self.fee, self.least)
        self._book(entry)
        answer = Expired(nonce=nonce, reason=_line(reason))
        # Owed even where nothing goes back: who paid for a tunnel must not find out by its silence.
        self.out.answer(contract.buyer, answer, reply_to=None, amount=entry.refunded, owed=True)
        self._tell("EXPIRED", contract.buyer, nonce, reason=reason, refunded_msat=entry.refunded)
        return entry.refunded

    def _fail(self, contract: Sold, reason: str) -> Msat:
        """Give back the money for a tunnel that never was."""
        self.books.keep_sold(contract.ending(self.now_ms, reason))
        entry = money.taken_back(contract.request, contract.nonce, contract.worth(self.now_ms), self.fee, self.least)
        self._book(entry)
        self._say_no(contract.buyer, contract.request, contract.nonce, reason, entry.refunded)
        return entry.refunded

    def _age(self, contract: Sold) -> None:
        notice = contract.term.due(self.now_ms)
        if notice is not None:
            self.books.keep_sold(contract := contract.announced(self.now_ms))
            self._tell(notice.value, contract.buyer, contract.nonce, expires_at=contract.term.expires_ms // SECOND_MS)
        if contract.is_over(self.now_ms, self.grace_ms):
            self.books.keep_sold(contract.ending(self.now_ms, "its time is over"))

    # --- Saying it ---------------------------------------------------------------------------------------------------

    def _refuse(self, message: Incoming, nonce: str, reason: str) -> None:
        entry = money.refund(message.id, nonce, message.amount, self.fee, self.least)
        self._book(entry)
        self._say_no(message.sender, message.id, nonce, reason, entry.refunded)

    def _say_no(self, buyer: NodePubkey, request: MessageId, nonce: str, reason: str, back: Msat) -> None:
        self.out.answer(buyer, Refused(reason=_line(reason), nonce=nonce), reply_to=request, amount=back, owed=back > 0)
        self._tell("REFUSED", buyer, nonce, about=request, reason=reason, refunded_msat=back)

    def _book(self, entry: money.Entry) -> None:
        self.books.book(entry)

    def _tell(
        self,
        record: str,
        peer: NodePubkey,
        nonce: str,
        *,
        about: MessageId | None = None,
        reason: str = "",
        **facts: int | str,
    ) -> None:
        self.out.tell(
            Told(record=record, role=Role.SELLER, peer=peer, nonce=nonce, about=about, reason=reason, facts=facts)
        )


def _contract_answer(contract: Sold, terms: Terms) -> Contract:
    return Contract(
        nonce=contract.nonce,
        address=str(contract.address),
        expires_at=contract.term.expires_ms // SECOND_MS,
        endpoint=str(terms.endpoint),
        server_pub_key=terms.server_key.text,
        allowed_ips=_listed(terms.allowed),
        dns=_listed(terms.dns),
        preshared_key=contract.preshared_key.text if contract.preshared_key else "",
    )


def _listed(values: Collection[object]) -> str:
    return ", ".join(map(str, values))


def _line(reason: str) -> str:
    """Make a reason one that can be read at the other end, in one part: what programs complain has several lines."""
    return "".join(each if each.isprintable() else " " for each in reason)[:MAX_REASON]
