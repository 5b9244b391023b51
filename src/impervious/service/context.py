"""What a service is given: its configuration, the Lightning node, the database, and a way to send."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, TypeVar

import trio

from impervious.config import Config, ServiceConfig
from impervious.errors import InvalidArgument, NodeUnavailable
from impervious.gate import PaymentGate
from impervious.hub import Hub
from impervious.model import MessageId, MessageReport, NodePubkey, RouteHint
from impervious.node import LightningNode
from impervious.outbound import Outbound
from impervious.service.keys import checked_key
from impervious.service.transaction import ServiceTx, service_topic
from impervious.store import Store, Tx, hints, idempotency, peers
from impervious.units import Msat

T = TypeVar("T")

logger = logging.getLogger(__name__)

SLOW_EFFECT_S: Final = 0.1
"""A transaction of a service's takes less than a millisecond; what takes so long waits for something."""
LONGEST_SLEEP_S: Final = 86_400.0
"""Computers sleep and clocks are set: a wall-clock time far away is looked at again each day."""


class ServiceContext:
    """What a service is given."""

    def __init__(
        self,
        config: ServiceConfig,
        *,
        settings: Config,
        node: LightningNode,
        store: Store,
        hub: Hub,
        outbound: Outbound,
        gate: PaymentGate | None = None,
    ) -> None:
        self.config = config
        """Its entry in `service_list`."""
        self.settings = settings
        """The whole configuration."""
        self._node = node
        self._store = store
        self._hub = hub
        self._outbound = outbound
        self._gate = gate or PaymentGate()

    @property
    def node(self) -> LightningNode:
        """The Lightning node. Whoever pays with it sets the cost aside first: `ServiceTx.reserve`.

        Raises:
          trio.ClosedResourceError: the node of this service is closed, as is raised by every method here then.
        """
        self.require_open()
        return self._node

    def minimum_amount(self, size: int) -> Msat:
        """Say what a payload of `size` bytes carries at least, in msat."""
        self.require_open()
        return self._outbound.policy.minimum_amount(size)

    async def send(
        self,
        recipient: NodePubkey | str,
        payload: bytes,
        *,
        amount: Msat = Msat(0),
        reply_to: MessageId | None = None,
        idempotency_key: str | None = None,
    ) -> MessageId:
        """Store a message to be sent, and answer at once.

        Args:
          recipient: the far node: its key, 66 hex digits, or @ and a peer's imp id.
          payload: what it gets, at most `message.max_bytes`.
          amount: what it gets paid, in msat; 0: the minimum for the size.
          reply_to: id of the message this answers.
          idempotency_key: the same key with the same arguments gives the same id and sends nothing again.

        Raises:
          InvalidArgument: it can never be sent.
          NotFound: no peer goes by that name.
          FailedPrecondition: the peer that the name belonged to is gone, or this service has no record number.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why. Nothing was stored.
        """
        return await self.once(
            idempotency_key,
            f"{amount}|{reply_to or ''}|".encode() + payload,
            recipient,
            lambda tx, far: tx.send(far, payload, amount=amount, reply_to=reply_to),
        )

    async def once(
        self,
        key: str | None,
        request: bytes,
        recipient: NodePubkey | str,
        send: Callable[[ServiceTx, NodePubkey], MessageId],
    ) -> MessageId:
        """Send something to another node; with a key once, however often this is called.

        A call that is repeated gets the id of the first one, also while the Lightning node is away, and whatever has
        become of the recipient's name or of what was sent. Keys are the service's own, and kept for
        `limits.idempotency_days`.

        Args:
          key: the caller's, 1 to 255 bytes; None: there is none, and each call sends.
          request: what is asked for, beside the recipient; the same key with another request is an error.
          recipient: the far node: its key, 66 hex digits, or @ and a peer's imp id.
          send: sends it, in a transaction; what it raises is raised here, and the key is still free.

        Raises:
          InvalidArgument: that is no key, or no node, or this node itself.
          NotFound: no peer goes by that name.
          FailedPrecondition: the peer that the name belonged to is gone.
          AlreadyExists: the key was used for something else.
          NodeUnavailable: the Lightning node cannot serve now; says why. Nothing was stored.
        """
        if key is None:
            far = await self.recipient(recipient)
            return await self._store.write(lambda tx: self.run_effect(tx, lambda bound: send(bound, far), what=send))
        checked_key(key)
        # The name as it was given: after a LEAVE, for one, nobody goes by it.
        digest = hashlib.sha256(f"{_as_given(recipient)}|".encode() + request).digest()
        service_type = self.config.service_type

        def recall(tx: Tx) -> MessageId | None:
            return idempotency.recall(tx, service_type, key, digest)

        def store(tx: Tx) -> MessageId:
            known = recall(tx)
            if known is not None:
                return known  # two calls raced
            identifier = self.run_effect(tx, lambda bound: send(bound, far), what=send)
            idempotency.remember(tx, service_type, key, digest, identifier)
            return identifier

        known = await self._store.read(recall)
        if known is not None:
            return known
        far = await self.recipient(recipient)
        return await self._store.write(store)

    async def wait(self, message_id: MessageId) -> None:
        """Wait for the end of a message of ours.

        Raises:
          DeliveryFailed: it was not delivered; says why.
          NotFound: there is no such message.

        Cancellation: stops waiting, not delivering.
        """
        await self._outbound.wait(message_id)

    async def report(self, message_id: MessageId) -> MessageReport:
        """Say how far a message of this node is, whichever service sent it.

        Raises:
          NotFound: there is no such message, or no longer.
        """
        return await self._outbound.report(message_id)

    async def transaction(self, effect: Callable[[ServiceTx], T]) -> T:
        """Run `effect` in a transaction: all of it is kept, or what it raises is raised here and nothing is."""
        return await self._store.write(lambda tx: self.run_effect(tx, effect))

    async def read(self, work: Callable[[ServiceTx], T]) -> T:
        """Run `work`, which must not write, on a snapshot of what is committed."""
        return await self._store.read(lambda tx: work(self.bind(tx)))

    async def route_hints(self, node: NodePubkey) -> tuple[RouteHint, ...]:
        """Return the ways to a node with private channels only, as it told them; mostly there are none."""
        return await self._store.read(lambda tx: hints.find(tx, node))

    async def resolve(self, node: NodePubkey | str) -> NodePubkey:
        """Find the node that is meant by 66 hex digits, or by @ and the imp id of a peer.

        A name that `federate.names` pins means that node; any other belongs to the live peer that had it first.

        Raises:
          InvalidArgument: it is neither.
          NotFound: no peer goes by that name.
          FailedPrecondition: the name's owner is gone and others go by it; lists their keys.
        """
        self.require_open()
        if isinstance(node, NodePubkey):
            await trio.lowlevel.checkpoint()
            return node
        if node.startswith("@"):
            pinned = self.settings.federate.pinned(node[1:])
            if pinned is not None:
                await trio.lowlevel.checkpoint()
                return pinned
            return (await self._store.read(lambda tx: peers.named(tx, node[1:]))).pubkey
        await trio.lowlevel.checkpoint()
        return NodePubkey.parse(node)

    @contextmanager
    def alarm(self) -> Iterator["Alarm"]:
        """Have something to sleep on that `ServiceTx.wake` ends early; look at the database after entering."""
        with self._hub.waiting_for(service_topic(self.config.service_type)) as wakes:
            yield Alarm(self._store.now_ms, wakes)

    def require_open(self) -> None:
        """Refuse a call that comes after the end of the node.

        Raises:
          trio.ClosedResourceError: it is closed.
        """
        self._hub.lifetime.require_open()

    def require_node(self) -> None:
        """Refuse a call that the Lightning node could not serve now.

        Raises:
          NodeUnavailable: says what is missing and what cures it.
        """
        status = self.node.status
        if not status.ready:
            raise NodeUnavailable(status.reason)

    async def require_payable(self) -> None:
        """Refuse a call that pays while this node may pay nothing.

        Raises:
          FailedPrecondition: the operator must do something first; says what.
          NodeUnavailable: it is not known yet whether it may.
        """
        self.require_open()
        await self._gate.require()

    async def recipient(self, node: NodePubkey | str) -> NodePubkey:
        """Find the node that is meant, if it can be sent to now. Raises: as `resolve` and `check_recipient`."""
        far = await self.resolve(node)
        await self.check_recipient(far)
        return far

    async def check_recipient(self, recipient: NodePubkey) -> None:
        """Refuse a message that cannot be sent now, or never.

        Raises:
          NodeUnavailable: the Lightning node cannot serve now; says why.
          FailedPrecondition: this node may pay nothing now; says why, and what cures it.
          InvalidArgument: the recipient is this node itself.
        """
        self.require_node()
        await self.require_payable()
        if recipient == (await self.node.wait_ready()).pubkey:
            raise InvalidArgument("pubkey is this node's own: a node cannot pay itself; give another node's")

    def run_effect(self, tx: Tx, effect: Callable[[ServiceTx], T], *, what: object = None) -> T:
        """Run a function of the service in the writer, and name it in the log if everything else waits for it.

        Args:
          tx: the transaction.
          effect: the function.
          what: it was made from; None: it is its own.
        """
        began = perf_counter()
        try:
            return effect(self.bind(tx))
        finally:
            took_s = perf_counter() - began
            if took_s > SLOW_EFFECT_S:
                name = getattr(what or effect, "__qualname__", type(effect).__name__)
                logger.warning(
                    "%s: %s held the database for %.2f s, and every other write waited: what runs in a transaction must"
                    " be quick; look things up before it",
                    self.config.service_type,
                    name,
                    took_s,
                )

    def bind(self, tx: Tx) -> ServiceTx:
        """Make of the database's transaction one of this service."""
        return ServiceTx(tx, self.config.service_type, self._outbound.policy, self.settings.limits, self._gate)


class Alarm:
    """Sleeps until a time of the wall clock, or until the service has reason to look again."""

    def __init__(self, now_ms: Callable[[], int], wakes: trio.MemoryReceiveChannel[None]) -> None:
        self._now_ms = now_ms
        self._wakes = wakes

    async def sleep_until(self, at_ms: int | None) -> None:
        """Sleep.

        Args:
          at_ms: milliseconds since 1970; None: only until woken.
        """
        seconds = math.inf if at_ms is None else max(0, at_ms - self._now_ms()) / 1000
        with trio.move_on_after(min(seconds, LONGEST_SLEEP_S)):
            await self._wakes.receive()


def _as_given(node: NodePubkey | str) -> str:
    """Write a recipient so that the same one is written the same way."""
    if isinstance(node, str):
        if node.startswith("@"):
            return node
        node = NodePubkey.parse(node)
    return node.hex
