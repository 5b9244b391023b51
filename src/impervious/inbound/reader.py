"""The loop that reads settled invoices, and the two clocks beside it: held messages, incomplete messages.

An invoice, everything it causes and the cursor behind it are one transaction, so after a crash the same invoices are
read again and count once. One bad invoice goes to quarantine, whatever is raised at it; only the Lightning node and the
database can stop the loop, and it goes on when they are back. A mistake outside of any one invoice is logged, and tried
again.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NoReturn, TypeVar
from uuid import UUID

import trio

from impervious.backoff import delays_s
from impervious.containment import is_containable, reason_of
from impervious.errors import Malformed, NodeRefused, NodeUnavailable, StoreFull, Unverified
from impervious.hub import Hub
from impervious.inbound import arrival, assembly, quarantine, turns
from impervious.inbound.arrival import Arrival, Local, PartArrived, RawArrived, Rejected
from impervious.inbound.assembly import Refused
from impervious.inbound.boundary import ends_the_node, run_contained
from impervious.inbound.turns import Show, as_it_is
from impervious.model import Event, EventKind, InvoiceNews, NewEvent, RecordType, ServiceType, SettledInvoice
from impervious.node import PaymentNode
from impervious.store import Store, Tx, inbox, settled
from impervious.store.inbox import Complete
from impervious.store.quarantine import Quarantined, wanted

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH: Final = 64
"""Invoices that share a transaction at most: verifying them takes 4 ms."""
EXPIRE_EVERY_S: Final = 600.0
RELEASE_EVERY_S: Final = 5.0
"""Between looks at what the operator wants released: one read of an index that is mostly empty."""
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundPolicy:
    """What is shown of what arrives."""

    services: Mapping[RecordType, ServiceType]
    """Every record number of ours, those of switched-off services too."""
    active: frozenset[ServiceType]
    max_bytes: int
    raw: frozenset[ServiceType] = frozenset()
    """Services that show what ordinary wallets send."""
    payments: bool = False
    """Note payments that are no message of anybody, for services that want them."""


class Inbound:
    """Turns settled keysends into events."""

    def __init__(
        self,
        node: PaymentNode,
        store: Store,
        hub: Hub,
        policy: InboundPolicy,
        *,
        random: Callable[[], float],
        show: Show = as_it_is,
    ) -> None:
        self._node = node
        self._store = store
        self._hub = hub
        self._policy = policy
        self._random = random
        self._show = show
        self._caught_up = trio.Event()
        self._local: Local | None = None
        self._lines = quarantine.Lines()

    async def wait_caught_up(self) -> None:
        """Wait until everything that settled while we were away is in the log."""
        await self._caught_up.wait()

    async def run(self) -> NoReturn:
        """Read for as long as this runs.

        Raises:
          NodeMisconfigured: it is another node than the configuration names.
          StoreError: the database cannot be used.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._release_held)
            nursery.start_soon(self._expire_incomplete)
            nursery.start_soon(self._release_wanted)
            await self._read_forever()
        raise AssertionError("reading never ends by itself")  # pragma: no cover

    async def _read_forever(self) -> NoReturn:
        delays = self._delays()
        while True:
            try:
                if await self._read_once():
                    delays = self._delays()
            except (NodeUnavailable, NodeRefused, StoreFull) as error:
                logger.warning("reading invoices stopped: %s", error)
            except trio.Cancelled:
                raise
            except BaseException as error:
                if ends_the_node(error):
                    raise
                logger.exception("reading invoices broke, and begins again")
            await trio.sleep(next(delays))

    def _delays(self) -> Iterator[float]:
        return delays_s(first_s=FIRST_RETRY_S, cap_s=LAST_RETRY_S, random=self._random)

    async def _read_once(self) -> bool:
        """Read one subscription to its end; tell whether it brought anything."""
        info = await self._node.wait_ready()
        local = self._local = Local(
            pubkey=info.pubkey,
            network=info.network,
            services=self._policy.services,
            max_bytes=self._policy.max_bytes,
        )
        cursor = await self._store.read(inbox.invoice_cursor)
        progress = False
        async with self._node.settled_invoices(cursor) as news:
            async for first in news:
                await self._process([first, *_ready(news, BATCH - 1)], local)
                progress = True
        return progress

    async def _process(self, batch: Sequence[InvoiceNews], local: Local) -> None:
        """Store a batch, everything it causes and the cursor behind it."""
        arrived = [(item.invoice, _read(item.invoice, local)) for item in batch if item.invoice is not None]

        def store(tx: Tx) -> Sequence[Event]:
            before = len(tx.events)
            for invoice, what in arrived:
                self._process_one(tx, invoice, what, local)
            inbox.set_invoice_cursor(tx, batch[-1].cursor)
            return tx.events[before:]

        self._log_written(await self._store.write(store))
        if len(arrived) < len(batch):  # one of the news said: that was everything
            self._caught_up.set()

    def _process_one(self, tx: Tx, invoice: SettledInvoice, what: Arrival, local: Local) -> None:
        """Do what an invoice causes, unless it was done before, or put it into quarantine."""
        error = run_contained(tx, partial(self._apply_new, tx, invoice, what, local))
        if error is None:
            return
        reason = reason_of(error)
        if isinstance(what, Rejected) and what.error is not None:
            error = what.error
        if not isinstance(error, Malformed | Unverified):
            logger.error("invoice %s: put into quarantine", invoice.payment_hash.hex(), exc_info=error)
        quarantine.put_aside(tx, invoice, what, reason)

    def _apply_new(self, tx: Tx, invoice: SettledInvoice, what: Arrival, local: Local) -> None:
        if inbox.is_new_invoice(tx, invoice.payment_hash):
            self._apply(tx, invoice, what, local)

    def _apply(self, tx: Tx, invoice: SettledInvoice, what: Arrival, local: Local) -> None:
        if isinstance(what, PartArrived):
            self._apply_part(tx, invoice, what, local)
        elif isinstance(what, RawArrived):
            self._apply_raw(tx, invoice, what)
        elif isinstance(what, Rejected):
            raise Malformed(what.reason)
        elif self._policy.payments and invoice.settled_s >= settled.since_s(tx):
            tx.emit(settled.event_of(invoice))

    def _apply_part(self, tx: Tx, invoice: SettledInvoice, part: PartArrived, local: Local) -> None:
        signed = part.envelope.signed_header
        if signed:
            turns.skip(tx, signed.header.sender, signed.header.void_orders, self._show)
        whole = assembly.add_part(tx, invoice, part, active=part.service_type in self._policy.active)
        if isinstance(whole, Complete):
            if whole.service_type is None:
                off = f"the service {part.service_type} is switched off"
                inbox.quarantine_message(tx, replace(whole, service_type=part.service_type), off)
            turns.take_turn(tx, whole, self._show)
        elif isinstance(whole, Refused):
            inbox.quarantine(
                tx,
                invoice.payment_hash,
                whole.reason,
                record_type=None,
                value=whole.data,
                amount=whole.amount,
                service_type=part.service_type,
            )
            turns.skip(tx, whole.sender, [whole.order], self._show)
        else:
            assembly.enforce_limits(tx, local, signed.header.sender if signed else None, self._show)

    def _apply_raw(self, tx: Tx, invoice: SettledInvoice, raw: RawArrived) -> None:
        if raw.service_type not in self._policy.raw or raw.service_type not in self._policy.active:
            raise Malformed("not one of our envelopes, and message.accept_unsigned is off")
        tx.emit(
            NewEvent(
                kind=EventKind.MESSAGE,
                id=UUID(bytes=invoice.payment_hash[:16], version=4),
                reply_to=None,
                sender=None,
                service_type=raw.service_type,
                topic=raw.service_type,
                data=raw.data,
                amount=invoice.amount,
                sent_at_ms=invoice.settled_s * 1000,
                verified=False,
            )
        )

    async def _release_held(self) -> NoReturn:
        await self._caught_up.wait()  # what was held at the last stop may only have waited for what we missed
        with self._hub.waiting_for("held") as wakes:
            while True:
                due_ms = await self._patiently(lambda tx: turns.release(tx, tx.now_ms, self._show))
                wait_s = float("inf") if due_ms is None else max(0, due_ms - self._store.now_ms()) / 1000
                with trio.move_on_after(wait_s):
                    await wakes.receive()

    async def _expire_incomplete(self) -> NoReturn:
        await self._caught_up.wait()
        while True:
            if not await self._patiently(self._expire):
                await trio.sleep(EXPIRE_EVERY_S)

    def _expire(self, tx: Tx) -> bool:
        return self._local is not None and assembly.expire(tx, self._local, self._show)

    async def _release_wanted(self) -> NoReturn:
        """Release what the operator wants released of the quarantine: another process says so, in the database."""
        await self._caught_up.wait()
        while True:
            if await self._is_wanted():
                await self._patiently(lambda tx: quarantine.release(tx, self._read_again))
            else:
                self._lines.flush(trio.current_time())
                await trio.sleep(RELEASE_EVERY_S)

    def _read_again(self, tx: Tx, found: Quarantined) -> None:
        message, local = quarantine.message_of(found), self._local
        if local is None:
            raise Malformed("this node does not know yet who it is")
        if message is None:
            invoice = quarantine.invoice_of(found)
            self._apply(tx, invoice, _read(invoice, local), local)
        elif message.service_type in self._policy.active:
            turns.show_message(tx, message, self._show)
        else:
            raise Malformed(f"the service {message.service_type} is still switched off")

    async def _is_wanted(self) -> bool:
        try:
            return bool(await self._store.read(partial(wanted, limit=1)))
        except trio.Cancelled:
            raise
        except BaseException as error:
            if ends_the_node(error):
                raise
            logger.exception("what is to be released waits")
            return False

    async def _patiently(self, work: Callable[[Tx], T]) -> T:
        """Write, waiting while the disk is full; a mistake is logged, and tried again."""

        def store(tx: Tx) -> tuple[T, Sequence[Event]]:
            before = len(tx.events)
            return work(tx), tx.events[before:]

        delays = self._delays()
        while True:
            try:
                result, events = await self._store.write(store)
                self._log_written(events)
                return result
            except StoreFull as error:
                logger.warning("held messages wait: %s", error)
            except trio.Cancelled:
                raise
            except BaseException as error:
                if ends_the_node(error):
                    raise
                logger.exception("held messages wait")
            await trio.sleep(next(delays))

    def _log_written(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind is EventKind.QUARANTINED:
                self._lines.write(event, trio.current_time())
            else:
                _log_received(event)


def _read(invoice: SettledInvoice, local: Local) -> Arrival:
    """Say what a settled invoice is; one at which a parser raises something is rejected."""
    try:
        return arrival.read(invoice, local)
    except BaseException as error:  # noqa: ASYNC103 - synchronous
        if not is_containable(error):
            raise
        record_type = next((kind for kind in local.services if kind in invoice.records), None)
        value = b"" if record_type is None else invoice.records[record_type]
        service_type = None if record_type is None else local.services[record_type]
        return Rejected(  # noqa: ASYNC104
            record_type=record_type, service_type=service_type, value=value, reason=reason_of(error), error=error
        )


def _ready(news: trio.MemoryReceiveChannel[InvoiceNews], limit: int) -> list[InvoiceNews]:
    """Take what is waiting already."""
    taken: list[InvoiceNews] = []
    while len(taken) < limit:
        try:
            taken.append(news.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
    return taken


def _log_received(event: Event) -> None:
    if event.kind is EventKind.MESSAGE:
        logger.info(
            "message received",
            extra={
                "id": str(event.id),
                "seq": event.seq,
                "service": event.service_type,
                "from": event.sender.hex if event.sender else "",
                "bytes": len(event.data),
                "amount_msat": event.amount,
            },
        )
