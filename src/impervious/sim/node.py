"""A simulated node as the rooms above see it: `node.LightningNode` over the RPCs of a simulated LND.

What it makes of LND's answers is what `lnd.LndNode` makes of them: one suite in tests/contract holds both to it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final

import trio
from grpclib.const import Status

from impervious.errors import (
    AlreadyExists,
    AlreadyPaying,
    InvalidArgument,
    NodeRefused,
    NodeUnavailable,
    NoRoute,
    NotFound,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.invoice_feed import FeedPace, settled_invoices
from impervious.model import (
    AddedInvoice,
    Balance,
    DecodedInvoice,
    InvoiceCursor,
    InvoiceNews,
    InvoicePage,
    InvoiceTerms,
    KeysendSupport,
    NodeInfo,
    NodeInvoice,
    NodePubkey,
    NodeState,
    NodeStatus,
    Payment,
    PaymentChannel,
    PaymentHash,
    PaymentPage,
    PaymentStatus,
    Preimage,
    Records,
    Route,
    RouteHint,
    Verdict,
)
from impervious.sim import convert
from impervious.sim.convert import translated
from impervious.sim.engine.answers import HASH_TAKEN, NO_BALANCE, NO_PATH, LndError, WalletState
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.payments import Order, SimPayment
from impervious.sim.engine.world import ChannelChanged
from impervious.sim.invoices import SimInvoices
from impervious.sim.lnd import SimLnd
from impervious.sim.rpcs import NETWORK, VERSION
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


class SimNode:
    """A simulated node (`node.LightningNode`)."""

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
            chain_time_s=self._rpcs.chain_time_s,
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
        self,
        dest: NodePubkey,
        amount: Msat,
        preimage: Preimage,
        records: Records,
        *,
        fee_limit: Msat,
        timeout_s: int,
        hints: Sequence[RouteHint] = (),
    ) -> Payment:
        """Pay without an invoice, and wait for the end."""
        order = Order(
            dest=dest.raw,
            amount=amount,
            payment_hash=preimage.payment_hash,
            records={**records, keysend.PREIMAGE_RECORD: preimage.raw},
            fee_limit=fee_limit,
            timeout_s=timeout_s,
            hints=tuple(map(convert.route_hint, hints)),
        )
        payment = await self._send(order)
        if payment.failure is PaymentFailure.NO_ROUTE and not payment.attempts:
            return await self._send_over_best_route(order) or payment
        return payment

    async def _send_over_best_route(self, order: Order) -> Payment | None:
        """Try the best route once, whatever failed before; None: there is none."""
        with self._asking():
            try:
                path = await self._rpcs.query_routes(order)
            except LndError as error:
                if error.text not in (NO_BALANCE, NO_PATH):
                    raise
                return None
            payment, attempt = await self._rpcs.send_to_route(order, path)
        return convert.attempt(payment, attempt)

    async def _send(self, order: Order) -> Payment:
        with self._asking():
            async with self._rpcs.send_payment(order) as updates:
                return await _end(updates)

    async def track(self, payment_hash: PaymentHash) -> Payment:
        """Wait for the end of a payment that was sent earlier."""
        with self._asking():
            async with self._rpcs.track_payment(payment_hash) as updates:
                return await _end(updates)

    async def find_route(
        self,
        dest: NodePubkey,
        amount: Msat,
        records: Records,
        *,
        fee_limit: Msat,
        hints: Sequence[RouteHint] = (),
    ) -> Route:
        """Ask for the best route that can carry `records`."""
        order = Order(
            dest=dest.raw,
            amount=amount,
            payment_hash=bytes(32),
            records={**records, keysend.PREIMAGE_RECORD: bytes(32)},
            fee_limit=fee_limit,
            hints=tuple(map(convert.route_hint, hints)),
        )
        with self._asking():
            try:
                path = await self._rpcs.query_routes(order)
            except LndError as error:
                if error.text not in (NO_BALANCE, NO_PATH):
                    raise
                raise NoRoute("no route can carry this: too large, too dear, or the node cannot be reached") from error
        return Route(hops=len(path.hops), fee=path.fee, total_amount=path.total, height=path.time_lock)

    async def list_channels(self) -> Sequence[PaymentChannel]:
        """Read the node's open payment channels."""
        with self._asking():
            channels = await self._rpcs.list_channels()
        name = self._lnd.name
        return [convert.channel(row, name, self._lnd.peer_pubkey(row), active=active) for row, active in channels]

    async def route_hints(self) -> Sequence[RouteHint]:
        """Say which ways lead to it over its private channels, if it has no others."""
        channels = await self.list_channels()
        if not channels or not all(channel.private for channel in channels):
            return ()
        with self._asking():
            invoice = await self._rpcs.add_invoice(Ask(value=Msat(1_000_000), private=True))
            read = await self._rpcs.decode_pay_req(invoice.payment_request)
        return tuple(map(convert.hop_hints, read.hints))

    @asynccontextmanager
    async def channel_news(self) -> AsyncIterator[AsyncIterator[None]]:
        """Tell each time that a channel becomes active."""
        with self._asking():
            async with self._rpcs.subscribe_channel_events() as changes:
                async with aclosing(_activations(changes)) as news:
                    yield news

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
        return settled_invoices(SimInvoices(self._rpcs), cursor, rescan=rescan, pace=self.pace)

    # --- invoices ---

    async def add_invoice(self, terms: InvoiceTerms) -> AddedInvoice:
        """Make an invoice that others can pay."""
        try:
            with self._asking():
                ask = Ask(
                    value=terms.amount,
                    preimage=terms.preimage,
                    memo=terms.memo,
                    description_hash=terms.description_hash,
                    expiry_s=terms.expiry_s,
                    private=terms.private,
                )
                added = await self._rpcs.add_invoice(ask)
        except NodeRefused as error:
            if str(error) == HASH_TAKEN:
                raise AlreadyExists("the node has an invoice with that preimage") from error
            raise
        return AddedInvoice(
            payment_hash=added.payment_hash, payment_request=added.payment_request, add_index=added.add_index
        )

    async def decode_invoice(self, payment_request: str) -> DecodedInvoice:
        """Read a payment request."""
        try:
            with self._asking():
                return (await self._rpcs.decode_pay_req(payment_request)).invoice
        except NodeRefused as error:
            raise InvalidArgument(
                f"the node cannot read this invoice ({error}): give the whole text of one for its network"
            ) from error

    async def pay_invoice(
        self, invoice: DecodedInvoice, *, fee_limit: Msat, timeout_s: int, amount: Msat = Msat(0)
    ) -> Payment:
        """Pay an invoice, and wait for the end."""
        order = Order(
            dest=b"",
            amount=amount,
            payment_hash=b"",
            payment_request=invoice.payment_request,
            fee_limit=fee_limit,
            timeout_s=timeout_s,
        )
        try:
            return await self._send(order)
        except NodeRefused as error:
            refusal = error
        with suppress(PaymentNotFound):  # as it should be: but one that has expired may have been paid before
            if (await self.lookup_payment(invoice.payment_hash)).status is not PaymentStatus.FAILED:
                raise AlreadyPaying(f"{refusal}, but the node has such a payment") from refusal
        raise refusal

    async def lookup_payment(self, payment_hash: PaymentHash) -> Payment:
        """Say what has become of a payment so far."""
        with self._asking():
            async with self._rpcs.track_payment(payment_hash) as updates:
                return convert.payment(await updates.receive())

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice:
        """Say what has become of an invoice of the node's."""
        with self._asking():
            found = await SimInvoices(self._rpcs).lookup_invoice(payment_hash)
        if found is None:
            raise NotFound(f"the node has no invoice with the payment hash {payment_hash.hex()}")
        return found

    async def list_invoices(self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False) -> InvoicePage:
        """Read a page of the node's invoices."""
        with self._asking():
            return await SimInvoices(self._rpcs).list_invoices(
                index_offset=index_offset, limit=limit, backwards=backwards
            )

    async def list_payments(
        self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False, records: bool = False
    ) -> PaymentPage:
        """Read a page of what the node has paid or tried to."""
        with self._asking():
            rows = await self._rpcs.list_payments(
                include_incomplete=True, index_offset=index_offset, limit=limit, backwards=backwards
            )
        return PaymentPage(
            payments=tuple(convert.payment(row, records=records) for row in rows),
            first_index=rows[0].index if rows else 0,
            last_index=rows[-1].index if rows else 0,
        )

    async def balance(self) -> Balance:
        """Say what the node has; there are no coins on a simulated chain."""
        with self._asking():
            found = await self._rpcs.channel_balance()
        return Balance(
            local=found.local,
            remote=found.remote,
            unsettled_local=found.unsettled_local,
            unsettled_remote=found.unsettled_remote,
            opening_local=Msat(0),
            confirmed=Msat(0),
            unconfirmed=Msat(0),
        )

    # --- inside ---

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if not (status := self.status).ready:
            raise NodeUnavailable(status.reason)
        with translated():
            yield


async def _activations(changes: LiveStream[ChannelChanged]) -> AsyncGenerator[None, None]:
    async for change in changes:
        if change.active:
            yield


async def _end(updates: LiveStream[SimPayment]) -> Payment:
    """Wait for a payment's last state."""
    async for payment in updates:
        if payment.terminal:
            return convert.payment(payment)
    raise NodeUnavailable("the node shut down before the payment ended; its outcome is unknown")
