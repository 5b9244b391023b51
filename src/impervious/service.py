"""What a service is, and everything it is given: ours and third parties' alike.

A service has commands, which are coroutines of its own, and may handle facts: messages from other nodes, the ends of
its own calls. Facts come from the log through a durable cursor of the service's own, one at a time and in order.
Handling one returns an *effect*, a function that runs in the transaction that also moves the cursor: so it happens
exactly once, whatever crashes, and a slow handler holds up nobody but itself.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, NoReturn, TypeAlias, TypeVar
from uuid import UUID, uuid4

from impervious.config import ServiceConfig
from impervious.errors import InvalidArgument, NodeUnavailable
from impervious.hub import Hub
from impervious.model import (
    Event,
    EventKind,
    MessageId,
    MessageState,
    NewEvent,
    NodePubkey,
    OutboundMessage,
    ServiceType,
)
from impervious.node import PaymentNode
from impervious.outbound import Outbound, SendPolicy, accept
from impervious.store import Row, Store, Tx, idempotency, log, log_topic, outbox
from impervious.store.transaction import SqlValue
from impervious.units import Msat

T = TypeVar("T")

PAGE: Final = 64
"""Facts read from the log at a time."""
MAX_KEY_BYTES: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedMessage:
    """Another node's message to this service, complete, in order, its sender proved."""

    seq: int
    id: MessageId
    sender: NodePubkey
    reply_to: MessageId | None
    data: bytes
    amount: Msat
    """Received with it."""
    sent_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a message that this service sent."""

    seq: int
    id: MessageId
    delivered: bool
    reason: str
    """Why not; empty when delivered."""


Fact: TypeAlias = VerifiedMessage | Outcome


class ServiceTx:
    """A transaction as a service sees it: its own tables, messages to send, events to show."""

    def __init__(self, tx: Tx, service_type: ServiceType, policy: SendPolicy, local: NodePubkey | None) -> None:
        self._tx = tx
        self._service_type = service_type
        self._policy = policy
        self._local = local

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
          amount: what it gets paid; 0: the minimum for the size.
          reply_to: id of the message this answers.

        Returns:
          The id under which everything about it appears on the stream.

        Raises:
          InvalidArgument: it can never be sent.
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
                sender=self._local,
                service_type=self._service_type,
                topic=self._service_type,
                data=data,
                amount=Msat(0),
                sent_at_ms=self._tx.now_ms,
                verified=True,
            )
        )


Effect: TypeAlias = Callable[[ServiceTx], object]


class Service:
    """The base of every service. Subclasses set `service_type` and add their commands."""

    service_type: ClassVar[ServiceType]
    """The wire's name, also that of its entry in `service_list`."""
    handles_facts: ClassVar[bool] = False
    """Whether `handle` is to be called."""

    def __init__(self, context: "ServiceContext") -> None:
        self.context = context

    async def handle(self, fact: Fact) -> Effect | None:
        """Decide what a fact causes. May be called again for the same fact after a crash.

        Returns:
          A function to run in the transaction that marks the fact as handled, or None.
        """
        raise AssertionError(f"{type(self).__name__} says that it handles facts and does not")


class ServiceContext:
    """What a service is given."""

    def __init__(
        self,
        config: ServiceConfig,
        *,
        node: PaymentNode,
        store: Store,
        hub: Hub,
        outbound: Outbound,
    ) -> None:
        self.config = config
        """Its entry in `service_list`."""
        self.node = node
        """The Lightning node."""
        self._store = store
        self._hub = hub
        self._outbound = outbound

    def minimum_amount(self, size: int) -> Msat:
        """Say what a payload of `size` bytes carries at least, in msat."""
        return self._outbound.policy.minimum_amount(size)

    async def send(
        self,
        recipient: NodePubkey,
        payload: bytes,
        *,
        amount: Msat = Msat(0),
        reply_to: MessageId | None = None,
        idempotency_key: str | None = None,
    ) -> MessageId:
        """Store a message to be sent, and answer at once.

        Args:
          recipient: the far node.
          payload: what it gets, at most `message.max_bytes`.
          amount: what it gets paid, in msat; 0: the minimum for the size.
          reply_to: id of the message this answers.
          idempotency_key: the same key with the same arguments gives the same id and sends nothing again.

        Raises:
          InvalidArgument: it can never be sent.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why. Nothing was stored.
        """
        if idempotency_key is None:
            await self._check_recipient(recipient)
            return await self.transaction(lambda tx: tx.send(recipient, payload, amount=amount, reply_to=reply_to))
        return await self._send_once(recipient, payload, amount, reply_to, idempotency_key)

    async def _send_once(
        self, recipient: NodePubkey, payload: bytes, amount: Msat, reply_to: MessageId | None, key: str
    ) -> MessageId:
        if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
            raise InvalidArgument(f"Idempotency-Key must have 1 to {MAX_KEY_BYTES} bytes")
        service_type, digest = self.config.service_type, _digest(recipient, payload, amount, reply_to)

        def recall(tx: Tx) -> MessageId | None:
            return idempotency.recall(tx, service_type, key, digest)

        def store(tx: Tx) -> MessageId:
            known = recall(tx)
            if known is not None:
                return known  # two calls raced
            identifier = self._tx(tx).send(recipient, payload, amount=amount, reply_to=reply_to)
            idempotency.remember(tx, service_type, key, digest, identifier)
            return identifier

        known = await self._store.read(recall)
        if known is not None:
            return known  # also while the Lightning node is away
        await self._check_recipient(recipient)
        return await self._store.write(store)

    async def wait(self, message_id: MessageId) -> None:
        """Wait for the end of a message of ours.

        Raises:
          DeliveryFailed: it was not delivered; says why.
          NotFound: there is no such message.

        Cancellation: stops waiting, not delivering.
        """
        await self._outbound.wait(message_id)

    async def transaction(self, effect: Callable[[ServiceTx], T]) -> T:
        """Run `effect` in a transaction: all of it is kept, or what it raises is raised here and nothing is."""
        return await self._store.write(lambda tx: effect(self._tx(tx)))

    def require_node(self) -> None:
        """Refuse a call that the Lightning node could not serve now.

        Raises:
          NodeUnavailable: says what is missing and what cures it.
        """
        status = self.node.status
        if not status.ready:
            raise NodeUnavailable(status.reason)

    async def _check_recipient(self, recipient: NodePubkey) -> None:
        self.require_node()
        if recipient == (await self.node.wait_ready()).pubkey:
            raise InvalidArgument("pubkey is this node's own: a node cannot pay itself; give another node's")

    def _tx(self, tx: Tx) -> ServiceTx:
        return ServiceTx(tx, self.config.service_type, self._outbound.policy, outbox.identity(tx))

    async def run_handler(self, service: Service) -> NoReturn:
        """Show `service` every fact that concerns it, from where it stopped; started by the supervisor."""
        name = f"service {self.config.service_type}"
        with self._hub.waiting_for(log_topic(self.config.service_type)) as wakes:
            position = await self._store.write(lambda tx: _begin(tx, name))
            while True:
                page = await self._store.read(partial(self._page, after=position))
                for event in page:
                    await self._handle(service, name, event)
                    position = event.seq
                if len(page) < PAGE:
                    await wakes.receive()

    def _page(self, tx: Tx, *, after: int) -> list[Event]:
        return log.events_for(tx, self.config.service_type, after=after, limit=PAGE)

    async def _handle(self, service: Service, name: str, event: Event) -> None:
        fact = fact_of(event)
        effect = await service.handle(fact) if fact else None

        def commit(tx: Tx) -> None:
            if effect is not None:
                effect(self._tx(tx))
            log.advance_reader(tx, name, event.seq)

        await self._store.write(commit)


def fact_of(event: Event) -> Fact | None:
    """Read the fact in a row of the log; None: it is none that a service acts on."""
    if event.kind is EventKind.MESSAGE and event.verified and event.sender is not None:
        return VerifiedMessage(
            seq=event.seq,
            id=event.id,
            sender=event.sender,
            reply_to=event.reply_to,
            data=event.data,
            amount=event.amount,
            sent_at_ms=event.sent_at_ms,
        )
    if event.kind is EventKind.OUTCOME:
        detail = json.loads(event.data)
        delivered = detail["state"] == MessageState.DELIVERED.value
        return Outcome(seq=event.seq, id=event.id, delivered=delivered, reason=detail.get("reason", ""))
    return None


def _begin(tx: Tx, name: str) -> int:
    """Return where a service goes on; one that is new begins with what comes next."""
    position = log.reader_position(tx, name)
    if position is None:
        position = log.newest(tx)
        log.advance_reader(tx, name, position)
    return position


def _digest(recipient: NodePubkey, payload: bytes, amount: Msat, reply_to: UUID | None) -> bytes:
    head = f"{recipient.hex}|{amount}|{reply_to or ''}|".encode()
    return hashlib.sha256(head + payload).digest()
