"""Each rule of selling once; what they do together is in test_life."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from uuid import UUID

import pytest
from tests.services.vpn.books import Out, SellerMemory
from tests.services.vpn.shop import (
    ANN,
    BEN,
    BIG_SHOP,
    FEE,
    GRACE_MS,
    HOUR_MS,
    SERVER_KEY,
    SHOP,
    START_MS,
    Numbered,
    incoming,
    private_key,
)

from impervious.errors import FailedPrecondition, NotFound
from impervious.services.vpn.contract import COOLING_MS, QUOTE_MS, Phase, Sold
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
    read,
    write,
)
from impervious.services.vpn.selling import MAX_OPEN_OFFERS, SETUP_MS, Closed, Seller, Shop
from impervious.services.vpn.told import Told
from impervious.wireguard import Peer, PresharedKey, PublicKey, Transfer
from impervious.wireguard.peers import only

KEY = private_key(7)
PRICE = 100_000


class House:
    """A seller whose interface does what it should."""

    def __init__(self, shop: Shop | Closed = SHOP) -> None:
        self.books = SellerMemory()
        self.out = Out()
        self.shop = shop
        self.now_ms = START_MS
        self.draw = Numbered().draw()
        self.interface: dict[PublicKey, Peer] = {}
        self.messages = 0

    @property
    def seller(self) -> Seller:
        return Seller(books=self.books, out=self.out, shop=self.shop, now_ms=self.now_ms, grace_ms=GRACE_MS, fee=FEE)

    def get(self, payload: Payload | bytes, amount: int = 1000, *, sender: object = ANN) -> tuple[Payload | None, int]:
        """Receive a message; give the answer, if any, and what it brings back, in msat."""
        self.messages += 1
        before = len(self.out.letters)
        message = incoming(ANN if sender is ANN else BEN, payload, amount, number=self.messages)
        self.seller.receive(message, self.interface, self.draw)
        new = self.out.letters[before:]
        assert len(new) <= 1
        assert all(letter.reply_to == message.id and letter.to == message.sender for letter in new)
        return (new[0].payload, new[0].back) if new else (None, 0)

    def quote(self, hours: int = 1, *, sender: object = ANN) -> Quote:
        quote, _ = self.get(QuoteRequest(hours=hours), sender=sender)
        assert isinstance(quote, Quote)
        return quote

    def accept(self, nonce: str, amount: int = PRICE, **changed: object) -> tuple[Payload | None, int]:
        request = ContractRequest(nonce=nonce, public_key=KEY.public.text, psk_wanted=True)
        return self.get(replace(request, **changed) if changed else request, amount)  # type: ignore[arg-type]

    def reconcile(self) -> None:
        wanted = self.seller.wanted()
        self.interface = {
            peer.key: Peer(allowed=only(peer.address), preshared_key=peer.preshared_key) for peer in wanted.peers
        }
        self.seller.reconciled(self.interface, {})

    def sell(self, hours: int = 1) -> Sold:
        quote = self.quote(hours)
        assert self.accept(quote.nonce, PRICE * hours) == (None, 0), "the answer waits for the peer"
        self.reconcile()
        contract = self.books.contracts[quote.nonce]
        assert contract.phase is Phase.ACTIVE
        return contract

    def told(self) -> Told:
        return self.out.told[-1]

    def kept(self, contract: Sold) -> Sold:
        return self.books.contracts[contract.nonce]


def refusal(answer: tuple[Payload | None, int]) -> tuple[str, int]:
    payload, back = answer
    assert isinstance(payload, Refused)
    return payload.reason, back


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


def test_the_answer_comes_when_the_tunnel_stands() -> None:
    house = House()
    contract = house.sell()
    letter = house.out.letters[-1]
    assert letter.payload == Contract(
        nonce="nonce-1",
        address="10.0.0.2",
        expires_at=(START_MS + HOUR_MS) // 1000,
        endpoint="203.0.113.1:51820",
        server_pub_key=SERVER_KEY.public.text,
        allowed_ips="0.0.0.0/0",
        dns="10.0.0.1",
        preshared_key=contract.preshared_key.text if contract.preshared_key else "",
    )
    assert letter.owed
    assert (house.told().record, house.told().facts["address"]) == ("CONTRACT", "10.0.0.2")
    assert contract.preshared_key is not None
    assert contract.preshared_key.text not in repr(house.told())


def test_time_begins_when_the_tunnel_stands() -> None:
    house = House()
    quote = house.quote()
    house.accept(quote.nonce)
    house.now_ms += 30_500
    house.reconcile()
    assert house.books.contracts[quote.nonce].term.expires_ms == START_MS + 31_000 + HOUR_MS
    house.reconcile()
    assert house.out.records == ["QUOTE", "CONTRACT"]


def test_a_peer_that_is_not_as_wanted_does_not_stand() -> None:
    house = House()
    quote = house.quote()
    house.accept(quote.nonce)
    for peer in (
        Peer(allowed=frozenset(), preshared_key=None),
        Peer(allowed=only(ip_address("10.0.0.2")), preshared_key=PresharedKey(b"\x05" * 32)),
    ):
        house.seller.reconciled({KEY.public: peer}, {})
        assert house.books.contracts[quote.nonce].phase is Phase.PAID


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
    house.seller.cancel(nonce, "no", UUID(int=99))
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


def test_the_end_is_announced_then_comes_then_the_address_cools() -> None:
    house = House()
    contract = house.sell(25)
    said = []
    for hours in (0.5, 1, 12, 24, 24.9, 25):
        house.now_ms = START_MS + int(hours * HOUR_MS)
        house.seller.tick()
        house.seller.tick()
        said.append(house.told().record)
    assert said == ["CONTRACT", "EXPIRING", "EXPIRING", "EXPIRING", "EXPIRING", "EXPIRED"]
    assert [told.record for told in house.out.told].count("EXPIRING") == 3
    house.now_ms += GRACE_MS
    house.seller.tick()
    assert house.kept(contract).phase is Phase.ENDED
    assert KEY.public in house.seller.wanted().ours, "it is still to be removed"
    house.seller.reconciled(house.interface, {})
    assert house.kept(contract).phase is Phase.ENDED, "it was seen"
    house.reconcile()
    assert house.kept(contract).phase is Phase.GONE
    house.quote()
    assert house.books.offers["nonce-2"].address != contract.address
    house.now_ms += COOLING_MS
    house.quote()
    assert house.books.offers["nonce-3"].address == contract.address


def test_a_tunnel_that_cannot_be_is_paid_back() -> None:
    house = House()
    nonce = house.quote().nonce
    house.accept(nonce)
    house.now_ms += SETUP_MS - 1
    house.seller.tick("wg hangs")
    assert house.out.records == ["QUOTE"]
    house.now_ms += 1
    house.seller.tick("wg hangs")
    letter = house.out.letters[-1]
    assert (letter.payload, letter.back) == (Refused(reason="wg hangs", nonce=nonce), PRICE - FEE)
    assert letter.reply_to == house.books.contracts[nonce].request
    assert sum(entry.sold for entry in house.books.entries) == 0
    assert house.seller.wanted().peers == []


@pytest.mark.parametrize(
    ("after_ms", "worth"), [(0, PRICE), (1000, 99_972), (HOUR_MS // 4, 75_000), (HOUR_MS, 0), (HOUR_MS + 1, 0)]
)
def test_an_early_end_gives_the_rest_back(after_ms: int, worth: int) -> None:
    house = House()
    contract = house.sell()
    house.now_ms += after_ms
    back = max(0, worth - FEE)
    assert house.seller.cancel(contract.nonce, "moving house", UUID(int=99)) == back
    letter = house.out.letters[-1]
    assert (letter.payload, letter.back, letter.owed) == (
        Expired(nonce=contract.nonce, reason="moving house"),
        back,
        True,
    )
    assert sum(entry.sold for entry in house.books.entries) == PRICE - worth
    assert house.seller.wanted().peers == []
    with pytest.raises(FailedPrecondition, match="is ended"):
        house.seller.cancel(contract.nonce, "again", UUID(int=100))


def test_a_contract_that_is_none_cannot_be_ended() -> None:
    with pytest.raises(NotFound):
        House().seller.cancel("nonce-1", "x", UUID(int=1))


def test_what_went_through_is_counted_over_restarts() -> None:
    house = House()
    contract = house.sell()
    for received in (500, 700, 100):
        transfer = Transfer(received_bytes=received, sent_bytes=2 * received)
        house.seller.reconciled(house.interface, {KEY.public: transfer})
    assert house.kept(contract).traffic.received_bytes == 800
    assert house.kept(contract).traffic.sent_bytes == 1600


@pytest.mark.parametrize("data", [b"", b"{}", b'{"recordId":"REFUSED","reason":"x"}', b'{"recordId":"NEW","nonce":1}'])
def test_what_asks_for_nothing_is_never_answered(data: bytes) -> None:
    house = House()
    assert house.get(data, PRICE) == (None, 0)
    assert house.books.entries == []


def test_a_malformed_request_is_told_what_is_wrong_and_paid_back() -> None:
    house = House()
    answer = house.get(b'{"recordId":"CONTRACT_REQUEST","nonce":5}', PRICE)
    assert refusal(answer) == ("CONTRACT_REQUEST: nonce is not of its type", PRICE - FEE)


def test_a_reason_of_several_lines_arrives_as_one() -> None:
    house = House()
    contract = house.sell()
    house.seller.cancel(contract.nonce, "wg:\n\x1b[31mno\n" + "x" * 5000, UUID(int=99))
    payload = house.out.letters[-1].payload
    assert isinstance(payload, Expired)
    assert payload.reason.startswith("wg:  [31mno ")
    assert read(write(payload)) == payload
