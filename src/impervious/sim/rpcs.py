"""The RPCs of one simulated LND, as values: what its gRPC face translates and `SimNode` is made of.

Their names, arguments, errors and the ends of their streams are LND's. Each checks first whether LND could answer.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import trio
from grpclib.const import Status

from impervious.errors import Malformed, Unverified
from impervious.model import HtlcState, InvoiceState, NodePubkey, PaymentHash, Preimage
from impervious.sim.driver import Driver
from impervious.sim.engine import payment_request
from impervious.sim.engine.addresses import AddressKind
from impervious.sim.engine.answers import BROKEN, GONE, NO_BALANCE, NO_PATH, NOT_YET, LndError, WalletState
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.invoices import Invoice, LiveFilter
from impervious.sim.engine.mission_control import Pair, PairResult
from impervious.sim.engine.payments import Attempt, Order, SimPayment
from impervious.sim.engine.route import BalanceTooLowError, NoPathError, Path
from impervious.sim.engine.view import View, features_of
from impervious.sim.engine.world import ChannelChanged, InvoiceChanged, News, Node, PaymentChanged
from impervious.sim.streams import LiveStream
from impervious.units import Msat
from impervious.wire import lnd_signature

NETWORK: Final = "regtest"
"""As its invoices say: there is no prefix that decoders know for simulated networks."""
RELEASE: Final = "0.21.2-beta"
COMMIT: Final = "simulated"
COMMIT_HASH: Final = "0" * 40
VERSION: Final = f"{RELEASE} commit={COMMIT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """lnrpc.GetInfoResponse."""

    pubkey: NodePubkey
    alias: str
    features: frozenset[int]
    block_height: int
    synced_to_chain: bool
    active_channels: int
    inactive_channels: int
    peers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the graph says of a node (lnrpc.NodeInfo)."""

    pubkey: NodePubkey
    alias: str
    features: frozenset[int]
    announced: bool
    """Whether its own announcement is known; a peer with only private channels is known without one."""
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balances:
    """lnrpc.ChannelBalanceResponse."""

    local: Msat
    remote: Msat
    unsettled_local: Msat
    """Of HTLCs that would bring us something: LND counts them for whom they would be."""
    unsettled_remote: Msat
    channels: int


class _InvoiceListener:
    """One SubscribeInvoices: live events wait until the backlog has been sent."""

    def __init__(self, live: LiveFilter) -> None:
        self.stream = LiveStream[Invoice]()
        self._live = live
        self._early: list[Invoice] | None = []

    def hear(self, invoice: Invoice) -> None:
        if self._live.passes(invoice):
            if self._early is None:
                self.stream.put(invoice)
            else:
                self._early.append(invoice)

    def begin(self, backlog: Iterable[Invoice]) -> None:
        for invoice in (*backlog, *(self._early or ())):
            self.stream.put(invoice)
        self._early = None


class Rpcs:
    """What a client can ask of one simulated LND."""

    def __init__(self, driver: Driver, node: Node) -> None:
        self.up = True
        """Whether its process runs."""
        self.life = 1
        """How often its process has been started."""
        self.registration_delay_s = 0.0
        """From SubscribeInvoices to the moment it takes effect."""
        self.backlog_delay_s = 0.0
        """From then to reading the backlog: what settles meanwhile comes twice."""
        self.lose_answers = 0
        """How many payments will end with a broken connection instead of their last update."""
        self._driver = driver
        self._node = node
        self._world = driver.engine.world
        self._payments: dict[PaymentHash, set[LiveStream[SimPayment]]] = defaultdict(set)
        self._invoices: set[LiveStream[Invoice]] = set()
        self._listeners: set[_InvoiceListener] = set()
        self._single_invoices: dict[PaymentHash, set[LiveStream[Invoice]]] = defaultdict(set)
        self._channels: set[LiveStream[ChannelChanged]] = set()
        self._states: set[LiveStream[WalletState]] = set()
        self._breakers: set[Callable[[], object]] = set()
        self._changed = trio.Event()
        self._began_s = 0.0
        driver.listen(node.name, self._hear)

    @property
    def name(self) -> str:
        """What the network calls the node."""
        return self._node.name

    def named(self, pubkey: bytes) -> str:
        """What the network calls the node with a key, or an empty string."""
        return self._world.named(pubkey)

    def pubkey_of(self, name: str) -> bytes:
        """The key of a node."""
        return self._world.pubkeys[name].raw

    def wall_s(self, elapsed_s: float | None) -> int:
        """A moment of the engine's time in seconds since 1970; 0 for never."""
        if elapsed_s is None:
            return 0
        return int(self._world.time.wall_s() - (self._world.time.elapsed_s() - elapsed_s))

    def channel_ends(self, chan_id: int) -> dict[str, bytes] | None:
        """The two nodes of a channel that this node knows, with their keys."""
        channel = self._world.graph.channels.get(chan_id)
        if channel is None or (channel.private and self._node.name not in channel.nodes):
            return None
        return {name: self._world.pubkeys[name].raw for name in channel.nodes}

    # --- state ---

    @property
    def chain_time_s(self) -> int:
        """When the newest block was made: there is always one."""
        return self.now_s

    @property
    def now_s(self) -> int:
        """The node's clock."""
        return int(self.now_exactly_s)

    @property
    def running_s(self) -> int:
        """How long the network has been running, at least a second."""
        return max(1, int(self._world.time.elapsed_s() - self._began_s))

    @property
    def now_exactly_s(self) -> float:
        """The node's clock, with parts of a second."""
        return self._world.time.wall_s()

    @property
    def state(self) -> WalletState:
        """State.GetState.

        Raises:
          LndError: its process does not run.
        """
        if not self.up:
            raise LndError(GONE, Status.UNAVAILABLE)
        return self._node.state

    @asynccontextmanager
    async def subscribe_state(self) -> AsyncIterator[LiveStream[WalletState]]:
        """State.SubscribeState: the state, then every other one."""
        await trio.lowlevel.checkpoint()
        stream = LiveStream[WalletState]()
        stream.put(self.state)
        self._states.add(stream)
        try:
            yield stream
        finally:
            self._states.discard(stream)

    async def wait_changed(self) -> None:
        """Wait for another state, or for anything else that decides whether it can serve."""
        await self._changed.wait()

    def changed(self) -> None:
        """Wake those who wait for that."""
        self._changed.set()
        self._changed = trio.Event()

    async def get_info(self) -> Info:
        """Lightning.GetInfo."""
        await self._ready()
        channels = self._world.graph.channels_of(self._node.name)
        active = [channel for channel in channels if self._world.live(channel)]
        return Info(
            pubkey=self._node.pubkey,
            alias=self._node.name,
            features=features_of(self._node),
            block_height=self._world.height,
            synced_to_chain=self._node.synced,
            active_channels=len(active),
            inactive_channels=len(channels) - len(active),
            peers=len({channel.peer(self._node.name) for channel in active}),
        )

    # --- payments ---

    @asynccontextmanager
    async def send_payment(self, order: Order) -> AsyncIterator[LiveStream[SimPayment]]:
        """Router.SendPaymentV2: what becomes of the payment, until its end.

        Leaving early changes nothing, unless the order is cancelable.
        """
        await self._ready()
        if order.payment_request:
            order = payment_request.filled(order, now_s=self._world.time.wall_s())
        with self._payment_stream(PaymentHash(order.payment_hash)) as stream:
            self._driver.engine.pay(self._node.name, order)
            self._driver.step()
            try:
                yield stream
            finally:
                if not stream.ended:
                    self._driver.engine.payer.cancel(self._node, PaymentHash(order.payment_hash))

    @asynccontextmanager
    async def track_payment(self, payment_hash: bytes) -> AsyncIterator[LiveStream[SimPayment]]:
        """Router.TrackPaymentV2: the payment as it is, then what becomes of it."""
        await self._ready()
        payment = self._node.payments.lookup(payment_hash)
        with self._payment_stream(payment.payment_hash) as stream:
            _send(stream, payment)
            yield stream

    async def list_payments(
        self, *, include_incomplete: bool = False, index_offset: int = 0, limit: int = 0, backwards: bool = False
    ) -> list[SimPayment]:
        """Lightning.ListPayments."""
        await self._ready()
        return self._node.payments.page(
            include_incomplete=include_incomplete, index_offset=index_offset, limit=limit, backwards=backwards
        )

    async def query_routes(self, order: Order, *, mission_control: bool = False) -> Path:
        """Lightning.QueryRoutes."""
        await self._ready()
        try:
            return self._driver.engine.payer.find(self._node, order, mission_control=mission_control, padding=0)
        except BalanceTooLowError:
            raise LndError(NO_BALANCE) from None
        except NoPathError:
            raise LndError(NO_PATH) from None

    async def send_to_route(
        self, order: Order, path: Path, *, total: Msat = Msat(0), goes_on: bool = False
    ) -> tuple[SimPayment, Attempt]:
        """Router.SendToRouteV2: try one way, and wait for what becomes of it.

        Leaving early changes nothing.
        """
        await self._ready()
        with self._payment_stream(PaymentHash(order.payment_hash)) as stream:
            number = self._driver.engine.send_to_route(self._node.name, order, path, total=total, goes_on=goes_on)
            self._driver.step()
            async for payment in stream:
                attempt = next((a for a in payment.attempts if a.id == number), None)
                if attempt is not None and attempt.state is not HtlcState.ACCEPTED:
                    return payment, attempt
        raise LndError("router shutting down")

    async def view(self) -> View:
        """What the node knows of the network: DescribeGraph, ListPeers, FeeReport and their like."""
        await self._ready()
        return View(self._world, self._node)

    async def new_address(self, kind: AddressKind, *, unused: bool) -> str:
        """Lightning.NewAddress."""
        await self._ready()
        made = self._driver.engine.new_address(self._node.name, kind, unused=unused)
        self._driver.step()
        return made

    async def mission_control(self) -> list[tuple[Pair, PairResult]]:
        """Router.QueryMissionControl."""
        await self._ready()
        return list(self._node.mission_control)

    async def reset_mission_control(self) -> None:
        """Router.ResetMissionControl."""
        await self._ready()
        self._node.mission_control.reset()

    # --- invoices ---

    async def add_invoice(self, ask: Ask) -> Invoice:
        """Lightning.AddInvoice, Invoices.AddHoldInvoice."""
        await self._ready()
        invoice = self._driver.engine.add_invoice(self._node.name, ask)
        self._driver.step()
        return invoice

    async def settle_invoice(self, preimage: bytes) -> None:
        """Invoices.SettleInvoice: what is settled already is so for good."""
        await self._ready()
        if len(preimage) != 32:
            raise LndError(f"invalid preimage length of {len(preimage)}, want 32")
        with _without_status():
            self._driver.engine.settle_invoice(self._node.name, Preimage(preimage))
        self._driver.step()

    async def cancel_invoice(self, payment_hash: bytes) -> None:
        """Invoices.CancelInvoice: what is cancelled already is so for good."""
        await self._ready()
        _check_hash(payment_hash)
        with _without_status():
            self._driver.engine.cancel_invoice(self._node.name, PaymentHash(payment_hash))
        self._driver.step()

    async def lookup_invoice_v2(self, payment_hash: bytes | None, payment_addr: bytes | None) -> Invoice:
        """Invoices.LookupInvoiceV2, by one of the two."""
        await self._ready()
        if payment_hash is None and payment_addr is None:
            raise LndError("invoice ref must be set", Status.INVALID_ARGUMENT)
        if payment_hash is None:
            return self._node.invoices.with_address(payment_addr or b"")
        if len(payment_hash) != 32:
            text = f"unable to parse pay hash: invalid hash length of {len(payment_hash)}, want 32"
            raise LndError(text, Status.INVALID_ARGUMENT)
        return self._node.invoices.lookup(payment_hash)

    async def decode_pay_req(self, text: str) -> payment_request.Read:
        """Lightning.DecodePayReq."""
        await self._ready()
        return payment_request.read(text)

    async def list_invoices(
        self,
        *,
        index_offset: int = 0,
        limit: int = 0,
        backwards: bool = False,
        pending_only: bool = False,
        created_from_s: int = 0,
        created_to_s: int = 0,
    ) -> tuple[Invoice, ...]:
        """Lightning.ListInvoices."""
        await self._ready()
        return self._node.invoices.page(
            index_offset=index_offset,
            limit=limit,
            backwards=backwards,
            pending_only=pending_only,
            created_from_s=created_from_s,
            created_to_s=created_to_s,
        )

    async def lookup_invoice(self, payment_hash: bytes) -> Invoice:
        """Lightning.LookupInvoice."""
        await self._ready()
        return self._node.invoices.lookup(payment_hash)

    @asynccontextmanager
    async def subscribe_invoices(self, *, add_index: int, settle_index: int) -> AsyncIterator[LiveStream[Invoice]]:
        """Lightning.SubscribeInvoices: OPEN and SETTLED only; 0 means nothing old."""
        await self._ready()
        listener = _InvoiceListener(LiveFilter(add_index=add_index, settle_index=settle_index))

        def register() -> None:
            if listener.stream in self._invoices:
                self._listeners.add(listener)
                self._driver.later(self.backlog_delay_s, read_backlog)

        def read_backlog() -> None:
            listener.begin(self._node.invoices.backlog(add_index=add_index, settle_index=settle_index))

        self._invoices.add(listener.stream)
        self._driver.later(self.registration_delay_s, register)
        try:
            yield listener.stream
        finally:
            self._invoices.discard(listener.stream)
            self._listeners.discard(listener)

    @property
    def invoice_subscribers(self) -> int:
        """Subscriptions to all invoices that have taken effect."""
        return len(self._listeners)

    @asynccontextmanager
    async def subscribe_single_invoice(self, payment_hash: bytes) -> AsyncIterator[LiveStream[Invoice]]:
        """Invoices.SubscribeSingleInvoice: every state, until SETTLED or CANCELED. An unknown hash waits in silence."""
        await self._ready()
        _check_hash(payment_hash)
        stream, key = LiveStream[Invoice](), PaymentHash(payment_hash)
        self._single_invoices[key].add(stream)
        try:
            invoice = self._node.invoices.get(key)
            if invoice is not None:
                _send_single(stream, invoice)
            yield stream
        finally:
            self._single_invoices[key].discard(stream)

    # --- keys and channels ---

    async def sign_message(self, text: bytes, *, single_hash: bool = False) -> bytes:
        """Lightning.SignMessage, before its zbase32."""
        await self._ready()
        if not text:
            raise LndError("need a message to sign")
        return self._node.identity.sign_once_hashed(text) if single_hash else self._node.identity.sign(text)

    async def verify_message(self, text: bytes, signature: bytes) -> tuple[bool, NodePubkey | None]:
        """Lightning.VerifyMessage: whether the signer is in the graph, and who it is."""
        await self._ready()
        if not text:
            raise LndError("need a message to verify")
        try:
            signer = lnd_signature.recover(text, signature)
        except (Unverified, Malformed):
            return False, None
        return self._world.graph.knows(self._node.name, self._world.named(signer.raw)), signer

    async def get_node_info(self, pubkey: bytes) -> Known:
        """Lightning.GetNodeInfo."""
        await self._ready()
        name, graph = self._world.named(pubkey), self._world.graph
        if not name or not graph.knows(self._node.name, name):
            raise LndError("unable to find node", Status.NOT_FOUND)
        node, announced = self._world.nodes[name], graph.announced(name)
        return Known(
            pubkey=node.pubkey,
            alias=name if announced else "",
            features=features_of(node) if announced else frozenset(),
            announced=announced,
            channels=tuple(c for c in graph.channels_of(name) if not c.private or self._node.name in c.nodes),
        )

    async def list_channels(self) -> list[tuple[Channel, bool]]:
        """Lightning.ListChannels: each channel, and whether it is active."""
        await self._ready()
        return [(channel, self._world.live(channel)) for channel in self._world.graph.channels_of(self._node.name)]

    @asynccontextmanager
    async def subscribe_channel_events(self) -> AsyncIterator[LiveStream[ChannelChanged]]:
        """Lightning.SubscribeChannelEvents: channels that come and go from now on."""
        await self._ready()
        stream = LiveStream[ChannelChanged]()
        self._channels.add(stream)
        try:
            yield stream
        finally:
            self._channels.discard(stream)

    @property
    def channel_subscribers(self) -> int:
        """Subscriptions to channels that come and go."""
        return len(self._channels)

    async def channel_balance(self) -> Balances:
        """Lightning.ChannelBalance."""
        local = remote = incoming = outgoing = 0
        channels = await self.list_channels()
        for channel, _ in channels:
            side = channel.side(self._node.name)
            local += channel.balances[side]
            remote += channel.balances[1 - side]
            outgoing += sum(amount for (offerer, _), amount in channel.htlcs.items() if offerer == side)
            incoming += sum(amount for (offerer, _), amount in channel.htlcs.items() if offerer != side)
        return Balances(
            local=Msat(local),
            remote=Msat(remote),
            unsettled_local=Msat(incoming),
            unsettled_remote=Msat(outgoing),
            channels=len(channels),
        )

    # --- the ends of connections ---

    def end_streams(self) -> None:
        """Shut down: every stream ends with status OK, as LND's do; that of the state says why."""
        for stream in self._streams():
            stream.end()
        for state in self._states:
            state.end(LndError("server exiting"))

    @contextmanager
    def breaking(self, break_connections: Callable[[], object]) -> Iterator[None]:
        """Have a function called, inside the block, whenever all connections are to break."""
        self._breakers.add(break_connections)
        try:
            yield
        finally:
            self._breakers.discard(break_connections)

    def tear_streams(self) -> None:
        """Break every connection."""
        for break_connections in self._breakers:
            break_connections()
        for stream in (*self._streams(), *self._states):
            stream.tear(LndError(BROKEN, Status.UNAVAILABLE))

    # --- inside ---

    def _streams(self) -> list[LiveStream[SimPayment] | LiveStream[Invoice] | LiveStream[ChannelChanged]]:
        payments = [stream for streams in self._payments.values() for stream in streams]
        invoices = [stream for streams in self._single_invoices.values() for stream in streams]
        return [*payments, *invoices, *self._invoices, *self._channels]

    async def _ready(self) -> None:
        """Let others run, then refuse if LND could not answer."""
        await trio.lowlevel.checkpoint()
        if self.state in NOT_YET:
            raise LndError(NOT_YET[self.state])

    @contextmanager
    def _payment_stream(self, payment_hash: PaymentHash) -> Iterator[LiveStream[SimPayment]]:
        stream = LiveStream[SimPayment]()
        self._payments[payment_hash].add(stream)
        try:
            yield stream
        finally:
            self._payments[payment_hash].discard(stream)
            if not self._payments[payment_hash]:
                del self._payments[payment_hash]

    def _hear(self, news: News) -> None:
        if isinstance(news, PaymentChanged):
            self._hear_payment(news.payment)
        elif isinstance(news, InvoiceChanged):
            for listener in self._listeners:
                listener.hear(news.invoice)
            for stream in self._single_invoices.get(news.invoice.payment_hash, ()):
                _send_single(stream, news.invoice)
        elif isinstance(news, ChannelChanged):
            for channels in self._channels:
                channels.put(news)
        else:
            for states in self._states:
                states.put(news.state)
            self.changed()

    def _hear_payment(self, payment: SimPayment) -> None:
        streams = self._payments.get(payment.payment_hash, ())
        lose = bool(streams) and payment.terminal and self.lose_answers > 0
        self.lose_answers -= lose
        for stream in streams:
            if lose:
                stream.tear(LndError(BROKEN, Status.UNAVAILABLE))
            else:
                _send(stream, payment)


def _check_hash(payment_hash: bytes) -> None:
    if len(payment_hash) != 32:
        raise LndError(f"invalid hash length of {len(payment_hash)}, want 32")


@contextmanager
def _without_status() -> Iterator[None]:
    """LND hands what its registry says on as it is: without NOT_FOUND."""
    try:
        yield
    except LndError as error:
        raise LndError(error.text) from error


def _send(stream: LiveStream[SimPayment], payment: SimPayment) -> None:
    stream.put(payment)
    if payment.terminal:
        stream.end()


def _send_single(stream: LiveStream[Invoice], invoice: Invoice) -> None:
    stream.put(invoice)
    if invoice.state in (InvoiceState.SETTLED, InvoiceState.CANCELED):
        stream.end()
