"""Each rule of taking what sellers say; what buyers and sellers do together is in test_life."""

from dataclasses import replace
from uuid import UUID

import pytest
from tests.services.vpn.buyer import CONTRACT, QUOTE, Home
from tests.services.vpn.shop import BEN, HOUR_MS, SELLER, START_MS, incoming

from impervious.errors import FailedPrecondition
from impervious.model import MessageId
from impervious.services.vpn.payloads import (
    Contract,
    Expired,
    Quote,
    QuoteRequest,
    Refused,
)
from impervious.services.vpn.purchase import ANSWER_MS, Stage
from impervious.units import Sat


def test_what_did_not_arrive_can_be_tried_again() -> None:
    home = Home()
    home.quoted()
    request = home.accept()
    home.answers.undelivered(request, "no route")
    assert (home.bought.stage, home.bought.reason) == (Stage.FAILED, "no route")
    home.answers.undelivered(request, "said twice")
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
    assert home.answers.arrived(request)
    home.now_ms += ANSWER_MS - 1
    assert not home.answers.arrived(request), "it is said once"
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


def test_time_that_began_before_the_answer_came_counts_from_then(silent: tuple[Home, MessageId]) -> None:
    home, request = silent
    assert home.get(CONTRACT, request)
    assert home.bought.term is not None
    assert home.bought.term.span_ms == HOUR_MS


def test_an_answer_after_the_end_is_taken_and_can_be_renewed(silent: tuple[Home, MessageId]) -> None:
    home, request = silent
    home.now_ms = CONTRACT.expires_at * 1000 + 1
    assert home.get(CONTRACT, request)
    assert home.bought.stage is Stage.ACTIVE
    home.buyer.tick()
    assert [told.record for told in home.out.told[1:]] == ["CONTRACT", "EXPIRED"]
    assert home.buyer.refresh(SELLER, "n1", Sat(100))


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
    home.answers.undelivered(request, "no route")
    assert not home.answers.arrived(request)
    assert not home.answers.arrived(UUID(int=99)), "what is no request of ours"


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
    assert not home.answers.receive(incoming(SELLER, b"x", 1, reply_to=paid))
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


def test_a_wrong_amount_by_hand_does_not_stop_automatic_renewal() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(100))
    assert home.get(Refused(reason="it costs 100"), home.buyer.refresh(SELLER, "n1", Sat(99)), amount=96_000)
    assert home.bought.budget == 100_000
    assert home.get(Refused(reason="no more"), home.buyer.refresh(SELLER, "n1", Sat(100)), amount=97_000)
    assert home.bought.budget == 0


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
