"""The ports of the vpn rules in memory, with the promises that the database makes."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.contract import Offered, Phase, Sold
from impervious.services.vpn.money import Entry
from impervious.services.vpn.payloads import Payload, record_of
from impervious.services.vpn.purchase import Asked, Bought, Seen, Stage
from impervious.services.vpn.told import Told
from impervious.units import Msat
from impervious.wireguard import Host

MINIMUM = Msat(1000)


@dataclass
class SellerMemory:
    """A seller's tables."""

    offers: dict[str, Offered] = field(default_factory=dict)
    contracts: dict[str, Sold] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def offer(self, nonce: str) -> Offered | None:
        return self.offers.get(nonce)

    def open_offers(self, now_ms: int) -> Collection[Offered]:
        return [each for each in self.offers.values() if now_ms < each.expires_ms and each.nonce not in self.contracts]

    def keep_offer(self, offer: Offered) -> None:
        assert offer.nonce not in self.offers
        self.offers[offer.nonce] = offer

    def sold(self, nonce: str) -> Sold | None:
        return self.contracts.get(nonce)

    def living(self) -> Collection[Sold]:
        return [each for each in self.contracts.values() if each.phase is not Phase.GONE]

    def cooling(self, since_ms: int) -> AbstractSet[Host]:
        gone = (each for each in self.contracts.values() if each.phase is Phase.GONE)
        return {each.address for each in gone if each.gone_ms > since_ms}

    def keep_sold(self, contract: Sold) -> None:
        self.contracts[contract.nonce] = contract
        living = self.living()
        assert len({each.key for each in living}) == len(living), "two living contracts with one key"
        assert len({each.address for each in living}) == len(living), "two living contracts with one address"

    def book(self, entry: Entry) -> None:
        self.entries.append(entry)


@dataclass
class BuyerMemory:
    """A buyer's tables."""

    requests: dict[MessageId, Asked] = field(default_factory=dict)
    quotes: dict[tuple[NodePubkey, str], Seen] = field(default_factory=dict)
    contracts: dict[tuple[NodePubkey, str], Bought] = field(default_factory=dict)

    def asked(self, message: MessageId) -> Asked | None:
        return self.requests.get(message)

    def keep_asked(self, asked: Asked) -> None:
        self.requests[asked.id] = asked

    def awaited(self) -> Collection[Asked]:
        requests = self.requests.values()
        return [each for each in requests if each.open and each.arrived_ms is not None and not each.overdue]

    def seen(self, seller: NodePubkey, nonce: str) -> Seen | None:
        return self.quotes.get((seller, nonce))

    def keep_seen(self, quote: Seen) -> None:
        self.quotes[quote.seller, quote.nonce] = quote

    def bought(self, seller: NodePubkey, nonce: str) -> Bought | None:
        return self.contracts.get((seller, nonce))

    def all_bought(self) -> Collection[Bought]:
        return [
            each for each in self.contracts.values() if each.stage in (Stage.PAYING, Stage.UNANSWERED, Stage.ACTIVE)
        ]

    def keep_bought(self, contract: Bought) -> None:
        self.contracts[contract.seller, contract.nonce] = contract


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message on its way."""

    id: MessageId
    to: NodePubkey
    payload: Payload
    amount: Msat
    reply_to: MessageId | None = None
    owed: bool = False
    back: Msat = Msat(0)
    """What of it gives money back."""
    is_request: bool = False


@dataclass
class Out:
    """What left a decision."""

    letters: list[Letter] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    answering: bool = True
    """Whether what is not owed is sent."""

    def send(self, recipient: NodePubkey, payload: Payload, amount: Msat) -> MessageId:
        identifier = uuid4()
        self.letters.append(
            Letter(id=identifier, to=recipient, payload=payload, amount=max(amount, MINIMUM), is_request=True)
        )
        return identifier

    def answer(
        self,
        recipient: NodePubkey,
        payload: Payload,
        *,
        reply_to: UUID | None,
        amount: Msat,
        owed: bool,
        price: Msat = Msat(0),
    ) -> bool:
        assert owed or not price, "a courtesy is paid for by its question"
        if not (owed or self.answering):
            return False
        letter = Letter(
            id=uuid4(),
            to=recipient,
            payload=payload,
            amount=max(amount, MINIMUM),
            reply_to=reply_to,
            owed=owed,
            back=amount,
        )
        self.letters.append(letter)
        return True

    def tell(self, told: Told) -> None:
        self.told.append(told)

    @property
    def records(self) -> list[str]:
        """The kinds of what was sent."""
        return [record_of(letter.payload) for letter in self.letters]
