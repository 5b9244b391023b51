"""What a buyer knows: what it asked for, what it was offered, what it bought."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from impervious.errors import FailedPrecondition
from impervious.model import MessageId, NodePubkey
from impervious.services.vpn.contract import MINUTE_MS, Term
from impervious.services.vpn.told import Role, Told
from impervious.units import Msat
from impervious.wireguard import ClientConfig, PrivateKey

RENEW_MS: Final = 10 * MINUTE_MS
"""How long before the end a contract renews itself; a quarter of the span where that is shorter."""
KEPT_MS: Final = 24 * 60 * MINUTE_MS
"""How long after its end a contract can be asked to go on: only the seller knows how long it waits."""
ANSWER_MS: Final = 10 * MINUTE_MS
"""How long an answer is waited for in silence once a request arrived. A seller sets a tunnel up within a minute or
gives the money back; the rest is for one that is just being started again."""


class Question(Enum):
    """What was asked for."""

    QUOTE = "quote"
    CONTRACT = "contract"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of ours. An answer counts only while it is open, from the node that it went to."""

    id: MessageId
    seller: NodePubkey
    question: Question
    nonce: str = ""
    amount: Msat = Msat(0)
    """What was sent with it to buy something."""
    automatic: bool = False
    """A contract that renews itself made it: what comes back of it is in the budget again."""
    open: bool = True
    arrived_ms: int | None = None
    """When it was known to be with the seller; None: it is under way."""
    overdue: bool = False
    """The answer was waited for long enough to say so. It still counts."""

    def overdue_ms(self) -> int | None:
        """Say when its answer is overdue; None: not before it has arrived."""
        return None if self.arrived_ms is None else self.arrived_ms + ANSWER_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A quote that came; everything in it can be used."""

    seller: NodePubkey
    nonce: str
    price: Msat
    hours: int
    expires_ms: int


class Stage(Enum):
    """Where a bought contract is."""

    PAYING = "paying"
    """The request is on its way, or its answer is."""
    UNANSWERED = "unanswered"
    """The money arrived, and for `ANSWER_MS` no answer came; a late one still counts."""
    ACTIVE = "active"
    FAILED = "failed"
    """Nothing was paid: it can be tried again."""
    REFUSED = "refused"
    """There is no tunnel; the refusal carried what came back."""
    OVER = "over"


PAID: Final = (Stage.PAYING, Stage.UNANSWERED, Stage.ACTIVE)
"""Money is on its way or with the seller: it is not paid again."""
_MOVES: Final = {
    (Stage.PAYING, Stage.ACTIVE),
    (Stage.PAYING, Stage.FAILED),
    (Stage.PAYING, Stage.REFUSED),
    (Stage.PAYING, Stage.UNANSWERED),
    (Stage.PAYING, Stage.OVER),
    (Stage.UNANSWERED, Stage.ACTIVE),
    (Stage.UNANSWERED, Stage.REFUSED),
    (Stage.UNANSWERED, Stage.OVER),
    (Stage.ACTIVE, Stage.OVER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """A contract that this node bought."""

    seller: NodePubkey
    nonce: str
    request: MessageId
    """The CONTRACT_REQUEST that paid for it."""
    private_key: PrivateKey
    price: Msat
    hours: int
    stage: Stage = Stage.PAYING
    term: Term | None = None
    """Until when; None while there is no tunnel."""
    config: ClientConfig | None = None
    renewing: MessageId | None = None
    """The last request for more time that is open."""
    budget: Msat = Msat(0)
    """Most that its own renewals may cost, all together; 0: it does not renew itself."""
    renewals: Msat = Msat(0)
    """What they have cost."""
    returned: Msat = Msat(0)
    """What the seller gave back."""
    reason: str = ""
    """Why there is no tunnel any more."""

    def moved(self, stage: Stage, reason: str = "") -> "Bought":
        """Follow the table.

        Raises:
          FailedPrecondition: it has no such move.
        """
        if (self.stage, stage) not in _MOVES:
            raise FailedPrecondition(f"contract {self.nonce} is {self.stage.value}")
        return replace(self, stage=stage, reason=reason)

    def must_renew(self, now_ms: int) -> bool:
        """Whether it is time to buy more, and the budget allows it."""
        if self.stage is not Stage.ACTIVE or self.term is None or self.renewing is not None:
            return False
        soon = self.term.rest_ms(now_ms) <= self.term.expires_ms - self._renews_ms(self.term)
        return soon and now_ms < self.term.expires_ms + self.term.span_ms and self.renewals + self.price <= self.budget

    def renews_ms(self) -> int | None:
        """Say when it buys more time by itself, if it does at all; None: it has no tunnel."""
        return None if self.term is None else self._renews_ms(self.term)

    @staticmethod
    def _renews_ms(term: Term) -> int:
        return term.expires_ms - min(RENEW_MS, term.span_ms // 4)


def about_contract(record: str, contract: Bought, **facts: int | str) -> Told:
    """Give an event about a contract."""
    return Told(
        record=record,
        role=Role.BUYER,
        peer=contract.seller,
        nonce=contract.nonce,
        about=contract.request,
        facts=facts,
    )


def about_request(record: str, asked: Asked, reason: str, **facts: int | str) -> Told:
    """Give an event about a request, and why it comes."""
    return Told(
        record=record,
        role=Role.BUYER,
        peer=asked.seller,
        nonce=asked.nonce,
        about=asked.id,
        reason=reason,
        facts=facts,
    )
