"""One message, from its stored intent to its outcome.

Sign once; find out whether its records fit a route; pay every part, overlapping, until each is settled or the message
is given up. A part whose fate is unknown (after a crash, when the node went away, when the node says that it is paying)
is tracked before anything else is done about it, so nothing is paid twice. Only a range whose payment is definitively
failed, or was never sent, is cut smaller.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from impervious.backoff import delays_s
from impervious.errors import (
    AlreadyPaying,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    PaymentFailure,
    PaymentNotFound,
    ResourceExhausted,
    StoreFull,
)
from impervious.model import (
    KeysendSupport,
    MessageState,
    NodePubkey,
    Part,
    PartState,
    Payment,
    PaymentStatus,
)
from impervious.node import PaymentNode
from impervious.outbound import plan
from impervious.outbound.accept import SendPolicy, beyond, new_part
from impervious.outbound.outcome import FAILURE_WORDS, KEYSEND_WORDS, Failure, conclude
from impervious.outbound.packing import SMALLEST_PART_BYTES, Packing, probe, room_bytes
from impervious.outbound.plan import Range
from impervious.store import Store, Tx, answers, outbox, spending
from impervious.store.outbox import Stored
from impervious.units import Msat
from impervious.wire import envelope
from impervious.wire.envelope import Header, SignedHeader

logger = logging.getLogger(__name__)

SIGN_AGAIN_MS: Final = 6 * 86_400_000
"""A recipient believes a header for 7 days; only what is owed is tried for so long."""
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0


class Slots:
    """How many payments may be under way: to one recipient, and in all."""

    def __init__(self, peer: trio.Semaphore, everywhere: trio.Semaphore) -> None:
        self._peer = peer
        self._everywhere = everywhere

    async def acquire(self) -> None:
        """Wait for a place, first come, first served."""
        await self._peer.acquire()
        try:
            await self._everywhere.acquire()
        except trio.Cancelled:
            self._peer.release()
            raise

    def release(self) -> None:
        """Give the place back."""
        self._everywhere.release()
        self._peer.release()


@dataclass(slots=True, kw_only=True)
class Tools:
    """What a delivery works with."""

    node: PaymentNode
    store: Store
    policy: SendPolicy
    random: Callable[[], float]
    slots: Slots


@dataclass(slots=True)
class _Cut:
    """A range that must be sent in smaller parts."""

    part_bytes: int


@dataclass(slots=True)
class Delivery:
    """The work on one message. `run` returns when the outcome is stored."""

    tools: Tools
    stored: Stored
    parts: list[Part]
    voids: tuple[int, ...]
    """Orders that the recipient has still to be told about."""
    local: NodePubkey | None
    _signed: SignedHeader | None = field(default=None, repr=False)
    _failure: Failure | None = None
    """Set as soon as the message cannot arrive any more; parts that are not in flight then stay unsent."""
    _last_reason: str = "it could not be tried: the Lightning node was away"

    async def run(self) -> None:
        """Deliver, or fail, and store which.

        Raises:
          NodeMisconfigured: it is another node than the configuration names.
          StoreError: the database cannot be used.

        Cancellation: leaves everything for the next start.
        """
        resumed = self.stored.state is MessageState.SENDING
        if await self._sign_in_time():
            if not resumed:
                await self._fit_to_route(self._packing())
            await self._pay(self.parts, maybe_sent=resumed)
        await self._write(self._finish)

    # --- Signing ------------------------------------------------------------------------------------------------------

    async def _sign_in_time(self) -> bool:
        """Have a stored header and signature. False: time ran out first."""
        if self.stored.header and self.stored.signature:
            header = envelope.decode_header(self.stored.header)
            self._signed = SignedHeader(header=header, raw=self.stored.header, signature=self.stored.signature)
            return True
        with trio.move_on_after(self._left_s()):
            for delay_s in self._delays():
                if await self._sign():
                    return True
                await trio.sleep(delay_s)
        self._give_up()
        return False

    async def _sign(self) -> bool:
        """Make and store header and signature. False: the node could not."""
        message_id = self.stored.message.id
        try:
            info = await self.tools.node.wait_ready()
            self.local = info.pubkey
            header = self._header(info.pubkey)
            raw = envelope.encode_header(header)
            text = envelope.signed_text(
                raw,
                network=info.network,
                record_type=self.stored.record_type,
                recipient=self.stored.message.recipient,
                message_id=message_id,
            )
            signature = await self.tools.node.sign(text)
        except (NodeUnavailable, NodeRefused) as error:
            self._last_reason = str(error)
            return False
        await self._write(lambda tx: outbox.set_signed(tx, message_id, header=raw, signature=signature))
        self._signed = SignedHeader(header=header, raw=raw, signature=signature)
        return True

    def _header(self, sender: NodePubkey) -> Header:
        message = self.stored.message
        return Header(
            sender=sender,
            sent_at_ms=self.tools.store.now_ms(),
            reply_to=message.reply_to,
            total_bytes=len(message.payload),
            payload_sha256=hashlib.sha256(message.payload).digest(),
            amount=message.amount,
            order=self.stored.order,
            void_orders=self.voids,
        )

    def _packing(self) -> Packing:
        assert self._signed is not None, "nothing is packed before it is signed"
        return Packing(self.stored, self._signed)

    async def _freshen(self) -> bool:
        """Sign anew what has become too old for the recipient to believe. False: the node could not."""
        age_ms = self.tools.store.now_ms() - self._packing().signed.header.sent_at_ms
        return age_ms < SIGN_AGAIN_MS or await self._sign()

    # --- Size ---------------------------------------------------------------------------------------------------------

    async def _fit_to_route(self, packing: Packing) -> None:
        """Cut parts that no route can carry before they are first sent; without any route, leave them alone."""
        try:
            room = await probe(self.tools.node, packing, self.parts)
        except (NodeUnavailable, NodeRefused, NoRoute):
            return  # the payments themselves will say
        if room is None:
            return
        fitting: list[Part] = []
        for part in self.parts:
            size = room - packing.overhead(part)
            if part.length <= size or size < SMALLEST_PART_BYTES:
                fitting.append(part)
            else:
                fitting += await self._replace(part, size) or [part]
        self.parts = fitting

    async def _replace(self, part: Part, part_bytes: int) -> list[Part] | None:
        """Store smaller parts instead of one that cannot be in flight. None: the budget forbids; the failure is set."""
        policy = self.tools.policy
        ranges = plan.cut(
            offset=part.offset,
            length=part.length,
            amount=part.amount,
            part_bytes=part_bytes,
            part_amount=policy.part_amount,
        )
        smaller: list[Part] = []

        def store(tx: Tx) -> None:
            fee_limit = self._fee_limit_of_pieces(tx, part, ranges)
            smaller[:] = [new_part(piece, fee_limit) for piece in ranges]
            self._store_replacement(tx, part, smaller)

        try:
            await self._write(store)
        except ResourceExhausted as error:
            self._failure = Failure(reason=f"smaller parts cost more: {error}", retryable=True)
            return None
        logger.debug("message %s: %d bytes cut into %d parts", self.stored.message.id, part.length, len(smaller))
        return smaller

    def _fee_limit_of_pieces(self, tx: Tx, part: Part, pieces: Sequence[Range]) -> Msat:
        """Say what the routing of each piece may cost, so that a debt never costs more than came in for it.

        Raises:
          ResourceExhausted: what came in does not pay for so many pieces.
        """
        if self.stored.deadline_ms is not None or not self.stored.received:
            return part.fee_limit
        before = outbox.committed(tx, self.stored.message.id)
        others = before - part.amount - part.fee_limit
        left = max(before, self.stored.received) - others - sum(piece.amount for piece in pieces)
        if left < 0:
            raise ResourceExhausted(f"only {self.stored.received} msat came in to pay for it")
        return Msat(min(part.fee_limit, left // len(pieces)))

    def _store_replacement(self, tx: Tx, part: Part, smaller: Sequence[Part]) -> None:
        message_id, policy = self.stored.message.id, self.tools.policy
        outbox.bury_part(tx, part.payment_hash)
        outbox.add_parts(tx, message_id, smaller)
        ours = beyond(outbox.committed(tx, message_id), self.stored.received)
        more = Msat(ours - spending.reserved(tx, message_id))
        if more > 0:
            limit = None if self.stored.deadline_ms is None else policy.daily_limit
            spending.reserve_more(tx, message_id, more, daily_limit=limit)
            answers.charge(tx, message_id, ours, daily_limit=policy.answers_limit)

    # --- Paying -------------------------------------------------------------------------------------------------------

    async def _pay(self, parts: Sequence[Part], *, maybe_sent: bool) -> None:
        """Pay parts, the first one first, as many at a time as there are places."""
        async with trio.open_nursery() as nursery:
            for part in parts:
                if part.state is not PartState.PENDING:
                    continue
                await self.tools.slots.acquire()
                nursery.start_soon(self._pay_part, part, maybe_sent)

    async def _pay_part(self, part: Part, maybe_sent: bool) -> None:
        """Pay one part until it is settled or given up. Comes with a place among the slots."""
        delays = self._delays()
        holding = True
        try:
            while True:
                if not holding:
                    await self.tools.slots.acquire()
                    holding = True
                if not maybe_sent and self._stopped():
                    return
                verdict, maybe_sent = await self._attempt(part, maybe_sent=maybe_sent)
                if verdict is True:
                    return
                self.tools.slots.release()
                holding = False
                if isinstance(verdict, _Cut):
                    smaller = await self._replace(part, verdict.part_bytes)
                    if smaller:
                        await self._pay(smaller, maybe_sent=False)
                    return
                await self._pause(next(delays), maybe_sent=maybe_sent)
        finally:
            if holding:
                self.tools.slots.release()

    async def _attempt(self, part: Part, *, maybe_sent: bool) -> tuple[bool | _Cut, bool]:
        """Find out what became of a part, or send it.

        Returns:
          Whether it is finished with, or how it must be cut; and whether it may be in flight.
        """
        try:
            if maybe_sent:
                payment = await self._track(part)
                if payment is None or payment.status is PaymentStatus.FAILED:
                    return False, False  # never begun, or over: it can be sent
            else:
                if part.offset == 0 and not await self._freshen():
                    return False, False
                payment = await self._send(part)
        except AlreadyPaying:
            return False, True
        except NodeUnavailable as error:
            self._last_reason = str(error)
            return False, True
        except NodeRefused as error:
            if maybe_sent:  # it refuses to say, which ends nothing
                self._last_reason = str(error)
                return False, True
            self._fail(f"the Lightning node refused the payment: {error}", retryable=False)
            return True, False
        if payment.status is PaymentStatus.SUCCEEDED:
            await self._settle(part, payment)
            return True, False
        return await self._judge(part, payment), False

    async def _track(self, part: Part) -> Payment | None:
        await self.tools.node.wait_ready()
        try:
            return await self.tools.node.track(part.payment_hash)
        except PaymentNotFound:
            return None

    async def _send(self, part: Part) -> Payment:
        return await self.tools.node.send_keysend(
            self.stored.message.recipient,
            part.amount,
            part.preimage,
            self._packing().records(part),
            fee_limit=part.fee_limit,
            timeout_s=self.tools.policy.payment_timeout_s,
        )

    async def _settle(self, part: Part, payment: Payment) -> None:
        def store(tx: Tx) -> None:
            outbox.settle_part(tx, part.payment_hash, payment.fee)
            if part.offset == 0:
                outbox.forget_voids(tx, self.stored.message.recipient, self._packing().signed.header.void_orders)
            if not outbox.pending_parts(tx, self.stored.message.id):
                self._conclude(tx, None)

        await self._write(store)

    async def _judge(self, part: Part, payment: Payment) -> bool | _Cut:
        """Decide what a failed payment means: finished with, to be cut, or (False) to be tried again."""
        reason = payment.failure or PaymentFailure.ERROR
        self._last_reason = FAILURE_WORDS[reason]
        if reason is PaymentFailure.INCORRECT_PAYMENT_DETAILS:
            support = await self._keysend_support()
            self._fail(f"{FAILURE_WORDS[reason]}, {KEYSEND_WORDS[support]}", retryable=support is KeysendSupport.YES)
            return True
        if reason is PaymentFailure.NO_ROUTE and payment.attempts == 0:
            return await self._judge_size(part)
        return False

    async def _judge_size(self, part: Part) -> bool | _Cut:
        """LND says "no route" to what is too large, too dear and unreachable alike: find out which."""
        packing = self._packing()
        try:
            room = await room_bytes(self.tools.node, packing, part)
        except (NodeUnavailable, NodeRefused):
            return False
        except NoRoute:
            if await self._keysend_support() is not KeysendSupport.UNKNOWN:
                return False  # a node of the graph: it may come back
            self._fail(
                "no route: our Lightning node does not know the recipient; check the pubkey, or open a channel",
                retryable=True,
            )
            return True
        if room is None:
            return False
        size = room - packing.overhead(part)
        if size < min(SMALLEST_PART_BYTES, part.length):
            self._fail("a part of it is too large for any route to the recipient", retryable=False)
            return True
        return _Cut(min(size, -(-part.length // 2)))

    async def _keysend_support(self) -> KeysendSupport:
        try:
            return await self.tools.node.keysend_support(self.stored.message.recipient)
        except (NodeUnavailable, NodeRefused):
            return KeysendSupport.UNKNOWN

    # --- Giving up and finishing --------------------------------------------------------------------------------------

    def _fail(self, reason: str, *, retryable: bool) -> None:
        self._failure = self._failure or Failure(reason=reason, retryable=retryable)

    def _give_up(self) -> None:
        ttl_s = self.tools.policy.ttl_ms // 1000
        self._fail(f"given up after {ttl_s} s (message.ttl_s); last: {self._last_reason}", retryable=True)

    def _stopped(self) -> bool:
        if self._failure is None and self._left_s() <= 0:
            self._give_up()
        return self._failure is not None

    def _left_s(self) -> float:
        if self.stored.deadline_ms is None:
            return float("inf")
        return max(0.0, (self.stored.deadline_ms - self.tools.store.now_ms()) / 1000)

    async def _pause(self, delay_s: float, *, maybe_sent: bool) -> None:
        """Wait before the next attempt, but no longer than there is time, and until the node is back."""
        if maybe_sent:
            await trio.sleep(min(delay_s, FIRST_RETRY_S))
            return
        with trio.move_on_after(self._left_s()):
            await trio.sleep(delay_s)
            await self.tools.node.wait_ready()

    def _finish(self, tx: Tx) -> None:
        ended = outbox.state(tx, self.stored.message.id)
        if ended and ended[1] is None:  # the last part's settlement tells of success itself
            assert self._failure is not None, "a message ends when all is settled or when it is given up"
            self._conclude(tx, self._failure)

    def _conclude(self, tx: Tx, failure: Failure | None) -> None:
        conclude(tx, self.stored, self.local, failure)
        tx.wake(f"outcome {self.stored.message.id}")

    async def _write(self, work: Callable[[Tx], None]) -> None:
        """Write, waiting while the disk is full: what was paid must be stored."""
        delays = self._delays()
        while True:
            try:
                await self.tools.store.write(work)
            except StoreFull as error:
                logger.warning("message %s waits: %s", self.stored.message.id, error)
                await trio.sleep(next(delays))
            else:
                return

    def _delays(self) -> Iterator[float]:
        return delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self.tools.random)
