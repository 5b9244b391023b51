"""Each rule of buying once; what buyers and sellers do together is in test_life."""

from dataclasses import replace

import pytest
from tests.services.vpn.buyer import CONTRACT, KEY, QUOTE, Home
from tests.services.vpn.shop import HOUR_MS, SELLER, START_MS

from impervious.errors import FailedPrecondition, InvalidArgument, NotFound
from impervious.services.vpn.payloads import (
    ContractRequest,
    QuoteRequest,
    Refresh,
    RefreshRequest,
    Refused,
)
from impervious.services.vpn.purchase import ANSWER_MS, KEPT_MS, Stage
from impervious.units import Sat


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


def test_questions_and_renewals_without_an_answer() -> None:
    home = Home()
    home.contracted()
    home.buyer.renew_itself(SELLER, "n1", Sat(500))
    home.now_ms += HOUR_MS - 1000
    home.buyer.tick()
    assert home.out.records[-1] == "REFRESH_REQUEST"
    renewal, question = home.last.id, home.buyer.request_quote(SELLER)
    assert home.answers.arrived(renewal)
    assert home.answers.arrived(question)
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
    home.answers.undelivered(home.last.id, "no route")
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
    home.answers.undelivered(by_hand, "no route")
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
