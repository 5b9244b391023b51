"""A buyer, for the rules of buying and of taking answers."""

from tests.services.vpn.books import BuyerMemory, Letter, Out
from tests.services.vpn.shop import SELLER, SERVER_KEY, START_MS, incoming, private_key

from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.answers import Answers
from impervious.services.vpn.buying import Buyer
from impervious.services.vpn.payloads import (
    Contract,
    Payload,
    Quote,
)
from impervious.services.vpn.purchase import Bought
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

    @property
    def answers(self) -> Answers:
        return Answers(books=self.books, out=self.out, now_ms=self.now_ms)

    def get(
        self, payload: Payload, reply_to: MessageId | None, *, sender: NodePubkey = SELLER, amount: int = 1000
    ) -> bool:
        return self.answers.receive(incoming(sender, payload, amount, reply_to=reply_to))

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
