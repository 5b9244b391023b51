"""A node behind doors, without a network: a real store, log and message service on a Lightning node made of wishes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import trio
from coincurve import PrivateKey
from tests.conftest import inline

from impervious.config import Address, Config, ServerConfig, ServiceConfig, SocketConfig
from impervious.errors import NodeRefused, Unverified
from impervious.events import EVERYTHING, Events, Filter, Subscription
from impervious.hub import Hub
from impervious.model import (
    AddedInvoice,
    Balance,
    DecodedInvoice,
    Event,
    EventKind,
    InvoiceCursor,
    InvoiceNews,
    InvoicePage,
    InvoiceTerms,
    KeysendSupport,
    NewEvent,
    NodeInfo,
    NodeInvoice,
    NodePubkey,
    NodeState,
    NodeStatus,
    Payment,
    PaymentChannel,
    PaymentHash,
    PaymentPage,
    Preimage,
    Records,
    Route,
    RouteHint,
    ServiceType,
    Verdict,
)
from impervious.outbound import Outbound
from impervious.server.doors import Doors
from impervious.server.http.front import Front
from impervious.server.listeners import Listeners, open_listeners
from impervious.service import Service
from impervious.service.discovery import with_entries
from impervious.service.host import Services
from impervious.services.built_in import BUILT_IN
from impervious.services.message import MessageService
from impervious.store import Store, Tx, open_store, outbox
from impervious.store.database import ThreadRunner
from impervious.supervisor import send_policy
from impervious.units import Msat
from impervious.wire import lnd_signature

MY_KEY = PrivateKey(bytes([1]) * 32)
ME, ALICE, BOB = (NodePubkey(PrivateKey(bytes([number]) * 32).public_key.format()) for number in (1, 2, 3))
READY = NodeStatus(state=NodeState.READY, reason="")
LOCKED = NodeStatus(state=NodeState.LOCKED, reason="LND's wallet is locked: unlock it with `lncli unlock`")
NO_MONEY = "this node has no invoices and no payments"
ANY_PORT = Address(host="127.0.0.1", port=0)


def open_channel(spendable: int, *, active: bool = True, private: bool = False) -> PaymentChannel:
    """A payment channel with so many msat to send."""
    return PaymentChannel(
        chan_id=1, peer=BOB, active=active, private=private, spendable=Msat(spendable), receivable=Msat(0)
    )


class LoneNode:
    """A Lightning node that is as ready as it is told, and pays nothing: nothing is sent in these tests."""

    def __init__(self) -> None:
        self.status = READY
        self.graph = {ME}
        self.channels = [open_channel(10**12)]
        self.ways: Sequence[RouteHint] = ()
        self.activated = trio.Event()
        """Set it when a channel becomes active."""

    async def wait_ready(self) -> NodeInfo:
        await trio.lowlevel.checkpoint()
        return NodeInfo(
            pubkey=ME,
            alias="me",
            network="regtest",
            version="0",
            features=frozenset({55}),
            synced_to_chain=True,
            block_height=1,
        )

    async def sign(self, text: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return lnd_signature.sign(text, MY_KEY)

    async def verify(self, text: bytes, signature: bytes) -> Verdict:
        await trio.lowlevel.checkpoint()
        try:
            signer = lnd_signature.recover(text, signature)
        except Unverified:
            return Verdict(valid=False, pubkey=None)
        return Verdict(valid=signer in self.graph, pubkey=signer)

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
        raise NodeRefused(NO_MONEY)

    async def track(self, payment_hash: PaymentHash) -> Payment:
        raise NotImplementedError

    async def find_route(
        self,
        dest: NodePubkey,
        amount: Msat,
        records: Records,
        *,
        fee_limit: Msat,
        hints: Sequence[RouteHint] = (),
    ) -> Route:
        raise NotImplementedError

    async def list_channels(self) -> Sequence[PaymentChannel]:
        await trio.lowlevel.checkpoint()
        return self.channels

    async def route_hints(self) -> Sequence[RouteHint]:
        await trio.lowlevel.checkpoint()
        return self.ways

    @asynccontextmanager
    async def channel_news(self) -> AsyncIterator[AsyncIterator[None]]:
        yield self._activations()

    async def _activations(self) -> AsyncIterator[None]:
        while True:
            await self.activated.wait()
            self.activated = trio.Event()
            yield

    async def keysend_support(self, pubkey: NodePubkey) -> KeysendSupport:
        raise NotImplementedError

    def settled_invoices(
        self, cursor: InvoiceCursor, *, rescan: bool = False
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[InvoiceNews]]:
        raise NotImplementedError

    async def add_invoice(self, terms: InvoiceTerms) -> AddedInvoice:
        raise NodeRefused(NO_MONEY)

    async def decode_invoice(self, payment_request: str) -> DecodedInvoice:
        raise NodeRefused(NO_MONEY)

    async def pay_invoice(
        self, invoice: DecodedInvoice, *, fee_limit: Msat, timeout_s: int, amount: Msat = Msat(0)
    ) -> Payment:
        raise NodeRefused(NO_MONEY)

    async def lookup_payment(self, payment_hash: PaymentHash) -> Payment:
        raise NodeRefused(NO_MONEY)

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice:
        raise NodeRefused(NO_MONEY)

    async def list_invoices(self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False) -> InvoicePage:
        raise NodeRefused(NO_MONEY)

    async def list_payments(
        self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False, records: bool = False
    ) -> PaymentPage:
        raise NodeRefused(NO_MONEY)

    async def balance(self) -> Balance:
        raise NodeRefused(NO_MONEY)


@dataclass
class House:
    """What stands behind doors."""

    config: Config
    lightning: LoneNode
    store: Store
    stream: Events
    services: Services
    disk_problem: str | None = None
    opened: list[int] = field(default_factory=list)

    @property
    def messages(self) -> MessageService:
        return self.services.get(MessageService)

    @property
    def status(self) -> NodeStatus:
        return self.lightning.status

    def events(
        self, *, since: int | None = None, wanted: Filter = EVERYTHING
    ) -> AbstractAsyncContextManager[Subscription]:
        return self.stream.subscribe(since=since, wanted=wanted)

    async def resolve(self, node: str) -> NodePubkey:
        return await self.messages.context.resolve(node)

    async def emit(self, *news: NewEvent) -> list[Event]:
        """Write events to the log."""
        return await self.store.write(lambda tx: [tx.emit(each) for each in news])

    async def stored_messages(self) -> int:
        """How many messages are to be sent."""

        def count(tx: Tx) -> int:
            return tx.number("SELECT count(*) FROM outbound")

        return await self.store.read(count)


def new(
    data: bytes | str = b"hello",
    *,
    service: str = "message",
    sender: NodePubkey | None = ALICE,
    amount: int = 1000,
    verified: bool = True,
    reply_to: UUID | None = None,
) -> NewEvent:
    return NewEvent(
        kind=EventKind.MESSAGE,
        id=uuid4(),
        reply_to=reply_to,
        sender=sender,
        service_type=ServiceType(service),
        topic=ServiceType(service),
        data=data.encode() if isinstance(data, str) else data,
        amount=Msat(amount),
        sent_at_ms=1_760_000_000_123,
        verified=verified,
    )


def config(tmp_path: Path, **server: object) -> Config:
    """Ports that are free, and a database in a folder of the test."""
    doors: dict[str, object] = {"grpc_addr": ANY_PORT, "http_addr": ANY_PORT, "http_text_addr": ANY_PORT, **server}
    plain = Config()
    return replace(
        plain,
        server=ServerConfig(**doors),  # type: ignore[arg-type]
        store=replace(plain.store, path=tmp_path / "imp.db"),
        socket=SocketConfig(server_ip="127.0.0.1", ports=((0, 0),)),
    )


def without_service(given: Config, service_type: str) -> Config:
    """Switch a service off."""
    off = ServiceConfig(service_type=ServiceType(service_type), active=False)
    kept = [entry for entry in given.services if entry.service_type != service_type]
    return replace(given, services=(*kept, off))


@asynccontextmanager
async def open_house(
    given: Config,
    *,
    run_sync: ThreadRunner = inline,
    services: Sequence[type[Service]] = (),
    now_ms: Callable[[], int] = lambda: 1_760_000_000_000,
) -> AsyncIterator[House]:
    classes = [*BUILT_IN, *services]
    given = with_entries(given, classes)
    hub, lightning = Hub(), LoneNode()
    async with open_store(given.store.path, on_commit=hub.publish, now_ms=now_ms, run_sync=run_sync) as store:
        events = Events(store, hub, max_subscribers=given.limits.subscribers)
        outbound = Outbound(lightning, store, hub, send_policy(given), random=lambda: 0.5)
        hosted = Services(classes, given, node=lightning, store=store, hub=hub, outbound=outbound, random=lambda: 0.5)
        await store.write(lambda tx: outbox.set_identity(tx, ME))
        await hosted.begin()
        async with trio.open_nursery() as nursery:
            await nursery.start(hosted.run)
            yield House(given, lightning, store, events, hosted)
            nursery.cancel_scope.cancel()


@dataclass
class Inside:
    """The HTTP application without its server."""

    house: House
    listeners: Listeners
    doors: Doors
    app: Front
    http: tuple[str, int]
    text: tuple[str, int]


@asynccontextmanager
async def open_app(given: Config, *, services: Sequence[type[Service]] = ()) -> AsyncIterator[Inside]:
    """The ports are taken, so that the listeners can be told apart, but nobody accepts: the clock may be virtual."""
    async with open_house(given, services=services) as house, open_listeners(given.server) as listeners:
        doors, found = Doors(house, house.config, listeners), listeners.addresses
        assert found.http_text
        yield Inside(
            house,
            listeners,
            doors,
            doors.http_app(),
            (found.http.host, found.http.port),
            (found.http_text.host, found.http_text.port),
        )


@asynccontextmanager
async def open_doors(house: House) -> AsyncIterator[Listeners]:
    """Doors on loopback, for tests that are about sockets: real time, real threads."""
    async with open_listeners(house.config.server) as listeners, trio.open_nursery() as nursery:
        await nursery.start(Doors(house, house.config, listeners).serve)
        yield listeners
        nursery.cancel_scope.cancel()
