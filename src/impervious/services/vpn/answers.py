"""What sellers say to a buyer, as decisions inside one transaction.

An answer counts only for an open request to the node that sends it. It changes what the request was about: a quote, a
contract, the time of one. A request that did not arrive is an answer too: nothing was paid.
"""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from impervious.errors import Malformed
from impervious.model import MessageId
from impervious.services.vpn.contract import SECOND_MS, Term, next_second
from impervious.services.vpn.payloads import (
    MAX_NONCE,
    Answer,
    Contract,
    Expired,
    Quote,
    Refresh,
    Refused,
    is_nonce,
    read,
)
from impervious.services.vpn.ports import BuyerBooks, Incoming, Outgoing
from impervious.services.vpn.purchase import PAID, Asked, Bought, Question, Seen, Stage, about_contract, about_request
from impervious.services.vpn.sale import one_line
from impervious.units import Msat, Sat, msat
from impervious.wireguard import ClientConfig, PrivateKey

_NOBODY: Final = PrivateKey(bytes(32))
"""Stands for a key that is made once a quote is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A buyer in one transaction, listening."""

    books: BuyerBooks
    out: Outgoing
    now_ms: int

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

    def _quoted(self, asked: Asked, quote: Quote) -> None:
        try:
            _check(quote)
        except Malformed as error:
            self.out.tell(about_request("REFUSED", asked, f"the quote cannot be used: {error}"))
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
        contract = self._bought(asked)
        # One that comes late, even after its time is over, is taken as if it had come at once: it can be renewed.
        begun_ms = next_second(self.now_ms if asked.arrived_ms is None else asked.arrived_ms)
        expires_ms = answer.expires_at * SECOND_MS
        try:
            config = _config(contract.private_key, answer)
            if expires_ms <= begun_ms:
                raise Malformed("it had run out before it was paid")
        except Malformed as error:
            reason = one_line(str(error))
            self.books.keep_bought(contract.moved(Stage.REFUSED, reason))
            self.out.tell(about_request("REFUSED", asked, reason))
            return
        term = Term(expires_ms=expires_ms, span_ms=expires_ms - begun_ms)
        contract = replace(contract.moved(Stage.ACTIVE), term=term, config=config)
        self.books.keep_bought(contract)
        self.out.tell(about_contract("CONTRACT", contract, address=answer.address, expires_at=answer.expires_at))

    def _refreshed(self, asked: Asked, answer: Refresh) -> None:
        contract = _answered(self._bought(asked), asked)
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
            contract = contract.moved(Stage.REFUSED, one_line(reason))
        else:
            contract = _answered(contract, asked, back=back)
            if asked.amount == contract.price:  # what renewing itself pays would be refused again, for a fee each time
                contract = replace(contract, budget=Msat(0))
        self.books.keep_bought(replace(contract, returned=Msat(contract.returned + back)))

    def _expired(self, message: Incoming, payload: Expired) -> bool:
        contract = self.books.bought(message.sender, payload.nonce)
        if contract is None or contract.stage not in PAID:
            return False
        asked = self.books.asked(contract.request)
        if asked is not None and asked.open:  # the answer before this was lost
            self.books.keep_asked(replace(asked, open=False))
        ended = contract.moved(Stage.OVER, one_line(payload.reason) or "the seller ended it")
        self.books.keep_bought(replace(ended, returned=Msat(ended.returned + message.amount)))
        return True

    def _bought(self, asked: Asked) -> Bought:
        contract = self.books.bought(asked.seller, asked.nonce)
        assert contract is not None, "a contract is stored with the request that pays for it"
        return contract


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
    if not is_nonce(quote.nonce):
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
