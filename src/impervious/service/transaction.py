"""A transaction as a service sees it."""

from uuid import uuid4

from impervious.model import (
    Event,
    EventKind,
    MessageId,
    NewEvent,
    NodePubkey,
    OutboundMessage,
    ServiceType,
)
from impervious.outbound import SendPolicy, accept
from impervious.store import Row, Tx, outbox
from impervious.store.transaction import SqlValue
from impervious.units import Msat


class ServiceTx:
    """An open transaction: a service's own tables, messages to send, events to show. Synchronous; never keep it."""

    def __init__(self, tx: Tx, service_type: ServiceType, policy: SendPolicy) -> None:
        self._tx = tx
        self._service_type = service_type
        self._policy = policy

    @property
    def now_ms(self) -> int:
        """Wall-clock time of this transaction, in milliseconds since 1970."""
        return self._tx.now_ms

    def run(self, sql: str, *parameters: SqlValue) -> int:
        """Execute a statement on the service's own tables and return how many rows it changed."""
        return self._tx.run(sql, *parameters)

    def one(self, sql: str, *parameters: SqlValue) -> Row | None:
        """Return the first row of the service's own tables, or None."""
        return self._tx.one(sql, *parameters)

    def all(self, sql: str, *parameters: SqlValue) -> list[Row]:
        """Return every row of the service's own tables."""
        return self._tx.all(sql, *parameters)

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
        message = OutboundMessage(
            id=uuid4(),
            recipient=recipient,
            service_type=self._service_type,
            payload=payload,
            amount=amount or self._policy.minimum_amount(len(payload)),
            reply_to=reply_to,
        )
        accept(self._tx, message, self._policy)
        return message.id

    def emit(self, data: bytes, *, identifier: MessageId, reply_to: MessageId | None = None) -> Event:
        """Show an event of this service on the stream, as coming from this node."""
        return self._tx.emit(
            NewEvent(
                kind=EventKind.NOTICE,
                id=identifier,
                reply_to=reply_to,
                sender=outbox.identity(self._tx),
                service_type=self._service_type,
                topic=self._service_type,
                data=data,
                amount=Msat(0),
                sent_at_ms=self._tx.now_ms,
                verified=True,
            )
        )
