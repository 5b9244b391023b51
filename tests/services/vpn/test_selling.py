"""Each rule of selling once; what they do together is in test_life."""

from ipaddress import ip_address, ip_network
from uuid import UUID

import pytest
from tests.services.vpn.seller import KEY, PRICE, House, refusal
from tests.services.vpn.shop import (
    ANN,
    BEN,
    BIG_SHOP,
    FEE,
    GRACE_MS,
    HOUR_MS,
    SERVER_KEY,
    START_MS,
    private_key,
)

from impervious.services.vpn.contract import HOLD_MS, QUOTE_MS
from impervious.services.vpn.payloads import (
    ContractRequest,
    Quote,
    QuoteRequest,
    Refresh,
    RefreshRequest,
)
from impervious.services.vpn.sale import Closed
from impervious.services.vpn.selling import MAX_OPEN_OFFERS
from impervious.wireguard import Peer
from impervious.wireguard.peers import only


def test_a_quote_says_what_there_is_to_buy() -> None:
    house = House()
    assert house.quote(3) == Quote(
        nonce="nonce-1",
        price=300,
        hours=3,
        expires_at=(START_MS + QUOTE_MS) // 1000,
        endpoint="203.0.113.1:51820",
        server_pub_key=SERVER_KEY.public.text,
        allowed_ips="0.0.0.0/0",
        dns="10.0.0.1",
    )
    assert house.books.offers["nonce-1"].address == ip_address("10.0.0.2")
    assert not house.out.letters[0].owed


@pytest.mark.parametrize("hours", [0, 49])
def test_so_many_hours_are_not_sold(hours: int) -> None:
    assert refusal(House().get(QuoteRequest(hours=hours))) == ("hours must be from 1 to 48", 0)


def test_as_many_hours_as_may_be() -> None:
    assert House().quote(48).price == 4800


def test_nothing_is_sold() -> None:
    house = House(Closed("vpn.server_pub_key is not set"))
    assert refusal(house.get(QuoteRequest())) == ("vpn.server_pub_key is not set", 0)
    assert refusal(house.accept("nonce-1")) == ("vpn.server_pub_key is not set", PRICE - FEE)
    assert house.out.letters[-1].owed


def test_a_full_subnet_is_said_before_money_moves() -> None:
    house = House()
    for number in range(5):
        quote = house.quote(sender=ANN if number % 2 else BEN)
    reason, back = refusal(house.get(QuoteRequest()))
    assert "10.0.0.0/29 is full" in reason
    assert back == 0
    house.now_ms += QUOTE_MS
    assert house.quote().nonce != quote.nonce, "an offer that expired leaves its address"


def test_a_question_that_did_not_pay_for_its_answer_keeps_nothing() -> None:
    house = House()
    house.out.answering = False
    for number in range(20):
        assert house.get(QuoteRequest(), sender=ANN if number % 2 else BEN) == (None, 0)
    assert house.books.offers == {}
    assert house.out.told == []
    assert sum(entry.kept for entry in house.books.entries) == 20 * 1000
    house.out.answering = True
    assert house.quote()


def test_an_offer_gives_way_after_a_minute_where_there_is_no_other_address() -> None:
    house = House()
    quotes = [house.quote(sender=ANN if number % 2 else BEN) for number in range(5)]
    house.now_ms += HOLD_MS - 1
    assert "10.0.0.0/29 is full" in refusal(house.get(QuoteRequest()))[0]
    house.now_ms += 1
    again = house.quote()
    address = ip_address("10.0.0.2")
    assert house.books.offers[again.nonce].address == house.books.offers[quotes[0].nonce].address == address
    house.accept(again.nonce)
    assert house.books.contracts[again.nonce].address == address
    # The one that came first was quoted ten minutes: it gets another address for the same price.
    other = ContractRequest(nonce=quotes[0].nonce, public_key=private_key(8).public.text)
    assert house.get(other, PRICE, sender=BEN) == (None, 0)
    assert house.books.contracts[quotes[0].nonce].address == ip_address("10.0.0.3")


def test_who_finds_no_address_any_more_gets_the_money_back() -> None:
    house = House()
    first = [house.quote(sender=ANN if number % 2 else BEN) for number in range(5)]
    house.now_ms += HOLD_MS
    for number, quote in enumerate([*first, house.quote()]):
        sender = house.books.offers[quote.nonce].buyer
        request = ContractRequest(nonce=quote.nonce, public_key=private_key(20 + number).public.text)
        answer = house.get(request, PRICE, sender=sender)
        if number < 5:
            assert answer == (None, 0)
        else:
            reason, back = refusal(answer)
            assert "is full" in reason
            assert back == PRICE - FEE
    assert len({each.address for each in house.books.living()}) == 5


def test_one_buyer_cannot_keep_all_addresses() -> None:
    house = House(BIG_SHOP)
    for _ in range(MAX_OPEN_OFFERS):
        house.quote()
    assert refusal(house.get(QuoteRequest()))[0].startswith("you have 3 open quotes")
    assert house.quote(sender=BEN)


def test_what_others_have_is_not_sold() -> None:
    house = House()
    stranger = Peer(allowed=frozenset({ip_network("10.0.0.2/31")}), preshared_key=None)
    house.interface = {private_key(9).public: stranger}
    house.quote()
    assert house.books.offers["nonce-1"].address == ip_address("10.0.0.4")


def test_a_stolen_nonce_buys_nothing_and_the_money_goes_to_the_thief() -> None:
    house = House()
    nonce = house.quote().nonce
    request = ContractRequest(nonce=nonce, public_key=KEY.public.text)
    reason, back = refusal(house.get(request, PRICE, sender=BEN))
    assert (reason, back) == ("this quote is not yours: ask for one", PRICE - FEE)
    assert house.out.letters[-1].to == BEN
    house.accept(nonce)
    assert refusal(house.get(request, PRICE, sender=BEN))[0] == "this quote is not yours: ask for one"
    assert house.books.contracts[nonce].buyer == ANN


@pytest.mark.parametrize("amount", [PRICE - 1, PRICE + 1, 2 * PRICE])
def test_a_wrong_amount_goes_back_and_the_quote_stays(amount: int) -> None:
    house = House()
    nonce = house.quote().nonce
    reason, back = refusal(house.accept(nonce, amount))
    assert (reason, back) == (f"{amount} msat were paid, and the quote says {PRICE}", amount - FEE)
    assert house.accept(nonce) == (None, 0)


def test_a_quote_that_expired() -> None:
    house = House()
    nonce = house.quote().nonce
    house.now_ms += QUOTE_MS
    assert refusal(house.accept(nonce)) == ("the quote has expired: ask for another", PRICE - FEE)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (SERVER_KEY.public.text, "the public key is the server's own"),
        ("A" * 43 + "=", "the public key is a point of low order"),
        ("nonsense", "the public key is not"),
        (private_key(9).public.text, "the public key is in use by another tunnel"),
    ],
)
def test_a_key_that_cannot_be(key: str, reason: str) -> None:
    house = House()
    house.interface = {private_key(9).public: Peer(allowed=frozenset(), preshared_key=None)}
    said, back = refusal(house.accept(house.quote().nonce, public_key=key))
    assert said.startswith(reason)
    assert back == PRICE - FEE


def test_a_key_that_waits_to_be_programmed_is_in_use() -> None:
    house = House()
    house.accept(house.quote().nonce)
    assert refusal(house.accept(house.quote().nonce))[0].startswith("the public key is in use")


def test_the_same_request_again_gets_the_same_answer_and_its_money_back() -> None:
    house = House()
    contract = house.sell()
    first = house.out.letters[-1].payload
    assert house.accept(contract.nonce) == (first, PRICE - FEE)
    assert house.accept(contract.nonce, 1000) == (first, 0)
    assert not house.out.letters[-1].owed, "who asks for nothing but another copy gets it by courtesy"
    assert sum(entry.sold for entry in house.books.entries) == PRICE
    other = house.accept(contract.nonce, public_key=private_key(8).public.text)
    assert refusal(other) == ("this quote was accepted with another key: ask for one for each", PRICE - FEE)


def test_the_same_request_before_the_answer_and_after_the_end() -> None:
    house = House()
    nonce = house.quote().nonce
    house.accept(nonce)
    assert "on the way" in refusal(house.accept(nonce))[0]
    house.upkeep.cancel(nonce, "no", UUID(int=99))
    assert "is over" in refusal(house.accept(nonce))[0]


def test_more_time_comes_after_what_is_left() -> None:
    house = House()
    contract = house.sell(2)
    house.now_ms += HOUR_MS
    answer, back = house.get(RefreshRequest(nonce=contract.nonce), 2 * PRICE)
    assert (answer, back) == (Refresh(nonce=contract.nonce, expires_at=START_MS // 1000 + 4 * 3600), 0)
    assert house.out.letters[-1].owed
    assert house.kept(contract).wanted(house.now_ms) == contract.wanted(house.now_ms), "the peer is not touched"


def test_more_time_within_the_time_of_grace_counts_from_now() -> None:
    house = House()
    contract = house.sell()
    house.now_ms += HOUR_MS + GRACE_MS - 1
    house.reconcile()
    assert house.interface[KEY.public].allowed == frozenset(), "suspended"
    answer, _ = house.get(RefreshRequest(nonce=contract.nonce), PRICE)
    assert answer == Refresh(nonce=contract.nonce, expires_at=-(-house.now_ms // 1000) + 3600)
    house.reconcile()
    assert house.interface[KEY.public].allowed == only(contract.address)


@pytest.mark.parametrize(
    ("amount", "after_ms", "sender", "reason"),
    [
        (PRICE - 1, 0, ANN, "99999 msat were paid, and this contract costs 100000"),
        (2 * PRICE, 0, ANN, "200000 msat were paid, and this contract costs 100000"),
        (PRICE, HOUR_MS + GRACE_MS, ANN, "this contract is over: ask for a quote"),
        (PRICE, 0, BEN, "this contract is not yours: ask for a quote"),
    ],
)
def test_more_time_that_is_not_sold(amount: int, after_ms: int, sender: object, reason: str) -> None:
    house = House()
    contract = house.sell()
    house.now_ms += after_ms
    assert refusal(house.get(RefreshRequest(nonce=contract.nonce), amount, sender=sender)) == (reason, amount - FEE)
    assert house.kept(contract) == contract


@pytest.mark.parametrize("data", [b"", b"{}", b'{"recordId":"REFUSED","reason":"x"}', b'{"recordId":"NEW","nonce":1}'])
def test_what_asks_for_nothing_is_never_answered(data: bytes) -> None:
    house = House()
    assert house.get(data, PRICE) == (None, 0)
    assert house.books.entries == []


def test_a_malformed_request_is_told_what_is_wrong_and_paid_back() -> None:
    house = House()
    answer = house.get(b'{"recordId":"CONTRACT_REQUEST","nonce":5}', PRICE)
    assert refusal(answer) == ("CONTRACT_REQUEST: nonce is not of its type", PRICE - FEE)
