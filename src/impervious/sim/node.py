"""A simulated node as the rooms above see it: `node.PaymentNode` over the RPCs of a simulated LND.

What it makes of LND's answers is what `lnd.LndNode` makes of them: one suite in tests/contract holds both to it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final

import trio
from grpclib.const import Status

from impervious.errors import (
    AlreadyPaying,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    PaymentNotFound,
)
from impervious.invoice_feed import FeedPace, settled_invoices
from impervious.model import (
    InvoiceCursor,
    InvoiceHtlc,
    InvoiceNews,
    InvoicePage,
    KeysendSupport,
    NodeInfo,
    NodeInvoice,
    NodePubkey,
    NodeState,
    NodeStatus,
    Payment,
    PaymentHash,
    PaymentStatus,
    Preimage,
    Records,
    Route,
    Verdict,
)
from impervious.sim.engine.answers import NO_PATH, NOT_YET, LndError, WalletState
from impervious.sim.engine.invoices import Invoice
from impervious.sim.engine.payments import Order, SimPayment, Stage
from impervious.sim.lnd import SimLnd
from impervious.sim.rpcs import NETWORK, VERSION, Rpcs
from impervious.sim.streams import LiveStream
from impervious.units import Msat
from impervious.wire import keysend

_READY: Final = NodeStatus(state=NodeState.READY, reason="")

_STATES: Final = {
    WalletState.LOCKED: NodeStatus(state=NodeState.LOCKED, reason="the wallet is locked: run lncli unlock"),
    WalletState.NON_EXISTING: NodeStatus(state=NodeState.LOCKED, reason="there is no wallet: run lncli create"),
    WalletState.UNLOCKED: NodeStatus(state=NodeState.STARTING, reason="the node is starting"),
    WalletState.RPC_ACTIVE: NodeStatus(state=NodeState.STARTING, reason="the node is starting"),
    WalletState.WAITING_TO_START: NodeStatus(state=NodeState.STARTING, reason="the node is waiting to start"),
}

_STATUSES: Final = {
    Stage.INITIATED: PaymentStatus.IN_FLIGHT,
    Stage.IN_FLIGHT: PaymentStatus.IN_FLIGHT,
    Stage.SUCCEEDED: PaymentStatus.SUCCEEDED,
    Stage.FAILED: PaymentStatus.FAILED,
}


class SimNode:
    """A simulated node (`node.PaymentNode`)."""

    def __init__(self, lnd: SimLnd) -> None:
        self._lnd = lnd
        self._rpcs = lnd.rpcs
        self.pace = FeedPace()
        """How often its invoices are read; tests quicken it."""

    @property
    def pubkey(self) -> NodePubkey:
        """Its identity, known without asking."""
        return self._lnd.pubkey

    @property
    def status(self) -> NodeStatus:
        """Whether it can serve now, and if not, why."""
        node = self._lnd.node
        if not self._rpcs.up:
            return NodeStatus(state=NodeState.AWAY, reason=f"the simulated node {node.name} is stopped: start it")
        if node.state is not WalletState.SERVER_ACTIVE:
            return _STATES[node.state]
        if not node.synced:
            return NodeStatus(state=NodeState.SYNCING, reason="the node's chain is behind: wait until it is synced")
        if not node.accepts_keysend:
            return NodeStatus(
                state=NodeState.REFUSING, reason="the node does not accept keysend: start it with --accept-keysend"
            )
        return _READY

    async def wait_ready(self) -> NodeInfo:
        """Wait until it can serve, then tell who it is."""
        while True:
            while not self.status.ready:
                await self._rpcs.wait_changed()
            try:
                with self._asking():
                    return await self._info()
            except NodeUnavailable:
                continue  # it went away between the look and the question

    async def _info(self) -> NodeInfo:
        info = await self._rpcs.get_info()
        return NodeInfo(
            pubkey=info.pubkey,
            alias=info.alias,
            network=NETWORK,
            version=VERSION,
            features=info.features,
            synced_to_chain=info.synced_to_chain,
            block_height=info.block_height,
        )

    async def sign(self, text: bytes) -> bytes:
        """Sign with the identity key."""
        with self._asking():
            return await self._rpcs.sign_message(text)

    async def verify(self, text: bytes, signature: bytes) -> Verdict:
        """Ask who made a signature."""
        with self._asking():
            valid, pubkey = await self._rpcs.verify_message(text, signature)
            return Verdict(valid=valid, pubkey=pubkey)

    async def send_keysend(
        self, dest: NodePubkey, amount: Msat, preimage: Preimage, records: Records, *, fee_limit: Msat, timeout_s: int
    ) -> Payment:
        """Pay without an invoice, and wait for the end."""
        order = Order(
            dest=dest.raw,
            amount=amount,
            payment_hash=preimage.payment_hash,
            records={**records, keysend.PREIMAGE_RECORD: preimage.raw},
            fee_limit=fee_limit,
            timeout_s=timeout_s,
        )
        with self._asking():
            async with self._rpcs.send_payment(order) as updates:
                return await _end(updates)

    async def track(self, payment_hash: PaymentHash) -> Payment:
        """Wait for the end of a payment that was sent earlier."""
        with self._asking():
            async with self._rpcs.track_payment(payment_hash) as updates:
                return await _end(updates)

    async def find_route(self, dest: NodePubkey, amount: Msat, records: Records, *, fee_limit: Msat) -> Route:
        """Ask for the best route that can carry `records`."""
        order = Order(
            dest=dest.raw,
            amount=amount,
            payment_hash=bytes(32),
            records={**records, keysend.PREIMAGE_RECORD: bytes(32)},
            fee_limit=fee_limit,
        )
        with self._asking():
            try:
                path = await self._rpcs.query_routes(order)
            except LndError as error:
                if error.text != NO_PATH:
                    raise
                raise NoRoute("no route can carry this: too large, too dear, or the node cannot be reached") from error
        return Route(hops=len(path.hops), fee=path.fee, total_amount=path.total, height=path.time_lock)

    async def keysend_support(self, pubkey: NodePubkey) -> KeysendSupport:
        """Look a node's feature bit 55 up in the graph."""
        with self._asking():
            try:
                known = await self._rpcs.get_node_info(pubkey.raw)
            except LndError as error:
                if error.status is not Status.NOT_FOUND:
                    raise
                return KeysendSupport.UNKNOWN
        if not known.announced:
            return KeysendSupport.UNKNOWN
        return KeysendSupport.YES if keysend.FEATURE_BIT in known.features else KeysendSupport.NO

    def settled_invoices(
        self, cursor: InvoiceCursor, *, rescan: bool = False
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[InvoiceNews]]:
        """Tell every invoice that has settled since `cursor`, then the ones that settle."""
        return settled_invoices(_Source(self._rpcs), cursor, rescan=rescan, pace=self.pace)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if not (status := self.status).ready:
            raise NodeUnavailable(status.reason)
        with _translated():
            yield


class _Source:
    """What the invoice feed asks of a simulated LND (`invoice_feed.InvoiceSource`)."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    async def list_invoices(
        self, *, index_offset: int, limit: int, backwards: bool = False, created_from_s: int = 0
    ) -> InvoicePage:
        with _translated():
            rows = await self._rpcs.list_invoices(
                index_offset=index_offset, limit=limit, backwards=backwards, created_from_s=created_from_s
            )
        return InvoicePage(invoices=tuple(_invoice(row) for row in rows), last_index=rows[-1].add_index if rows else 0)

    @asynccontextmanager
    async def subscribe_invoices(self, *, settle_index: int) -> AsyncIterator[trio.abc.ReceiveChannel[NodeInvoice]]:
        with _translated():
            async with self._rpcs.subscribe_invoices(add_index=0, settle_index=settle_index) as stream:
                yield _Invoices(stream)

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        try:
            with _translated():
                return _invoice(await self._rpcs.lookup_invoice(payment_hash))
        except PaymentNotFound:
            return None


class _Invoices(trio.abc.ReceiveChannel[NodeInvoice]):
    """A subscription's events as the domain sees them."""

    def __init__(self, stream: LiveStream[Invoice]) -> None:
        self._stream = stream

    async def receive(self) -> NodeInvoice:
        with _translated():
            return _invoice(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """LND's errors -> ours."""
    try:
        yield
    except LndError as error:
        if error.status is Status.ALREADY_EXISTS:
            raise AlreadyPaying(error.text) from error
        if error.status is Status.NOT_FOUND:
            raise PaymentNotFound(error.text) from error
        if error.status is Status.UNAVAILABLE or error.text in NOT_YET.values():
            raise NodeUnavailable(error.text) from error
        raise NodeRefused(error.text) from error


async def _end(updates: LiveStream[SimPayment]) -> Payment:
    """Wait for a payment's last state."""
    async for payment in updates:
        if payment.terminal:
            return _payment(payment)
    raise NodeUnavailable("the node shut down before the payment ended; its outcome is unknown")


def _payment(payment: SimPayment) -> Payment:
    return Payment(
        payment_hash=payment.payment_hash,
        status=_STATUSES[payment.stage],
        amount=payment.order.amount,
        fee=payment.fee,
        attempts=len(payment.attempts),
        preimage=payment.preimage,
        failure=payment.failure,
        created_s=int(payment.created_s),
    )


def _invoice(row: Invoice) -> NodeInvoice:
    return NodeInvoice(
        payment_hash=row.payment_hash,
        state=row.state,
        add_index=row.add_index,
        settle_index=row.settle_index,
        created_s=row.created_s,
        settled_s=row.settled_s,
        is_keysend=row.is_keysend,
        amount_paid=row.amount_paid,
        htlcs=tuple(
            InvoiceHtlc(
                state=htlc.state, amount=htlc.amount, accepted_s=htlc.accepted_s, index=htlc.index, records=htlc.records
            )
            for htlc in row.htlcs
        ),
        memo=row.memo,
        payment_request=row.payment_request,
    )
