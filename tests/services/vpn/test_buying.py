"""Each rule of buying once; what buyers and sellers do together is in test_life."""

from dataclasses import replace
from uuid import UUID

import pytest
from tests.services.vpn.books import BuyerMemory, Letter, Out
from tests.services.vpn.shop import BEN, HOUR_MS, SELLER, SERVER_KEY, START_MS, incoming, private_key

from impervious.errors import FailedPrecondition, InvalidArgument, NotFound
from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.buying import Buyer
from impervious.services.vpn.payloads import (
    Contract,
    ContractRequest,
    Expired,
    Payload,
    Quote,
    QuoteRequest,
    Refresh,
    RefreshRequest,
    Refused,
)
from impervious.services.vpn.purchase import ANSWER_MS, KEPT_MS, Bought, Stage
from impervious.units import Sat

KEY = private_key(7)
QUOTE = Quote(
    nonce="n1",
    price=100,
    hours=1,
    expires_at=START_MS // 1000 + 600,
    endpoint="203.0.113.1:51820",
    server_pub_key=SERVER_KEY.public.text,
    allowed_ips="0.0.0.0/0, ::/0",
    dns="10.0.0.1",
)
CONTRACT = Contract(
    nonce="n1",
    address="10.0.0.2",
    expires_at=START_MS // 1000 + 3600,
    endpoint="203.0.113.1:51820",
    server_pub_key=SERVER_KEY.public.text,
    allowed_ips="0.0.0.0/0, ::/0",
    dns="10.0.0.1",
)


class Home:
    """A buyer."""

    def __init__(self) -> None:
        self.books = BuyerMemory()
        self.out = Out()
        self.now_ms = START_MS

    @property
    def buyer(self) -> Buyer:
        return Buyer(books=self.books, out=self.out, now_ms=self.now_ms)

    def get(
        self, payload: Payload, reply_to: MessageId | None, *, sender: NodePubkey = SELLER, amount: int = 1000
    ) -> bool:
        return self.buyer.receive(incoming(sender, payload, amount, reply_to=reply_to))

    def quoted(self, quote: Quote = QUOTE) -> None:
        assert self.get(quote, self.buyer.request_quote(SELLER))

    def accept(self, most: int = 100) -> MessageId:
        return self.buyer.accept(SELLER, "n1", Sat(most), KEY)

    def contracted(self) -> None:
        self.quoted()
        assert self.get(CONTRACT, self.accept())

    @property
    def bought(self) -> Bought:
        return self.buyer.bought(SELLER, "n1")

    @property
    def last(self) -> Letter:
        return self.out.letters[-1]


def test_the_whole_way() -> None:
    home = Home()
    request = home.buyer.request_quote(SELLER, 1)
    assert (home.last.to, home.last.payload, home.last.amount) == (SELLER, QuoteRequest(hours=1), 1000)
    assert home.get(QUOTE, request)
    request = home.accept()
    asked = ContractRequest(nonce="n1", public_key=KEY.public.text, psk_wanted=True)
    assert (home.last.payload, home.last.amount) == (asked, 100_000)
    assert home.bought == replace(home.bought, stage=Stage.PAYING, term=None, config=None)
    assert home.bought.private_key == KEY, "kept before anything is paid"
    assert home.get(CONTRACT, request)
    assert home.bought.stage is Stage.ACTIVE
    assert home.bought.config is not None
    assert f"PrivateKey = {KEY.text}" in home.bought.config.text()
    assert home.out.told[-1].record == "CONTRACT"
    assert KEY.text not in repr(home.out.told)


def test_a_dearer_quote_sends_nothing() -> None:
    home = Home()
    home.quoted()
    with pytest.raises(FailedPrecondition, match="the quote says 100 sat, more than 99: nothing was paid"):
        home.accept(99)
    assert home.out.records == ["QUOTE_REQUEST"]
    home.accept(101)
    assert home.last.amount == 100_000, "no more than the quote says"


def test_a_quote_that_is_none_or_old() -> None:
    home = Home()
    with pytest.raises(NotFound):
        home.accept()
    home.quoted()
    home.now_ms += 600_000
    with pytest.raises(FailedPrecondition, match="expired"):
        home.accept()


def test_accepting_twice_pays_once() -> None:
    home = Home()
    home.quoted()
    request = home.accept()
    assert home.accept() == request
    home.get(CONTRACT, request)
    assert home.accept() == request
    assert home.out.records == ["QUOTE_REQUEST", "CONTRACT_REQUEST"]


def test_what_did_not_arrive_can_be_tried_again() -> None:
    home = Home()
    home.quoted()
    request = home.accept()
    home.buyer.undelivered(request, "no route")
    assert (home.bought.stage, home.bought.reason) == (Stage.FAILED, "no route")
    home.buyer.undelivered(request, "said twice")
    again = home.accept()
    assert again != request
    assert not home.get(CONTRACT, request), "that one is closed"
    assert home.get(CONTRACT, again)


@pytest.fixture
def silent() -> tuple[Home, MessageId]:
    """A buyer whose money arrived, and who has been told that no answer came."""
    home = Home()
    home.quoted()
    request = home.accept()
    assert home.buyer.arrived(request)
    home.now_ms += ANSWER_MS - 1
    assert not home.buyer.arrived(request), "it is said once"
    home.buyer.tick()
    assert (home.bought.stage, home.out.told) == (Stage.PAYING, [])
    home.now_ms += 1
    home.buyer.tick()
    home.now_ms += 1
    home.buyer.tick()
    return home, request


def test_a_seller_that_does_not_answer_is_told_of_once_and_not_paid_again(silent: tuple[Home, MessageId]) -> None:
    home, request = silent
    [told] = home.out.told
    assert (told.record, told.nonce, told.about, told.facts) == ("UNANSWERED", "n1", request, {"question": "contract"})
    assert told.reason == "it arrived, and 10 minutes later there is no answer; a late one still counts"
    assert (home.bought.stage, home.bought.reason) == (Stage.UNANSWERED, told.reason)
    assert home.accept() == request
    assert home.out.records == ["QUOTE_REQUEST", "CONTRACT_REQUEST"]
    with pytest.raises(FailedPrecondition, match="unanswered"):
        home.buyer.refresh(SELLER, "n1", Sat(100))


def test_a_late_answer_still_counts(silent: tuple[Home, MessageId]) -> None:
    home, request = silent
    assert home.get(CONTRACT, request)
    assert (home.bought.stage, home.bought.reason) == (Stage.ACTIVE, "")
    assert home.bought.config is not None


def test_a_late_refusal_still_counts(silent: tuple[Home, MessageId]) -> None:
    home, request = silent
    assert home.get(Refused(reason="full"), request, amount=97_000)
    assert (home.bought.stage, home.bought.returned) == (Stage.REFUSED, 97_000)


def test_before_it_arrived_no_answer_is_overdue() -> None:
    home = Home()
    home.quoted()
    request = home.accept()
    home.now_ms += 10 * ANSWER_MS
    home.buyer.tick()
    assert home.bought.stage is Stage.PAYING
    home.buyer.undelivered(request, "no route")
    assert not home.buyer.arrived(request)
    assert not home.buyer.arrived(UUID(int=99)), "what is no request of ours"


def test_questions_and_renewals_without_an_answer() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(500))
    home.now_ms += HOUR_MS - 1000
    home.buyer.tick()
    assert home.out.records[-1] == "REFRESH_REQUEST"
    renewal, question = home.last.id, home.buyer.request_quote(SELLER)
    assert home.buyer.arrived(renewal)
    assert home.buyer.arrived(question)
    sent = len(home.out.letters)
    home.now_ms += ANSWER_MS
    home.buyer.tick()
    home.buyer.tick()
    said = [told.facts["question"] for told in home.out.told if told.record == "UNANSWERED"]
    assert said == ["refresh", "quote"]
    assert len(home.out.letters) == sent, "whoever does not answer is not paid again"
    assert home.bought.stage is Stage.ACTIVE
    later = CONTRACT.expires_at + 3600
    assert home.get(Refresh(nonce="n1", expires_at=later), renewal)
    assert home.bought.term is not None
    assert home.bought.term.expires_ms == later * 1000


def test_the_seller_ends_what_it_never_confirmed() -> None:
    home = Home()
    home.quoted()
    request = home.accept()
    assert home.get(Expired(nonce="n1", reason="moving house"), None, amount=97_000)
    assert (home.bought.stage, home.bought.returned) == (Stage.OVER, 97_000)
    assert not home.get(CONTRACT, request), "nothing is waited for any more"
    with pytest.raises(FailedPrecondition, match="over"):
        home.accept()


def test_a_refusal_ends_it() -> None:
    home = Home()
    home.quoted()
    assert home.get(Refused(reason="full"), home.accept(), amount=97_000)
    assert (home.bought.stage, home.bought.reason, home.bought.returned) == (Stage.REFUSED, "full", 97_000)
    with pytest.raises(FailedPrecondition, match="refused"):
        home.accept()


def test_only_answers_to_open_requests_of_that_node_count() -> None:
    home = Home()
    request = home.buyer.request_quote(SELLER)
    assert not home.get(QUOTE, None)
    assert not home.get(QUOTE, request, sender=BEN)
    assert not home.get(CONTRACT, request)
    assert home.get(QUOTE, request)
    assert not home.get(replace(QUOTE, nonce="n2"), request), "one answer to one question"
    paid = home.accept()
    assert not home.get(CONTRACT, paid, sender=BEN)
    assert not home.get(replace(CONTRACT, nonce="n2"), paid)
    assert not home.get(QUOTE, paid)
    assert not home.get(QuoteRequest(), paid)
    assert not home.buyer.receive(incoming(SELLER, b"x", 1, reply_to=paid))
    assert home.bought.stage is Stage.PAYING


@pytest.mark.parametrize(
    "quote",
    [
        replace(QUOTE, endpoint="nowhere"),
        replace(QUOTE, server_pub_key="AAAA"),
        replace(QUOTE, allowed_ips="everything"),
        replace(QUOTE, dns="resolver"),
        replace(QUOTE, price=0),
        replace(QUOTE, hours=0),
        replace(QUOTE, nonce="n" * 65),
        replace(QUOTE, nonce=""),
    ],
)
def test_a_quote_for_what_could_not_be_used_is_not_for_sale(quote: Quote) -> None:
    home = Home()
    home.quoted(quote)
    assert home.books.quotes == {}
    assert home.out.told[-1].reason.startswith("the quote cannot be used: ")


@pytest.mark.parametrize(
    "contract", [replace(CONTRACT, address="10.0.0.0/8"), replace(CONTRACT, expires_at=START_MS // 1000)]
)
def test_a_contract_that_cannot_be_used(contract: Contract) -> None:
    home = Home()
    home.quoted()
    assert home.get(contract, home.accept())
    assert home.bought.stage is Stage.REFUSED
    assert home.out.told[-1].record == "REFUSED"


def test_more_time() -> None:
    home = Home()
    home.contracted()
    request = home.buyer.refresh(SELLER, "n1", Sat(100))
    assert (home.last.payload, home.last.amount) == (RefreshRequest(nonce="n1"), 100_000)
    later = START_MS // 1000 + 7200
    assert home.get(Refresh(nonce="n1", expires_at=later), request)
    assert home.bought.term is not None
    assert home.bought.term.expires_ms == later * 1000
    assert home.bought.renewing is None
    again = home.buyer.refresh(SELLER, "n1", Sat(100))
    assert home.get(Refresh(nonce="n1", expires_at=1), again)
    assert home.bought.term.expires_ms == later * 1000, "paying never shortens it"


def test_more_time_of_what_is_not_there() -> None:
    home = Home()
    with pytest.raises(NotFound):
        home.buyer.refresh(SELLER, "n1", Sat(100))
    home.quoted()
    home.accept()
    with pytest.raises(FailedPrecondition, match="paying"):
        home.buyer.refresh(SELLER, "n1", Sat(100))
    with pytest.raises(InvalidArgument, match="hours"):
        home.buyer.request_quote(SELLER, 0)


def test_it_renews_itself_within_a_budget() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(250))
    expires_at = START_MS // 1000 + 3600
    for paid in (1, 2, 2):
        home.now_ms = (expires_at - 601) * 1000
        home.buyer.tick()
        before = len(home.out.letters)
        home.now_ms += 1000
        home.buyer.tick()
        home.buyer.tick()
        sent = home.out.letters[before:]
        assert len(sent) <= 1, "one at a time"
        if sent:
            expires_at += 3600
            home.get(Refresh(nonce="n1", expires_at=expires_at), sent[0].id)
        assert home.bought.renewals == paid * 100_000
    home.buyer.renew_itself(SELLER, "n1", Sat(250))
    home.buyer.tick()
    assert home.out.records.count("REFRESH_REQUEST") == 3


def test_what_renewals_did_not_cost_can_be_spent() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(100))
    home.now_ms += HOUR_MS - 1000
    home.buyer.tick()
    home.buyer.undelivered(home.last.id, "no route")
    assert (home.bought.renewals, home.bought.stage) == (0, Stage.ACTIVE)
    home.buyer.tick()
    assert home.get(Refused(reason="dearer now"), home.last.id, amount=97_000)
    assert (home.bought.renewals, home.bought.returned, home.bought.budget) == (3000, 97_000, 0)
    home.buyer.tick()
    assert home.out.records.count("REFRESH_REQUEST") == 2


def test_a_renewal_by_hand_is_none_of_the_budget() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(100))
    home.now_ms += HOUR_MS - 1000
    home.buyer.tick()
    assert home.get(Refresh(nonce="n1", expires_at=CONTRACT.expires_at + 1), home.last.id)
    by_hand = home.buyer.refresh(SELLER, "n1", Sat(100))
    home.buyer.tick()
    home.buyer.undelivered(by_hand, "no route")
    home.buyer.tick()
    assert (home.bought.renewals, home.out.records.count("REFRESH_REQUEST")) == (100_000, 2), "the budget is used"


def test_while_it_is_renewed_by_hand_it_does_not_renew_itself() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(100))
    home.now_ms += HOUR_MS - 1000
    by_hand = home.buyer.refresh(SELLER, "n1", Sat(100))
    home.buyer.tick()
    assert home.last.id == by_hand
    assert home.get(Refresh(nonce="n1", expires_at=CONTRACT.expires_at + 3600), by_hand)
    home.buyer.tick()
    assert home.last.id == by_hand, "and then there is time enough"


def test_what_comes_back_adds_up() -> None:
    home = Home()
    home.contracted()
    for _ in range(2):
        request = home.buyer.refresh(SELLER, "n1", Sat(99))
        assert home.get(Refused(reason="it costs 100"), request, amount=96_000)
    assert home.get(Expired(nonce="n1"), None, amount=50_000)
    assert home.bought.returned == 2 * 96_000 + 50_000


def test_the_seller_ends_it() -> None:
    home = Home()
    home.contracted()
    gone = Expired(nonce="n1", reason="moving house")
    assert not home.get(gone, None, sender=BEN)
    assert home.get(gone, None, amount=50_000)
    assert (home.bought.stage, home.bought.reason, home.bought.returned) == (Stage.OVER, "moving house", 50_000)
    assert not home.get(gone, None)


def test_it_ends_by_itself_and_is_kept_a_while() -> None:
    home = Home()
    home.contracted()
    home.now_ms += HOUR_MS
    home.buyer.tick()
    home.buyer.tick()
    assert [told.record for told in home.out.told] == ["CONTRACT", "EXPIRED"]
    assert home.buyer.refresh(SELLER, "n1", Sat(100)), "the seller may still be waiting"
    home.now_ms += KEPT_MS
    home.buyer.tick()
    assert home.bought.stage is Stage.OVER
