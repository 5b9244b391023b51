"""Payments of the node's own: each hash in one task, from the intent in the database to its end there.

Before a payment is sent, its hash and the most it may cost are stored; they stay until it is known what became of it,
whoever has stopped waiting and whatever has crashed. As long as that is not known, the Lightning node is asked, and
nothing is sent again. Two callers who pay the same hash wait for the same payment.

The end reaches everybody who asked: as the answer, or, if somebody has left or the daemon was stopped, as an event.
Only then is the payment no longer open.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import trio

from impervious.background import Tasks, open_tasks
from impervious.backoff import delays_s
from impervious.errors import (
    AlreadyPaying,
    FailedPrecondition,
    ImperviousError,
    NodeRefused,
    NodeUnavailable,
    PaymentNotFound,
    StoreFull,
)
from impervious.model import MessageId, Payment, PaymentHash, PaymentStatus
from impervious.service import ServiceContext, ServiceTx
from impervious.services.lightning import ends, keys
from impervious.services.lightning.keys import Key, Repeated
from impervious.units import Msat

logger = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0

MIGRATION: Final = """
-- Payments whose end is not known: they may be under way, and what they may cost is reserved.
CREATE TABLE lightning_open (
  payment_hash BLOB PRIMARY KEY,
  reservation BLOB NOT NULL,
  began_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""

_STOPPED: Final = (
    "the daemon is stopping: what has become of the payment is an event when it runs again; call again then, nothing is"
    " paid twice"
)
_BROKEN: Final = (
    "the lightning service is restarting after an error: what has become of the payment will be an event; call again"
    " then, nothing is paid twice"
)
_NEVER_SENT: Final = (
    "the Lightning node, or this daemon, went away before it was asked to pay: nothing was paid; call again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A payment to be made."""

    payment_hash: PaymentHash
    amount: Msat
    fee_limit: Msat
    send: Callable[[], Awaitable[Payment]]
    """Asks the Lightning node, and raises as the methods of `node` do."""
    expires_s: int | None = None
    """When it cannot be paid any more, in seconds since 1970."""
    key: Key | None = None


@dataclass(slots=True)
class _Job:
    """A payment that has a task, and what everybody who waits for it will be told."""

    abandoned: bool = False
    """Whether somebody who asked for it has left, or may have: then its end is an event too."""

    done: trio.Event = field(default_factory=trio.Event)
    payment: Payment | None = None
    error: ImperviousError = field(default_factory=lambda: NodeUnavailable(_STOPPED))

    async def wait(self) -> Payment:
        try:
            await self.done.wait()
        except trio.Cancelled:
            self.abandoned = True
            raise
        if self.payment is None:
            raise self.error
        return self.payment


class Payer:
    """Pays, once each. Made by `open_payer`.

    Args:
      context: of the service whose budget and tables these are.
      tasks: where each payment has its task.
      random: numbers from 0 to 1, for the back-off.
    """

    def __init__(self, context: ServiceContext, tasks: Tasks, *, random: Callable[[], float]) -> None:
        self._context = context
        self._tasks = tasks
        self._random = random
        self._jobs: dict[PaymentHash, _Job] = {}
        self._broken = False

    async def take_up(self) -> None:
        """Go on with what an earlier payer left open."""
        for payment_hash, reservation in await self._context.read(_left_open):
            job = self._jobs[payment_hash] = _Job(abandoned=True)
            self._tasks.start_soon(self._resume, payment_hash, reservation, job)

    async def find(self, payment_hash: PaymentHash) -> Payment | None:
        """Say how a payment for this hash ended, waiting for one that is under way.

        Returns:
          The payment, SUCCEEDED or FAILED; None: there was never one.

        Raises:
          NodeUnavailable: the Lightning node cannot be asked now; says why.

        Cancellation: stops waiting, not paying.
        """
        if job := self._jobs.get(payment_hash):
            return await job.wait()
        try:
            found = await self._context.node.lookup_payment(payment_hash)
        except PaymentNotFound:
            return None
        if found.status is not PaymentStatus.IN_FLIGHT:
            return found
        try:
            return await self._context.node.track(payment_hash)  # somebody else's, of another program
        except NodeUnavailable as error:
            raise NodeUnavailable(f"{error}; the payment is under way: call again for its end") from error

    async def pay(self, order: Order) -> Payment:
        """Make a payment, or join one for the same hash that is being made, and wait for its end.

        Returns:
          The payment, SUCCEEDED or FAILED.

        Raises:
          Repeated: its key was used before, for this: `find` the payment.
          AlreadyExists: its key was used before, for something else; nothing was paid.
          FailedPrecondition: it has expired, or this node may pay nothing now; nothing was paid.
          ResourceExhausted: the budget does not allow it; nothing was paid.
          NodeRefused: nothing was paid; says why.
          NodeUnavailable: nothing was paid, or this payer has ended before the payment; says which.
          trio.ClosedResourceError: this payer has ended before the call.
          StoreError: the intent could not be stored; nothing was paid.

        Cancellation: stops waiting, not paying; its end is an event then.
        """
        await self._context.require_payable()
        job = self._jobs.get(order.payment_hash)
        if job is None:
            job = _Job()
            self._tasks.start_soon(self._make, order, job)
            self._jobs[order.payment_hash] = job
        elif order.key is not None:
            await self.note(order.key, order.payment_hash)
        return await job.wait()

    async def is_used(self, key: Key) -> bool:
        """Say whether a payment was made, or begun, for a key.

        Raises:
          AlreadyExists: yes, another one.
        """
        return await self._context.read(lambda tx: keys.made_for(tx, key)) is not None

    async def note(self, key: Key, payment_hash: PaymentHash) -> None:
        """Write down that a key was used for a payment that was begun without it.

        Raises:
          AlreadyExists: it was used for something else.
        """
        with suppress(Repeated):
            await self._context.transaction(lambda tx: keys.use(tx, key, payment_hash))

    # --- The task of one payment --------------------------------------------------------------------------------------

    async def _make(self, order: Order, job: _Job) -> None:
        with self._ending(order.payment_hash, job):
            try:
                reservation = await self._context.transaction(lambda tx: intend(tx, order))
            except ImperviousError as error:
                job.error = error
                return
            payment: Payment | None = None
            try:
                payment = await order.send()
            except NodeRefused as error:
                job.error = error
            except (AlreadyPaying, NodeUnavailable):
                payment = await self._track(order.payment_hash, job)
            await self._settle(order.payment_hash, reservation, payment)
            job.payment = payment
        await self._close(order.payment_hash, reservation, job)

    async def _resume(self, payment_hash: PaymentHash, reservation: MessageId, job: _Job) -> None:
        with self._ending(payment_hash, job):
            payment = await self._track(payment_hash, job)
            await self._settle(payment_hash, reservation, payment)
            job.payment = payment
        await self._close(payment_hash, reservation, job)

    @contextmanager
    def _ending(self, payment_hash: PaymentHash, job: _Job) -> Iterator[None]:
        try:
            yield
        except trio.Cancelled:
            if self._broken:
                job.error = NodeUnavailable(_BROKEN)
            raise
        except BaseException:
            self._broken = True  # this ends all the others, whose callers are told why
            job.error = NodeUnavailable(_BROKEN)
            raise
        finally:
            del self._jobs[payment_hash]
            job.done.set()

    async def _track(self, payment_hash: PaymentHash, job: _Job) -> Payment | None:
        """Find out how a payment ends, however long the node is away. None: it was never asked, which the job tells."""
        for delay_s in self._delays():
            await self._context.node.wait_ready()
            try:
                return await self._context.node.track(payment_hash)
            except PaymentNotFound:
                job.error = NodeUnavailable(_NEVER_SENT)
                return None
            except (NodeUnavailable, NodeRefused) as error:
                logger.warning("payment %s: its end is asked for again: %s", payment_hash.hex(), error)
            except Exception:  # one payment whose end cannot be read must not keep all others from being made
                logger.exception("payment %s: its end cannot be read, and is asked for again", payment_hash.hex())
            await trio.sleep(delay_s)
        raise AssertionError("back-off never ends")  # pragma: no cover

    async def _settle(self, payment_hash: PaymentHash, reservation: MessageId, payment: Payment | None) -> None:
        """Keep of what was reserved what was spent."""
        paid = payment is not None and payment.status is PaymentStatus.SUCCEEDED
        cost = Msat(payment.amount + payment.fee) if payment is not None and paid else Msat(0)

        await self._store(payment_hash, lambda tx: tx.release(reservation, spent=cost))

    async def _close(self, payment_hash: PaymentHash, reservation: MessageId, job: _Job) -> None:
        """Forget a payment whose end its callers have, or have as an event if one of them has left.

        Whoever is killed before this finds the payment open at the next start, and makes it an event.
        """

        def effect(tx: ServiceTx) -> None:
            if job.abandoned:
                ends.tell(tx, payment_hash, reservation, job.payment, job.error)
            # By its reservation too: who was told of a failure may have begun anew.
            tx.run(
                "DELETE FROM lightning_open WHERE payment_hash = ? AND reservation = ?", payment_hash, reservation.bytes
            )

        await self._store(payment_hash, effect)

    async def _store(self, payment_hash: PaymentHash, effect: Callable[[ServiceTx], None]) -> None:
        """Store something about how it ended, waiting while the disk is full."""
        for delay_s in self._delays():
            try:
                return await self._context.transaction(effect)
            except StoreFull as error:
                logger.warning("payment %s: its end waits to be stored: %s", payment_hash.hex(), error)
            await trio.sleep(delay_s)

    def _delays(self) -> Iterator[float]:
        return delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random)


@asynccontextmanager
async def open_payer(context: ServiceContext, *, random: Callable[[], float] = random.random) -> AsyncIterator[Payer]:
    """Pay for as long as the block runs; what an earlier payer left open is taken up first.

    Args:
      context: of the service whose budget and tables these are.
      random: numbers from 0 to 1, for the back-off.

    Raises:
      NodeMisconfigured: it is another node than the configuration names.
      StoreError: the database cannot be used.

    Cancellation: payments go on at the Lightning node; the next payer finds out what became of them.
    """
    async with open_tasks() as tasks:
        payer = Payer(context, tasks, random=random)
        await payer.take_up()
        yield payer


def _left_open(tx: ServiceTx) -> list[tuple[PaymentHash, MessageId]]:
    rows = tx.all("SELECT payment_hash, reservation FROM lightning_open ORDER BY began_at_ms")
    return [(PaymentHash(row[0]), UUID(bytes=row[1])) for row in rows]


def intend(tx: ServiceTx, order: Order) -> MessageId:
    """Store the intent to pay.

    Raises:
      Repeated: its key was used before, for this.
      AlreadyExists: its key was used before, for something else.
      FailedPrecondition: it has expired.
      ResourceExhausted: the budget does not allow it.
    """
    if order.key is not None:
        keys.use(tx, order.key, order.payment_hash)
    if order.expires_s is not None and tx.now_ms >= order.expires_s * 1000:
        ago_s = tx.now_ms // 1000 - order.expires_s
        raise FailedPrecondition(f"this invoice expired {ago_s} s ago: ask the payee for a new one")
    reservation = tx.reserve(Msat(order.amount + order.fee_limit))
    tx.run("INSERT OR REPLACE INTO lightning_open VALUES (?, ?, ?)", order.payment_hash, reservation.bytes, tx.now_ms)
    return reservation
