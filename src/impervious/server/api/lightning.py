"""Lightning: invoices, payments and keysends of the node's own."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import betterproto2 as proto

from impervious.errors import InvalidArgument
from impervious.invoice_feed import settled
from impervious.model import NodeInvoice, Payment
from impervious.pb import lightning as pb
from impervious.server.operations import EXAMPLE_PUBKEY, CallContext, Operation, operation
from impervious.services.lightning import LightningService
from impervious.units import Sat, sat_credited

EXAMPLE_INVOICE: Final = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5"
    "rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfege"
    "xt0eh0ymjpf39tuven09sam30g4vgpfna3rh"
)
"""BOLT 11, examples: 2500 µBTC for one cup of coffee."""

Request = TypeVar("Request", bound=proto.Message)
Response = TypeVar("Response", bound=proto.Message)


def operations(service: LightningService) -> list[Operation]:
    """List the rows of the lightning service."""

    def row(
        name: str,
        http: str,
        request_type: type[Request],
        response_type: type[Response],
        call: Callable[[LightningService, Request, CallContext], Awaitable[Response]],
        *,
        example: Request | None = None,
        needs: Iterable[str] = (),
        keyed: bool = False,
    ) -> Operation:
        method, route = http.split()
        return operation(
            f"/lightning.Lightning/{name}",
            f"{method} /v1/lightning/{route}",
            request_type,
            response_type,
            partial(call, service),
            service=service.context.config,
            example=example,
            needs=needs,
            keyed=keyed,
        )

    return [
        row(
            "GenerateInvoice",
            "POST generateinvoice",
            pb.GenerateInvoiceRequest,
            pb.GenerateInvoiceResponse,
            generate_invoice,
            example=pb.GenerateInvoiceRequest(amount=21, memo="one coffee"),
            keyed=True,
        ),
        row(
            "PayInvoice",
            "POST payinvoice",
            pb.PayInvoiceRequest,
            pb.PayInvoiceResponse,
            pay_invoice,
            example=pb.PayInvoiceRequest(invoice=EXAMPLE_INVOICE),
            needs=["invoice"],
            keyed=True,
        ),
        row(
            "CheckInvoice",
            "POST checkinvoice",
            pb.CheckInvoiceRequest,
            pb.CheckInvoiceResponse,
            check_invoice,
            example=pb.CheckInvoiceRequest(invoice=EXAMPLE_INVOICE),
            needs=["invoice"],
        ),
        row(
            "SendKeysend",
            "POST keysend",
            pb.SendKeysendRequest,
            pb.SendKeysendResponse,
            send_keysend,
            example=pb.SendKeysendRequest(
                pubkey=EXAMPLE_PUBKEY, amount=5, records=[pb.TlvRecord(type=34349334, text="hello")]
            ),
            needs=["amount"],
            keyed=True,
        ),
        row(
            "DecodeInvoice",
            "POST decodeinvoice",
            pb.DecodeInvoiceRequest,
            pb.DecodeInvoiceResponse,
            decode_invoice,
            example=pb.DecodeInvoiceRequest(invoice=EXAMPLE_INVOICE),
            needs=["invoice"],
        ),
        row("ListPayments", "POST listpayments", pb.ListPaymentsRequest, pb.ListPaymentsResponse, list_payments),
        row("ListInvoices", "POST listinvoices", pb.ListInvoicesRequest, pb.ListInvoicesResponse, list_invoices),
        row("Balance", "GET balance", pb.BalanceRequest, pb.BalanceResponse, balance),
    ]


async def generate_invoice(
    service: LightningService, request: pb.GenerateInvoiceRequest, context: CallContext
) -> pb.GenerateInvoiceResponse:
    """Make an invoice."""
    added = await service.generate(
        Sat(request.amount),
        request.memo,
        description_hash=request.description_hash,
        expiry_s=request.expiry_s,
        idempotency_key=context.idempotency_key,
    )
    return pb.GenerateInvoiceResponse(invoice=added.payment_request)


async def pay_invoice(
    service: LightningService, request: pb.PayInvoiceRequest, context: CallContext
) -> pb.PayInvoiceResponse:
    """Pay an invoice."""
    preimage = await service.pay(
        request.invoice,
        amount=Sat(request.amount),
        max_fee=Sat(request.max_fee_sat),
        idempotency_key=context.idempotency_key,
    )
    return pb.PayInvoiceResponse(preimage=preimage.raw.hex())


async def check_invoice(
    service: LightningService, request: pb.CheckInvoiceRequest, _: CallContext
) -> pb.CheckInvoiceResponse:
    """Say whether an invoice is paid."""
    return pb.CheckInvoiceResponse(paid=await service.check(request.invoice))


async def send_keysend(
    service: LightningService, request: pb.SendKeysendRequest, context: CallContext
) -> pb.SendKeysendResponse:
    """Pay a node without an invoice."""
    paid = await service.keysend(
        request.pubkey,
        Sat(request.amount),
        [(record.type, _value(record)) for record in request.records],
        max_fee=Sat(request.max_fee_sat),
        idempotency_key=context.idempotency_key,
    )
    return pb.SendKeysendResponse(payment_hash=paid.payment_hash.hex(), preimage=_preimage(paid), fee_msat=paid.fee)


def _value(record: pb.TlvRecord) -> bytes:
    if record.value and record.text:
        raise InvalidArgument(f"record {record.type} has a value and a text: choose one")
    if record.text:
        return record.text.encode()
    if not record.value:  # rather than pay for a record whose content was given under a name that nobody knows
        raise InvalidArgument(f"record {record.type} is empty: give its value in hex, or its text")
    try:
        return bytes.fromhex(record.value)
    except ValueError:
        raise InvalidArgument(
            f"the value of record {record.type} is not hexadecimal: give an even number of digits 0-9 and a-f, or text"
        ) from None


async def decode_invoice(
    service: LightningService, request: pb.DecodeInvoiceRequest, _: CallContext
) -> pb.DecodeInvoiceResponse:
    """Read an invoice."""
    found = await service.decode(request.invoice)
    invoice = found.invoice
    return pb.DecodeInvoiceResponse(
        pubkey=invoice.payee.hex,
        payment_hash=invoice.payment_hash.hex(),
        amount_msat=invoice.amount,
        description=invoice.description,
        description_hash=invoice.description_hash.hex(),
        created_s=invoice.created_s,
        expires_s=invoice.expires_s,
        own=found.own,
    )


async def list_payments(
    service: LightningService, request: pb.ListPaymentsRequest, _: CallContext
) -> pb.ListPaymentsResponse:
    """Read a page of payments."""
    page = await service.payments(index_offset=request.index_offset, limit=request.limit, backwards=request.backwards)
    return pb.ListPaymentsResponse(
        payments=[_payment(each) for each in page.payments], first_index=page.first_index, last_index=page.last_index
    )


def _payment(payment: Payment) -> pb.Payment:
    return pb.Payment(
        payment_hash=payment.payment_hash.hex(),
        status=payment.status.value,
        amount_msat=payment.amount,
        fee_msat=payment.fee,
        preimage=_preimage(payment),
        invoice=payment.payment_request,
        failure=payment.failure.value if payment.failure else "",
        created_s=payment.created_s,
    )


def _preimage(payment: Payment) -> str:
    return payment.preimage.raw.hex() if payment.preimage else ""


async def list_invoices(
    service: LightningService, request: pb.ListInvoicesRequest, _: CallContext
) -> pb.ListInvoicesResponse:
    """Read a page of invoices."""
    page = await service.invoices(index_offset=request.index_offset, limit=request.limit, backwards=request.backwards)
    return pb.ListInvoicesResponse(
        invoices=[_invoice(each) for each in page.invoices], first_index=page.first_index, last_index=page.last_index
    )


def _invoice(invoice: NodeInvoice) -> pb.Invoice:
    return pb.Invoice(
        payment_hash=invoice.payment_hash.hex(),
        state=invoice.state.value,
        amount_msat=invoice.amount,
        amount_paid_msat=invoice.amount_paid,
        memo=invoice.memo,
        invoice=invoice.payment_request,
        created_s=invoice.created_s,
        expires_s=invoice.created_s + invoice.expiry_s if invoice.expiry_s else 0,
        settled_s=invoice.settled_s,
        keysend=invoice.is_keysend,
        index=invoice.add_index,
        records=_records(invoice),
    )


def _records(invoice: NodeInvoice) -> list[pb.TlvRecord]:
    """Show what came first: whoever forwarded that can add more, with what records they like."""
    records = settled(invoice).records
    return [pb.TlvRecord(type=kind, value=value.hex()) for kind, value in sorted(records.items())]


async def balance(service: LightningService, _request: pb.BalanceRequest, _: CallContext) -> pb.BalanceResponse:
    """Say what the node has."""
    found = await service.balance()
    channels = await service.channels()
    active = None if channels is None else [channel for channel in channels if channel.active]
    return pb.BalanceResponse(
        local_msat=found.local,
        remote_msat=found.remote,
        unsettled_local_msat=found.unsettled_local,
        unsettled_remote_msat=found.unsettled_remote,
        opening_local_msat=found.opening_local,
        confirmed_sat=sat_credited(found.confirmed),
        unconfirmed_sat=sat_credited(found.unconfirmed),
        spendable_msat=None if active is None else sum(channel.spendable for channel in active),
        receivable_msat=None if active is None else sum(channel.receivable for channel in active),
    )
