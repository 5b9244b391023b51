"""invoicesrpc.Invoices over the RPCs of a simulated node."""

from collections.abc import Mapping

from grpclib.const import Cardinality, Handler, Status

from impervious.pb import invoicesrpc, lnrpc, simnet
from impervious.rpc.server_stream import ServerStream
from impervious.sim.engine.answers import LndError
from impervious.sim.face import convert, requests
from impervious.sim.face.answering import answering, request_of, unary
from impervious.sim.rpcs import Rpcs


class Invoices:
    """invoicesrpc.Invoices: one invoice in every state."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/invoicesrpc.Invoices/SubscribeSingleInvoice": Handler(
                self._subscribe,
                Cardinality.UNARY_STREAM,
                invoicesrpc.SubscribeSingleInvoiceRequest,
                lnrpc.Invoice,
            ),
            "/invoicesrpc.Invoices/AddHoldInvoice": unary(
                self._add_hold, simnet.AddHoldInvoiceRequest, simnet.AddHoldInvoiceResp
            ),
            "/invoicesrpc.Invoices/SettleInvoice": unary(
                self._settle, simnet.SettleInvoiceMsg, simnet.SettleInvoiceResp
            ),
            "/invoicesrpc.Invoices/CancelInvoice": unary(
                self._cancel, simnet.CancelInvoiceMsg, simnet.CancelInvoiceResp
            ),
            "/invoicesrpc.Invoices/LookupInvoiceV2": unary(self._lookup, simnet.LookupInvoiceMsg, lnrpc.Invoice),
        }

    async def _add_hold(self, message: simnet.AddHoldInvoiceRequest) -> simnet.AddHoldInvoiceResp:
        added = await self._rpcs.add_invoice(requests.hold(message))
        return simnet.AddHoldInvoiceResp(
            payment_request=added.payment_request, add_index=added.add_index, payment_addr=added.payment_addr
        )

    async def _settle(self, message: simnet.SettleInvoiceMsg) -> simnet.SettleInvoiceResp:
        await self._rpcs.settle_invoice(message.preimage)
        return simnet.SettleInvoiceResp()

    async def _cancel(self, message: simnet.CancelInvoiceMsg) -> simnet.CancelInvoiceResp:
        await self._rpcs.cancel_invoice(message.payment_hash)
        return simnet.CancelInvoiceResp()

    async def _lookup(self, message: simnet.LookupInvoiceMsg) -> lnrpc.Invoice:
        if message.set_id is not None:
            raise LndError("AMP invoices are not simulated", Status.UNIMPLEMENTED)
        return convert.invoice(await self._rpcs.lookup_invoice_v2(message.payment_hash, message.payment_addr))

    async def _subscribe(self, stream: ServerStream[invoicesrpc.SubscribeSingleInvoiceRequest, lnrpc.Invoice]) -> None:
        request = await request_of(stream)
        with answering():
            async with self._rpcs.subscribe_single_invoice(request.r_hash) as changes:
                async for invoice in changes:
                    await stream.send_message(convert.invoice(invoice))
