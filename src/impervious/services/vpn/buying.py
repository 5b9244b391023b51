"""What a buyer does, as decisions inside one transaction.

The private key is stored in the transaction that stores the payment, before anything is paid: whenever this node
crashes, the answer finds the key that it belongs to. An answer counts only for an open request to the node that sends
it.
"""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from impervious.errors import CallerError, FailedPrecondition, InvalidArgument, Malformed, NotFound
from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.contract import MINUTE_MS, SECOND_MS, Term, next_second
from impervious.services.vpn.payloads import (
    Answer,
    Contract,
    ContractRequest,
    Expired,
    Quote,
    QuoteRequest,
    Refresh,
    RefreshRequest,
    Refused,
    read,
)
from impervious.services.vpn.ports import BuyerBooks, Incoming, Outgoing
from impervious.services.vpn.purchase import ANSWER_MS, KEPT_MS, Asked, Bought, Question, Seen, Stage
from impervious.services.vpn.told import Role, Told
from impervious.units import Msat, Sat, msat, sat_charged
from impervious.wireguard import ClientConfig, PrivateKey

MAX_NONCE: Final = 64
"""Characters, so that a request with money stays one part."""
_NOBODY: Final = PrivateKey(bytes(32))
"""Stands for a key that is made once a quote is accepted."""
_PAID: Final = (Stage.PAYING, Stage.UNANSWERED, Stage.ACTIVE)
"""Stages in which money is on its way or with the seller: it is not paid again."""


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
        if known is not None and known.stage in _PAID:
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

    # --- What sellers say --------------------------------------------------------------------------------------------

    def receive(self, message: Incoming) -> bool:
        """Take an answer.

        Returns:
          Whether it is one to a request of ours, or about a contract of ours; anything else is left alone.
        """
        try:
            payload = read(message.data)
        except Malformed:
            return False
        if isinstance(payload, Expired):
            return self._expired(message, payload)
        if not isinstance(payload, Answer) or message.reply_to is None:
            return False
        asked = self.books.asked(message.reply_to)
        if asked is None or not asked.open or asked.seller != message.sender:
            return False
        if not _fits(asked, payload):
            return False
        self.books.keep_asked(replace(asked, open=False))
        match payload:
            case Quote():
                self._quoted(asked, payload)
            case Contract():
                self._stands(asked, payload)
            case Refresh():
                self._refreshed(asked, payload)
            case Refused():
                self._refused(asked, payload.reason, message.amount)
            case _:
                assert_never(payload)
        return True

    def arrived(self, message: MessageId) -> bool:
        """Take note that a message of ours arrived; say whether its answer is awaited from now on."""
        asked = self.books.asked(message)
        if asked is None or not asked.open or asked.arrived_ms is not None:
            return False
        self.books.keep_asked(replace(asked, arrived_ms=self.now_ms))
        return True

    def undelivered(self, message: MessageId, reason: str) -> None:
        """Take note that a request of ours did not arrive: nothing was paid."""
        asked = self.books.asked(message)
        if asked is None or not asked.open:
            return
        self.books.keep_asked(replace(asked, open=False))
        contract = self.books.bought(asked.seller, asked.nonce)
        if contract is None:
            return
        if asked.question is Question.CONTRACT:
            self.books.keep_bought(contract.moved(Stage.FAILED, reason))
        elif asked.question is Question.REFRESH:
            self.books.keep_bought(_answered(contract, asked, back=asked.amount))

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
        self._tell_about(asked, "UNANSWERED", reason, question=asked.question.value)

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
            self._tell(notice.value, contract, expires_at=term.expires_ms // SECOND_MS)
        if self.now_ms >= term.expires_ms + KEPT_MS:
            self.books.keep_bought(contract.moved(Stage.OVER, "its time is over"))

    # --- How answers change things -----------------------------------------------------------------------------------

    def _quoted(self, asked: Asked, quote: Quote) -> None:
        try:
            _check(quote)
        except Malformed as error:
            self._tell_about(asked, "REFUSED", f"the quote cannot be used: {error}")
            return
        self.books.keep_seen(
            Seen(
                seller=asked.seller,
                nonce=quote.nonce,
                price=msat(Sat(quote.price)),
                hours=quote.hours,
                expires_ms=quote.expires_at * SECOND_MS,
            )
        )

    def _stands(self, asked: Asked, answer: Contract) -> None:
        contract = self.bought(asked.seller, asked.nonce)
        try:
            config = _config(contract.private_key, answer)
            if answer.expires_at * SECOND_MS <= self.now_ms:
                raise Malformed("it has run out already")
        except Malformed as error:
            self.books.keep_bought(contract.moved(Stage.REFUSED, str(error)))
            self._tell_about(asked, "REFUSED", str(error))
            return
        expires_ms = answer.expires_at * SECOND_MS
        term = Term(expires_ms=expires_ms, span_ms=expires_ms - next_second(self.now_ms))
        contract = replace(contract.moved(Stage.ACTIVE), term=term, config=config)
        self.books.keep_bought(contract)
        self._tell("CONTRACT", contract, address=answer.address, expires_at=answer.expires_at)

    def _refreshed(self, asked: Asked, answer: Refresh) -> None:
        contract = _answered(self.bought(asked.seller, asked.nonce), asked)
        if contract.term is not None and answer.expires_at * SECOND_MS > contract.term.expires_ms:
            contract = replace(
                contract, term=Term(expires_ms=answer.expires_at * SECOND_MS, span_ms=contract.term.span_ms)
            )
        self.books.keep_bought(contract)

    def _refused(self, asked: Asked, reason: str, back: Msat) -> None:
        contract = self.books.bought(asked.seller, asked.nonce)
        if contract is None or asked.question is Question.QUOTE:
            return
        if asked.question is Question.CONTRACT:
            contract = contract.moved(Stage.REFUSED, reason)
        else:
            # Whoever was refused once would be refused again, at the price of a fee each time.
            contract = replace(_answered(contract, asked, back=back), budget=Msat(0))
        self.books.keep_bought(replace(contract, returned=Msat(contract.returned + back)))

    def _expired(self, message: Incoming, payload: Expired) -> bool:
        contract = self.books.bought(message.sender, payload.nonce)
        if contract is None or contract.stage not in _PAID:
            return False
        asked = self.books.asked(contract.request)
        if asked is not None and asked.open:  # the answer before this was lost
            self.books.keep_asked(replace(asked, open=False))
        ended = contract.moved(Stage.OVER, payload.reason or "the seller ended it")
        self.books.keep_bought(replace(ended, returned=Msat(ended.returned + message.amount)))
        return True

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

    def _tell(self, record: str, contract: Bought, **facts: int | str) -> None:
        self.out.tell(
            Told(
                record=record,
                role=Role.BUYER,
                peer=contract.seller,
                nonce=contract.nonce,
                about=contract.request,
                facts=facts,
            )
        )

    def _tell_about(self, asked: Asked, record: str, reason: str, **facts: int | str) -> None:
        self.out.tell(
            Told(
                record=record,
                role=Role.BUYER,
                peer=asked.seller,
                nonce=asked.nonce,
                about=asked.id,
                reason=reason,
                facts=facts,
            )
        )


_FITS = {Question.QUOTE: Quote, Question.CONTRACT: Contract, Question.REFRESH: Refresh}


def _fits(asked: Asked, payload: Answer) -> bool:
    """Whether an answer is one to this question, and about the same contract."""
    if isinstance(payload, Refused):
        return True
    return isinstance(payload, _FITS[asked.question]) and asked.nonce in ("", payload.nonce)


def _answered(contract: Bought, asked: Asked, back: Msat = Msat(0)) -> Bought:
    """Close a request for more time; what came back of one that the budget paid for is there to be spent again."""
    renewing = None if contract.renewing == asked.id else contract.renewing
    renewals = Msat(max(0, contract.renewals - back)) if asked.automatic else contract.renewals
    return replace(contract, renewing=renewing, renewals=renewals)


def _check(quote: Quote) -> None:
    """See that nobody pays for a tunnel that could not be used.

    Raises:
      Malformed: it could not.
    """
    if not (quote.nonce.isascii() and 1 <= len(quote.nonce) <= MAX_NONCE):
        raise Malformed(f"its nonce is not 1 to {MAX_NONCE} ASCII characters")
    if quote.price < 1 or quote.hours < 1:
        raise Malformed("its price and hours must be at least 1")
    ClientConfig.received(
        _NOBODY,
        address="10.0.0.2",
        dns=quote.dns,
        server_key=quote.server_pub_key,
        preshared_key="",
        allowed_ips=quote.allowed_ips,
        endpoint=quote.endpoint,
    )


def _config(key: PrivateKey, answer: Contract) -> ClientConfig:
    return ClientConfig.received(
        key,
        address=answer.address,
        dns=answer.dns,
        server_key=answer.server_pub_key,
        preshared_key=answer.preshared_key,
        allowed_ips=answer.allowed_ips,
        endpoint=answer.endpoint,
    )
