"""A seller whose interface does what it should, for the rules of selling and of upkeep."""

from dataclasses import replace

from tests.services.vpn.books import Out, SellerMemory
from tests.services.vpn.shop import (
    ANN,
    BEN,
    FEE,
    GRACE_MS,
    SHOP,
    START_MS,
    Numbered,
    incoming,
    private_key,
)

from impervious.services.vpn.contract import Phase, Sold
from impervious.services.vpn.payloads import (
    ContractRequest,
    Payload,
    Quote,
    QuoteRequest,
    Refused,
)
from impervious.services.vpn.sale import Closed, Shop
from impervious.services.vpn.selling import Seller
from impervious.services.vpn.told import Told
from impervious.services.vpn.upkeep import Upkeep
from impervious.wireguard import Peer, PublicKey
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

    @property
    def upkeep(self) -> Upkeep:
        return Upkeep(books=self.books, out=self.out, shop=self.shop, now_ms=self.now_ms, grace_ms=GRACE_MS, fee=FEE)

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
        wanted = self.upkeep.wanted()
        self.interface = {
            peer.key: Peer(allowed=only(peer.address), preshared_key=peer.preshared_key) for peer in wanted.peers
        }
        self.upkeep.reconciled(self.interface, {})

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
