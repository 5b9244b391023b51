"""Each rule of what a seller does with what it sold; what they do together is in test_life."""

from ipaddress import ip_address
from uuid import UUID

import pytest
from tests.services.vpn.seller import KEY, PRICE, House
from tests.services.vpn.shop import (
    FEE,
    GRACE_MS,
    HOUR_MS,
    SERVER_KEY,
    START_MS,
)

from impervious.errors import FailedPrecondition, NotFound
from impervious.services.vpn.contract import COOLING_MS, Phase
from impervious.services.vpn.payloads import (
    Contract,
    Expired,
    Refused,
)
from impervious.services.vpn.upkeep import SETUP_MS
from impervious.wireguard import Peer, PresharedKey, Transfer
from impervious.wireguard.peers import only


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
        house.upkeep.reconciled({KEY.public: peer}, {})
        assert house.books.contracts[quote.nonce].phase is Phase.PAID


def test_the_end_is_announced_then_comes_then_the_address_cools() -> None:
    house = House()
    contract = house.sell(25)
    said = []
    for hours in (0.5, 1, 12, 24, 24.9, 25):
        house.now_ms = START_MS + int(hours * HOUR_MS)
        house.upkeep.tick()
        house.upkeep.tick()
        said.append(house.told().record)
    assert said == ["CONTRACT", "EXPIRING", "EXPIRING", "EXPIRING", "EXPIRING", "EXPIRED"]
    assert [told.record for told in house.out.told].count("EXPIRING") == 3
    house.now_ms += GRACE_MS
    house.upkeep.tick()
    assert house.kept(contract).phase is Phase.ENDED
    assert KEY.public in house.upkeep.wanted().ours, "it is still to be removed"
    house.upkeep.reconciled(house.interface, {})
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
    house.upkeep.tick("wg hangs")
    assert house.out.records == ["QUOTE"]
    house.now_ms += 1
    house.upkeep.tick("wg hangs")
    letter = house.out.letters[-1]
    assert (letter.payload, letter.back) == (Refused(reason="wg hangs", nonce=nonce), PRICE - FEE)
    assert letter.reply_to == house.books.contracts[nonce].request
    assert sum(entry.sold for entry in house.books.entries) == 0
    assert house.upkeep.wanted().peers == []


@pytest.mark.parametrize(
    ("after_ms", "worth"), [(0, PRICE), (1000, 99_972), (HOUR_MS // 4, 75_000), (HOUR_MS, 0), (HOUR_MS + 1, 0)]
)
def test_an_early_end_gives_the_rest_back(after_ms: int, worth: int) -> None:
    house = House()
    contract = house.sell()
    house.now_ms += after_ms
    back = max(0, worth - FEE)
    assert house.upkeep.cancel(contract.nonce, "moving house", UUID(int=99)) == back
    letter = house.out.letters[-1]
    assert (letter.payload, letter.back, letter.owed) == (
        Expired(nonce=contract.nonce, reason="moving house"),
        back,
        True,
    )
    assert sum(entry.sold for entry in house.books.entries) == PRICE - worth
    assert house.upkeep.wanted().peers == []
    with pytest.raises(FailedPrecondition, match="is ended"):
        house.upkeep.cancel(contract.nonce, "again", UUID(int=100))


def test_a_contract_that_is_none_cannot_be_ended() -> None:
    with pytest.raises(NotFound):
        House().upkeep.cancel("nonce-1", "x", UUID(int=1))


def test_what_went_through_is_counted_over_restarts() -> None:
    house = House()
    contract = house.sell()
    for received in (500, 700, 100):
        transfer = Transfer(received_bytes=received, sent_bytes=2 * received)
        house.upkeep.reconciled(house.interface, {KEY.public: transfer})
    assert house.kept(contract).traffic.received_bytes == 800
    assert house.kept(contract).traffic.sent_bytes == 1600


def test_a_tunnel_is_suspended_at_its_very_end() -> None:
    house = House()
    contract = house.sell()
    house.now_ms += HOUR_MS - 1
    assert [each.address for each in house.upkeep.wanted().peers] == [contract.address]
    house.now_ms += 1
    assert [each.address for each in house.upkeep.wanted().peers] == [None]
