"""invoicesrpc.Invoices over the RPCs of a simulated node."""

from collections.abc import Mapping

from grpclib.const import Cardinality, Handler

from impervious.pb import invoicesrpc, lnrpc
from impervious.rpc.server_stream import ServerStream
from impervious.sim.face import convert
from impervious.sim.face.answering import answering, request_of
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
            )
        }

    async def _subscribe(self, stream: ServerStream[invoicesrpc.SubscribeSingleInvoiceRequest, lnrpc.Invoice]) -> None:
        request = await request_of(stream)
        with answering():
            async with self._rpcs.subscribe_single_invoice(request.r_hash) as changes:
                async for invoice in changes:
                    await stream.send_message(convert.invoice(invoice))
