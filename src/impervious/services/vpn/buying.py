"""What a buyer does by itself, asked by its people or the clock, as decisions inside one transaction.

The private key is stored in the transaction that stores the payment, before anything is paid: whenever this node
crashes, the answer finds the key that it belongs to (`answers`).
"""

from dataclasses import dataclass, replace

from impervious.errors import CallerError, FailedPrecondition, InvalidArgument, NotFound
from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.contract import MINUTE_MS, SECOND_MS, Term
from impervious.services.vpn.payloads import ContractRequest, QuoteRequest, RefreshRequest
from impervious.services.vpn.ports import BuyerBooks, Outgoing
from impervious.services.vpn.purchase import (
    ANSWER_MS,
    KEPT_MS,
    PAID,
    Asked,
    Bought,
    Question,
    Stage,
    about_contract,
    about_request,
)
from impervious.units import Msat, Sat, msat, sat_charged
from impervious.wireguard import PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """A buyer in one transaction."""

    books: BuyerBooks
    out: Outgoing
    now_ms: int

    # --- Calls -------------------------------------------------------------------------------------------------------

    def request_quote(self, seller: NodePubkey, hours: int = 1) -> MessageId:
        """Ask for a price.

        Raises:
          InvalidArgument: nobody sells that.
          ResourceExhausted: the budget does not allow it.
        """
        if hours < 1:
            raise InvalidArgument("hours must be at least 1")
        message = self.out.send(seller, QuoteRequest(hours=hours), Msat(0))
        self.books.keep_asked(Asked(id=message, seller=seller, question=Question.QUOTE))
        return message

    def accept(self, seller: NodePubkey, nonce: str, most: Sat, key: PrivateKey, *, psk: bool = True) -> MessageId:
        """Pay for a quote. The same quote again gives the same id, and pays nothing again.

        Args:
          seller: who gave the quote.
          nonce: the quote's.
          most: the most that may be paid, in satoshis.
          key: a new one.
          psk: whether to ask for a preshared key.

        Raises:
          NotFound: no such quote came.
          FailedPrecondition: it is dearer or has expired, or its contract is over. Nothing was sent.
          ResourceExhausted: the budget does not allow it.
        """
        known = self.books.bought(seller, nonce)
        if known is not None and known.stage in PAID:
            return known.request
        if known is not None and known.stage is not Stage.FAILED:
            raise FailedPrecondition(f"this quote's contract is {known.stage.value}: request another quote")
        quote = self.books.seen(seller, nonce)
        if quote is None:
            raise NotFound("no such quote came from this node: RequestQuote asks for one")
        if self.now_ms >= quote.expires_ms:
            raise FailedPrecondition("the quote has expired: request another")
        if quote.price > msat(most):
            raise FailedPrecondition(
                f"the quote says {sat_charged(quote.price)} sat, more than {most}: nothing was paid"
            )
        request = ContractRequest(nonce=nonce, public_key=key.public.text, psk_wanted=psk)
        message = self.out.send(seller, request, quote.price)
        asked = Asked(id=message, seller=seller, question=Question.CONTRACT, nonce=nonce, amount=quote.price)
        self.books.keep_asked(asked)
        self.books.keep_bought(
            Bought(
                seller=seller,
                nonce=nonce,
                request=message,
                private_key=key,
                price=quote.price,
                hours=quote.hours,
            )
        )
        return message

    def refresh(self, seller: NodePubkey, nonce: str, price: Sat) -> MessageId:
        """Buy more time: the contract's own hours at its own price.

        Args:
          seller: of the contract.
          nonce: its name.
          price: what is paid, in satoshis; the seller gives any amount back but the contract's own.

        Raises:
          NotFound: there is no such contract.
          FailedPrecondition: it does not stand.
          InvalidArgument: the price is none.
          ResourceExhausted: the budget does not allow it.
        """
        contract = self.bought(seller, nonce)
        if contract.stage is not Stage.ACTIVE:
            raise FailedPrecondition(f"this contract is {contract.stage.value}: RequestQuote begins another")
        if price < 1:
            raise InvalidArgument(f"price must be the contract's own: {sat_charged(contract.price)} sat")
        return self._refresh(contract, msat(price)).id

    def renew_itself(self, seller: NodePubkey, nonce: str, budget: Sat) -> None:
        """Let a contract buy more time whenever it ends, until that has cost `budget`; 0 stops it.

        Raises:
          NotFound: there is no such contract.
          InvalidArgument: the budget is negative.
        """
        if budget < 0:
            raise InvalidArgument("the budget is negative: give satoshis, or 0 to stop renewals")
        self.books.keep_bought(replace(self.bought(seller, nonce), budget=msat(budget), renewals=Msat(0)))

    def bought(self, seller: NodePubkey, nonce: str) -> Bought:
        """Look a contract up.

        Raises:
          NotFound: there is none.
        """
        contract = self.books.bought(seller, nonce)
        if contract is None:
            raise NotFound("no such contract was bought from this node: ListContracts shows all")
        return contract

    # --- The clock ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Announce what is due, buy what is to be bought again, and say which sellers do not answer."""
        for asked in self.books.awaited():
            overdue_ms = asked.overdue_ms()
            if overdue_ms is not None and self.now_ms >= overdue_ms:
                self._unanswered(asked)
        for contract in self.books.all_bought():
            if contract.must_renew(self.now_ms):
                contract = self._renew(contract)
            if contract.stage is Stage.ACTIVE and contract.term is not None:
                self._age(contract, contract.term)

    def _unanswered(self, asked: Asked) -> None:
        """Say that a seller is silent. What was paid stays paid, so its answer is taken whenever it comes."""
        self.books.keep_asked(replace(asked, overdue=True))
        reason = f"it arrived, and {ANSWER_MS // MINUTE_MS} minutes later there is no answer; a late one still counts"
        contract = self.books.bought(asked.seller, asked.nonce)
        if contract is not None and asked.question is Question.CONTRACT:
            self.books.keep_bought(contract.moved(Stage.UNANSWERED, reason))
        self.out.tell(about_request("UNANSWERED", asked, reason, question=asked.question.value))

    def _renew(self, contract: Bought) -> Bought:
        try:
            asked = self._refresh(contract, contract.price, automatic=True)
        except CallerError:
            return contract  # the node's own budget may allow it later, or its configuration the amount
        contract = replace(contract, renewing=asked.id, renewals=Msat(contract.renewals + asked.amount))
        self.books.keep_bought(contract)
        return contract

    def _age(self, contract: Bought, term: Term) -> None:
        notice = term.due(self.now_ms)
        if notice is not None:
            self.books.keep_bought(contract := replace(contract, term=term.told(self.now_ms)))
            self.out.tell(about_contract(notice.value, contract, expires_at=term.expires_ms // SECOND_MS))
        if self.now_ms >= term.expires_ms + KEPT_MS:
            self.books.keep_bought(contract.moved(Stage.OVER, "its time is over"))

    def _refresh(self, contract: Bought, amount: Msat, *, automatic: bool = False) -> Asked:
        message = self.out.send(contract.seller, RefreshRequest(nonce=contract.nonce), amount)
        asked = Asked(
            id=message,
            seller=contract.seller,
            question=Question.REFRESH,
            nonce=contract.nonce,
            amount=amount,
            automatic=automatic,
        )
        self.books.keep_asked(asked)
        self.books.keep_bought(replace(contract, renewing=message))
        return asked
