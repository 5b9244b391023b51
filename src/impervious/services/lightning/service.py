"""Lightning: what the node's own LND can do with invoices and payments, within the budget that messages share.

Whatever is paid here is paid by `Payer`: once, and to its end. What callers ask for is checked first (`asking`); the
Lightning node is the only truth about invoices and payments, nothing of them is copied here.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from impervious.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NodeRefused,
    NodeUnavailable,
    NotFound,
    PaymentFailure,
    PaymentNotFound,
)
from impervious.model import (
    AddedInvoice,
    Balance,
    DecodedInvoice,
    InvoicePage,
    InvoiceState,
    KeysendSupport,
    NodePubkey,
    Payment,
    PaymentChannel,
    PaymentPage,
    PaymentStatus,
    Preimage,
    ServiceType,
    SettledInvoice,
)
from impervious.outbound.outcome import FAILURE_WORDS, KEYSEND_WORDS
from impervious.service import Effect, Fact, RunningService, ServiceContext
from impervious.service.keys import checked_key
from impervious.services.lightning import arrivals, asking, ends, keys, paying
from impervious.services.lightning.keys import DAY_MS, Key, Repeated
from impervious.services.lightning.paying import Order, Payer
from impervious.units import Sat

PREIMAGE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """What a payment request says."""

    invoice: DecodedInvoice
    own: bool
    """Whether it is this node's."""


class LightningService(RunningService[Payer]):
    """Makes, pays and looks up invoices, and sends keysends of any protocol."""

    service_type = ServiceType("lightning")
    migrations = (paying.MIGRATION + keys.MIGRATION, keys.INVOICE_MIGRATION)
    handles_facts = True
    handles_payments = True

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self._settings = context.settings.lightning

    def open_running(self) -> AbstractAsyncContextManager[Payer]:
        """See payments to their end, also those of an earlier run."""
        return paying.open_payer(self.context)

    async def handle(self, fact: Fact) -> Effect | None:
        """Show what others have paid."""
        await trio.lowlevel.checkpoint()
        if not isinstance(fact, SettledInvoice):
            return None
        data, identifier = arrivals.event_data(fact), arrivals.event_id(fact)
        return lambda tx: tx.emit(data, identifier=identifier, amount=fact.amount)

    # --- Invoices -----------------------------------------------------------------------------------------------------

    async def generate(
        self,
        amount: Sat,
        memo: str = "",
        *,
        description_hash: bytes = b"",
        expiry_s: int = 0,
        idempotency_key: str | None = None,
    ) -> AddedInvoice:
        """Make an invoice that others can pay.

        Args:
          amount: satoshis; 0 leaves it to the payer.
          memo: what it is for, at most 1024 bytes. What is too long for an invoice goes into it as its SHA-256.
          description_hash: SHA-256 of a description that the payer has from elsewhere; the memo then stays here.
          expiry_s: how long it can be paid; 0: a day.
          idempotency_key: the same key with the same arguments gives the same invoice again, expired or paid or not.

        Raises:
          InvalidArgument: it cannot be made so.
          AlreadyExists: the key was used for something else.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        terms = asking.terms(amount, memo, description_hash=description_hash, expiry_s=expiry_s)
        key = self._key(idempotency_key, asking.terms_sha256(terms))
        self._require()
        channels = await self.channels()
        # Without hints nobody could pay; with a public channel they would only make it longer and tell of the others.
        terms = replace(terms, private=bool(channels and all(channel.private for channel in channels)))
        if key is None:
            return await self.context.node.add_invoice(terms)
        preimage = await self.context.transaction(lambda tx: keys.preimage_for(tx, key))
        try:
            return await self.context.node.add_invoice(replace(terms, preimage=preimage))
        except AlreadyExists:
            made = await self.context.node.lookup_invoice(preimage.payment_hash)
        return AddedInvoice(
            payment_hash=made.payment_hash, payment_request=made.payment_request, add_index=made.add_index
        )

    async def decode(self, text: str) -> Invoiced:
        """Read an invoice of any node.

        Args:
          text: BOLT 11, also behind `lightning:` or in a BIP 21 address.

        Raises:
          InvalidArgument: it is none, it is damaged, or it is for another network.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        bare = asking.invoice_text(text)
        self._require()
        invoice = await self.context.node.decode_invoice(bare)
        return Invoiced(invoice=invoice, own=invoice.payee == (await self.context.node.wait_ready()).pubkey)

    async def check(self, text: str) -> bool:
        """Say whether an invoice is paid: one of this node's by anybody, or another's by this node.

        Raises:
          InvalidArgument: it is none, it is damaged, or it is for another network.
          NotFound: it is neither this node's, nor has this node ever tried to pay it.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        found = await self.decode(text)
        payment_hash = found.invoice.payment_hash
        if found.own:
            return (await self.context.node.lookup_invoice(payment_hash)).state is InvoiceState.SETTLED
        try:
            payment = await self.context.node.lookup_payment(payment_hash)
        except PaymentNotFound:
            raise NotFound(
                "this invoice is not this node's, and this node has never tried to pay it: ask the node that made it"
            ) from None
        return payment.status is PaymentStatus.SUCCEEDED and _pays(payment, found.invoice)

    async def invoices(self, *, index_offset: int = 0, limit: int = 0, backwards: bool = False) -> InvoicePage:
        """Read a page of the node's invoices, keysends to it among them.

        Args:
          index_offset: from an earlier page; 0: the oldest, or with `backwards` the newest.
          limit: at most 1000; 0: 100.
          backwards: towards the oldest; the page itself is still in order.

        Raises:
          InvalidArgument: there is no such page.
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        offset, most = asking.page_offset(index_offset), asking.page_limit(limit)
        self._require()
        return await self.context.node.list_invoices(index_offset=offset, limit=most, backwards=backwards)

    # --- Payments -----------------------------------------------------------------------------------------------------

    async def pay(
        self, text: str, *, amount: Sat = Sat(0), max_fee: Sat = Sat(0), idempotency_key: str | None = None
    ) -> Preimage:
        """Pay an invoice, once, and wait for the end. One that was paid before is not paid again.

        Args:
          text: BOLT 11.
          amount: satoshis, if the invoice leaves that to the payer.
          max_fee: highest routing fee in satoshis; 0: as configured.
          idempotency_key: the same key with the same arguments tells the same end again, also a failure, after which a
            call without a key, or with another one, tries anew.

        Returns:
          The proof of payment.

        Raises:
          InvalidArgument: it cannot be paid so, or is this node's own.
          FailedPrecondition: it has expired.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          PaymentFailed: no money moved; says why.
          NodeRefused: the Lightning node does not pay it; says why.
          NodeUnavailable: the Lightning node cannot serve now; says why, and whether anything may be on its way.

        Cancellation: stops waiting, not paying: asked again, it waits for the same payment. The end is an event too.
        """
        found = await self.decode(text)
        invoice = found.invoice
        if found.own:
            raise InvalidArgument("this invoice is this node's own: a node cannot pay itself; give another node's")
        key = self._key(idempotency_key, asking.invoice_sha256(invoice, amount, max_fee))
        used = key is not None and await self.running.is_used(key)
        payment = await self.running.find(invoice.payment_hash)
        if payment is None or (payment.status is PaymentStatus.FAILED and not used):
            payment = await self._pay_invoice(invoice, amount, max_fee, None if used else key)
        elif key is not None and not used:
            await self.running.note(key, invoice.payment_hash)
        if not _pays(payment, invoice):
            raise FailedPrecondition(
                "this node has paid another invoice with the same payment hash, and paying a hash twice gives the money"
                " away: ask the payee for a new invoice"
            )
        return ends.proof(payment, ends.INVOICE_WORDS)

    async def _pay_invoice(self, invoice: DecodedInvoice, given: Sat, max_fee: Sat, key: Key | None) -> Payment:
        amount, told = asking.amount_to_pay(invoice, given)
        limit = asking.fee_limit(amount, max_fee, self._settings)
        send = partial(
            self.context.node.pay_invoice,
            invoice,
            fee_limit=limit,
            timeout_s=self._settings.payment_timeout_s,
            amount=told,
        )
        order = Order(
            payment_hash=invoice.payment_hash,
            amount=amount,
            fee_limit=limit,
            send=send,
            expires_s=invoice.expires_s,
            key=key,
        )
        return await self._pay_or_find(order)

    async def keysend(
        self,
        recipient: NodePubkey | str,
        amount: Sat,
        records: Iterable[tuple[int, bytes]] = (),
        *,
        max_fee: Sat = Sat(0),
        idempotency_key: str | None = None,
    ) -> Payment:
        """Pay a node without an invoice and bring it records, and wait for the end. Without a key, each call pays.

        Args:
          recipient: the far node: its key, 66 hex digits, or @ and a peer's imp id.
          amount: satoshis it gets, at least 1.
          records: types from 65536, and values.
          max_fee: highest routing fee in satoshis; 0: as configured.
          idempotency_key: the same key with the same arguments pays once, and tells the same end again, also a failure.

        Returns:
          The payment, SUCCEEDED.

        Raises:
          InvalidArgument: it cannot be sent so.
          NotFound: no peer goes by that name.
          FailedPrecondition: the peer that the name belonged to is gone, or what was begun with this key never reached
            the Lightning node.
          AlreadyExists: the key was used with other arguments.
          ResourceExhausted: the budget does not allow it.
          PaymentFailed: no money moved; says why.
          NodeRefused: the Lightning node does not pay it; says why.
          NodeUnavailable: the Lightning node cannot serve now; says why, and whether anything may be on its way.

        Cancellation: stops waiting, not paying; the end is an event then.
        """
        sent, carried = asking.keysend_amount(amount), asking.keysend_records(records)
        limit = asking.fee_limit(sent, max_fee, self._settings)
        far = await self.context.resolve(recipient)
        self._require()
        await self.context.check_recipient(far)
        preimage = Preimage(secrets.token_bytes(PREIMAGE_BYTES))
        send = partial(
            self.context.node.send_keysend,
            far,
            sent,
            preimage,
            carried,
            fee_limit=limit,
            timeout_s=self._settings.payment_timeout_s,
            hints=await self.context.route_hints(far),
        )
        key = self._key(idempotency_key, asking.keysend_sha256(far, sent, carried, limit))
        order = Order(payment_hash=preimage.payment_hash, amount=sent, fee_limit=limit, send=send, key=key)
        payment = await self._pay_or_find(order)
        ends.proof(payment, await self._keysend_words(payment, far, carried=sum(map(len, carried.values()))))
        return payment

    def _key(self, text: str | None, request_sha256: bytes) -> Key | None:
        if text is None:
            return None
        kept_ms = self.context.settings.limits.idempotency_days * DAY_MS
        return Key(text=checked_key(text), request_sha256=request_sha256, kept_ms=kept_ms)

    async def _pay_or_find(self, order: Order) -> Payment:
        try:
            return await self.running.pay(order)
        except Repeated as repeated:
            found = await self.running.find(repeated.payment_hash)
        if found is None:
            raise FailedPrecondition(
                "the payment of this Idempotency-Key never reached the Lightning node: nothing was paid; use a new key"
            )
        return found

    async def _keysend_words(
        self, payment: Payment, recipient: NodePubkey, *, carried: int
    ) -> Mapping[PaymentFailure, str]:
        """Explain a keysend that failed, as far as anybody can."""
        words = dict(FAILURE_WORDS)
        if payment.failure is PaymentFailure.INCORRECT_PAYMENT_DETAILS:
            try:
                support = await self.context.node.keysend_support(recipient)
            except (NodeUnavailable, NodeRefused):
                support = KeysendSupport.UNKNOWN
            words[payment.failure] += f", {KEYSEND_WORDS[support]}"
        elif payment.failure is PaymentFailure.NO_ROUTE and payment.attempts == 0 and carried:
            words[payment.failure] += f", or none that can carry {carried} bytes of records so far"
        return words

    async def payments(self, *, index_offset: int = 0, limit: int = 0, backwards: bool = False) -> PaymentPage:
        """Read a page of what the node has paid or tried to, messages among it. Arguments and errors: `invoices`."""
        offset, most = asking.page_offset(index_offset), asking.page_limit(limit)
        self._require()
        return await self.context.node.list_payments(index_offset=offset, limit=most, backwards=backwards)

    async def balance(self) -> Balance:
        """Say what the node has.

        Raises:
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        self._require()
        return await self.context.node.balance()

    async def channels(self) -> Sequence[PaymentChannel] | None:
        """Read the node's open payment channels; None: the macaroon does not allow it.

        Raises:
          NodeUnavailable: the Lightning node cannot serve now; says why.
        """
        self.context.require_node()
        try:
            return await self.context.node.list_channels()
        except (NodeUnavailable, NodeRefused):
            self.context.require_node()
            return None

    def _require(self) -> None:
        self.context.config.require_active()
        self.context.require_node()


def _pays(payment: Payment, invoice: DecodedInvoice) -> bool:
    """Whether a payment is for this very invoice, and not for another one with its hash.

    A payment that was sent along a given route names no invoice: it gets the benefit of the doubt.
    """
    named = payment.payment_request
    return not named or named.lower() == invoice.payment_request.lower()
