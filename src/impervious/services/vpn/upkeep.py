"""What a seller does with what it sold when nobody asks, as decisions inside one transaction.

A peer is put on the interface after the transaction that booked the money, by reconciling, and only when it was seen
there does its time begin and the answer go out (`_stands`). So a crash anywhere leaves a contract that is paid, which
the next reconciling finishes; nothing is charged or answered twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from impervious.errors import NotFound
from impervious.model import MessageId
from impervious.services.vpn import money
from impervious.services.vpn.contract import MINUTE_MS, SECOND_MS, Phase, Sold
from impervious.services.vpn.payloads import Expired
from impervious.services.vpn.sale import Peers, Sale, Shop, contract_answer, one_line
from impervious.units import Msat
from impervious.wireguard import PublicKey, Transfer, Wanted

SETUP_MS: Final = MINUTE_MS
"""How long a paid contract may wait for its peer to be on the interface before the money goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep(Sale):
    """A seller that looks after its contracts."""

    def wanted(self) -> Wanted:
        """Say what should be on the interface."""
        living = self.books.living()
        peers = (contract.wanted(self.now_ms) for contract in living)
        return Wanted(peers=[peer for peer in peers if peer is not None], ours={contract.key for contract in living})

    def reconciled(self, peers: Peers, transfers: Mapping[PublicKey, Transfer]) -> None:
        """Draw the conclusions from a look at the interface after reconciling.

        Args:
          peers: what is on it.
          transfers: what went through.
        """
        for contract in self.books.living():
            peer, seen = peers.get(contract.key), transfers.get(contract.key)
            if contract.phase is Phase.ENDED and peer is None:
                self.books.keep_sold(contract.gone(self.now_ms))
                continue
            counted = contract.counting(seen) if seen is not None else contract
            wanted = contract.wanted(self.now_ms)
            if (
                contract.phase is Phase.PAID
                and wanted is not None
                and wanted.is_met_by(peer)
                and isinstance(self.shop, Shop)
            ):
                self._stands(counted, self.shop)
            elif counted != contract:
                self.books.keep_sold(counted)

    def _stands(self, contract: Sold, shop: Shop) -> None:
        contract = contract.standing(self.now_ms)
        self.books.keep_sold(contract)
        answer = contract_answer(contract, shop.terms)
        self.out.answer(
            contract.buyer, answer, reply_to=contract.request, amount=Msat(0), owed=True, price=contract.price
        )
        self.tell(
            "CONTRACT",
            contract.buyer,
            contract.nonce,
            about=contract.request,
            address=str(contract.address),
            expires_at=answer.expires_at,
        )

    def tick(self, trouble: str = "") -> None:
        """Announce what is due, end what is over, and give back what could not be delivered.

        Args:
          trouble: why the interface cannot be programmed, as far as is known.
        """
        for contract in self.books.living():
            if contract.phase is Phase.PAID and self.now_ms >= contract.paid_ms + SETUP_MS:
                self._fail(contract, trouble or "the tunnel could not be set up")
            elif contract.phase is Phase.ACTIVE:
                self._age(contract)

    def cancel(self, nonce: str, reason: str, cause: MessageId) -> Msat:
        """End a contract early, and give back what the rest of it is worth.

        Args:
          nonce: which.
          reason: what the buyer is told.
          cause: names this call in the accounts.

        Returns:
          What goes back, in msat, the fee taken off.

        Raises:
          NotFound: there is no such contract.
          FailedPrecondition: it is over already.
        """
        contract = self.books.sold(nonce)
        if contract is None:
            raise NotFound(f"no contract {nonce} was sold here: ListContracts shows all")
        if contract.phase is Phase.PAID:
            return self._fail(contract, reason)
        ended = contract.ending(self.now_ms, reason)
        self.books.keep_sold(ended)
        entry = money.taken_back(cause, nonce, contract.worth(self.now_ms), self.fee, self.least)
        self.books.book(entry)
        answer = Expired(nonce=nonce, reason=one_line(reason))
        # Owed even where nothing goes back: who paid for a tunnel must not find out by its silence.
        self.out.answer(contract.buyer, answer, reply_to=None, amount=entry.refunded, owed=True)
        self.tell("EXPIRED", contract.buyer, nonce, reason=reason, refunded_msat=entry.refunded)
        return entry.refunded

    def _fail(self, contract: Sold, reason: str) -> Msat:
        """Give back the money for a tunnel that never was."""
        self.books.keep_sold(contract.ending(self.now_ms, reason))
        entry = money.taken_back(contract.request, contract.nonce, contract.worth(self.now_ms), self.fee, self.least)
        self.books.book(entry)
        self.say_no(contract.buyer, contract.request, contract.nonce, reason, entry.refunded)
        return entry.refunded

    def _age(self, contract: Sold) -> None:
        notice = contract.term.due(self.now_ms)
        if notice is not None:
            self.books.keep_sold(contract := contract.announced(self.now_ms))
            self.tell(notice.value, contract.buyer, contract.nonce, expires_at=contract.term.expires_ms // SECOND_MS)
        if contract.is_over(self.now_ms, self.grace_ms):
            self.books.keep_sold(contract.ending(self.now_ms, "its time is over"))
