"""`LndNode`: one LND as `node.LightningNode`, and as a Trio client for everything else LND can do (`client`)."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Final

import trio
from grpclib.const import Status

from impervious.background import background
from impervious.config import LndConfig
from impervious.errors import AlreadyExists, InvalidArgument, NodeRefused, NoRoute, NotFound, PaymentFailure
from impervious.invoice_feed import settled_invoices
from impervious.lnd import convert
from impervious.lnd.connection import Connect, LndStream, open_connection
from impervious.lnd.credentials import Credentials, read_credentials
from impervious.lnd.faults import LndRefused
from impervious.lnd.invoices import LndInvoices
from impervious.lnd.payments import LndPayments, features_beside, route_query
from impervious.lnd.readiness import PAYMENT_NODE, Requirements
from impervious.lnd.rpcs import (
    ADD_INVOICE,
    CHANNEL_BALANCE,
    DECODE_PAY_REQ,
    GET_NODE_INFO,
    LIST_CHANNELS,
    QUERY_ROUTES,
    SIGN_MESSAGE,
    SUBSCRIBE_CHANNELS,
    VERIFY_MESSAGE,
    WALLET_BALANCE,
)
from impervious.lnd.watch import Watch
from impervious.model import (
    AddedInvoice,
    Balance,
    DecodedInvoice,
    InvoiceCursor,
    InvoiceNews,
    InvoicePage,
    InvoiceTerms,
    KeysendSupport,
    NodeInvoice,
    NodePubkey,
    Payment,
    PaymentChannel,
    PaymentHash,
    Preimage,
    Records,
    Route,
    RouteHint,
    Verdict,
)
from impervious.pb.lnrpc import (
    ChannelBalanceRequest,
    ChannelEventSubscription,
    ChannelEventUpdate,
    ChannelEventUpdateUpdateType,
    Invoice,
    ListChannelsRequest,
    NodeInfoRequest,
    PayReqString,
    SignMessageRequest,
    VerifyMessageRequest,
    WalletBalanceRequest,
)
from impervious.pb.routerrpc import SendPaymentRequest
from impervious.units import Msat
from impervious.wire import zbase32
from impervious.wire.keysend import FEATURE_BIT, PREIMAGE_RECORD

HINTS_MEMO: Final = "impervious: ways to this node, not to be paid"
HINTS_AMOUNT: Final = Msat(1_000_000)
"""LND stops at the first channel when an invoice asks for nothing."""
HINTS_EXPIRY_S: Final = 60

MAX_PARTS: Final = 16
"""Of one invoice's payment; lnd's own default."""


class LndNode(LndPayments):
    """One LND (`node.LightningNode`). Made by `open_lnd`."""

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
        """Pay `dest` without an invoice and carry `records` (`node.PaymentNode.send_keysend`)."""
        all_records = {**records, PREIMAGE_RECORD: preimage.raw}
        request = SendPaymentRequest(
            dest=dest.raw,
            amt_msat=amount,
            payment_hash=preimage.payment_hash,
            dest_custom_records=all_records,
            route_hints=list(map(convert.route_hint, hints)),
            dest_features=features_beside(hints),
            fee_limit_msat=fee_limit,  # unset is 0: routes without fees only
            timeout_seconds=timeout_s,  # unset is 60 s since lnd 0.19 and an error before
            max_parts=1,  # a keysend cannot be split: its preimage is in every part
        )
        payment = await self._send(request, preimage.payment_hash)
        if payment.failure is PaymentFailure.NO_ROUTE and not payment.attempts:
            # Mission control avoids for up to an hour what failed, also when it works again: the way is tried once.
            query = route_query(dest, amount, all_records, fee_limit=fee_limit, hints=hints)
            return await self._send_over_best_route(query, preimage.payment_hash) or payment
        return payment

    async def pay_invoice(
        self, invoice: DecodedInvoice, *, fee_limit: Msat, timeout_s: int, amount: Msat = Msat(0)
    ) -> Payment:
        """Pay an invoice, in several parts if need be (`node.InvoiceNode.pay_invoice`)."""
        request = SendPaymentRequest(
            payment_request=invoice.payment_request,
            amt_msat=amount,  # only of an invoice that leaves it open: LND refuses it otherwise
            fee_limit_msat=fee_limit,  # unset is 0: routes without fees only
            timeout_seconds=timeout_s,
            max_parts=MAX_PARTS,
        )
        return await self._send(request, invoice.payment_hash)

    # --- The graph ----------------------------------------------------------------------------------------------------

    async def find_route(
        self,
        dest: NodePubkey,
        amount: Msat,
        records: Records,
        *,
        fee_limit: Msat,
        hints: Sequence[RouteHint] = (),
    ) -> Route:
        """Ask for the best route that can carry `records` and a preimage.

        Raises:
          NoRoute: there is none for that size, amount and fee; LND does not say which of them it is.
        """
        # LND measures the records as it does for a payment.
        request = route_query(dest, amount, {**records, PREIMAGE_RECORD: bytes(32)}, fee_limit=fee_limit, hints=hints)
        try:
            answer = await self.call(QUERY_ROUTES, request)
        except LndRefused as error:
            if error.no_route:
                raise NoRoute("no route can carry this: too large, too dear, or out of reach") from error
            raise
        if not answer.routes:
            raise NoRoute("LND found no route")
        return convert.route(answer.routes[0])

    async def list_channels(self) -> Sequence[PaymentChannel]:
        """Read LND's open payment channels."""
        with self._if_allowed(LIST_CHANNELS):
            answer = await self.call(LIST_CHANNELS, ListChannelsRequest())
        return list(map(convert.channel, answer.channels))

    async def route_hints(self) -> Sequence[RouteHint]:
        """Say which ways lead to LND over its private channels, if it has no others (`node.PaymentNode`)."""
        channels = await self.list_channels()
        if not channels or not all(channel.private for channel in channels):
            return ()
        # LND alone knows which of its channels make a good hint, with which alias and fees. It says so in invoices.
        request = Invoice(memo=HINTS_MEMO, value_msat=HINTS_AMOUNT, expiry=HINTS_EXPIRY_S, private=True)
        made = await self.call(ADD_INVOICE, request)
        read = await self.call(DECODE_PAY_REQ, PayReqString(pay_req=made.payment_request))
        return convert.route_hints(read)

    @asynccontextmanager
    async def channel_news(self) -> AsyncIterator[AsyncIterator[None]]:
        """Tell each time that a channel becomes active (`node.PaymentNode.channel_news`)."""
        with self._if_allowed(SUBSCRIBE_CHANNELS):
            async with self.stream(SUBSCRIBE_CHANNELS, ChannelEventSubscription()) as updates:
                async with aclosing(_activations(updates)) as news:
                    yield news

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

    async def add_invoice(self, terms: InvoiceTerms) -> AddedInvoice:
        """Make an invoice that others can pay."""
        request = Invoice(
            value_msat=terms.amount,
            memo=terms.memo,
            description_hash=terms.description_hash,
            expiry=terms.expiry_s,  # unset is a day
            r_preimage=terms.preimage.raw if terms.preimage else b"",
            private=terms.private,
        )
        try:
            return convert.added_invoice(await self.call(ADD_INVOICE, request))
        except LndRefused as error:
            if error.taken:
                raise AlreadyExists("the node has an invoice with that preimage") from error
            raise

    async def decode_invoice(self, payment_request: str) -> DecodedInvoice:
        """Read a payment request and check its signature.

        Raises:
          InvalidArgument: LND cannot read it, or it is for another network.
        """
        if not payment_request.isascii():  # what is no UTF-8 cannot even be sent
            raise InvalidArgument("the node cannot read this invoice: there are letters in it that no invoice has")
        try:
            answer = await self.call(DECODE_PAY_REQ, PayReqString(pay_req=payment_request))
        except NodeRefused as error:
            raise InvalidArgument(
                f"the node cannot read this invoice ({error}): give the whole text of one for its network"
            ) from error
        return convert.decoded_invoice(answer, payment_request)

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice:
        """Say what has become of an invoice of the node's.

        Raises:
          NotFound: it is not one of the node's.
        """
        connection = self._ready()
        with self._doubting(connection):
            found = await LndInvoices(connection).lookup_invoice(payment_hash)
        if found is None:
            raise NotFound(f"the node has no invoice with the payment hash {payment_hash.hex()}")
        return found

    async def list_invoices(self, *, index_offset: int = 0, limit: int = 100, backwards: bool = False) -> InvoicePage:
        """Read a page of the node's invoices (`node.InvoiceNode.list_invoices`)."""
        connection = self._ready()
        with self._doubting(connection):
            return await LndInvoices(connection).list_invoices(
                index_offset=index_offset, limit=limit, backwards=backwards
            )

    # --- Money --------------------------------------------------------------------------------------------------------

    async def balance(self) -> Balance:
        """Say what the node has. The macaroon must allow WalletBalance, too."""
        channels = await self.call(CHANNEL_BALANCE, ChannelBalanceRequest())
        return convert.balance(channels, await self.call(WALLET_BALANCE, WalletBalanceRequest()))


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

    Cancellation: ends the block, then hangs up. What LND was asked to do goes on.
    """
    read = partial(_read, source)
    watch = Watch(read, read(), requires, connect=connect, random=random)
    async with background(watch.run):
        try:
            yield LndNode(watch)
        finally:
            watch.close()


async def _activations(updates: LndStream[ChannelEventUpdate, ChannelEventUpdate]) -> AsyncGenerator[None, None]:
    async for update in updates:
        if update.type is ChannelEventUpdateUpdateType.ACTIVE_CHANNEL:
            yield


def _read(source: LndConfig | Credentials) -> Credentials:
    return read_credentials(source) if isinstance(source, LndConfig) else source
