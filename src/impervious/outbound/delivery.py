"""One message, from its stored intent to its outcome.

Sign once; find out whether its records fit a route; pay every part, overlapping, until each is settled or the message
is given up. A part whose fate is unknown (after a crash, when the node went away, when the node says that it is paying)
is tracked before anything else is done about it, so nothing is paid twice. Only a range whose payment is definitively
failed, or was never sent, is cut smaller.

Time: what was never handed to the node is given up at the deadline, also while it waits for a place. What may be paid
is waited for without end, holding no place of others; that it is so is told once, at the deadline.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

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
    Part,
    PartState,
    Payment,
    PaymentHash,
    PaymentStatus,
    RouteHint,
)
from impervious.outbound import plan, progress
from impervious.outbound.accept import beyond, new_part
from impervious.outbound.outcome import FAILURE_WORDS, KEYSEND_WORDS, Failure, conclude, given_up
from impervious.outbound.packing import SMALLEST_PART_BYTES, Packing, probe, room_bytes
from impervious.outbound.places import SLOW_S
from impervious.outbound.plan import Range
from impervious.outbound.progress import Progress
from impervious.outbound.signing import Signer
from impervious.outbound.tools import FIRST_RETRY_S, Tools
from impervious.store import Tx, answers, outbox, spending
from impervious.store.outbox import Stored
from impervious.units import Msat, sat_charged

logger = logging.getLogger(__name__)


PENDING_GRACE_S: Final = 2.0
"""A payment that ends so soon after the deadline is not worth an event of its own."""
_HANDING_OUT: Final = b""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A range must be sent in smaller parts."""

    part_bytes: int


@dataclass(frozen=True, slots=True)
class _Again:
    """A part is not finished with."""

    maybe_sent: bool
    """Whether it may be in flight."""
    reason: str = ""
    """Why; empty: there is nothing to tell."""
    slow: bool = False
    """The node pays it, and it takes long."""


_Verdict = _Cut | _Again | None
"""What an attempt came to; None: finished with."""


@dataclass(slots=True)
class Delivery:
    """The work on one message. `run` returns when the outcome is stored."""

    tools: Tools
    stored: Stored
    parts: list[Part]
    signer: Signer
    progress: Progress
    hints: tuple[RouteHint, ...] = ()
    """Ways to the recipient that our node's graph may not hold."""
    resting: bool = False
    """It waits for payments to end and needs no place."""
    _busy: set[bytes] = field(default_factory=lambda: {_HANDING_OUT})
    """What needs a place or has one, now or later: payment hashes, and the handing out of parts."""
    _unended: set[PaymentHash] = field(default_factory=set)
    """Payments that were handed to the node, or may have been, and have not ended as far as is known."""
    _scopes: set[trio.CancelScope] = field(default_factory=set)
    """What waits for something that is worth waiting for only while the message can arrive."""
    _failure: Failure | None = None
    """Set as soon as the message cannot arrive any more; parts that are not in flight then stay unsent."""
    _last_reason: str = ""

    @property
    def parts_in_flight(self) -> int:
        """How many parts may be in flight."""
        return len(self._unended)

    async def run(self) -> None:
        """Deliver, or fail, and store which.

        Raises:
          NodeMisconfigured: it is another node than the configuration names.
          StoreError: the database cannot be used.

        Cancellation: leaves everything for the next start.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_the_time)
            await self._deliver()
            nursery.cancel_scope.cancel()
        await self._write(self._finish)

    async def _deliver(self) -> None:
        resumed = self.stored.state is MessageState.SENDING
        if self.signer.recall() or await self._sign():
            if not resumed:
                if not await self._can_afford():
                    return
                await self._fit_to_route(self._packing())
            await self._pay(self.parts, maybe_sent=resumed)

    async def _watch_the_time(self) -> None:
        """Tell, once, when time is over while payments are under way."""
        over_ms = self.stored.deadline_ms or self.stored.accepted_at_ms + self.tools.policy.ttl_ms
        await trio.sleep(max(0, over_ms - self.tools.store.now_ms()) / 1000 + PENDING_GRACE_S)
        for delay_s in self.tools.delays():
            if self._unended:
                break
            await trio.sleep(delay_s)
        status, count = self.tools.node.status, len(self._unended)
        reason = f"after {self._ttl_s} s (message.ttl_s) payments of it have not ended: {count}"
        if not status.ready:
            reason = f"{reason}, as far as is known while the node cannot be asked ({status.reason})"
        told = self.progress.pending(reason, count)
        if told is not None:
            logger.warning("message %s to %s: %s", self.stored.message.id, self.stored.message.recipient, reason)
            await self._tell(told)

    # --- Signing ------------------------------------------------------------------------------------------------------

    async def _sign(self) -> bool:
        """Have a header and a signature. False: time ran out first."""
        with self._while_it_can_arrive():
            for delay_s in self.tools.delays():
                try:
                    await self.signer.sign()
                except (NodeUnavailable, NodeRefused) as error:
                    await self._tell_retry(str(error), delay_s)
                else:
                    return True
                await trio.sleep(delay_s)
        self._give_up()
        return False

    def _packing(self) -> Packing:
        return Packing(self.stored, self.signer.signed, self.hints)

    # --- Balance ------------------------------------------------------------------------------------------------------

    async def _can_afford(self) -> bool:
        """Wait until payment channels that are active can carry all parts; what is half sent cannot be taken back.

        False: they never will, or time ran out first.
        """
        if len(self.parts) == 1:
            return True  # the payment itself will say
        amount = Msat(sum(part.amount for part in self.parts))
        with self._while_it_can_arrive():
            for delay_s in self.tools.delays():
                lacks = await self._lacks_balance(amount)
                if lacks is None:
                    return True
                await self._tell_retry(lacks, delay_s)
                await self.tools.lane.sleep(delay_s)
        self._give_up()
        return False

    async def _lacks_balance(self, amount: Msat) -> str | None:
        """Say why so much cannot be sent now; the failure is set if all channels together do not have it."""
        try:
            channels = await self.tools.node.list_channels()
        except (NodeUnavailable, NodeRefused):
            return None  # the payments themselves will say
        most = sum(channel.spendable for channel in channels)
        if most < amount:
            lacks = (
                f"not enough outbound balance: {sat_charged(amount)} sat are to be sent, and the node's payment"
                f" channels can send {most // 1000} (reserves considered)"
            )
            if self.stored.deadline_ms is not None:
                self._fail(lacks, retryable=True)
            return lacks
        if sum(channel.spendable for channel in channels if channel.active) < amount:
            return f"{sat_charged(amount)} sat are to be sent, and channel peers that have so much are offline"
        return None

    async def _unpaid(self) -> Msat:
        """Sum what the parts carry that are neither paid nor in flight."""
        pending = await self.tools.store.read(lambda tx: outbox.pending_amounts(tx, self.stored.message.id))
        return Msat(sum(amount for payment_hash, amount in pending if payment_hash not in self._unended))

    # --- Size ---------------------------------------------------------------------------------------------------------

    async def _fit_to_route(self, packing: Packing) -> None:
        """Cut parts that no route can carry before they are first sent; without any route, leave them alone."""
        room: int | None = None
        try:
            with self._while_it_can_arrive():
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
            self._fail(f"smaller parts cost more: {error}", retryable=True)
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

    async def _pay(self, parts: Sequence[Part], *, maybe_sent: bool, by: bytes = _HANDING_OUT) -> None:
        """Pay parts, the first one first, as many at a time as there are places; find those that may be paid.

        Args:
          parts: what to pay.
          maybe_sent: they may be in flight, and need no place to be looked for.
          by: what hands them out; it is not busy any more when it has.
        """
        async with trio.open_nursery() as nursery:
            for part in parts:
                if part.state is not PartState.PENDING:
                    continue
                if maybe_sent:
                    self._unended.add(part.payment_hash)
                elif not await self._take_place(part):
                    break
                else:
                    self._set_busy(part.payment_hash, True)
                nursery.start_soon(self._pay_part, part, maybe_sent)
            self._set_busy(by, False)

    async def _pay_part(self, part: Part, maybe_sent: bool) -> None:
        """Pay one part until it is settled or given up. Comes with a place unless it may be in flight."""
        delays, places = self.tools.delays(), self.tools.lane.places
        try:
            while True:
                self._set_busy(part.payment_hash, not maybe_sent)
                if not maybe_sent and not await self._take_place(part):
                    return
                verdict = await self._attempt(part, maybe_sent=maybe_sent)
                if verdict is None:
                    return
                if isinstance(verdict, _Cut):
                    places.give_back(part.payment_hash)
                    smaller = await self._replace(part, verdict.part_bytes)
                    if smaller:
                        await self._pay(smaller, maybe_sent=False, by=part.payment_hash)
                    return
                if not verdict.slow:
                    places.give_back(part.payment_hash)
                    await self._pause(part, verdict, next(delays))
                maybe_sent = verdict.maybe_sent
        finally:
            places.give_back(part.payment_hash)
            self._set_busy(part.payment_hash, False)
            self.tools.lane.ended_with(part.payment_hash)

    async def _take_place(self, part: Part) -> bool:
        """Have a place for a part that is to be sent. False: the message cannot arrive any more."""
        places = self.tools.lane.places
        if places.has(part.payment_hash):
            return True
        with self._while_it_can_arrive():
            await places.take(part.payment_hash)
        if places.has(part.payment_hash) and not self._stopped():
            return True
        places.give_back(part.payment_hash)
        self._give_up()
        return False

    async def _attempt(self, part: Part, *, maybe_sent: bool) -> _Verdict:
        """Find out what became of a part, or send it."""
        if not maybe_sent and (reason := self.tools.gate.reason):
            return _Again(maybe_sent=False, reason=reason)
        if part.offset == 0 and not maybe_sent:
            try:
                await self.signer.freshen()
            except (NodeUnavailable, NodeRefused) as error:
                return _Again(maybe_sent=False, reason=str(error))
        try:
            payment = await (self._find(part) if maybe_sent else self._send(part))
        except AlreadyPaying:
            return _Again(maybe_sent=True)
        except PaymentNotFound:
            self._unended.discard(part.payment_hash)
            return _Again(maybe_sent=False)
        except NodeUnavailable as error:
            return _Again(maybe_sent=True, reason=str(error))
        except NodeRefused as error:
            if maybe_sent:  # it refuses to say, which ends nothing
                return _Again(maybe_sent=True, reason=str(error))
            self._unended.discard(part.payment_hash)
            self._fail(f"the Lightning node refused the payment: {error}", retryable=False)
            return None
        if payment is None:
            self.tools.lane.places.make_slow(part.payment_hash)
            return _Again(maybe_sent=True, slow=True)
        if payment.status is PaymentStatus.SUCCEEDED:
            self.tools.lane.places.note(part.payment_hash, arrived=True)
            await self._settle(part, payment)
            self._unended.discard(part.payment_hash)
            self.tools.lane.arrived()
            return None
        self._unended.discard(part.payment_hash)
        if payment.failure is not PaymentFailure.INCORRECT_PAYMENT_DETAILS:  # that one reached the recipient
            self.tools.lane.places.note(part.payment_hash, arrived=False)
        return await self._judge(part, payment)

    async def _find(self, part: Part) -> Payment:
        """Wait for the end of a payment that may have been sent."""
        node = self.tools.node
        await node.wait_ready()
        async with self.tools.lookups:
            payment = await node.lookup_payment(part.payment_hash)
        return await node.track(part.payment_hash) if payment.status is PaymentStatus.IN_FLIGHT else payment

    async def _send(self, part: Part) -> Payment | None:
        """Hand a payment to the node and wait for its end; None: it is slow."""
        self._unended.add(part.payment_hash)
        with trio.move_on_after(SLOW_S):
            return await self.tools.node.send_keysend(
                self.stored.message.recipient,
                part.amount,
                part.preimage,
                self._packing().records(part),
                fee_limit=part.fee_limit,
                timeout_s=self.tools.policy.payment_timeout_s,
                hints=self.hints,
            )
        return None

    async def _settle(self, part: Part, payment: Payment) -> None:
        def store(tx: Tx) -> None:
            outbox.settle_part(tx, part.payment_hash, payment.fee)
            if part.offset == 0:
                outbox.forget_voids(tx, self.stored.message.recipient, self.signer.signed.header.void_orders)
            if not outbox.pending_parts(tx, self.stored.message.id):
                self._conclude(tx, None)

        await self._write(store)

    async def _judge(self, part: Part, payment: Payment) -> _Verdict:
        """Decide what a failed payment means."""
        reason = payment.failure or PaymentFailure.ERROR
        if reason is PaymentFailure.INCORRECT_PAYMENT_DETAILS:
            support = await self._keysend_support()
            self._fail(f"{FAILURE_WORDS[reason]}, {KEYSEND_WORDS[support]}", retryable=support is KeysendSupport.YES)
            return None
        again = _Again(maybe_sent=False, reason=FAILURE_WORDS[reason])
        if reason is PaymentFailure.INSUFFICIENT_BALANCE and (lacks := await self._lacks_balance(await self._unpaid())):
            return None if self._failure else _Again(maybe_sent=False, reason=lacks)
        if reason is PaymentFailure.NO_ROUTE and payment.attempts == 0:
            return await self._judge_size(part, again)
        return again

    async def _judge_size(self, part: Part, again: _Again) -> _Verdict:
        """LND says "no route" to what is too large, too dear and unreachable alike: find out which."""
        packing = self._packing()
        try:
            room = await room_bytes(self.tools.node, packing, part)
        except (NodeUnavailable, NodeRefused):
            return again
        except NoRoute:
            if self.hints or await self._keysend_support() is not KeysendSupport.UNKNOWN:
                return again  # a node that was there: it may come back
            self._fail(
                "no route: our Lightning node does not know the recipient, as is so with one that has private channels"
                " only, and it has told us no way: have it send us something first, open a channel, or check the"
                " pubkey",
                retryable=True,
            )
            return None
        if room is None:
            return again
        size = room - packing.overhead(part)
        if size < min(SMALLEST_PART_BYTES, part.length):
            self._fail("a part of it is too large for any route to the recipient", retryable=False)
            return None
        return _Cut(min(size, -(-part.length // 2)))

    async def _keysend_support(self) -> KeysendSupport:
        try:
            return await self.tools.node.keysend_support(self.stored.message.recipient)
        except (NodeUnavailable, NodeRefused):
            return KeysendSupport.UNKNOWN

    async def _pause(self, part: Part, verdict: _Again, delay_s: float) -> None:
        """Wait before the next attempt, but no longer than there is time, and until the node is back."""
        lane = self.tools.lane
        delay_s = min(delay_s, FIRST_RETRY_S) if verdict.maybe_sent else lane.retry_delay_s(part.payment_hash, delay_s)
        if verdict.reason:
            await self._tell_retry(verdict.reason, delay_s)
        if verdict.maybe_sent:
            await trio.sleep(delay_s)
            return
        with self._while_it_can_arrive():
            await lane.sleep(delay_s)
            await self.tools.node.wait_ready()

    def _set_busy(self, what: bytes, busy: bool) -> None:
        """Note what needs a place: a message that only waits for payments to end lets the next one begin."""
        if busy:
            self._busy.add(what)
        else:
            self._busy.discard(what)
        if self.resting != (not self._busy):
            self.resting = not self._busy
            self.tools.lane.running += -1 if self.resting else 1
            self.tools.lane.wake()

    # --- Telling ------------------------------------------------------------------------------------------------------

    async def _tell_retry(self, reason: str, delay_s: float) -> None:
        self._last_reason = reason
        now_ms = self.tools.store.now_ms()
        told = self.progress.retrying(reason, now_ms=now_ms, next_try_ms=now_ms + int(delay_s * 1000))
        if told is not None:
            message = self.stored.message
            logger.info("message %s to %s is tried again in %.1f s: %s", message.id, message.recipient, delay_s, reason)
            await self._tell(told)

    async def _tell(self, told: str) -> None:
        try:
            await self.tools.store.write(lambda tx: progress.tell(tx, self.stored, self.signer.local, told))
        except StoreFull as error:  # only the end of a message is worth waiting for
            logger.warning("message %s: it is not stored how it stands: %s", self.stored.message.id, error)

    # --- Giving up and finishing --------------------------------------------------------------------------------------

    def _fail(self, reason: str, *, retryable: bool) -> None:
        self._failure = self._failure or Failure(reason=reason, retryable=retryable)
        for scope in self._scopes:
            scope.cancel()

    def _give_up(self) -> None:
        last = self._last_reason or self.tools.lane.why_not_sent(self.tools.node.status)
        self._fail(given_up(self._ttl_s, last), retryable=True)

    def _stopped(self) -> bool:
        if self._failure is None and self._left_s() <= 0:
            self._give_up()
        return self._failure is not None

    @property
    def _ttl_s(self) -> int:
        return self.tools.policy.ttl_ms // 1000

    def _left_s(self) -> float:
        if self.stored.deadline_ms is None:
            return float("inf")
        return max(0.0, (self.stored.deadline_ms - self.tools.store.now_ms()) / 1000)

    @contextmanager
    def _while_it_can_arrive(self) -> Iterator[None]:
        """Leave the block when time is up, or when the message has failed."""
        with trio.move_on_after(0 if self._failure else self._left_s()) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def _finish(self, tx: Tx) -> None:
        ended = outbox.state(tx, self.stored.message.id)
        if ended and ended[1] is None:  # the last part's settlement tells of success itself
            assert self._failure is not None, "a message ends when all is settled or when it is given up"
            self._conclude(tx, self._failure)

    def _conclude(self, tx: Tx, failure: Failure | None) -> None:
        conclude(tx, self.stored, self.signer.local, failure)

    async def _write(self, work: Callable[[Tx], None]) -> None:
        await self.tools.write(self.stored.message.id, work)
