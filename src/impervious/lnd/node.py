"""`LndNode`: one LND as `node.PaymentNode`, and as a Trio client for everything else LND can do.

A task of its own (`watch`) keeps the connection; the methods here use what it has at that moment and never wait for it.
What an RPC leaves open when it fails is asked for with another one, so that no caller has to interpret LND's words.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.background import background
from impervious.config import LndConfig
from impervious.errors import (
    AlreadyPaying,
    NodeMisconfigured,
    NodeUnavailable,
    NoRoute,
    PaymentNotFound,
)
from impervious.invoice_feed import FeedPace, settled_invoices
from impervious.lnd import convert
from impervious.lnd.connection import Connect, Connection, LndStream, call, open_connection
from impervious.lnd.credentials import Credentials, read_credentials
from impervious.lnd.faults import LndRefused, MacaroonRefused
from impervious.lnd.invoices import LndInvoices
from impervious.lnd.readiness import PAYMENT_NODE, Requirements
from impervious.lnd.rpcs import (
    GET_NODE_INFO,
    QUERY_ROUTES,
    SEND_PAYMENT,
    SIGN_MESSAGE,
    TRACK_PAYMENT,
    VERIFY_MESSAGE,
    Response,
    Rpc,
)
from impervious.lnd.watch import Watch
from impervious.model import (
    InvoiceCursor,
    InvoiceNews,
    KeysendSupport,
    NodeInfo,
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
from impervious.pb.lnrpc import (
    FeeLimit,
    NodeInfoRequest,
    QueryRoutesRequest,
    SignMessageRequest,
    VerifyMessageRequest,
)
from impervious.pb.lnrpc import Payment as PbPayment
from impervious.pb.routerrpc import SendPaymentRequest, TrackPaymentRequest
from impervious.rpc.message import Message
from impervious.units import Msat
from impervious.wire import zbase32
from impervious.wire.keysend import FEATURE_BIT, PREIMAGE_RECORD

_ENDED: Final = frozenset({PaymentStatus.SUCCEEDED, PaymentStatus.FAILED})

_CALLERS_OWN: Final = (Status.DEADLINE_EXCEEDED, Status.CANCELLED)
"""How a call ends whose caller has run out of time: no news of LND."""


class LndNode:
    """One LND. Made by `open_lnd`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.pace = FeedPace()
        """How often invoices are read."""

    # --- Readiness ----------------------------------------------------------------------------------------------------

    @property
    def status(self) -> NodeStatus:
        """Whether it can serve now, and if not, why. Never blocks."""
        return self._watch.status

    async def status_after(self, seen: NodeStatus) -> NodeStatus:
        """Wait until the status is another than `seen`, and return it. Those that pass quickly may be missed."""
        while self._watch.status == seen:
            await self._watch.wait_change()
        await trio.lowlevel.checkpoint()
        return self._watch.status

    async def wait_ready(self) -> NodeInfo:
        """Wait until it can serve, then tell who it is.

        Raises:
          NodeMisconfigured: it is another node than the configuration names. What its operator can cure while we wait
            (keysend off, a macaroon that allows too little) is waited for; `status` says which.
        """
        status = self.status
        while not status.ready:
            if status.state is NodeState.MISTAKEN:
                raise NodeMisconfigured(status.reason)
            status = await self.status_after(status)
        await trio.lowlevel.checkpoint()
        assert self._watch.info is not None, "ready is only said of a node that has told who it is"
        return self._watch.info

    # --- Any RPC ------------------------------------------------------------------------------------------------------

    async def call(self, rpc: Rpc[Response], request: Message) -> Response:
        """Make any unary call of LND's.

        Args:
          rpc: one of `lnd.rpcs`, or one made for the purpose.
          request: its request.

        Raises:
          NodeUnavailable: LND is not ready, or went away before it answered.
          LndRefused: LND answered with an error.
        """
        connection = self._ready()
        with self._doubting(connection):
            return await call(connection.calls, rpc, request, host=connection.credentials.host)

    def stream(self, rpc: Rpc[Response], request: Message) -> LndStream[Response, Response]:
        """Make any call of LND's that answers with a stream: `async with node.stream(…) as stream`.

        Long streams that bring much belong on a connection of their own; see `settled_invoices`.

        Raises:
          NodeUnavailable: LND is not ready. Entering and reading the stream raise as `call` does.
        """
        connection = self._ready()
        return LndStream(connection.calls, rpc, request, lambda message: message, host=connection.credentials.host)

    def _ready(self) -> Connection:
        connection, status = self._watch.connection, self._watch.status
        if connection is None or not status.ready:
            raise NodeUnavailable(status.reason or "the connection to LND is being made anew")
        return connection

    @contextmanager
    def _doubting(self, connection: Connection) -> Iterator[None]:
        """Let nobody be told any more that LND is ready when the block finds it gone."""
        try:
            yield
        except NodeUnavailable as error:
            cause = error.__cause__
            of_the_caller = isinstance(cause, GRPCError) and cause.status in _CALLERS_OWN
            if not of_the_caller and not isinstance(error, MacaroonRefused):
                self._watch.doubt(connection, str(error))
            raise

    # --- Signatures ---------------------------------------------------------------------------------------------------

    async def sign(self, text: bytes) -> bytes:
        """Sign with the identity key: 65 bytes, recovery header first."""
        # single_hash would change the digest to one that VerifyMessage does not accept.
        answer = await self.call(SIGN_MESSAGE, SignMessageRequest(msg=text, single_hash=False))
        return convert.signature(answer.signature)

    async def verify(self, text: bytes, signature: bytes) -> Verdict:
        """Ask who made a 65-byte signature and whether the graph knows that node."""
        request = VerifyMessageRequest(msg=text, signature=zbase32.encode(signature))
        return convert.verdict(await self.call(VERIFY_MESSAGE, request))

    # --- Payments -----------------------------------------------------------------------------------------------------

    async def send_keysend(
        self, dest: NodePubkey, amount: Msat, preimage: Preimage, records: Records, *, fee_limit: Msat, timeout_s: int
    ) -> Payment:
        """Pay `dest` without an invoice and carry `records` (`node.PaymentNode.send_keysend`)."""
        request = SendPaymentRequest(
            dest=dest.raw,
            amt_msat=amount,
            payment_hash=preimage.payment_hash,
            dest_custom_records={**records, PREIMAGE_RECORD: preimage.raw},
            fee_limit_msat=fee_limit,  # unset is 0: routes without fees only
            timeout_seconds=timeout_s,  # unset is 60 s since lnd 0.19 and an error before
            no_inflight_updates=True,  # only the end counts
            cancelable=False,  # hanging up must not stop the payment: its caller tracks it
            max_parts=1,  # a keysend cannot be split: its preimage is in every part
        )
        try:
            return await self._state(SEND_PAYMENT, request)
        except LndRefused as error:
            if error.status is Status.ALREADY_EXISTS:
                raise AlreadyPaying(str(error)) from error
            refusal = error
        await self._see_nothing_begun(preimage.payment_hash, refusal)
        raise refusal

    async def _see_nothing_begun(self, payment_hash: PaymentHash, refusal: LndRefused) -> None:
        """Make sure that a refused payment is not under way all the same: LND's words do not tell when they fell.

        Raises:
          AlreadyPaying: it is, or was paid.
          NodeUnavailable: nobody can say.
        """
        # With updates in flight, so that the present state comes at once.
        request = TrackPaymentRequest(payment_hash=payment_hash, no_inflight_updates=False)
        try:
            payment = await self._state(TRACK_PAYMENT, request, frozenset(PaymentStatus))
        except (LndRefused, NodeUnavailable) as error:
            if isinstance(error, LndRefused) and error.status is Status.NOT_FOUND:
                return
            raise NodeUnavailable(f"{refusal}; and when asked what became of the payment: {error}") from error
        if payment.status is not PaymentStatus.FAILED:  # that would be an earlier attempt, with nothing in flight
            raise AlreadyPaying(f"{refusal}, but it has such a payment") from refusal

    async def track(self, payment_hash: PaymentHash) -> Payment:
        """Wait for the end of a payment that was sent earlier.

        Raises:
          PaymentNotFound: LND has no record of it: it was never asked to pay it, or told to forget it.
        """
        request = TrackPaymentRequest(payment_hash=payment_hash, no_inflight_updates=True)
        try:
            return await self._state(TRACK_PAYMENT, request)
        except LndRefused as error:
            if error.status is Status.NOT_FOUND:
                raise PaymentNotFound(str(error)) from error
            raise

    async def _state(self, rpc: Rpc[PbPayment], request: Message, wanted: frozenset[PaymentStatus] = _ENDED) -> Payment:
        """Wait until a payment is in one of these states."""
        connection = self._ready()
        host = connection.credentials.host
        with self._doubting(connection):
            async with LndStream(connection.calls, rpc, request, convert.payment, host=host) as states:
                async for payment in states:
                    if payment.status in wanted:
                        return payment
            raise NodeUnavailable("LND left before it told how the payment ended: track it")

    # --- The graph ----------------------------------------------------------------------------------------------------

    async def find_route(self, dest: NodePubkey, amount: Msat, records: Records, *, fee_limit: Msat) -> Route:
        """Ask for the best route that can carry `records` and a preimage.

        Raises:
          NoRoute: there is none for that size, amount and fee; LND does not say which of them it is.
        """
        request = QueryRoutesRequest(
            pub_key=dest.hex,
            amt_msat=amount,
            fee_limit=FeeLimit(fixed_msat=fee_limit),  # unset is 5 % of the amount, or all of it when that is small
            dest_custom_records={**records, PREIMAGE_RECORD: bytes(32)},  # LND measures them as it does for a payment
            use_mission_control=True,  # as payments do: what failed lately is avoided
        )
        try:
            answer = await self.call(QUERY_ROUTES, request)
        except LndRefused as error:
            if error.no_route:
                raise NoRoute("no route can carry this: too large, too dear, or out of reach") from error
            raise
        if not answer.routes:
            raise NoRoute("LND found no route")
        return convert.route(answer.routes[0])

    async def keysend_support(self, pubkey: NodePubkey) -> KeysendSupport:
        """Look a node's feature bit 55 up in the graph."""
        try:
            answer = await self.call(GET_NODE_INFO, NodeInfoRequest(pub_key=pubkey.hex, include_channels=False))
        except LndRefused as error:
            if error.status is Status.NOT_FOUND:
                return KeysendSupport.UNKNOWN
            raise
        if answer.node is None or not answer.node.last_update:
            return KeysendSupport.UNKNOWN  # known from its channels alone: it has not announced itself
        return KeysendSupport.YES if FEATURE_BIT in answer.node.features else KeysendSupport.NO

    # --- Invoices -----------------------------------------------------------------------------------------------------

    def settled_invoices(
        self, cursor: InvoiceCursor, *, rescan: bool = False
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[InvoiceNews]]:
        """Tell every invoice that has settled since `cursor`, then those that settle (`node.PaymentNode`).

        Raises:
          NodeUnavailable: LND is not ready.
        """
        return settled_invoices(LndInvoices(self._ready()), cursor, rescan=rescan, pace=self.pace)


@asynccontextmanager
async def open_lnd(
    source: LndConfig | Credentials,
    *,
    requires: Requirements = PAYMENT_NODE,
    connect: Connect = open_connection,
    random: Callable[[], float] = random.random,
) -> AsyncIterator[LndNode]:
    """Keep a connection to LND for as long as the block runs.

    The block begins at once: LND may be away, locked or syncing, and come later (`LndNode.wait_ready`).

    Args:
      source: where LND is and how it is opened; files named in a configuration are read again for each connection.
      requires: what it must have to be ready; `NOTHING` for a client that only looks.
      connect: how to reach it, if not by TCP and TLS.
      random: numbers from 0 to 1, for the back-off.

    Raises:
      ConfigError: the configuration or a file it names cannot work.

    Cancellation: hangs up. What LND was asked to do goes on.
    """
    read = partial(_read, source)
    watch = Watch(read, read(), requires, connect=connect, random=random)
    async with background(watch.run):
        yield LndNode(watch)


def _read(source: LndConfig | Credentials) -> Credentials:
    return read_credentials(source) if isinstance(source, LndConfig) else source
