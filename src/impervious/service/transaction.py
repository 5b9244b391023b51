"""A transaction as a service sees it."""

import logging
from typing import Final
from uuid import uuid4

from impervious.config import LimitsConfig
from impervious.errors import InvalidArgument, NodeUnavailable
from impervious.gate import PaymentGate
from impervious.model import (
    Event,
    EventKind,
    MessageId,
    NewEvent,
    NodePubkey,
    OutboundMessage,
    Peer,
    ServiceType,
    Shown,
)
from impervious.outbound import SendPolicy, accept, end_if_answered, parts_of
from impervious.service.facts import VerifiedMessage
from impervious.service.tables import checked
from impervious.store import Row, Tx, answers, inbox, outbox, peers, spending
from impervious.store.transaction import SqlValue
from impervious.units import Msat

logger = logging.getLogger(__name__)

_NOBODYS: Final = ServiceType("")
"""Topic of what no service is to handle."""
REQUEST_TTL_MS: Final = 7 * 86_400_000
"""How long an answer to a request counts: as long as the other node may take to deliver it."""


def service_topic(service_type: ServiceType) -> str:
    """Name what a service waits for that has nothing to do with the log."""
    return f"service {service_type}"


class ServiceTx:
    """An open transaction: a service's own tables, messages to send, events to show. Synchronous; never keep it."""

    def __init__(
        self,
        tx: Tx,
        service_type: ServiceType,
        policy: SendPolicy,
        limits: LimitsConfig,
        gate: PaymentGate | None = None,
    ) -> None:
        self._tx = tx
        self._service_type = service_type
        self._policy = policy
        self._limits = limits
        self._gate = gate or PaymentGate()

    @property
    def now_ms(self) -> int:
        """Wall-clock time of this transaction, in milliseconds since 1970."""
        return self._tx.now_ms

    @property
    def own_pubkey(self) -> NodePubkey:
        """This node's own key.

        Raises:
          NodeUnavailable: nobody knows it yet: at the very first start, for a moment.
        """
        known = outbox.identity(self._tx)
        if known is None:
            raise NodeUnavailable("the Lightning node has only just said who it is: call again")
        return known

    @property
    def part_bytes(self) -> int:
        """How much of a payload one part carries, in bytes: a longer one costs more than the least."""
        return self._policy.part_bytes

    # --- Its own tables -----------------------------------------------------------------------------------------------

    def run(self, sql: str, *parameters: SqlValue) -> int:
        """Execute a statement on the service's own tables and return how many rows it changed."""
        return self._tx.run(checked(sql), *parameters)

    def one(self, sql: str, *parameters: SqlValue) -> Row | None:
        """Return the first row of the service's own tables, or None."""
        return self._tx.one(checked(sql), *parameters)

    def all(self, sql: str, *parameters: SqlValue) -> list[Row]:
        """Return every row of the service's own tables."""
        return self._tx.all(checked(sql), *parameters)

    def wake(self) -> None:
        """Have this service's `context.alarm()` look again after the commit."""
        self._tx.wake(service_topic(self._service_type))

    def count(self, name: str) -> None:
        """Add one to a counter that `impervious db` shows."""
        inbox.count(self._tx, name)

    # --- Messages -----------------------------------------------------------------------------------------------------

    def send(
        self, recipient: NodePubkey, payload: bytes, *, amount: Msat = Msat(0), reply_to: MessageId | None = None
    ) -> MessageId:
        """Store a message to be sent; it is sent once the transaction is committed.

        Args:
          recipient: the far node.
          payload: what it gets, at most `message.max_bytes`.
          amount: what it gets paid, in msat; 0: the minimum for the size.
          reply_to: id of the message this answers.

        Returns:
          The id under which everything about it appears on the stream.

        Raises:
          InvalidArgument: it can never be sent.
          FailedPrecondition: this service has no record number.
          ResourceExhausted: the budget does not allow it.
        """
        message = self._message(recipient, payload, amount, reply_to)
        accept(self._tx, message, self._policy)
        return message.id

    def ask(self, recipient: NodePubkey, payload: bytes, *, amount: Msat = Msat(0), answer_bytes: int = 1) -> MessageId:
        """Store a message that wants an answer: it carries enough for one, and the answer will count.

        Args:
          recipient: the far node.
          payload: what it gets.
          amount: what it gets paid at least, in msat. What an automatic answer costs is given in any case.
          answer_bytes: how large the answer may be for which this pays.

        Returns:
          The id; `close_request` knows the answer by it, for a week.

        Raises: as `send`.
        """
        enough = Msat(max(amount, self._policy.minimum_amount(len(payload)), self._cost_of_answer(answer_bytes)))
        identifier = self.send(recipient, payload, amount=enough)
        expires_ms = self.now_ms + REQUEST_TTL_MS
        answers.open_request(self._tx, identifier, recipient, self._service_type, expires_ms=expires_ms)
        return identifier

    def close_request(self, message: VerifiedMessage) -> bool:
        """Say whether a message answers an open request of ours to that very node; the request is then closed."""
        if message.reply_to is None:
            return False
        return answers.close_request(self._tx, message.reply_to, message.sender, self._service_type)

    def withdraw_requests(self, recipient: NodePubkey) -> bool:
        """Forget what we asked a node; say whether there was anything."""
        return answers.withdraw_requests(self._tx, recipient, self._service_type) > 0

    def answer(self, message: VerifiedMessage, payload: bytes) -> MessageId | None:
        """Answer a message by ourselves, within the limits for that (`limits.auto_…`), at the lowest price.

        A message gets an answer only if it brought what that may cost, and so the answer counts against no budget. Only
        where a long route makes the answer dearer does the rest count, also against `limits.auto_answers_sat_per_day`.

        Returns:
          The answer's id; None: a limit forbids it, which is logged and counted.

        Raises:
          InvalidArgument: it can never be sent.
          FailedPrecondition: this service has no record number.
        """
        cost, refusal = self._cost_of_answer(len(payload)), ""
        if message.reply_to is not None:
            refusal = "it is an answer itself"
        elif message.amount < cost:
            refusal = f"it came with {message.amount} msat, and an answer may cost {cost}"
        elif answers.answered_in_hour(self._tx, message.sender) >= self._limits.auto_answers_per_hour:
            refusal = "its sender had limits.auto_answers_per_hour already"
        else:
            answer = self._message(message.sender, payload, Msat(0), message.id)
            fee_limit = self._limits.auto_answer_fee_msat
            accept(self._tx, answer, self._policy, fee_limit=fee_limit, received=message.amount)
            answers.note_answer(self._tx, answer.id, message.sender)
            end_if_answered(self._tx, answer)
            return answer.id
        logger.info("%s: message %s is not answered: %s", self._service_type, message.id, refusal)
        self.count("refused_answers")
        return None

    def owe(self, message: VerifiedMessage, payload: bytes, *, amount: Msat = Msat(0)) -> MessageId:
        """Answer a message that was paid for: no budget stops it, and it is tried until it arrives.

        Args:
          message: what was paid; the answer, its fees included, never costs more than came with it.
          payload: what its sender gets.
          amount: what its sender gets paid, such as a refund, in msat; 0: the minimum for the size.

        Returns:
          The answer's id.

        Raises:
          InvalidArgument: it can never be sent, or costs more than was received.
          FailedPrecondition: this service has no record number.
        """
        least = amount or self._policy.minimum_amount(len(payload))
        left = Msat(message.amount - least)
        if left < 0:
            raise InvalidArgument(
                f"the answer carries {least} msat, and only {message.amount} came: owe no more than was paid"
            )
        return self.settle(
            message.sender, payload, amount=amount, reply_to=message.id, fee_limit=left, received=message.amount
        )

    def settle(
        self,
        recipient: NodePubkey,
        payload: bytes,
        *,
        amount: Msat = Msat(0),
        reply_to: MessageId | None = None,
        fee_limit: Msat,
        received: Msat | None = None,
    ) -> MessageId:
        """Send what is owed for money that came earlier: no budget stops it, and it is tried until it arrives.

        What came pays for it, so it is no spending: only what it may cost beyond `received` counts.

        Args:
          recipient: the far node.
          payload: what it gets.
          amount: what it gets paid, such as a refund, in msat; 0: the minimum for the size.
          reply_to: id of the message this answers.
          fee_limit: highest routing fees of all parts together. With `amount` it must not be more than was received.
          received: what came in for it, in msat; it never costs more, however small the parts of a long route. None:
            `amount` and `fee_limit` together. 0: nothing did, and all of it counts.

        Returns:
          Its id.

        Raises:
          InvalidArgument: it can never be sent.
          FailedPrecondition: this service has no record number.
        """
        message = self._message(recipient, payload, amount, reply_to)
        per_part = Msat(fee_limit // parts_of(len(payload), self._policy))
        accept(
            self._tx,
            message,
            self._policy,
            obligation=True,
            fee_limit=min(per_part, self._policy.part_fee_limit),
            received=Msat(message.amount + fee_limit) if received is None else received,
        )
        end_if_answered(self._tx, message)
        return message.id

    def _cost_of_answer(self, size: int) -> Msat:
        fees = parts_of(size, self._policy) * self._limits.auto_answer_fee_msat
        return Msat(self._policy.minimum_amount(size) + fees)

    def _message(
        self, recipient: NodePubkey, payload: bytes, amount: Msat, reply_to: MessageId | None
    ) -> OutboundMessage:
        return OutboundMessage(
            id=uuid4(),
            recipient=recipient,
            service_type=self._service_type,
            payload=payload,
            amount=amount or self._policy.minimum_amount(len(payload)),
            reply_to=reply_to,
        )

    # --- Money --------------------------------------------------------------------------------------------------------

    def reserve(self, amount: Msat) -> MessageId:
        """Set aside, of what may be spent in 24 hours, what a payment of the service's own may cost.

        Messages do this by themselves. The intent to pay belongs into the same transaction, and the payment behind it:
        then no crash hides that money may be on its way.

        Args:
          amount: the most it may cost, in msat, fees included.

        Returns:
          What to `release` it by.

        Raises:
          ResourceExhausted: `lightning.daily_limit_sat` does not allow it; nothing is set aside.
          FailedPrecondition: this node may pay nothing now; says why, and what cures it.
          NodeUnavailable: it is not known yet whether it may.
        """
        self._gate.check()
        identifier = uuid4()
        spending.reserve(self._tx, identifier, self._service_type, amount, daily_limit=self._policy.daily_limit)
        return identifier

    def release(self, reservation: MessageId, *, spent: Msat) -> None:
        """Keep of what was set aside only what was really spent, in msat; 0: the payment failed."""
        spending.settle(self._tx, reservation, spent)

    # --- Events -------------------------------------------------------------------------------------------------------

    def emit(
        self,
        data: bytes,
        *,
        identifier: MessageId,
        reply_to: MessageId | None = None,
        amount: Msat = Msat(0),
        secret: bytes | None = None,
    ) -> Event:
        """Show an event of this service on the stream, as coming from this node.

        Args:
          data: what every stream shows.
          identifier: of the event, or of the message it is about.
          reply_to: id of the message it answers.
          amount: what this node received, in msat, if that is what it tells.
          secret: shown instead of `data` on streams that ask for secrets.
        """
        return self._tx.emit(
            NewEvent(
                kind=EventKind.NOTICE,
                id=identifier,
                reply_to=reply_to,
                sender=outbox.identity(self._tx),
                service_type=self._service_type,
                topic=self._service_type,
                data=data,
                amount=amount,
                sent_at_ms=self._tx.now_ms,
                verified=True,
                secret=secret,
            )
        )

    def show(self, message: VerifiedMessage, shown: Shown) -> Event:
        """Show a message on the stream that `project` has kept back, as coming from its sender.

        Args:
          message: as `handle` got it; it is not shown to `handle` again.
          shown: what streams show of it.
        """
        return self._tx.emit(
            NewEvent(
                kind=EventKind.MESSAGE,
                id=message.id,
                reply_to=message.reply_to,
                sender=message.sender,
                service_type=self._service_type,
                topic=_NOBODYS,
                data=shown.data,
                amount=message.amount,
                sent_at_ms=message.sent_at_ms,
                verified=True,
                public=shown.public,
                secret=shown.secret,
            )
        )

    # --- Peers --------------------------------------------------------------------------------------------------------

    def peer(self, pubkey: NodePubkey) -> Peer | None:
        """Find a node that we have federated with, if its time is not over."""
        return peers.find(self._tx, pubkey)

    def peers(self) -> list[Peer]:
        """Return the nodes that we have federated with, by name."""
        return peers.everyone(self._tx)

    def remember_peer(self, peer: Peer, *, stranger: bool = False) -> None:
        """Store a peer, in place of what was known of it.

        Args:
          peer: what is known of it now.
          stranger: it asked by itself, and nobody here asked for it or accepted it.
        """
        peers.remember(self._tx, peer, stranger=stranger)

    def strangers(self) -> int:
        """Count the peers that asked by themselves."""
        return peers.strangers(self._tx)

    def forget_peer(self, pubkey: NodePubkey) -> bool:
        """Drop a peer; False: it was none."""
        return peers.forget(self._tx, pubkey)

    def take_expired_peers(self) -> list[Peer]:
        """Drop the peers whose time is over, and return them."""
        return peers.take_expired(self._tx)

    def next_expiry_ms(self) -> int | None:
        """Say when the first peer's time is over, in milliseconds since 1970; None: there are none."""
        return peers.next_expiry_ms(self._tx)
