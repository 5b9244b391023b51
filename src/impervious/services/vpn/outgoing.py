"""What leaves a decision, as messages and events of the transaction that it was made in."""

import json
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from impervious.model import MessageId, NodePubkey
from impervious.service import ServiceTx, VerifiedMessage
from impervious.services.vpn.payloads import Payload, QuoteRequest, fitting, write
from impervious.services.vpn.told import Told
from impervious.units import Msat

QUOTE_BYTES: Final = 700
"""A quote with two networks, two resolvers and long host names: what a question for one pays for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOutgoing:
    """See `ports.Outgoing`."""

    tx: ServiceTx
    fee: Msat
    """Highest routing fees of something owed."""
    message: VerifiedMessage | None = None
    """What is being answered, if anything is."""

    def send(self, recipient: NodePubkey, payload: Payload, amount: Msat) -> MessageId:
        """See `Outgoing.send`."""
        data = write(payload)
        if isinstance(payload, QuoteRequest):
            return self.tx.ask(recipient, data, amount=amount, answer_bytes=QUOTE_BYTES)
        return self.tx.send(recipient, data, amount=amount)

    def answer(
        self,
        recipient: NodePubkey,
        payload: Payload,
        *,
        reply_to: MessageId | None,
        amount: Msat,
        owed: bool,
        price: Msat = Msat(0),
    ) -> bool:
        """See `Outgoing.answer`."""
        data = write(fitting(payload, self.tx.part_bytes))
        if owed:
            received = Msat(amount + self.fee) if amount else price
            self.tx.settle(recipient, data, amount=amount, reply_to=reply_to, fee_limit=self.fee, received=received)
            return True
        if self.message is None or reply_to != self.message.id:
            return False
        return self.tx.answer(self.message, data) is not None

    def tell(self, told: Told) -> None:
        """See `Outgoing.tell`."""
        self.tx.emit(json.dumps(shape(told)).encode(), identifier=told.about or uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening(TxOutgoing):
    """Keeps events to itself: what a message makes us say is shown with the message."""

    heard: list[Told] = field(default_factory=list)

    def tell(self, told: Told) -> None:
        """Keep it."""
        self.heard.append(told)


def shape(told: Told) -> dict[str, int | str]:
    """Give an event as streams show it."""
    known = {"recordId": told.record, "role": told.role.value, "peer": told.peer.hex, "nonce": told.nonce, **told.facts}
    return {**known, "reason": told.reason} if told.reason else known
