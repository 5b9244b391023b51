"""Tunnels sold over the simulated network: the whole way, crashes between its steps, thieves, and what comes back."""

import json
from collections.abc import Collection
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from tests.conftest import Wall
from tests.services.vpn.house import answer, bought, house, key, quoted, told, vpn
from tests.services.vpn.shop import private_key
from tests.walks import detail, everything
from trio.testing import MockClock

from impervious.config import Config
from impervious.errors import (
    AlreadyExists,
    ConfigError,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    WireGuardNoInterface,
    WireGuardStuck,
)
from impervious.model import NodePubkey
from impervious.service import ServiceTx, VerifiedMessage
from impervious.services.vpn.contract import Phase, Sold
from impervious.services.vpn.payloads import ContractRequest, Expired, Refused, write
from impervious.services.vpn.purchase import ANSWER_MS, Bought, Stage
from impervious.services.vpn.seller_books import SqlSellerBooks
from impervious.services.vpn.service import SILENT
from impervious.services.vpn.shop import NOT_SELLING
from impervious.supervisor import Node
from impervious.units import Msat, Sat
from impervious.wireguard import WantedPeer

DELIVERED = "SELECT count(*) FROM outbound WHERE state = ?"


async def stuck(peers: Collection[WantedPeer]) -> None:
    """A `wg` that hangs when there is something to add."""
    await trio.sleep(10 if peers else 0)
    if peers:
        raise WireGuardStuck("wg gave no answer")


async def test_a_tunnel_is_bought(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, event = await bought(alice, await key(carol))
        assert (quote["recordId"], quote["price"], quote["hours"]) == ("QUOTE", 100, 1)
        contract = detail(event)
        assert (contract["recordId"], contract["role"]) == ("CONTRACT", "buyer")
        assert contract["address"] == "10.0.0.2"
        assert contract["command"] == f"impervious vpn config {quote['nonce']}"
        assert not {"preshared_key", "config"} & set(contract)
        text = await vpn(alice).config(quote["nonce"])
        assert event.secret is not None
        assert json.loads(event.secret)["config"] == text
        assert "Address = 10.0.0.2/32" in text
        [sold] = await vpn(carol).sold()
        assert (sold.phase, sold.price, str(sold.address)) == (Phase.ACTIVE, Msat(100_000), "10.0.0.2")
        assert sold.preshared_key is not None
        assert sold.preshared_key.text in text
        assert list(here.wireguard.snapshot()) == [sold.key]
        [have] = await vpn(alice).bought()
        assert (have.stage, have.private_key.public) == (Stage.ACTIVE, sold.key)
        assert [each["role"] for each in await told(carol, "CONTRACT")] == ["seller"]
        assert sold.preshared_key.text not in repr(await told(carol, "CONTRACT"))


async def settle(seconds: float = 30) -> None:
    """Let everything under way arrive."""
    await trio.sleep(seconds)


async def ledger(node: Node) -> tuple[int, int, int, int]:
    """Sum a seller's accounts: received, sold, refunded, kept."""
    row = await vpn(node).context.read(
        lambda tx: tx.one(
            "SELECT sum(received_msat), sum(sold_msat), sum(refunded_msat), sum(kept_msat) FROM vpn_entry"
        )
    )
    assert row is not None
    return row


async def counter(node: Node, name: str) -> int:
    row = await vpn(node).context.read(lambda tx: tx.one("SELECT value FROM counter WHERE name = ?", name))
    return row[0] if row else 0


async def test_time_is_added_announced_suspended_and_over(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, event = await bought(alice, await key(carol))
        [peer] = here.wireguard.snapshot()
        request = await vpn(alice).refresh(await key(carol), quote["nonce"], Sat(100))
        refreshed = detail(await answer(alice, request))
        assert refreshed["recordId"] == "REFRESH"
        assert refreshed["expires_at"] == detail(event)["expires_at"] + 3600
        assert [what for what, _ in here.wireguard.changes] == ["add"], "a renewal does not touch the peer"
        await trio.sleep(6600)
        for node in (alice, carol):
            assert [each["expires_at"] for each in await told(node, "EXPIRING")] == [refreshed["expires_at"]]
            assert await told(node, "EXPIRED") == []
        await trio.sleep(600)
        assert here.wireguard.snapshot()[peer].allowed == frozenset(), "suspended, and still a peer"
        assert len(await told(alice, "EXPIRED")) == len(await told(carol, "EXPIRED")) == 1
        await trio.sleep(660)
        assert here.wireguard.snapshot() == {}
        [sold] = await vpn(carol).sold()
        assert (sold.phase, sold.reason) == (Phase.GONE, "its time is over")
        received, sales, refunded, _ = await ledger(carol)
        assert (sales, refunded) == (200_000, 0)
        assert received >= sales


async def test_within_its_grace_a_tunnel_is_restored(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, event = await bought(alice, await key(carol))
        [peer] = here.wireguard.snapshot()
        before = here.wireguard.snapshot()
        await trio.sleep(3700)
        assert here.wireguard.snapshot()[peer].allowed == frozenset()
        request = await vpn(alice).refresh(await key(carol), quote["nonce"], Sat(100))
        refreshed = detail(await answer(alice, request))
        assert refreshed["expires_at"] > detail(event)["expires_at"] + 3600 + 60, "time begins anew"
        await settle()
        assert here.wireguard.snapshot() == before


async def test_a_tunnel_renews_itself_within_its_budget(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote = await quoted(alice, await key(carol))
        request = await vpn(alice).accept(await key(carol), quote["nonce"], Sat(100), renewals=Sat(250))
        end = detail(await answer(alice, request))["expires_at"]
        await trio.sleep(3600 * 4)
        [have] = await vpn(alice).bought()
        assert (have.renewals, have.budget) == (Msat(200_000), Msat(250_000))
        assert have.term is not None
        assert have.term.expires_ms == (end + 7200) * 1000
        assert [each["expires_at"] for each in await told(carol, "REFRESH")] == [end + 3600, end + 7200]
        assert here.wireguard.snapshot() == {}


async def test_a_quote_that_costs_too_much_sends_nothing(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote = await quoted(alice, await key(carol), 5)
        assert (quote["hours"], quote["price"]) == (5, 500)
        with pytest.raises(FailedPrecondition, match="500 sat, more than 499: nothing was paid"):
            await vpn(alice).accept(await key(carol), quote["nonce"], Sat(499))
        await settle()
        assert await told(carol, "CONTRACT_REQUEST") == []


async def test_a_full_subnet_refuses_before_money_moves(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, subnet="10.0.0.0/30") as here, here.seller() as carol:
        async with here.buyer() as alice, here.buyer("bob") as bob:
            await bought(alice, await key(carol))
            refused = await quoted(bob, await key(carol))
            assert refused["recordId"] == "REFUSED"
            assert "10.0.0.0/30 is full: all 1 addresses are in use" in refused["reason"]
            assert len(await vpn(carol).sold()) == 1


async def test_a_thief_gets_nothing_but_the_money_back(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol:
        async with here.buyer() as alice, here.buyer("bob") as bob:
            quote = await quoted(alice, await key(carol))
            stolen = ContractRequest(nonce=quote["nonce"], public_key=private_key(9).public.text)
            await vpn(bob).context.send(await key(carol), write(stolen), amount=Msat(100_000))
            await settle()
            [refused] = await told(carol, "REFUSED")
            assert (refused["peer"], refused["refunded_msat"]) == ((await key(bob)).hex, 97_000)
            assert refused["reason"] == "this quote is not yours: ask for one"
            assert await counter(bob, "dropped_messages") == 1, "the refund is no answer to what bob's node asked"
            assert here.wireguard.snapshot() == {}
            request = await vpn(alice).accept(await key(carol), quote["nonce"], Sat(100))
            assert detail(await answer(alice, request))["recordId"] == "CONTRACT"


@pytest.mark.parametrize("amount", [99_000, 100_001, 250_000])
async def test_any_other_amount_comes_back(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, amount: int
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote = await quoted(alice, await key(carol))
        request = ContractRequest(nonce=quote["nonce"], public_key=private_key(9).public.text)
        await vpn(alice).context.send(await key(carol), write(request), amount=Msat(amount))
        await settle()
        [refused] = await told(carol, "REFUSED")
        assert refused["refunded_msat"] == amount - 3000
        received, sales, refunded, kept = await ledger(carol)
        assert (sales, refunded) == (0, amount - 3000)
        assert received == sales + refunded + kept
        assert await vpn(carol).sold() == []
        assert await vpn(carol).context.read(lambda tx: tx.one(DELIVERED, "delivered")) == (2,), "quote and refund"


async def test_a_wrong_renewal_comes_back_and_both_sides_say_so(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, _ = await bought(alice, await key(carol))
        event = await answer(alice, await vpn(alice).refresh(await key(carol), quote["nonce"], Sat(101)))
        assert (detail(event)["recordId"], event.amount) == ("REFUSED", Msat(98_000))
        assert "this contract costs 100000" in detail(event)["reason"]
        [have] = await vpn(alice).bought()
        assert (have.stage, have.returned) == (Stage.ACTIVE, Msat(98_000))
        assert len(await told(carol, "REFUSED")) == 1


async def test_the_same_request_again_is_answered_again_and_its_money_comes_back(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, _ = await bought(alice, await key(carol))
        assert await vpn(alice).accept(await key(carol), quote["nonce"], Sat(100)), "nothing is sent again"
        await settle()
        assert len(await told(carol, "CONTRACT_REQUEST")) == 1
        [have] = await vpn(alice).bought()
        again = ContractRequest(nonce=quote["nonce"], public_key=have.private_key.public.text, psk_wanted=True)
        await vpn(alice).context.send(await key(carol), write(again), amount=Msat(100_000))
        await settle()
        assert (await ledger(carol))[1:3] == (100_000, 97_000)
        assert len(await vpn(carol).sold()) == 1


async def test_the_seller_stops_between_payment_and_peer(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.buyer() as alice:
        with monkeypatch.context() as patch:
            patch.setattr(here.wireguard, "add", stuck)
            async with here.seller() as carol:
                seller = await key(carol)
                quote = await quoted(alice, seller)
                request = await vpn(alice).accept(seller, quote["nonce"], Sat(100), wait=True)
                await settle(10)
                assert [each.phase for each in await vpn(carol).sold()] == [Phase.PAID]
                assert here.wireguard.snapshot() == {}
        async with here.seller() as carol:
            contract = detail(await answer(alice, request))
            assert contract["recordId"] == "CONTRACT"
            [sold] = await vpn(carol).sold()
            assert list(here.wireguard.snapshot()) == [sold.key]
            assert (await ledger(carol))[1:3] == (100_000, 0), "no second charge"
            assert sold.term.expires_ms == contract["expires_at"] * 1000


async def test_a_seller_that_does_not_answer_is_told_of_and_its_late_answer_taken(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.buyer() as alice:
        with monkeypatch.context() as patch:
            patch.setattr(here.wireguard, "add", stuck)
            async with here.seller() as carol:
                seller = await key(carol)
                quote = await quoted(alice, seller)
                request = await vpn(alice).accept(seller, quote["nonce"], Sat(100), wait=True)
                await settle(10)
        await trio.sleep(ANSWER_MS / 1000 - 11)
        assert [each.stage for each in await vpn(alice).bought()] == [Stage.PAYING]
        await trio.sleep(2)
        assert [each.stage for each in await vpn(alice).bought()] == [Stage.UNANSWERED]
        [said] = await told(alice, "UNANSWERED")
        assert (said["nonce"], said["question"], said["peer"]) == (quote["nonce"], "contract", seller.hex)
        assert await vpn(alice).accept(seller, quote["nonce"], Sat(100), wait=True) == request
        with pytest.raises(FailedPrecondition, match="unanswered and has no tunnel: it arrived, and 10 minutes later"):
            await vpn(alice).config(quote["nonce"])
        async with here.seller() as carol:
            assert detail(await answer(alice, request))["recordId"] == "CONTRACT"
            assert "PrivateKey" in await vpn(alice).config(quote["nonce"])
            assert len(await told(carol, "CONTRACT_REQUEST")) == 1
            assert (await ledger(carol))[1:3] == (100_000, 0)


async def test_a_payment_that_fails_ends_it_at_once_and_it_can_be_tried_again(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        seller = await key(carol)
        quote = await quoted(alice, seller)
        there = here.where.network.lnd("carol")
        there.set_accepts_keysend(False)
        failed = await vpn(alice).accept(seller, quote["nonce"], Sat(100))
        await settle(5)
        [have] = await vpn(alice).bought()
        assert have.stage is Stage.FAILED
        assert "accept-keysend" in have.reason
        there.set_accepts_keysend(True)
        request = await vpn(alice).accept(seller, quote["nonce"], Sat(100))
        assert request != failed
        assert detail(await answer(alice, request))["recordId"] == "CONTRACT"
        assert (await ledger(carol))[1:3] == (100_000, 0)


async def test_an_interface_that_stays_away_gives_the_money_back(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        monkeypatch.setattr(here.wireguard, "add", stuck)
        quote, event = await bought(alice, await key(carol))
        assert (detail(event)["recordId"], event.amount) == ("REFUSED", Msat(97_000))
        [have] = await vpn(alice).bought()
        assert (have.stage, have.returned) == (Stage.REFUSED, Msat(97_000))
        await settle(120)
        [sold] = await vpn(carol).sold()
        assert sold.phase is Phase.GONE
        assert (await ledger(carol))[1:3] == (0, 97_000)
        with pytest.raises(FailedPrecondition, match="refused and has no tunnel: the tunnel could not be set up"):
            await vpn(alice).config(quote["nonce"])


async def test_without_an_interface_nothing_is_quoted(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        here.wireguard.broken = WireGuardNoInterface("there is no wg0: secret details of this machine")
        refused = await quoted(alice, await key(carol))
        assert (refused["recordId"], refused["reason"]) == ("REFUSED", SILENT)
        here.wireguard.broken = None
        assert (await quoted(alice, await key(carol)))["recordId"] == "QUOTE"


async def test_a_node_that_sells_nothing_says_so(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, server_pub_key=None) as here, here.seller() as carol:
        async with here.buyer() as alice:
            assert (await quoted(alice, await key(carol)))["reason"] == NOT_SELLING
            assert here.wireguard.changes == []


async def test_the_buyer_stops_between_payment_and_answer(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol:
        seller = await key(carol)
        async with here.buyer() as alice:
            quote = await quoted(alice, seller)
            request = await vpn(alice).accept(seller, quote["nonce"], Sat(100), wait=True)
        await settle(3600 / 4)
        async with here.buyer() as alice:
            assert detail(await answer(alice, request, seconds=3600))["recordId"] == "CONTRACT"
            assert "PrivateKey" in await vpn(alice).config(quote["nonce"])
            [have] = await vpn(alice).bought()
            assert list(here.wireguard.snapshot()) == [have.private_key.public]


async def test_the_seller_ends_it_early_and_gives_the_rest_back(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, _ = await bought(alice, await key(carol))
        await trio.sleep(1800)
        back = await vpn(carol).cancel(quote["nonce"], "moving house")
        assert 46_000 <= back <= 47_000, "half of the price, less the fee"
        await settle()
        [ended] = await told(alice, "EXPIRED")
        assert ended["reason"] == "moving house"
        [have] = await vpn(alice).bought()
        assert (have.stage, have.returned, have.reason) == (Stage.OVER, back, "moving house")
        assert here.wireguard.snapshot() == {}
        with pytest.raises(FailedPrecondition):
            await vpn(carol).cancel(quote["nonce"])
        received, sales, refunded, kept = await ledger(carol)
        assert refunded == back
        assert received == sales + refunded + kept


async def test_who_gets_nothing_back_is_told_too(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, _ = await bought(alice, await key(carol))
        await trio.sleep(3550)
        assert await vpn(carol).cancel(quote["nonce"], "moving house") == 0
        await settle()
        [ended] = await told(alice, "EXPIRED")
        assert ended["reason"] == "moving house"
        assert [each.stage for each in await vpn(alice).bought()] == [Stage.OVER]


async def test_answers_that_nobody_asked_for_are_dropped(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        for payload in (write(Refused(reason="pay me")), write(Expired(nonce="n")), b"not JSON"):
            await vpn(alice).context.send(await key(carol), payload)
        await settle()
        assert await counter(carol, "dropped_messages") == 3
        assert [each for each in await everything(carol) if each.service_type == "vpn"] == []


async def test_a_request_that_makes_no_sense_is_refused_and_refunded(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        await vpn(alice).context.send(await key(carol), b'{"recordId":"CONTRACT_REQUEST"}', amount=Msat(50_000))
        await settle()
        [refused] = await told(carol, "REFUSED")
        assert refused["refunded_msat"] == 47_000


async def test_traffic_is_accounted_for(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        await bought(alice, await key(carol))
        [peer] = here.wireguard.snapshot()
        here.wireguard.exchange(peer, received_bytes=1000, sent_bytes=5000, handshake_s=1)
        await trio.sleep(61)
        [sold] = await vpn(carol).sold()
        assert (sold.traffic.received_bytes, sold.traffic.sent_bytes) == (1000, 5000)


async def test_a_refresh_with_a_key_is_paid_once(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, _ = await bought(alice, await key(carol))
        seller = await key(carol)
        first = await vpn(alice).refresh(seller, quote["nonce"], Sat(100), idempotency_key="k", wait=True)
        assert await vpn(alice).refresh(seller, quote["nonce"], Sat(100), idempotency_key="k", wait=True) == first
        with pytest.raises(AlreadyExists):
            await vpn(alice).refresh(seller, quote["nonce"], Sat(101), idempotency_key="k")
        await settle()
        assert len(await told(carol, "REFRESH_REQUEST")) == 1


async def test_contracts_are_found_by_name(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here, here.seller() as carol, here.buyer() as alice:
        quote, _ = await bought(alice, await key(carol))
        nonce = quote["nonce"]
        assert isinstance(await vpn(carol).contract(nonce), Sold)
        assert isinstance(await vpn(alice).contract(nonce, await key(carol)), Bought)
        with pytest.raises(NotFound, match="there is no contract"):
            await vpn(alice).contract(nonce, await key(alice))
        with pytest.raises(NotFound, match="only its buyer has the configuration"):
            await vpn(carol).config(nonce)


async def test_what_is_too_little_to_be_sent_back_stays(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here:
        here.base = replace(Config(), message=replace(Config().message, min_amount_sat=Sat(20)))
        async with here.seller() as carol, here.buyer() as alice:
            for amount in (50_000, 80_000):
                request = ContractRequest(nonce="none", public_key=private_key(9).public.text)
                await vpn(alice).context.send(await key(carol), write(request), amount=Msat(amount))
            await settle()
            assert [each["refunded_msat"] for each in await told(carol, "REFUSED")] == [0, 77_000]
            assert await ledger(carol) == (130_000, 0, 77_000, 53_000)


@pytest.mark.parametrize(("price", "works"), [(6, True), (5, False)])
async def test_a_price_that_pays_for_no_answer_is_a_mistake(
    tmp_path: Path,
    wall: Wall,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    price: int,
    works: bool,
) -> None:
    async with house(tmp_path, wall, monkeypatch, price_sat=Sat(price)) as here:
        if works:
            async with here.seller() as carol, here.buyer() as alice:
                _, event = await bought(alice, await key(carol))
                assert detail(event)["recordId"] == "CONTRACT"
            return
        with pytest.raises(ConfigError, match="make it at least 6"):
            async with here.seller():
                raise AssertionError


@pytest.mark.slow
async def test_a_full_house_is_set_up_again_at_once(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, subnet="10.0.0.0/24") as here:
        async with here.seller() as carol, here.buyer() as alice:
            await bought(alice, await key(carol))
            [first] = await vpn(carol).sold()

            def fill(tx: ServiceTx) -> None:
                for number in range(3, 252):
                    address = ip_address("10.0.0.0") + number
                    other = replace(first, nonce=f"n{number}", key=private_key(number << 16).public, address=address)
                    SqlSellerBooks(tx).keep_sold(other)

            await vpn(carol).context.transaction(fill)
        here.wireguard.make_again()
        here.wireguard.changes.clear()
        async with here.seller():
            await settle(1)
            assert len(here.wireguard.snapshot()) == 250
            assert [(what, len(keys)) for what, keys in here.wireguard.changes] == [("add", 250)]


def stranger(number: int) -> NodePubkey:
    return NodePubkey(b"\x02" + number.to_bytes(32, "big"))


async def hears(node: Node, sender: NodePubkey, data: bytes, amount: int) -> None:
    """Have a node deal with a message of anybody's, as if it had just come."""
    message = VerifiedMessage(
        seq=0, id=uuid4(), sender=sender, reply_to=None, data=data, amount=Msat(amount), sent_at_ms=0
    )
    effect = await vpn(node).handle(message)
    assert effect is not None
    await vpn(node).context.transaction(effect)


async def owed(node: Node) -> tuple[int, int, int]:
    """Count what a node owes, and sum what it gives back, and what sending that may cost."""
    row = await vpn(node).context.read(
        lambda tx: tx.one(
            "SELECT count(*), sum(part.amount_msat), sum(part.fee_limit_msat) FROM part"
            " JOIN outbound ON outbound.id = message_id WHERE deadline_ms IS NULL"
        )
    )
    assert row is not None
    return row


async def test_strangers_whose_money_goes_back_leave_the_budget_alone(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, server_pub_key=None) as here, here.seller() as carol:
        request = write(ContractRequest(nonce="none", public_key=private_key(9).public.text))
        for number in range(1, 101):
            await hears(carol, stranger(number), request, 100_000_000)
        assert await owed(carol) == (100, 100 * 99_997_000, 100 * 3_000)
        spend = vpn(carol).context.transaction
        limit = Config().lightning.daily_limit_sat * 1000
        assert await spend(lambda tx: tx.reserve(Msat(limit))), "all of it is there for the node's own calls"


async def test_a_refund_that_arrived_was_no_spending_either(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, server_pub_key=None) as here, here.seller() as carol:
        async with here.buyer() as alice:
            request = write(ContractRequest(nonce="none", public_key=private_key(9).public.text))
            await vpn(alice).context.send(await key(carol), request, amount=Msat(50_000_000))
            await settle()
            assert await vpn(carol).context.read(lambda tx: tx.one(DELIVERED, "delivered")) == (1,)
            assert (await told(carol, "REFUSED"))[0]["refunded_msat"] == 49_997_000
        limit = Config().lightning.daily_limit_sat * 1000
        assert await vpn(carol).context.transaction(lambda tx: tx.reserve(Msat(limit)))


async def test_what_is_sold_pays_for_its_own_answers(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch) as here:
        here.base = replace(Config(), lightning=replace(Config().lightning, daily_limit_sat=Sat(0)))
        async with here.seller() as carol, here.buyer() as alice:
            quote, event = await bought(alice, await key(carol))
            assert detail(event)["recordId"] == "CONTRACT"
            request = await vpn(alice).refresh(await key(carol), quote["nonce"], Sat(100))
            assert detail(await answer(alice, request))["recordId"] == "REFRESH"
            assert await vpn(carol).cancel(quote["nonce"]) > 100_000
            await settle()
            assert len(await told(alice, "EXPIRED")) == 1
            with pytest.raises(ResourceExhausted):
                await vpn(carol).context.transaction(lambda tx: tx.reserve(Msat(1)))


WIDE = "\U0001f600" * 2048
NONSENSE = [
    {"recordId": "CONTRACT_REQUEST", "nonce": WIDE, "public_key": "k"},
    {"recordId": "CONTRACT_REQUEST", "nonce": "n", "public_key": WIDE},
    {"recordId": "CONTRACT_REQUEST", "nonce": "n" * 65, "public_key": "k"},
    {"recordId": "CONTRACT_REQUEST", "nonce": "", "public_key": "k"},
    {"recordId": "CONTRACT_REQUEST", "nonce": '"' * 64, "public_key": "k"},
    {"recordId": "CONTRACT_REQUEST", "nonce": "n", "public_key": "k", "psk_wanted": WIDE},
    {"recordId": "REFRESH_REQUEST", "nonce": WIDE},
    {"recordId": "REFRESH_REQUEST", "nonce": "n", WIDE: WIDE},
    {"recordId": "QUOTE_REQUEST", "hours": 2**53},
    {"recordId": "QUOTE_REQUEST", "hours": WIDE},
]


@pytest.mark.parametrize("selling", [True, False])
async def test_whatever_a_request_says_its_refusal_is_one_part_and_its_money_goes_back(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, selling: bool
) -> None:
    settings: dict[str, object] = {} if selling else {"server_pub_key": None}
    async with house(tmp_path, wall, monkeypatch, **settings) as here:
        here.base = replace(Config(), message=replace(Config().message, part_bytes=200))
        async with here.seller() as carol:
            for number, request in enumerate(NONSENSE, 1):
                await hears(carol, stranger(number), json.dumps(request).encode(), 50_000)
            assert await owed(carol) == (len(NONSENSE), 47_000 * len(NONSENSE), 3_000 * len(NONSENSE))
            assert [each["refunded_msat"] for each in await told(carol, "REFUSED")] == [47_000] * len(NONSENSE)


async def test_questions_of_strangers_that_pay_for_no_answer_keep_no_address(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, subnet="10.0.0.0/24") as here, here.seller() as carol:
        looks = here.wireguard.looks
        for number in range(1, 301):
            await hears(carol, stranger(number), b'{"recordId":"QUOTE_REQUEST"}', 1_000)
        assert await vpn(carol).context.read(lambda tx: SqlSellerBooks(tx).open_offers(tx.now_ms)) == []
        assert here.wireguard.looks == looks, "no look at the interface is worth it"
        async with here.buyer() as alice:
            assert (await quoted(alice, await key(carol)))["recordId"] == "QUOTE"


async def test_questions_of_strangers_that_paid_keep_no_buyer_away(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, wall, monkeypatch, subnet="10.0.0.0/24") as here, here.seller() as carol:
        for number in range(1, 254):
            await hears(carol, stranger(number), b'{"recordId":"QUOTE_REQUEST"}', 2_000)
        assert await counter(carol, "refused_answers") == 0
        await settle(60)
        async with here.buyer() as alice:
            _, event = await bought(alice, await key(carol))
            assert detail(event)["recordId"] == "CONTRACT"


async def test_a_refund_that_cannot_arrive_is_told_of_and_arrives_after_the_next_start(
    tmp_path: Path,
    wall: Wall,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house(tmp_path, wall, monkeypatch, server_pub_key=None) as here, here.buyer() as alice:
        async with here.seller() as carol:
            buyer = await key(alice)
            here.where.network.lnd("alice").set_accepts_keysend(False)
            request = write(ContractRequest(nonce="none", public_key=private_key(9).public.text))
            await hears(carol, buyer, request, 50_000)
            await settle()
            ends = [detail(event) for event in await everything(carol) if event.service_type == "status"]
            assert [(each["state"], "next_try_ms" in each) for each in ends] == [("failed", True)]
            assert f"vpn owes {buyer} a message of 47000 msat" in caplog.text
        here.where.network.lnd("alice").set_accepts_keysend(True)
        async with here.seller() as carol:
            await settle()
            assert await vpn(carol).context.read(lambda tx: tx.one(DELIVERED, "delivered")) == (1,)
            assert await counter(carol, "undelivered_debts") == 1
