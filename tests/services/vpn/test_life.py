"""Whatever happens in whatever order, with crashes anywhere: nobody is cheated, and the interface follows.

A seller, two honest buyers and what they do to each other. Everything between two nodes is a letter that may arrive
late; a decision is one transaction, so a crash undoes it or falls after it; the interface can lose everything.
"""

import copy
from collections import Counter
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.services.vpn.books import BuyerMemory, Letter, Out, SellerMemory
from tests.services.vpn.shop import ANN, BEN, FEE, GRACE_MS, HOUR_MS, SELLER, SHOP, START_MS, Numbered, private_key

from impervious.errors import CallerError
from impervious.model import NodePubkey
from impervious.services.vpn.answers import Answers
from impervious.services.vpn.buying import Buyer
from impervious.services.vpn.contract import Phase, Sold
from impervious.services.vpn.payloads import ContractRequest, RefreshRequest, write
from impervious.services.vpn.ports import Incoming
from impervious.services.vpn.purchase import Stage
from impervious.services.vpn.sale import Sale
from impervious.services.vpn.selling import Seller
from impervious.services.vpn.upkeep import SETUP_MS, Upkeep
from impervious.units import Msat, Sat, sat_charged
from impervious.wireguard import Peer, PublicKey, plan
from impervious.wireguard.peers import only

S = TypeVar("S", bound=Sale)

buyers = st.sampled_from([ANN, BEN])
picks = st.integers(0, 20)
pauses = st.sampled_from([1, 999, 60_000, SETUP_MS, GRACE_MS - 1, GRACE_MS, HOUR_MS // 2, HOUR_MS - SETUP_MS, HOUR_MS])


class Life(RuleBasedStateMachine):
    """The world of one seller."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.numbers = Numbered()
        self.keys = 1000
        self.seller = SellerMemory()
        self.buyers = {ANN: BuyerMemory(), BEN: BuyerMemory()}
        self.post: list[tuple[NodePubkey, Letter]] = []
        self.interface: dict[PublicKey, Peer] = {}
        self.foreign: set[PublicKey] = set()
        self.received = 0
        """By the seller, in msat."""
        self.given_back = 0
        """By the seller, beyond what carries an answer."""
        self.forged: set[UUID] = set()
        """Requests that no honest buyer sent."""
        self.paying: set[str] = set()
        """Quotes for which a payment of an honest buyer is under way, or was made."""
        self.spans: Counter[str] = Counter()
        """How often a contract's time was sold, as seen from outside."""

    # --- Transactions ------------------------------------------------------------------------------------------------

    def sells(self, decide: Callable[[Seller], object], *, crash: bool = False) -> None:
        self.decides(Seller, decide, crash=crash)

    def keeps(self, decide: Callable[[Upkeep], object], *, crash: bool = False) -> None:
        self.decides(Upkeep, decide, crash=crash)

    def decides(self, kind: type[S], decide: Callable[[S], object], *, crash: bool) -> None:
        books, out = copy.deepcopy(self.seller), Out()
        before = {each.nonce: each for each in self.seller.contracts.values()}
        decide(kind(books=books, out=out, shop=SHOP, now_ms=self.now_ms, grace_ms=GRACE_MS, fee=FEE))
        if crash:
            return
        self.seller = books
        for letter in out.letters:
            self.post.append((SELLER, letter))
            self.given_back += letter.back
            assert letter.owed or not letter.back
        for contract in books.contracts.values():
            self.compare(before.get(contract.nonce), contract)

    def compare(self, before: Sold | None, after: Sold) -> None:
        """A contract's time grows by whole spans, and never shrinks but by ending."""
        if after.phase is not Phase.ACTIVE or before == after:
            return
        if not before or before.phase is Phase.PAID:
            wanted = after.wanted(self.now_ms)
            assert wanted is not None
            assert wanted.is_met_by(self.interface.get(after.key)), "answered before the tunnel stood"
        rest = before.term.rest_ms(self.now_ms) if before and before.phase is Phase.ACTIVE else 0
        grown = after.term.rest_ms(self.now_ms) - rest
        assert grown in (0, after.term.span_ms)
        self.spans[after.nonce] += grown > 0

    def hears(self, who: NodePubkey, decide: Callable[[Answers], object], *, crash: bool = False) -> None:
        books, out = copy.deepcopy(self.buyers[who]), Out()
        decide(Answers(books=books, out=out, now_ms=self.now_ms))
        assert not out.letters, "an answer is never answered"
        if not crash:
            self.buyers[who] = books

    def buys(self, who: NodePubkey, decide: Callable[[Buyer], object], *, crash: bool = False) -> None:
        books, out = copy.deepcopy(self.buyers[who]), Out()
        try:
            decide(Buyer(books=books, out=out, now_ms=self.now_ms))
        except CallerError:
            return
        if crash:
            return
        self.buyers[who] = books
        for letter in out.letters:
            if isinstance(letter.payload, ContractRequest):
                assert letter.payload.nonce not in self.paying, "one quote was paid twice"
                self.paying.add(letter.payload.nonce)
        self.post.extend((who, letter) for letter in out.letters)

    def deliver(self, position: int, *, crash: bool) -> None:
        sender, letter = self.post[position % len(self.post)]
        message = Incoming(
            id=letter.id,
            sender=sender,
            reply_to=letter.reply_to,
            data=write(letter.payload),
            amount=letter.amount,
        )
        if letter.to == SELLER:
            self.sells(lambda it: it.receive(message, self.interface, self.numbers.draw()), crash=crash)
            self.received += 0 if crash else letter.amount
            if not crash:
                self.hears(sender, lambda it: it.arrived(letter.id))
        else:
            self.hears(letter.to, lambda it: it.receive(message), crash=crash)
        if not crash:
            self.post.remove((sender, letter))

    def program(self, *, steps: int = 3) -> None:
        """Reconcile as `Reconciler` does; fewer than three steps are a crash in the middle."""
        todo: list[object] = []
        wanted = Upkeep(
            books=self.seller, out=Out(), shop=SHOP, now_ms=self.now_ms, grace_ms=GRACE_MS, fee=FEE
        ).wanted()
        changes = plan(wanted, self.interface)
        todo = [*map(str, changes.remove)]
        assert not self.foreign & set(changes.remove), todo
        if steps > 0:
            for key in changes.remove:
                del self.interface[key]
        if steps > 1:
            for key, address in changes.set_addresses.items():
                self.place(key, Peer(allowed=only(address), preshared_key=self.interface[key].preshared_key))
        if steps > 2:
            for peer in changes.add:
                self.place(peer.key, Peer(allowed=only(peer.address), preshared_key=peer.preshared_key))

    def place(self, key: PublicKey, peer: Peer) -> None:
        """As WireGuard does: an address is taken from whoever had it."""
        for other, theirs in self.interface.items():
            taken = theirs.allowed & peer.allowed
            if taken and other != key:
                assert other not in self.foreign, "an address was taken from somebody else's peer"
                kept = theirs.allowed - taken
                self.interface[other] = Peer(allowed=kept, preshared_key=theirs.preshared_key)
        self.interface[key] = peer

    # --- What happens ------------------------------------------------------------------------------------------------

    @rule(who=buyers, hours=st.sampled_from([1, 2, 25]), budget=st.sampled_from([0, 250]), until=st.integers(1, 5))
    def buy(self, who: NodePubkey, hours: int, budget: int, until: int) -> None:
        """Go the usual way, or some steps of it: chance alone hardly ever does."""
        self.ask(who, hours)
        self.everything_arrives()
        if until > 1:
            self.accept(who, -1, 10_000, budget)
        if until > 2:
            self.everything_arrives()
        if until > 3:
            self.reconcile(3, crash=False)
        if until > 4:
            self.everything_arrives()

    @rule(who=buyers, hours=st.sampled_from([0, 1, 49]))
    def ask(self, who: NodePubkey, hours: int) -> None:
        self.buys(who, lambda it: it.request_quote(SELLER, hours))

    @rule(who=buyers, which=picks, most=st.sampled_from([99, 100, 10_000]), budget=st.sampled_from([0, 250]))
    def accept(self, who: NodePubkey, which: int, most: int, budget: int) -> None:
        quotes = list(self.buyers[who].quotes.values())
        if quotes:
            nonce = quotes[which % len(quotes)].nonce
            self.keys += 1
            self.buys(who, lambda it: it.accept(SELLER, nonce, Sat(most), private_key(self.keys)))
            self.buys(who, lambda it: it.renew_itself(SELLER, nonce, Sat(budget)))

    @rule(who=buyers, which=picks)
    def renew(self, who: NodePubkey, which: int) -> None:
        """Pay for more time, as it should be done."""
        contracts = [each for each in self.buyers[who].contracts.values() if each.stage is Stage.ACTIVE]
        if contracts:
            contract = contracts[which % len(contracts)]
            self.buys(who, lambda it: it.refresh(SELLER, contract.nonce, sat_charged(contract.price)))

    @rule(who=buyers, which=picks, price=st.sampled_from([1, 5, 100, 200]))
    def refresh(self, who: NodePubkey, which: int, price: int) -> None:
        contracts = list(self.buyers[who].contracts.values())
        if contracts:
            self.buys(who, lambda it: it.refresh(SELLER, contracts[which % len(contracts)].nonce, Sat(price)))

    @rule(who=buyers, which=picks, amount=st.sampled_from([1000, 3999, 4000, 99_000, 100_000]), own_key=st.booleans())
    def forge(self, who: NodePubkey, which: int, amount: int, own_key: bool) -> None:
        """Somebody asks with any nonce, any amount, and a key that may be another's."""
        nonces = [*self.seller.offers, "none"]
        keys = [each.key for each in self.seller.contracts.values()] if not own_key else []
        self.keys += 1
        key = keys[which % len(keys)] if keys else private_key(self.keys).public
        request = ContractRequest(nonce=nonces[which % len(nonces)], public_key=key.text)
        letter = Letter(id=uuid4(), to=SELLER, payload=request, amount=Msat(amount))
        self.forged.add(letter.id)
        self.post.append((who, letter))

    @rule(who=buyers, which=picks)
    def forge_refresh(self, who: NodePubkey, which: int) -> None:
        nonces = [*self.seller.offers, "none"]
        request = RefreshRequest(nonce=nonces[which % len(nonces)])
        self.post.append((who, Letter(id=uuid4(), to=SELLER, payload=request, amount=Msat(100_000))))

    @precondition(lambda self: self.post)
    @rule(which=picks, crash=st.booleans())
    def arrive(self, which: int, crash: bool) -> None:
        self.deliver(which, crash=crash)

    @rule()
    def everything_arrives(self) -> None:
        while self.post:
            self.deliver(0, crash=False)

    @precondition(lambda self: any(letter.is_request for _, letter in self.post))
    @rule(which=picks)
    def lose(self, which: int) -> None:
        """A request is not delivered, and its sender's node says so."""
        requests = [each for each in self.post if each[1].is_request]
        who, letter = requests[which % len(requests)]
        self.post.remove((who, letter))
        if isinstance(letter.payload, ContractRequest):
            self.paying.remove(letter.payload.nonce)
        self.hears(who, lambda it: it.undelivered(letter.id, "no route"))

    @rule(steps=st.sampled_from([0, 1, 2, 3]), crash=st.booleans())
    def reconcile(self, steps: int, crash: bool) -> None:
        self.program(steps=steps)
        if steps == 3:
            self.keeps(lambda it: it.reconciled(self.interface, {}), crash=crash)
            if not crash:
                gone = [each.key for each in self.seller.contracts.values() if each.phase is Phase.GONE]
                assert not set(gone) & set(self.interface), "it is not gone"
                self.program()
                self.as_wanted()

    def as_wanted(self) -> None:
        """What is on the interface is what is wanted, and what others put there."""
        upkeep = Upkeep(books=self.seller, out=Out(), shop=SHOP, now_ms=self.now_ms, grace_ms=GRACE_MS, fee=FEE)
        taken = {network for key in self.foreign & set(self.interface) for network in self.interface[key].allowed}
        expected = {
            peer.key: Peer(
                allowed=only(peer.address) - taken,
                preshared_key=peer.preshared_key,
            )
            for peer in upkeep.wanted().peers
        }
        assert {key: peer for key, peer in self.interface.items() if key not in self.foreign} == expected

    @rule()
    def reboot(self) -> None:
        self.interface.clear()

    @rule(steps=st.sampled_from([0, 1, 2]), lost=st.booleans())
    def restart(self, steps: int, lost: bool) -> None:
        """The seller dies while it changes the interface, maybe with the machine, and begins as it always does."""
        self.program(steps=steps)
        if lost:
            self.reboot()
        self.reconcile(3, crash=False)
        self.tick(crash=False)
        self.reconcile(3, crash=False)

    @rule(host=st.integers(2, 6))
    def somebody_adds_a_peer(self, host: int) -> None:
        self.keys += 1
        key = private_key(self.keys).public
        address = SHOP.terms.subnet.network[host]
        for other, theirs in list(self.interface.items()):
            if theirs.allowed & only(address):
                self.interface[other] = Peer(allowed=theirs.allowed - only(address), preshared_key=theirs.preshared_key)
        self.foreign.add(key)
        self.interface[key] = Peer(allowed=only(address), preshared_key=None)

    @rule(pause=pauses)
    def wait(self, pause: int) -> None:
        self.now_ms += pause

    @rule(pause=pauses, times=st.integers(1, 4))
    def live(self, pause: int, times: int) -> None:
        """Time passes and nothing goes wrong."""
        for _ in range(times):
            self.wait(pause)
            self.tick(crash=False)
            self.reconcile(3, crash=False)
            self.everything_arrives()

    @rule(crash=st.booleans())
    def tick(self, crash: bool) -> None:
        self.keeps(lambda it: it.tick(), crash=crash)
        for who in self.buyers:
            self.buys(who, lambda it: it.tick(), crash=crash)

    @precondition(lambda self: any(each.phase in (Phase.PAID, Phase.ACTIVE) for each in self.seller.living()))
    @rule(which=picks, crash=st.booleans())
    def cancel(self, which: int, crash: bool) -> None:
        live = [each for each in self.seller.living() if each.phase in (Phase.PAID, Phase.ACTIVE)]
        nonce = live[which % len(live)].nonce
        self.keeps(lambda it: it.cancel(nonce, "moving house", uuid4()), crash=crash)

    # --- What always holds -------------------------------------------------------------------------------------------

    @invariant()
    def an_address_has_one_owner(self) -> None:
        owners = [each.address for each in self.seller.living()]
        owners += [each.address for each in self.seller.open_offers(self.now_ms)]
        assert len(set(owners)) == len(owners)

    @invariant()
    def whoever_asked_gets_it(self) -> None:
        for contract in self.seller.contracts.values():
            assert contract.buyer == self.seller.offers[contract.nonce].buyer

    @invariant()
    def every_millisatoshi_is_accounted_for(self) -> None:
        entries = self.seller.entries
        assert sum(each.received for each in entries) == self.received
        assert sum(each.refunded for each in entries) == self.given_back
        assert all(each.kept <= FEE + 999 for each in entries if each.nonce)
        for contract in self.seller.contracts.values():
            sold = sum(each.sold for each in entries if each.nonce == contract.nonce)
            if contract.phase is Phase.ACTIVE:
                assert sold == self.spans[contract.nonce] * contract.price
            else:
                assert 0 <= sold <= max(1, self.spans[contract.nonce]) * contract.price
            if not self.spans[contract.nonce] and contract.phase is not Phase.PAID:
                assert sold == 0, "a tunnel that never stood is not paid for"

    @invariant()
    def a_purchase_is_charged_once(self) -> None:
        """Each of its requests turned into time at most once, and requests in the post not at all."""
        causes = Counter(each.cause for each in self.seller.entries if each.sold > 0)
        assert all(times == 1 for times in causes.values())
        assert not {letter.id for _, letter in self.post} & set(causes)

    def teardown(self) -> None:
        """Once everything has arrived, nobody waits any more, and both ends agree."""
        for _ in range(3):
            while self.post:
                self.deliver(0, crash=False)
            self.program()
            self.keeps(lambda it: it.reconciled(self.interface, {}))
            self.now_ms += SETUP_MS
            self.keeps(lambda it: it.tick())
        while self.post:
            self.deliver(0, crash=False)
        for who, books in self.buyers.items():
            assert not [each for each in books.requests.values() if each.open]
            for bought in books.contracts.values():
                assert bought.stage not in (Stage.PAYING, Stage.UNANSWERED)
                sold = self.seller.contracts.get(bought.nonce)
                if bought.stage is not Stage.ACTIVE or sold is None or sold.request in self.forged:
                    continue
                assert sold.buyer == who
                if sold.phase is Phase.ACTIVE:
                    assert bought.term is not None
                    assert bought.config is not None
                    assert bought.config.address == sold.address
                    assert bought.config.private_key.public == sold.key
                    assert bought.config.preshared_key == sold.preshared_key


Life.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = pytest.mark.slow(Life.TestCase)
