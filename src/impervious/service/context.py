"""What a service is given: its configuration, the Lightning node, the database, and a way to send."""

import hashlib
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

from impervious.config import Config, ServiceConfig
from impervious.errors import InvalidArgument, NodeUnavailable
from impervious.hub import Hub
from impervious.model import MessageId, NodePubkey
from impervious.node import PaymentNode
from impervious.outbound import Outbound
from impervious.service.transaction import ServiceTx
from impervious.store import Store, Tx, idempotency
from impervious.units import Msat

T = TypeVar("T")

MAX_KEY_BYTES: Final = 255


class ServiceContext:
    """What a service is given."""

    def __init__(
        self,
        config: ServiceConfig,
        *,
        settings: Config,
        node: PaymentNode,
        store: Store,
        hub: Hub,
        outbound: Outbound,
    ) -> None:
        self.config = config
        """Its entry in `service_list`."""
        self.settings = settings
        """The whole configuration."""
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
            identifier = self.bind(tx).send(recipient, payload, amount=amount, reply_to=reply_to)
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
        return await self._store.write(lambda tx: effect(self.bind(tx)))

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

    def bind(self, tx: Tx) -> ServiceTx:
        """Make of the database's transaction one of this service."""
        return ServiceTx(tx, self.config.service_type, self._outbound.policy)


def _digest(recipient: NodePubkey, payload: bytes, amount: Msat, reply_to: UUID | None) -> bytes:
    head = f"{recipient.hex}|{amount}|{reply_to or ''}|".encode()
    return hashlib.sha256(head + payload).digest()
