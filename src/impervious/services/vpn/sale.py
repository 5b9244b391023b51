"""What a seller has in one transaction, whatever it decides, and how it says what it decided."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from impervious.model import MessageId, NodePubkey
from impervious.services.vpn import money
from impervious.services.vpn.contract import SECOND_MS, Sold
from impervious.services.vpn.payloads import Contract, Refused
from impervious.services.vpn.ports import Outgoing, SellerBooks
from impervious.services.vpn.told import Role, Told
from impervious.units import Msat, Sat
from impervious.wireguard import Peer, PublicKey, Terms

MAX_REASON: Final = 200
"""Characters of a refusal."""

Peers: TypeAlias = Mapping[PublicKey, Peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What is sold."""

    terms: Terms
    price: Sat
    """For one hour."""
    hour_ms: int
    """What an hour is: `vpn.period_s`."""
    max_hours: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing is sold now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """What both halves of a seller stand on: `selling.Seller` for requests, `upkeep.Upkeep` for what was sold."""

    books: SellerBooks
    out: Outgoing
    shop: Shop | Closed
    now_ms: int
    grace_ms: int
    """How long after its end a contract can be renewed: `vpn.grace_s`."""
    fee: Msat
    """Most that sending money back may cost; it is taken from what goes back."""
    least: Msat = money.SMALLEST
    """Least that can be sent back; what is less stays."""

    def say_no(self, buyer: NodePubkey, request: MessageId, nonce: str, reason: str, back: Msat) -> None:
        """Refuse, and send what goes back with the refusal."""
        self.out.answer(
            buyer, Refused(reason=one_line(reason), nonce=nonce), reply_to=request, amount=back, owed=back > 0
        )
        self.tell("REFUSED", buyer, nonce, about=request, reason=reason, refunded_msat=back)

    def tell(
        self,
        record: str,
        peer: NodePubkey,
        nonce: str,
        *,
        about: MessageId | None = None,
        reason: str = "",
        **facts: int | str,
    ) -> None:
        """Show it on this node's own stream."""
        self.out.tell(
            Told(record=record, role=Role.SELLER, peer=peer, nonce=nonce, about=about, reason=reason, facts=facts)
        )


def contract_answer(contract: Sold, terms: Terms) -> Contract:
    """Give what the buyer of a contract is told."""
    return Contract(
        nonce=contract.nonce,
        address=str(contract.address),
        expires_at=contract.term.expires_ms // SECOND_MS,
        endpoint=str(terms.endpoint),
        server_pub_key=terms.server_key.text,
        allowed_ips=listed(terms.allowed),
        dns=listed(terms.dns),
        preshared_key=contract.preshared_key.text if contract.preshared_key else "",
    )


def listed(values: Collection[object]) -> str:
    """Write a list as it travels."""
    return ", ".join(map(str, values))


def one_line(reason: str) -> str:
    """Make a reason one that can be read at the other end, in one part: what programs complain has several lines."""
    return "".join(each if each.isprintable() else " " for each in reason)[:MAX_REASON]
