"""Federation: nodes trade imp ids and remember each other for a time.

A request carries who we are; the far node remembers us and answers with who it is, upon which we remember it. What
changes who is remembered happens in the transaction that gives the message its place in the log: whoever sees the event
finds the peer. Who is remembered that asks to be is the operator's choice (`federate.accept`).
"""

import logging
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import trio

from impervious.errors import FailedPrecondition, NotFound
from impervious.model import MessageId, NodePubkey, Peer, RecordType, ServiceType, Shown
from impervious.service import Effect, Fact, ServiceTx, VerifiedMessage
from impervious.service.contract import InTurnService
from impervious.services.federate import pending
from impervious.services.federate.pending import Pending
from impervious.wire.payloads import Federate, Leave, compact, decode_federate

logger = logging.getLogger(__name__)

ALL: Final = "all"
ASK: Final = "ask"
STRANGER_TTL_S: Final = 366 * 86_400
"""Whoever asked by itself is remembered for a year at most, and then asks again."""


class FederateService(InTurnService):
    """Federates with other nodes."""

    service_type = ServiceType("federate")
    record_type = RecordType(100_000)
    handles_facts = True
    migrations = (pending.TABLE, pending.BY_AGE)

    # --- Commands -----------------------------------------------------------------------------------------------------

    async def request(
        self, node: NodePubkey | str, *, idempotency_key: str | None = None, wait: bool = False
    ) -> MessageId:
        """Ask a node to remember us; its answer, an event of this service, makes us remember it.

        Doing so again refreshes what both know, and for how long.

        Args:
          node: the far node.
          idempotency_key: the same key with the same node gives the same id and sends nothing again.
          wait: return only when the request is delivered; the answer comes later.

        Returns:
          The request's id; the answer has it as `reply_to`.

        Raises:
          FailedPrecondition: `federate.imp_id` is not set, or the name's owner is gone and others go by it.
          InvalidArgument: that is no node, or this one.
          NotFound: no peer goes by that name.
          AlreadyExists: the key was used for something else.
          ResourceExhausted: the budget does not allow it.
          NodeUnavailable: the Lightning node cannot serve now; says why.
          DeliveryFailed: with `wait`, it was not delivered.
        """

        def ask(tx: ServiceTx, far: NodePubkey) -> MessageId:
            payload = self._introduction(tx, answer=False)
            return tx.ask(far, payload, answer_bytes=len(payload))

        return await self._sent(idempotency_key, b"request", node, ask, wait=wait)

    async def leave(
        self, node: NodePubkey | str, *, idempotency_key: str | None = None, wait: bool = False
    ) -> MessageId:
        """Forget a peer, and ask it to forget us. Also for one that we have forgotten and that may remember us.

        Args:
          node: the far node.
          idempotency_key: as for `request`.
          wait: return only when the notice is delivered.

        Raises: as `request`, but for `federate.imp_id`.
        """

        def notify(tx: ServiceTx, far: NodePubkey) -> MessageId:
            tx.forget_peer(far)
            tx.withdraw_requests(far)  # an answer on its way must not bring it back
            pending.forget(tx, far)
            tx.wake()
            return tx.send(far, Leave().encode())

        return await self._sent(idempotency_key, b"leave", node, notify, wait=wait)

    async def accept(self, node: NodePubkey | str, *, idempotency_key: str | None = None) -> MessageId:
        """Remember a node that asked for it, and answer (`federate.accept: ask`).

        Args:
          node: the node that asked.
          idempotency_key: as for `request`.

        Raises:
          NotFound: it has not asked, or not within a week.
          FailedPrecondition: `federate.imp_id` is not set.
          AlreadyExists: the key was used for something else.
          ResourceExhausted: the budget does not allow the answer; nothing was done.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """

        def answer(tx: ServiceTx, far: NodePubkey) -> MessageId:
            payload = self._introduction(tx, answer=True)
            request = pending.take(tx, far)
            _remember(tx, far, request)
            return tx.send(far, payload, reply_to=request.id)

        return await self._sent(idempotency_key, b"accept", node, answer)

    async def reject(self, node: NodePubkey | str, *, idempotency_key: str | None = None) -> MessageId:
        """Tell a node that asked to be remembered that it will not be (`federate.accept: ask`).

        Args and Raises: as `accept`.
        """

        def answer(tx: ServiceTx, far: NodePubkey) -> MessageId:
            return tx.send(far, Leave().encode(), reply_to=pending.take(tx, far).id)

        return await self._sent(idempotency_key, b"reject", node, answer)

    async def _sent(
        self,
        key: str | None,
        request: bytes,
        node: NodePubkey | str,
        send: Callable[[ServiceTx, NodePubkey], MessageId],
        *,
        wait: bool = False,
    ) -> MessageId:
        identifier = await self.context.once(key, request, node, send)
        if wait:
            await self.context.wait(identifier)
        return identifier

    async def requests(self) -> list[Pending]:
        """List who has asked to be remembered and waits for `accept` or `reject`, the longest waiting first."""
        return await self.context.read(pending.waiting)

    async def peers(self) -> list[Peer]:
        """List the nodes that we have federated with, by name."""
        return await self.context.read(lambda tx: tx.peers())

    async def peer(self, node: NodePubkey | str) -> Peer:
        """Look one peer up.

        Raises:
          NotFound: we have not federated with it, or its time is over.
        """
        pubkey = await self.context.resolve(node)
        found = await self.context.read(lambda tx: tx.peer(pubkey))
        if found is None:
            raise NotFound(f"{pubkey} is no peer: request federation first, or its time is over")
        return found

    def _imp_id(self) -> str:
        imp_id = self.context.settings.federate.imp_id
        if imp_id is None:
            raise FailedPrecondition("federation is off: set federate.imp_id to the name your node should go by")
        return imp_id

    def _introduction(self, tx: ServiceTx, *, answer: bool) -> bytes:
        settings = self.context.settings
        return Federate(
            imp_id=self._imp_id(),
            pubkey=tx.own_pubkey,
            ttl_s=settings.federate.ttl_s,
            services=tuple(entry.service_type for entry in settings.services if entry.active),
            answer=answer,
        ).encode()

    # --- What other nodes say -----------------------------------------------------------------------------------------

    def show(self, tx: ServiceTx, message: VerifiedMessage) -> Shown | None:
        """Remember or forget the sender; show what is true of it and was asked for."""
        record = decode_federate(message.data)
        if isinstance(record, Leave):
            known = (tx.forget_peer(message.sender), tx.close_request(message), pending.forget(tx, message.sender))
            tx.wake()
            return Shown(data=message.data) if any(known) else None
        if record.pubkey != message.sender:
            return None  # whatever it means, it is not for itself
        wanted = tx.close_request(message) if record.answer else self._admit(tx, message, record)
        if not wanted:
            return None
        if record.answer or self._accepts(ALL):
            _remember(tx, message.sender, record, stranger=not record.answer)
        return Shown(data=message.data)

    def _admit(self, tx: ServiceTx, message: VerifiedMessage, record: Federate) -> bool:
        """Decide whether a request counts. Keys cost a stranger nothing, so there is room for so many and no more."""
        most = self.context.settings.federate.max_strangers
        if self._accepts(ASK):
            return pending.note(tx, message, record, most=most) or self._full(tx, message)
        if not self._accepts(ALL):
            return False
        return tx.peer(message.sender) is not None or tx.strangers() < most or self._full(tx, message)

    def _full(self, tx: ServiceTx, message: VerifiedMessage) -> bool:
        tx.count("refused_strangers")
        logger.info("%s asked to federate in vain: federate.max_strangers is reached", message.sender)
        return False

    def _accepts(self, policy: str) -> bool:
        settings = self.context.settings.federate
        return settings.imp_id is not None and settings.accept == policy

    async def handle(self, fact: Fact) -> Effect | None:
        """Answer whom we have come to remember."""
        await trio.lowlevel.checkpoint()
        if not (isinstance(fact, VerifiedMessage) and self._accepts(ALL)):
            return None
        record = decode_federate(fact.data)
        if isinstance(record, Leave) or record.answer:
            return None
        return lambda tx: tx.answer(fact, self._introduction(tx, answer=True))

    # --- Time ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell when the time of a peer is over."""
        with self.context.alarm() as alarm:
            while True:
                await alarm.sleep_until(await self.context.transaction(_expire))


def _expire(tx: ServiceTx) -> int | None:
    for peer in tx.take_expired_peers():
        shape = {"recordId": "EXPIRED", "impId": peer.imp_id, "pubkey": peer.pubkey.hex}
        tx.emit(compact(shape), identifier=uuid4())
    pending.forget_old(tx)
    return tx.next_expiry_ms()


def _remember(tx: ServiceTx, pubkey: NodePubkey, record: Federate | Pending, *, stranger: bool = False) -> None:
    """Store a peer, or what is new about it."""
    known = tx.peer(pubkey)
    ttl_s = min(record.ttl_s, STRANGER_TTL_S) if stranger else record.ttl_s
    tx.remember_peer(
        Peer(
            pubkey=pubkey,
            imp_id=record.imp_id,
            since_ms=known.since_ms if known else tx.now_ms,
            expires_ms=tx.now_ms + ttl_s * 1000,
            services=record.services,
        ),
        stranger=stranger,
    )
    tx.wake()
